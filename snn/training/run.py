"""One training run, from a recipe to a full run folder."""

import logging
import math
import statistics
import warnings
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from torch import nn

from snn.training.build import build_network, build_optimizer, build_rule
from snn.training.data import Splits, evaluation_loader, load_splits, training_loader
from snn.training.encoding import encoded
from snn.training.environment import environment
from snn.training.figures import draw_accuracy, draw_raster
from snn.training.lightning_import import import_lightning
from snn.training.network_check import check_network
from snn.training.recipe import Recipe, RecipeError, recipe_to_dict
from snn.training.run_folder import RunFolder, is_first_process
from snn.training.schedule import delay_rate_factor, learning_rate_factor
from snn.training.seeding import EVALUATE, WEIGHTS, derived_seed, set_all_generators
from snn.training.trainer_arguments import trainer_arguments

if TYPE_CHECKING:
    from snn.training.recorder import Recorder


class RunInterrupted(Exception):  # noqa: N818 - nothing went wrong
    """Ctrl-C ended the run; the folder holds the last finished epoch."""


def train(
    recipe: Recipe,
    run_dir: str | Path,
    resume: bool = False,
    overwrite: bool = False,
    progress: bool = False,
    report: Callable[[str], None] = print,
) -> dict[str, Any]:
    """Train as the recipe says and write the run folder.

    The folder receives config.yaml, environment.json, metrics.csv, TensorBoard events, checkpoints/last.ckpt after every
    epoch, checkpoints/best.ckpt, accuracy.png, raster.png and, at the end, metrics.json.

    Args:
        recipe: what to train.
        run_dir: the run folder.
        resume: continue the run in the folder from its last finished epoch; a folder without a run starts one.
        overwrite: replace the run in the folder.
        progress: show Lightning's progress bar.
        report: receives one line of text per epoch.
    Returns: the content of metrics.json; empty in all processes but the first.
    Raises: RecipeError for a recipe or folder that cannot be used; RunInterrupted after Ctrl-C.
    """
    if resume and overwrite:
        raise RecipeError("--resume and --overwrite exclude each other")
    if recipe.stages:
        from snn.training.stages import train_stages

        return train_stages(recipe, Path(run_dir), resume, overwrite, progress, report)
    return train_one(recipe, Path(run_dir), resume, overwrite, progress, report)


@dataclass(frozen=True)
class Start:
    """Parameters that are not trained in the first epochs of a run, as its start decides."""

    frozen: Sequence[nn.Parameter] = ()
    frozen_epochs: int = 0


def train_one(
    recipe: Recipe,
    run_dir: Path,
    resume: bool,
    overwrite: bool,
    progress: bool,
    report: Callable[[str], None],
    begin: Callable[[nn.Module, Splits], Start] | None = None,
) -> dict[str, Any]:
    """Train without stages; arguments as in `train`.

    Args:
        begin: changes the new network before its training, for instance to the weights of another one. It is called for
            continued runs too, whose checkpoint then takes the place of the weights.
    """
    folder = RunFolder(run_dir)
    with using_threads(recipe.threads):
        splits = load_splits(recipe.data, recipe.seed)
        set_all_generators(derived_seed(recipe.seed, WEIGHTS))
        network = build_network(recipe.network, splits.input_shape, splits.class_count)
        check_network(recipe, network, splits)
        build_rule(recipe, network)
        build_optimizer(recipe.optimizer, network)  # a wrong argument is found before the folder is touched
        start = None if begin is None else begin(network, splits)
        lightning = import_lightning()
        arguments = trainer_arguments(recipe, lightning.Trainer, progress)
        recorder = _fit(recipe, splits, network, folder, arguments, (resume, overwrite), report, start)
        return _finish(recipe, splits, network, folder, recorder) if is_first_process() else {}


@contextmanager
def using_threads(count: int | None) -> Iterator[None]:
    before = torch.get_num_threads()
    torch.set_num_threads(before if count is None else count)
    try:
        yield
    finally:
        torch.set_num_threads(before)


def _fit(
    recipe: Recipe,
    splits: Splits,
    network: nn.Module,
    folder: RunFolder,
    arguments: dict[str, Any],
    reuse: tuple[bool, bool],
    report: Callable[[str], None],
    start: Start | None,
) -> "Recorder":
    from lightning.pytorch import Trainer
    from lightning.pytorch.trainer.states import TrainerStatus
    from lightning.pytorch.utilities.exceptions import MisconfigurationException

    from snn.training.checkpoint import AtomicCheckpoints
    from snn.training.module import TrainingModule
    from snn.training.recorder import Recorder

    _quieten_lightning()
    recorder = Recorder(folder, len(splits.val_rows) > 0, report)
    module = TrainingModule(_parts(recipe, network, start or Start()))
    try:
        trainer = Trainer(**arguments, callbacks=[recorder], plugins=[AtomicCheckpoints()])
    except (MisconfigurationException, ValueError, TypeError) as error:
        raise RecipeError(f"accelerator, devices, num_nodes, strategy, precision or trainer: {error}") from error
    process, process_count = trainer.global_rank, trainer.world_size
    if start is not None and process_count > 1:
        raise RecipeError(f"stages: are trained in one process, got {process_count}; set devices: 1")
    if recipe.alignment and process_count > 1:
        raise RecipeError(f"alignment: is measured in one process, got {process_count}; set alignment: false")
    data, seed = recipe.data, recipe.seed
    evaluations = [(splits.test, torch.arange(len(splits.test.labels)))]
    if len(splits.val_rows):
        evaluations.append((splits.train, splits.val_rows))
    training = training_loader(splits, data, seed, process, process_count)
    # The folder is touched only now that nothing in the recipe can be wrong any more.
    resume, overwrite = reuse
    if is_first_process():
        folder.open(recipe_to_dict(recipe), resume, overwrite)
    try:
        trainer.fit(
            module,
            train_dataloaders=training,
            val_dataloaders=[
                evaluation_loader(images, rows, data, seed, process, process_count) for images, rows in evaluations
            ],
            ckpt_path=folder.last if resume and folder.last.is_file() else None,
        )
    except MisconfigurationException as error:
        raise RecipeError(f"trainer: {error}") from error
    except SystemExit as error:
        # Lightning turns Ctrl-C into an exit of the process after its own clean-up.
        if trainer.state.status == TrainerStatus.INTERRUPTED:
            raise RunInterrupted from error
        raise
    if not recorder.history:
        raise RecipeError("trainer: these arguments leave no training step")
    return recorder


