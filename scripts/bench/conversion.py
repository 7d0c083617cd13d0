"""Accuracy of every conversion recipe after 1, 2, 4, ... steps, beside SpikingJelly's recipes on the same network.

python scripts/bench/conversion.py --relu RUN [--qcfs RUN] [--samples N] [--steps 64] [--calibration 1000] [--only NAME ...]
    [--json FILE]

RUN are run folders of `train.py` with the recipes digits_ann, mnist_ann or cifar10_ann (ReLU) and ..._ann_qcfs. Thresholds
come from training images; accuracy is on test images spread evenly over the test set. Recipes whose thresholds depend on T
are converted anew for every T. Read-outs of SpikingJelly's networks are sums over the steps so far, as in its examples.
With --json, finished rows are kept, and a second call goes on with the rest.
"""

from __future__ import annotations

import argparse
import copy
import json
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from torch import nn

from snn.conversion.convert import convert
from snn.conversion.report import measure
from snn.conversion.report_text import markdown, shown_steps
from snn.conversion.sources import SourceRun, source_of_run, spread_images
from snn.errors import UnsupportedError
from snn.training.atomic_write import write_text

BATCH = 50


@dataclass(frozen=True)
class Row:
    """One line of the table.

    Attributes:
        name: of the line.
        recipe: of ours; "" for SpikingJelly's.
        options: of the recipe.
        quantised: converts the QCFS network instead of the ReLU network.
        each: thresholds depend on T, so each T is converted anew.
    """

    name: str
    recipe: str = ""
    options: dict[str, Any] = field(default_factory=dict)
    quantised: bool = False
    each: bool = False


PER_CHANNEL: dict[str, Any] = {"threshold": "percentile", "percentile": 99.0, "channelwise": True}
WIDE: dict[str, Any] = {**PER_CHANNEL, "percentile": 99.9}
OURS = (
    Row("rate, max, v0 = 0", "rate", {"threshold": "max", "start": 0.0}),
    Row("rate, 99.9 %, v0 = 0", "rate", {"percentile": 99.9, "start": 0.0}),
    Row("rate, 99.9 %", "rate", {"percentile": 99.9}),
    Row("rate, 99 %", "rate", {"percentile": 99.0}),
    Row("rate, 99 %, per channel", "rate", PER_CHANNEL),
    Row("rate, 99.9 %, per channel", "rate", WIDE),
    Row("rate, MSE", "rate", {"threshold": "mse"}, each=True),
    Row("rate, MSE, per channel", "rate", {"threshold": "mse", "channelwise": True}, each=True),
    Row("calibration-light, MSE", "calibration-light", each=True),
    Row("calibration-light, 99 %, per channel", "calibration-light", PER_CHANNEL, each=True),
    Row("calibration-advanced, MSE", "calibration-advanced", each=True),
    Row("calibration-advanced, 99 %, per channel", "calibration-advanced", PER_CHANNEL, each=True),
    Row("calibration-advanced, 99.9 %, per channel", "calibration-advanced", WIDE, each=True),
    Row("burst, 99 %, per channel", "burst", PER_CHANNEL),
    Row("signed, 99 %, per channel", "signed", PER_CHANNEL),
    Row("srp, 99 %, per channel (4 steps before)", "srp", PER_CHANNEL, each=True),
    Row("cos, 99 %, per channel (4 steps before)", "cos", PER_CHANNEL, each=True),
    Row("ltb", "ltb"),
    Row("cnn-morph", "cnn-morph"),
    Row("td", "td"),
    Row("qcfs, QCFS network", "qcfs", quantised=True),
    Row("signed, QCFS network", "signed", quantised=True),
    Row("srp, QCFS network (4 steps before)", "srp", quantised=True, each=True),
    Row("cos, QCFS network (4 steps before)", "cos", quantised=True, each=True),
    Row("stbif, QCFS network", "stbif", quantised=True),
)
PEERS = ("Max", "99.9%", "99%", "99.9% per channel", "99.9% per channel, v0 = 1/2", "LTB", "LTB, delay")


