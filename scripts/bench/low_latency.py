"""Train a chain of stages down to one step next to one step at once: python scripts/bench/low_latency.py --json FILE

The chain is a shipped recipe (digits_iir, mnist_iir, cifar10_iir). Beside it, with the same network, data, seed and
optimiser, and as many epochs at T = 1 as all spiking stages of the chain together:
  scratch   new weights, thresholds calibrated at T = 1, so that a tenth of the neurons fires at the start
  fixed     new weights, all thresholds 0.4 at the start
  direct    the chain's ANN, thresholds calibrated as in the chain, then T = 1 at once
  revived   as direct, with the thresholds of silent layers lowered before the training
A run folder (--run-dir) that was interrupted is continued. Accuracies are of the epoch that was best on the validation part,
and are measured again in float32 on the whole test set.
"""

import argparse
import dataclasses
import json
import platform
import sys
import tempfile
from pathlib import Path
from typing import Any

import torch

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))
sys.path.insert(0, str(Path(__file__).resolve().parents[2] / "datasets"))

from neuromorphic.compiler.checkpoint_cli import load_run
from snn.training import Recipe, train
from snn.training.command_line import parse
from snn.training.stage_options import CalibrationOptions, Stage
from snn.training.stage_report import stage_table

BESIDE = ("scratch", "fixed", "direct", "revived")


def stages_beside(recipe: Recipe, names: list[str], direct_epochs: int | None) -> list[Stage]:
    """The comparisons as further stages of the same run."""
    spiking = recipe.stages[1:]
    epochs = sum(stage.recipe.get("epochs", recipe.epochs) for stage in spiking)
    at_once = {"encoding": {"steps": 1}, "epochs": epochs}
    from_ann = {**at_once, "epochs": direct_epochs or epochs}
    first = spiking[0]
    direct = dataclasses.replace(first, weights_from=recipe.stages[0].name, name="direct", recipe=from_ann)
    fixed = {"network": {"neuron": {"class": "DIET", "v_threshold": 0.4}}}
    known = {
        "scratch": Stage("scratch", None, calibrate=CalibrationOptions(steps=1, images=200), recipe=at_once),
        "fixed": Stage("fixed", None, recipe=at_once | fixed),
        "direct": direct,
        "revived": dataclasses.replace(direct, name="revived", revive=True),
    }
    return [known[name] for name in names]


@torch.no_grad()
def float32_accuracy(folder: Path) -> float:
    """Accuracy of a finished stage on all test images, in float32."""
    trained = load_run(folder)
    correct = 0
    for start in range(0, len(trained.labels), 500):
        part = slice(start, start + 500)
        correct += int((trained.network(trained.x[:, part]).mean(0).argmax(1) == trained.labels[part]).sum())
    return correct / len(trained.labels)


def figures(arguments: argparse.Namespace, run_dir: Path) -> dict[str, Any]:
    overrides = [f"--{entry}" for entry in arguments.set]
    _, recipe = parse(["--config", arguments.recipe, "--run-dir", str(run_dir), *overrides])
    chain = len(recipe.stages)
    beside = stages_beside(recipe, arguments.beside, arguments.direct_epochs)
    recipe = dataclasses.replace(recipe, stages=[*recipe.stages, *beside])
    rows = train(recipe, run_dir, resume=True, report=lambda line: print(line, flush=True))["stages"]
    for row in rows:
        row["float32_test_accuracy"] = float32_accuracy(run_dir / "stages" / row["stage"])
    first, last = rows[1], rows[chain - 1]
    return {
        "recipe": arguments.recipe,
        "overrides": arguments.set,
        "machine": {"processor": platform.processor() or platform.machine(), "torch": torch.__version__},
        "seed": recipe.seed,
        "precision": recipe.precision,
        "lost_points": 100 * (first["float32_test_accuracy"] - last["float32_test_accuracy"]),
        "from": first["stage"],
        "to": last["stage"],
        "chain_seconds": sum(row["train_seconds"] for row in rows[:chain]),
        "stages": rows,
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--json", metavar="FILE", help="write the figures here")
    parser.add_argument("--recipe", default="digits_iir", help="recipe with stages (default: digits_iir)")
    parser.add_argument("--beside", nargs="*", choices=BESIDE, default=["scratch", "fixed", "direct", "revived"])
    parser.add_argument("--direct-epochs", type=int, help="epochs of direct and revived (default: those of the chain)")
    parser.add_argument("--run-dir", type=Path, help="keep the run here, and continue it (default: a temporary folder)")
    parser.add_argument("--set", nargs="*", default=[], metavar="KEY=VALUE", help="overrides of recipe keys")
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory() as temporary:
        found = figures(arguments, arguments.run_dir or Path(temporary) / "run")
    print(stage_table(found["stages"]))
    print(f"{found['from']} -> {found['to']}: {found['lost_points']:.2f} points lost, {found['chain_seconds']:.0f} s")
    if arguments.json:
        Path(arguments.json).write_text(json.dumps(found, indent=2) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
