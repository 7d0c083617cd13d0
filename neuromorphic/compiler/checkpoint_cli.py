"""``simulate --checkpoint RUN --engine event|torch|int:TARGET``: a trained run folder, run one of three ways."""

from __future__ import annotations

import argparse
import json
import statistics
import sys
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from torch import nn

from neuromorphic.compiler.event_network import DTYPES, compile
from snn.errors import UnsupportedError
from snn.training.loss import On, votes

if TYPE_CHECKING:
    from snn.conversion.run_network import ConvertedRun

_LATENCY_IMAGES = 50
_CALIBRATION_IMAGES = 200


def parser() -> argparse.ArgumentParser:
    """Arguments of the command."""
    out = argparse.ArgumentParser(
        prog="simulate --checkpoint",
        description="Run a trained network on its test images; print accuracy, latency and agreement.",
    )  # fmt: skip
    out.add_argument("--checkpoint", required=True, metavar="RUN", help="run folder that training has written")
    out.add_argument("--engine", default="event", help="event, torch, or int:TARGET, e.g. int:loihi (default: event)")
    out.add_argument("--samples", type=int, help="test images to run, from the first one on (default: all)")
    out.add_argument(
        "--dtype", choices=tuple(DTYPES), default="float32", help="arithmetic of torch and the event engine"
    )
    out.add_argument("--data-root", help="folder of the data, where it is not the one of the run")
    out.add_argument("--json", metavar="FILE", help="write the figures here")
    return out


@dataclass(frozen=True)
class Trained:
    """A trained network with test and calibration sequences [T, B, ...] and test labels [B], and how steps vote."""

    network: nn.Module
    x: torch.Tensor
    labels: torch.Tensor
    calibration: torch.Tensor
    on: On = "mean"


def load_run(run: str | Path, samples: int | None = None, data_root: str | None = None) -> Trained:
    """The network of a run folder (best epoch where it was chosen, else the last) and its encoded images.

    Of a training in stages it is the network of the last stage; `RUN/stages/NAME` is the folder of another one.

    Raises:
        ValueError: the folder is no run, its data are missing, or `samples` is out of range.
    """
    from snn.training.lightning_import import import_lightning

    import_lightning()  # before the other modules, in the way that copes with a torchvision of another build
    from snn.training.build import build_network
    from snn.training.checkpoint import load_checkpoint
    from snn.training.command_line import parse
    from snn.training.data import load_splits
    from snn.training.encoding import encoded
    from snn.training.run_folder import RunFolder
    from snn.training.seeding import EVALUATE, derived_seed

    folder = RunFolder(Path(run))
    root = [] if data_root is None else [f"--data.root={data_root}"]
    recipe = parse([f"--run-dir={run}", "--resume", *root])[1] if folder.config.is_file() else None
    if recipe is not None and recipe.stages:
        return load_run(folder.path / "stages" / recipe.stages[-1].name, samples, data_root)
    if recipe is None or not folder.last.is_file():
        raise ValueError(f"--checkpoint: {run} is not a run folder (no config.yaml or checkpoints/last.ckpt)")
    splits = load_splits(recipe.data, recipe.seed)
    network = build_network(recipe.network, splits.input_shape, splits.class_count)
    source = folder.best if len(splits.val_rows) and folder.best.is_file() else folder.last
    weights = load_checkpoint(source)["state_dict"]
    network.load_state_dict({key.removeprefix("network."): value for key, value in weights.items()})
    available = len(splits.test.labels)
    count = available if samples is None else samples
    if not 1 <= count <= available:
        raise ValueError(f"--samples must lie in [1, {available}], got {count}")
    images, labels = splits.test.batch(torch.arange(count))
    few, _ = splits.train.batch(splits.train_rows[:_CALIBRATION_IMAGES])
    seed = derived_seed(recipe.seed, EVALUATE)
    x, calibration = encoded(images, recipe.encoding, seed), encoded(few, recipe.encoding, seed)
    return Trained(network.float().eval(), x, labels, calibration, recipe.loss.on)


Run = Callable[[torch.Tensor], torch.Tensor]


def figures(trained: Trained, engine: str, dtype: str) -> dict[str, Any]:
    """Accuracy, latency of one image and of one step, and agreement with torch.

    Raises:
        ValueError: an unknown engine or target.
        UnsupportedError: a layer that the engine cannot express.
    """
    kind = DTYPES[dtype]
    network = trained.network.to(kind)
    x = trained.x.to(kind)
    reference = predictions(_torch_run(network), x, trained.on)
    found: dict[str, Any] = {"engine": engine, "dtype": dtype, "samples": x.shape[1], "T": x.shape[0]}
    run = _engine(trained, network, engine, dtype, x, found)
    predicted = reference if engine == "torch" else predictions(run, x, trained.on)
    found["accuracy"] = float((predicted == trained.labels).double().mean())
    found["torch_accuracy"] = float((reference == trained.labels).double().mean())
    found["equal_predictions"] = float((predicted == reference).double().mean())
    return found | latency(run, x)


