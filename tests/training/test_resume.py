"""A run that was killed and continued equals the run that was not."""

from __future__ import annotations

import csv
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import IO, Any

import pytest
import torch
import yaml

from snn.training.recipe import DataOptions, Recipe, recipe_to_dict
from snn.training.run import train

SCRIPT = Path(__file__).parents[2] / "scripts" / "train.py"


def without_seconds(rows: list[dict[str, Any]]) -> list[dict[str, Any]]:
    return [{key: value for key, value in row.items() if key != "seconds"} for row in rows]


def rows_of(folder: Path) -> list[dict[str, Any]]:
    with (folder / "metrics.csv").open(newline="") as file:
        return without_seconds(list(csv.DictReader(file)))


def different_places(a: Any, b: Any, place: str = "") -> list[str]:
    """Where two nested values differ by as much as one bit."""
    if isinstance(a, torch.Tensor) and isinstance(b, torch.Tensor):
        return [] if a.dtype == b.dtype and torch.equal(a, b) else [place]
    if isinstance(a, dict) and isinstance(b, dict):
        if a.keys() != b.keys():
            return [f"{place} keys"]
        return [found for key in a for found in different_places(a[key], b[key], f"{place}/{key}")]
    if isinstance(a, list | tuple) and isinstance(b, list | tuple):
        if len(a) != len(b):
            return [f"{place} length"]
        pairs = zip(a, b, strict=True)
        return [found for i, (x, y) in enumerate(pairs) for found in different_places(x, y, f"{place}/{i}")]
    return [] if a == b else [place]


def assert_same_end(folder: Path, other: Path) -> None:
    """Weights, buffers, optimiser, schedule, generators and history are equal bit for bit."""
    for name in ("last.ckpt", "best.ckpt"):
        a, b = (torch.load(path / "checkpoints" / name, weights_only=True) for path in (folder, other))
        for content in (a, b):
            (callback,) = content["callbacks"].values()
            callback["history"] = without_seconds(callback["history"])
            content["spikeloop"].pop("environment")
        for key in (
            "state_dict",
            "optimizer_states",
            "lr_schedulers",
            "spikeloop",
            "callbacks",
            "epoch",
            "global_step",
        ):
            assert different_places(a[key], b[key], key) == []
    assert rows_of(folder) == rows_of(other)


def start(folder: Path, config: Path, environment: dict[str, str], *flags: str) -> subprocess.Popen[str]:
    command = [sys.executable, str(SCRIPT), "--config", str(config), "--run-dir", str(folder), *flags]
    return subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, env=environment)


def stop_after(process: subprocess.Popen[str], line_start: str, wait: float, what: signal.Signals) -> tuple[str, str]:
    """Send a signal some time after the line that begins so; return all of stdout and stderr."""
    assert isinstance(process.stdout, IO) or process.stdout is not None
    lines = []
    for line in process.stdout:
        lines.append(line)
        if line.startswith(line_start):
            time.sleep(wait)
            process.send_signal(what)
            break
    rest, errors = process.communicate(timeout=120)
    return "".join(lines) + rest, errors


@pytest.fixture
def slow_run(small_recipe: Callable[..., Recipe], tmp_path: Path) -> tuple[Recipe, Path]:
    """A recipe whose epochs take about half a second, in memory and as a file."""
    recipe = small_recipe(data=DataOptions("slow_digits:load", batch_size=96, shift=1), epochs=4)
    config = tmp_path / "slow.yaml"
    config.write_text(yaml.safe_dump(recipe_to_dict(recipe)))
    return recipe, config


@pytest.fixture
def importable(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.syspath_prepend(str(Path(__file__).parent))


@pytest.mark.usefixtures("importable")
def test_killed_then_interrupted_then_continued_equals_uninterrupted(
    slow_run: tuple[Recipe, Path], tmp_path: Path, command_environment: dict[str, str]
) -> None:
    recipe, config = slow_run
    whole, broken = tmp_path / "whole", tmp_path / "broken"
    train(recipe, whole, report=lambda line: None)

    killed = start(broken, config, command_environment)
    stop_after(killed, "epoch 1/4", 0.25, signal.SIGKILL)
    assert killed.returncode == -signal.SIGKILL
    assert [row["epoch"] for row in rows_of(broken)] == ["1"]
    assert not (broken / "metrics.json").exists()

    interrupted = start(broken, config, command_environment, "--resume")
    output, errors = stop_after(interrupted, "epoch 2/4", 0.25, signal.SIGINT)
    assert interrupted.returncode == 130
    assert "epoch 1/4" not in output
    assert "Traceback" not in errors
    assert f"spikeloop train --run-dir {broken} --resume" in errors
    assert [row["epoch"] for row in rows_of(broken)] == ["1", "2"]

    # As the message says: without the recipe, which the folder holds.
    last = [sys.executable, str(SCRIPT), "--run-dir", str(broken), "--resume"]
    done = subprocess.run(last, capture_output=True, text=True, env=command_environment, timeout=120)
    assert done.returncode == 0, done.stderr
    assert_same_end(whole, broken)
    assert not list(broken.rglob("*.tmp"))
    metrics = [(folder / "metrics.json").read_text() for folder in (whole, broken)]
    assert len({text[: text.index('"train_seconds"')] for text in metrics}) == 1


@pytest.mark.usefixtures("importable")
@pytest.mark.slow
@pytest.mark.parametrize("wait", [0.0, 0.02, 0.1, 0.4, 0.5])
def test_the_moment_of_the_kill_does_not_matter(
    wait: float, slow_run: tuple[Recipe, Path], tmp_path: Path, command_environment: dict[str, str]
) -> None:
    recipe, config = slow_run
    whole, broken = tmp_path / "whole", tmp_path / "broken"
    train(recipe, whole, report=lambda line: None)
    stop_after(start(broken, config, command_environment), "epoch 2/4", wait, signal.SIGKILL)
    train(recipe, broken, resume=True, report=lambda line: None)
    assert_same_end(whole, broken)


def test_a_run_cut_before_its_first_epoch_starts_again(small_recipe: Callable[..., Recipe], tmp_path: Path) -> None:
    whole, cut = tmp_path / "whole", tmp_path / "cut"
    train(small_recipe(), whole, report=lambda line: None)
    cut.mkdir()
    (cut / "config.yaml").write_bytes((whole / "config.yaml").read_bytes())
    (cut / "checkpoints").mkdir()
    (cut / "checkpoints" / ".last.ckpt.1.tmp").write_bytes(b"half")
    train(small_recipe(), cut, resume=True, report=lambda line: None)
    assert_same_end(whole, cut)
    assert not list(cut.rglob("*.tmp"))


def test_continuing_a_finished_run_trains_nothing(small_recipe: Callable[..., Recipe], tmp_path: Path) -> None:
    first = train(small_recipe(), tmp_path, report=lambda line: None)
    lines: list[str] = []
    assert train(small_recipe(), tmp_path, resume=True, report=lines.append) == first
    assert lines == []