def _parts(recipe: Recipe, network: nn.Module, start: Start) -> Any:
    from snn.training.module import Parts

    rule = build_rule(recipe, network)

    def alignment(x: torch.Tensor, labels: torch.Tensor) -> dict[str, tuple[float, float]]:
        from snn.learning import gradient_alignment

        found = gradient_alignment(network, rule, x, labels)
        return {layer: (entry.cosine, entry.norm_ratio) for layer, entry in found.items()}

    def rate_factor(step: int, step_count: int, steps_per_epoch: int, of_delays: bool) -> float:
        warmup_steps = math.ceil(recipe.schedule.warmup_epochs * steps_per_epoch)
        factor = delay_rate_factor if of_delays else learning_rate_factor
        return factor(step, step_count, warmup_steps, recipe.schedule)

    return Parts(
        network=network,
        rule=rule,
        loss=rule.loss,
        alignment=alignment if recipe.alignment else None,
        encode=lambda images, seed: encoded(images, recipe.encoding, seed),
        make_optimizer=lambda built: build_optimizer(recipe.optimizer, built),
        rate_factor=rate_factor,
        clip_norm=recipe.clip_norm,
        seed=recipe.seed,
        record={"recipe": recipe_to_dict(recipe), "environment": environment(), "seed": recipe.seed},
        frozen=start.frozen,
        frozen_epochs=start.frozen_epochs,
        scores=rule.loss.scores,
    )


def _finish(
    recipe: Recipe, splits: Splits, network: nn.Module, folder: RunFolder, recorder: "Recorder"
) -> dict[str, Any]:
    history = recorder.history
    selected = recorder.best_epoch() if recorder.has_validation else len(history)
    # With several machines the weights may live elsewhere by now; the files are what counts.
    load_selected(network.cpu().float(), folder, recorder.has_validation)
    row = history[selected - 1]
    validation = {"validation_accuracy": row["val_accuracy"]} if recorder.has_validation else {}
    draw_accuracy(history, selected, recipe.data.name, folder.accuracy_picture)
    _draw_examples(recipe, splits, network, folder.raster_picture)
    rate, T = row["spikes_per_neuron_per_step"], recipe.encoding.steps
    metrics = {
        "test_accuracy": row["test_accuracy"],
        "test_accuracy_is_of": f"epoch {selected}, "
        + ("best on validation" if recorder.has_validation else "the last"),
        **validation,
        "train_seconds": round(sum(entry["seconds"] for entry in history), 3),
        "seconds_per_epoch": round(statistics.median(entry["seconds"] for entry in history), 3),
        "epochs": len(history),
        "spikes_per_neuron_per_step": rate,
        "spikes_per_neuron": rate * T,
        "spike_rates": row["spike_rates"],
        "T": T,
        "seed": recipe.seed,
        "parameters": sum(parameter.numel() for parameter in network.parameters()),
        "data": recipe.data.name,
        "data_source": splits.train.source,
        "train_images": len(splits.train_rows),
        "validation_images": len(splits.val_rows),
        "test_images": len(splits.test.labels),
    }
    folder.write_metrics(metrics)
    return metrics


def load_selected(network: nn.Module, folder: RunFolder, has_validation: bool) -> None:
    """Load the epoch that a finished run reports into its network: the best on validation, else the last."""
    from snn.training.checkpoint import load_checkpoint

    weights = load_checkpoint(folder.best if has_validation else folder.last)["state_dict"]
    network.load_state_dict({key.removeprefix("network."): value for key, value in weights.items()})


def _draw_examples(recipe: Recipe, splits: Splits, network: nn.Module, path: Path) -> None:
    labels = splits.test.labels
    # The first image of each of four classes spread over all of them.
    wanted = torch.linspace(0, splits.class_count - 1, min(4, splits.class_count)).round().long().tolist()
    rows = torch.tensor([int((labels == label).nonzero()[0]) for label in wanted if bool((labels == label).any())])
    images, shown = splits.test.batch(rows)
    x = encoded(images, recipe.encoding, derived_seed(recipe.seed, EVALUATE))
    draw_raster(network, x, shown.tolist(), splits.test.classes, path, recipe.loss.on)


def _quieten_lightning() -> None:
    # Hints about loggers, loader workers and available devices, none of which this script leaves open.
    logging.getLogger("lightning.pytorch").setLevel(logging.WARNING)
    logging.getLogger("lightning.fabric").setLevel(logging.WARNING)
    for category in (UserWarning, FutureWarning):
        warnings.filterwarnings("ignore", module=r"lightning\.(pytorch|fabric).*", category=category)