def main() -> None:
    given = _arguments()
    found = json.loads(given.json.read_text()) if given.json and given.json.is_file() else {}
    relu = source_of_run(given.relu)
    qcfs = source_of_run(given.qcfs) if given.qcfs else None
    calibration = spread_images(relu.splits.train, relu.splits.train_rows, given.calibration)
    images = list(_test_batches(relu, given.samples))
    setting = {
        "relu": relu.origin,
        "qcfs": qcfs.origin if qcfs else None,
        "data": relu.data.name,
        "data_source": relu.splits.test.source,
        "samples": sum(len(y) for _, y in images),
        "calibration": len(calibration[1]),
    }
    if found.get("setting", setting) != setting:
        raise SystemExit(f"{given.json} holds rows of another setting; give another file")
    found["setting"] = setting
    found.setdefault("rows", {})
    steps = shown_steps(given.steps)
    found["relu"] = _ann_accuracy(relu.network, images)
    if qcfs is not None:
        found["qcfs"] = _ann_accuracy(qcfs.network, images)
    todo: list[tuple[str, Callable[[], dict[str, Any]]]] = []
    for row in OURS:
        source = qcfs if row.quantised else relu
        if source is not None:
            todo.append((row.name, lambda row=row, source=source: _ours(row, source, calibration, images, steps)))
    todo += [
        (f"SpikingJelly {peer}", lambda peer=peer: _peer(peer, relu.network, calibration, images, steps))
        for peer in PEERS
    ]
    for name, run in todo:
        if name in found["rows"] or (given.only and not any(part in name for part in given.only)):
            continue
        start = time.perf_counter()
        found["rows"][name] = row_found = run()
        row_found["seconds"] = round(time.perf_counter() - start, 1)
        print(f"{name}: {row_found}", file=sys.stderr, flush=True)
        _save(given.json, found)
    print(_table(found, steps))


def _arguments() -> argparse.Namespace:
    out = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    out.add_argument("--relu", metavar="RUN", required=True)
    out.add_argument("--qcfs", metavar="RUN")
    out.add_argument("--samples", type=int, default=1000)
    out.add_argument("--calibration", type=int, default=1000)
    out.add_argument("--steps", type=int, default=64)
    out.add_argument("--only", nargs="*", metavar="NAME", help="rows whose name holds one of these")
    out.add_argument("--json", type=Path)
    return out.parse_args()


def _test_batches(source: SourceRun, samples: int) -> Iterator[tuple[torch.Tensor, torch.Tensor]]:
    test = source.splits.test
    count = len(test.labels)
    rows = torch.linspace(0, count - 1, min(samples, count)).round().long()
    for part in rows.split(BATCH):
        yield test.batch(part)


@torch.no_grad()
def _ann_accuracy(network: nn.Module, images: list[tuple[torch.Tensor, torch.Tensor]]) -> float:
    right = sum(int((network(x).argmax(1) == y).sum()) for x, y in images)
    return right / sum(len(y) for _, y in images)


def _ours(
    row: Row,
    source: SourceRun,
    calibration: tuple[torch.Tensor, torch.Tensor],
    images: list[tuple[torch.Tensor, torch.Tensor]],
    steps: list[int],
) -> dict[str, Any]:
    try:
        runs = steps if row.each else steps[-1:]
        accuracy: dict[int, float] = {}
        for T in runs:
            conversion = convert(source.network, row.recipe, calibration, T, **row.options)
            report = measure(conversion.snn, images, recipe=row.recipe)
            assert report.accuracy is not None
            accuracy |= {T: report.accuracy[-1]} if row.each else {step: report.accuracy[step - 1] for step in steps}
    except (UnsupportedError, ValueError) as error:
        return {"refused": str(error)}
    return {"accuracy": accuracy, "spikes_per_inference": report.spikes_per_inference}