def _engine(
    trained: Trained, network: nn.Module, engine: str, dtype: str, x: torch.Tensor, found: dict[str, Any]
) -> Run:
    if engine == "torch":
        return _torch_run(network)
    from snn.conversion.run_network import ConvertedRun

    if isinstance(network, ConvertedRun) and engine.startswith("int:"):
        raise UnsupportedError(
            f"--engine {engine}: converted neurons start at a membrane of their own, which no integer format here has; "
            "use --engine event or torch"
        )
    if engine == "event" and isinstance(network, ConvertedRun) and not network.repeats_steps():
        return _unequal_steps(network, x, dtype, found)
    if engine == "event":
        event = compile(network, x[:, :1], dtype)
        report = event.check(network, x[:, :1000])
        found["equal_spikes"] = report.spike_agreement
        found["neurons"], found["synapses"] = event.report.neurons, event.report.synapses
        return lambda part: event.run(part)
    if engine.startswith("int:") and len(engine) > 4:
        return _integer_run(trained, network, engine.removeprefix("int:"), found)
    raise ValueError(f"--engine must be event, torch or int:TARGET, got {engine!r}")


def _unequal_steps(network: ConvertedRun, x: torch.Tensor, dtype: str, found: dict[str, Any]) -> Run:
    """The event network of a conversion whose run is more than equal steps: sum coding, or a delayed read-out.

    Raises: UnsupportedError for one that has no such form.
    """
    from snn.conversion.event_form import event_form

    form = event_form(network.network, x)
    event = compile(form.network, form.inputs(x[:, :1]), dtype)
    report = event.check(form.network, form.inputs(x[:, :1000]))
    found["equal_spikes"] = report.spike_agreement
    found["neurons"], found["synapses"] = event.report.neurons, event.report.synapses
    return lambda part: form.logits(event.run(form.inputs(part)))


def _integer_run(trained: Trained, network: nn.Module, target: str, found: dict[str, Any]) -> Run:
    from neuromorphic.targets import quantize

    integer, report = quantize(network, target, trained.calibration.to(next(network.parameters()).dtype))
    found["report"] = str(report)
    return _torch_run(integer)


def _torch_run(network: nn.Module) -> Run:
    def run(x: torch.Tensor) -> torch.Tensor:
        with torch.no_grad():
            y: torch.Tensor = network(x)
        return y

    return run


def predictions(run: Run, x: torch.Tensor, on: On = "mean", batch: int = 500) -> torch.Tensor:
    """The class of each sample: largest mean over time of the steps' votes."""
    return torch.cat([votes(run(part), on).mean(0).argmax(1) for part in x.split(batch, dim=1)])


def latency(run: Run, x: torch.Tensor) -> dict[str, float]:
    """Median time of one image, alone, and of one of its steps."""
    times = []
    run(x[:, :1])
    for sample in range(min(_LATENCY_IMAGES, x.shape[1])):
        one = x[:, sample : sample + 1]
        start = time.perf_counter()
        run(one)
        times.append(time.perf_counter() - start)
    median = statistics.median(times)
    return {"ms_per_image": median * 1e3, "us_per_step": median * 1e6 / x.shape[0]}


def main(arguments: Sequence[str]) -> int:
    """Run the command; returns 0, or 2 for a wrong call."""
    options = parser().parse_args(list(arguments))
    try:
        trained = load_run(options.checkpoint, options.samples, options.data_root)
        found = figures(trained, options.engine, options.dtype)
    except (ValueError, UnsupportedError, ImportError) as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    show(found)
    if options.json:
        from snn.training.atomic_write import write_text

        Path(options.json).parent.mkdir(parents=True, exist_ok=True)
        write_text(Path(options.json), json.dumps(found, indent=2) + "\n")
    return 0


def show(found: dict[str, Any]) -> None:
    """Prints the figures."""
    if "report" in found:
        print(found["report"])
    print(f"{found['engine']} on {found['samples']} test images, {found['T']} steps")
    print(f"accuracy          {100 * found['accuracy']:.2f} % (torch {100 * found['torch_accuracy']:.2f} %)")
    print(f"equal predictions {100 * found['equal_predictions']:.2f} %")
    if "equal_spikes" in found:
        print(f"equal spikes      {100 * found['equal_spikes']:.5f} % (first 1000 images)")
    print(f"latency           {found['ms_per_image']:.3f} ms per image, {found['us_per_step']:.1f} us per step")
