"""What a run leaves behind after every epoch: history, checkpoints, TensorBoard events and one line of text."""

import time
from typing import Any

import torch
from lightning.pytorch import Callback, LightningModule, Trainer

from snn.training.module import Totals, TrainingModule
from snn.training.run_folder import RunFolder


class Recorder(Callback):
    """Writes the run folder, one row of history per epoch.

    The history is part of each checkpoint and metrics.csv is written from it, so a continued run has no row twice.
    The best epoch is the one with the highest accuracy on the validation part or, where the recipe sets none aside,
    with the lowest training loss; the test images never decide.

    Args:
        folder: of the run.
        has_validation: whether a validation part is evaluated after the test images.
        report: receives one line per epoch.
    """

    def __init__(self, folder: RunFolder, has_validation: bool, report: Any) -> None:
        self.folder = folder
        self.has_validation = has_validation
        self.report = report
        self.history: list[dict[str, Any]] = []
        self._writer: Any = None
        self._started = 0.0

    def state_dict(self) -> dict[str, Any]:
        return {"history": self.history}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        self.history = list(state_dict["history"])

    def best_epoch(self) -> int:
        """Return the number of the best epoch, from 1; the first of equals."""
        if self.has_validation:
            return int(max(self.history, key=lambda row: row["val_accuracy"])["epoch"])
        return int(min(self.history, key=lambda row: row["train_loss"])["epoch"])

    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        if not trainer.is_global_zero:
            return
        from torch.utils.tensorboard import SummaryWriter

        self.folder.write_history(self.history)
        # Events of an epoch that was not finished by the interrupted process are dropped.
        self._writer = SummaryWriter(str(self.folder.tensorboard), purge_step=len(self.history) + 1)

    def on_train_epoch_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        self._started = time.perf_counter()

    def on_train_epoch_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        assert isinstance(pl_module, TrainingModule)
        self.history.append(self._row(trainer, pl_module))
        if trainer.is_global_zero:
            self._write_events(self.history[-1])
        # The best before the last: a process killed in between repeats the epoch and writes the same best again.
        if self.best_epoch() == len(self.history):
            trainer.save_checkpoint(self.folder.best)
        trainer.save_checkpoint(self.folder.last)
        if trainer.is_global_zero:
            self.folder.write_history(self.history)
            self.report(_line(self.history[-1], trainer.max_epochs))

    def teardown(self, trainer: Trainer, pl_module: LightningModule, stage: str) -> None:
        if self._writer is not None:
            self._writer.close()
            self._writer = None

    def _row(self, trainer: Trainer, module: TrainingModule) -> dict[str, Any]:
        train = _means(trainer, module.train_totals)
        test = _means(trainer, module.evaluation_totals[0])
        row = {
            "epoch": len(self.history) + 1,
            "learning_rate": float(trainer.optimizers[0].param_groups[0]["lr"]),
            "train_loss": train[0],
            "train_accuracy": train[1],
        }
        if self.has_validation:
            row["val_loss"], row["val_accuracy"] = _means(trainer, module.evaluation_totals[1])
        row["test_loss"], row["test_accuracy"] = test
        rates, overall = _spike_rates(trainer, module)
        row["spikes_per_neuron_per_step"] = overall
        row["seconds"] = round(time.perf_counter() - self._started, 3)
        return {**row, "spike_rates": rates, "alignment": module.alignment}

    def _write_events(self, row: dict[str, Any]) -> None:
        step = row["epoch"]
        for key, value in row.items():
            if key == "spike_rates":
                for layer, rate in value.items():
                    self._writer.add_scalar(f"spikes_per_neuron_per_step/{layer}", rate, step)
            elif key == "alignment":
                for layer, (cosine, norm_ratio) in value.items():
                    self._writer.add_scalar(f"alignment_cosine/{layer}", cosine, step)
                    self._writer.add_scalar(f"alignment_norm_ratio/{layer}", norm_ratio, step)
            elif key != "epoch":
                self._writer.add_scalar(key, value, step)
        self._writer.flush()


def _summed(trainer: Trainer, values: list[float]) -> list[float]:
    tensor = torch.tensor(values, dtype=torch.float64, device=_reduction_device(trainer))
    summed: list[float] = trainer.strategy.reduce(tensor, reduce_op="sum").tolist()
    return summed


def _reduction_device(trainer: Trainer) -> torch.device:
    # Apple's devices have no float64; they also never run several processes.
    device = trainer.strategy.root_device
    return torch.device("cpu") if device.type == "mps" else device


def _means(trainer: Trainer, totals: Totals) -> tuple[float, float]:
    loss, correct, count = _summed(trainer, [float(totals.loss), float(totals.correct), totals.count])
    return loss / count, correct / count


def _spike_rates(trainer: Trainer, module: TrainingModule) -> tuple[dict[str, float], float]:
    totals = module.spikes.totals()
    if not totals:
        return {}, 0.0
    flat = _summed(trainer, [value for pair in totals.values() for value in pair])
    spikes, sizes = flat[0::2], flat[1::2]
    rates = {name: spikes[i] / sizes[i] for i, name in enumerate(totals)}
    return rates, sum(spikes) / sum(sizes)


def _line(row: dict[str, Any], epochs: int | None) -> str:
    parts = [
        f"epoch {row['epoch']:>{len(str(epochs))}}/{epochs}",
        f"train loss {row['train_loss']:.4f}, accuracy {row['train_accuracy']:.2%}",
    ]
    if "val_accuracy" in row:
        parts.append(f"validation {row['val_accuracy']:.2%}")
    parts += [f"test {row['test_accuracy']:.2%}", f"{row['seconds']:.1f} s"]
    return "  ".join(parts)