def _peer(
    name: str,
    network: nn.Module,
    calibration: tuple[torch.Tensor, torch.Tensor],
    images: list[tuple[torch.Tensor, torch.Tensor]],
    steps: list[int],
) -> dict[str, Any]:
    from spikingjelly.activation_based import functional

    converted, delay = _peer_network(name, network, calibration)
    right = dict.fromkeys(steps, 0)
    with torch.no_grad():
        for x, y in images:
            functional.reset_net(converted)
            sums = torch.stack([converted(x) for _ in range(steps[-1])]).cumsum(0)
            for T in steps:
                skipped = delay if T - delay >= 4 else max(0, min(delay, T - 5))
                total = sums[T - 1] - sums[skipped - 1] if skipped else sums[T - 1]
                right[T] += int((total.argmax(1) == y).sum())
    count = sum(len(y) for _, y in images)
    return {"accuracy": {step: value / count for step, value in right.items()}}


def _peer_network(
    name: str, network: nn.Module, calibration: tuple[torch.Tensor, torch.Tensor]
) -> tuple[nn.Module, int]:
    from spikingjelly.activation_based import ann2snn

    batches = list(zip(calibration[0].split(BATCH), calibration[1].split(BATCH), strict=True))
    recipe: Any
    if name.startswith("LTB"):
        recipe = ann2snn.LocalThresholdBalancingRecipe(batches)
    else:
        mode = name.partition(" per")[0]
        half, channels = "v0" in name, "per channel" in name
        recipe = ann2snn.RateCodingRecipe(batches, mode=mode, channel_wise=channels, half_threshold=half)
    converted = ann2snn.Converter(recipe).convert(copy.deepcopy(network)).eval()
    delay = 0
    if "delay" in name:
        delay = int(ann2snn.estimate_delay_start(converted, batches, "cpu", 64, num_batches=4))
    return converted, delay


def _table(found: dict[str, Any], steps: list[int]) -> str:
    lines = []
    for name, row in found["rows"].items():
        accuracy = {int(step): value for step, value in row.get("accuracy", {}).items()}
        cells = [f"{100 * accuracy[step]:.2f}" if step in accuracy else "-" for step in steps]
        lines.append([name, *cells, f"{row['seconds']:.0f}"])
    head = f"{found['setting']['data']}, {found['setting']['samples']} test images; ReLU network {found['relu']:.2%}"
    if "qcfs" in found:
        head += f", QCFS network {found['qcfs']:.2%}"
    return f"{head}\n\n{markdown(['accuracy % at T', *map(str, steps), 'seconds'], lines)}\n\n{_verdict(found, steps)}"


def _verdict(found: dict[str, Any], steps: list[int]) -> str:
    """The best of ours on the ReLU network, of ours on any, and of SpikingJelly's at each T."""

    def best(wanted: Callable[[str], bool], step: int) -> tuple[float, str]:
        scores = [
            (row["accuracy"].get(str(step), row["accuracy"].get(step, -1.0)), name)
            for name, row in found["rows"].items()
            if "accuracy" in row and wanted(name)
        ]
        return max(scores, default=(float("nan"), "-"))

    kinds: dict[str, Callable[[str], bool]] = {
        "ours, same network, spikes": lambda name: not name.startswith(("Spiking", "td")) and "QCFS" not in name,
        "ours, QCFS network": lambda name: "QCFS network" in name,
        "SpikingJelly": lambda name: name.startswith("SpikingJelly"),
    }
    rows = []
    for step in steps:
        scores = [best(wanted, step) for wanted in kinds.values()]
        rows.append([str(step), *(f"{100 * score:.2f} ({name})" for score, name in scores)])
    return markdown(["best at T", *kinds], rows)


def _save(path: Path | None, found: dict[str, Any]) -> None:
    if path is not None:
        write_text(path, json.dumps(found, indent=2) + "\n")


if __name__ == "__main__":
    main()
