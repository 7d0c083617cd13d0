"""A whole run: what it learns, what it leaves in its folder, what it repeats."""

from __future__ import annotations

import csv
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
import yaml
from torch import nn

from snn.training.errors import RecipeError
from snn.training.recipe import DataOptions, EncodingOptions, Recipe, recipe_to_dict
from snn.training.run import train

Make = Callable[..., Recipe]


def quiet(recipe: Recipe, folder: Path, **flags: bool) -> dict[str, Any]:
    return train(recipe, folder, report=lambda line: None, **flags)


def weights(folder: Path) -> dict[str, torch.Tensor]:
    content: dict[str, Any] = torch.load(folder / "checkpoints" / "last.ckpt", weights_only=True)
    return content["state_dict"]


def test_a_short_run_learns_the_digits(small_recipe: Make, tmp_path: Path) -> None:
    network = {"class": "SpikingMLP", "hidden": [128], "batch_norm": True}
    data = DataOptions("digits", batch_size=48)
    recipe = small_recipe(network=network, data=data, encoding=EncodingOptions("direct", 4), epochs=6)
    metrics = quiet(recipe, tmp_path)
    assert metrics["test_accuracy"] > 0.95
    assert 0.01 < metrics["spikes_per_neuron_per_step"] < 0.6


def test_truncated_backpropagation_learns_too(small_recipe: Make, tmp_path: Path) -> None:
    data = DataOptions("digits", batch_size=48)
    recipe = small_recipe(data=data, encoding=EncodingOptions("direct", 6), bptt_steps=2, clip_norm=1.0, epochs=4)
    assert quiet(recipe, tmp_path)["test_accuracy"] > 0.85


def test_the_folder_holds_what_was_run(small_recipe: Make, tmp_path: Path) -> None:
    lines: list[str] = []
    recipe = small_recipe(data=DataOptions("digits", batch_size=96, val_fraction=0.1), epochs=3)
    metrics = train(recipe, tmp_path, report=lines.append)
    assert len(lines) == 3
    assert yaml.safe_load((tmp_path / "config.yaml").read_text()) == recipe_to_dict(recipe)
    assert json.loads((tmp_path / "metrics.json").read_text()) == metrics
    assert "torch" in json.loads((tmp_path / "environment.json").read_text())["versions"]
    with (tmp_path / "metrics.csv").open(newline="") as file:
        rows = list(csv.DictReader(file))
    assert [row["epoch"] for row in rows] == ["1", "2", "3"]
    assert {"train_loss", "val_accuracy", "test_accuracy", "seconds", "learning_rate"} <= set(rows[0])
    assert list((tmp_path / "tensorboard").glob("events*"))
    for name in ("accuracy.png", "raster.png"):
        assert (tmp_path / name).read_bytes().startswith(b"\x89PNG")
    assert metrics["epochs"] == 3
    assert metrics["T"] == 3
    assert metrics["train_images"] + metrics["validation_images"] == 1437
    assert metrics["train_seconds"] == pytest.approx(sum(float(row["seconds"]) for row in rows), abs=0.01)
    assert set(metrics["spike_rates"]) == {"neuron1"}
    saved = torch.load(tmp_path / "checkpoints" / "last.ckpt", weights_only=True)["spikeloop"]
    assert saved["recipe"] == recipe_to_dict(recipe)
    assert saved["seed"] == 0
    assert set(saved["generators"]) == {"python", "numpy", "torch", "cuda"}
    assert "torch" in saved["environment"]["versions"]


def test_the_validation_part_and_never_the_test_images_selects(small_recipe: Make, tmp_path: Path) -> None:
    recipe = small_recipe(data=DataOptions("digits", batch_size=96, val_fraction=0.1), epochs=4)
    metrics = quiet(recipe, tmp_path / "validated")
    with (tmp_path / "validated" / "metrics.csv").open(newline="") as file:
        rows = list(csv.DictReader(file))
    best = max(range(4), key=lambda i: float(rows[i]["val_accuracy"]))
    assert metrics["test_accuracy"] == float(rows[best]["test_accuracy"])
    assert metrics["reported_epoch"] == f"{best + 1}, the best on the validation part"
    kept = torch.load(tmp_path / "validated" / "checkpoints" / "best.ckpt", weights_only=True)
    assert kept["epoch"] == best

    plain = quiet(small_recipe(), tmp_path / "plain")
    with (tmp_path / "plain" / "metrics.csv").open(newline="") as file:
        rows = list(csv.DictReader(file))
    assert plain["test_accuracy"] == float(rows[-1]["test_accuracy"])
    assert plain["reported_epoch"] == "2, the last"


def test_the_seed_decides_the_weights(small_recipe: Make, tmp_path: Path) -> None:
    for name, seed in (("a", 3), ("b", 3), ("c", 4)):
        quiet(small_recipe(seed=seed), tmp_path / name)
    a, b, c = (weights(tmp_path / name) for name in "abc")
    assert all(torch.equal(a[key], b[key]) for key in a)
    assert not torch.equal(a["network.stack.layers.linear1.weight"], c["network.stack.layers.linear1.weight"])


def test_a_run_is_never_replaced_unasked(small_recipe: Make, tmp_path: Path) -> None:
    recipe = small_recipe(epochs=1)
    quiet(recipe, tmp_path / "run")
    before = weights(tmp_path / "run")
    with pytest.raises(RecipeError, match=r"run already holds a run.*--resume.*--overwrite"):
        quiet(recipe, tmp_path / "run")
    with pytest.raises(RecipeError, match=r"--resume: seed was 0 in .* and is now 1"):
        quiet(small_recipe(epochs=1, seed=1), tmp_path / "run", resume=True)
    assert all(torch.equal(value, before[key]) for key, value in weights(tmp_path / "run").items())
    (tmp_path / "run" / "notes.txt").write_text("mine")
    quiet(small_recipe(epochs=1, seed=1), tmp_path / "run", overwrite=True)
    assert not torch.equal(
        weights(tmp_path / "run")["network.stack.layers.linear1.weight"], before["network.stack.layers.linear1.weight"]
    )
    assert (tmp_path / "run" / "notes.txt").read_text() == "mine"


def test_a_folder_of_other_files_is_left_alone(small_recipe: Make, tmp_path: Path) -> None:
    (tmp_path / "thesis.txt").write_text("mine")
    for flags in ({}, {"overwrite": True}, {"resume": True}):
        with pytest.raises(RecipeError, match="holds files that are not a run"):
            quiet(small_recipe(), tmp_path, **flags)
    assert [path.name for path in tmp_path.iterdir()] == ["thesis.txt"]


def test_a_wrong_recipe_leaves_no_folder(small_recipe: Make, tmp_path: Path) -> None:
    for wrong in (
        {"network": {"class": "SpikingMPL"}},
        {"optimizer": {"class": "AdamW", "lrr": 1}},
        {"accelerator": "quantum"},
        {"trainer": {"precison": 3}},
        {"precision": "31"},
    ):
        with pytest.raises(RecipeError):
            quiet(small_recipe(**wrong), tmp_path / "run")
    assert not (tmp_path / "run").exists()


class Forgetful(nn.Module):
    """A network of one's own without carried state."""

    def __init__(self, classes: int, shape: str = "right") -> None:
        super().__init__()
        self.readout = nn.Linear(64, classes)
        self.shape = shape

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        y: torch.Tensor = self.readout(x.flatten(2))
        return y if self.shape == "right" else y.mean(0)


def test_a_network_of_ones_own(small_recipe: Make, tmp_path: Path) -> None:
    mine = {"class": f"{__name__}.Forgetful"}
    metrics = quiet(small_recipe(network=mine, epochs=1), tmp_path / "run")
    assert metrics["spikes_per_neuron_per_step"] == 0
    with pytest.raises(RecipeError, match="bptt_steps: Forgetful cannot carry state"):
        quiet(small_recipe(network=mine, bptt_steps=1), tmp_path / "other")
    with pytest.raises(RecipeError, match=r"must return logits \[T, B, classes\] = \(3, 2, 10\), got \(2, 10\)"):
        quiet(small_recipe(network={**mine, "shape": "wrong"}), tmp_path / "other")
    with pytest.raises(RecipeError, match="network: SpikingMLP fails on input"):
        quiet(small_recipe(network={"class": "SpikingMLP", "input_shape": [5]}), tmp_path / "other")


def test_thread_count_of_the_recipe_ends_with_the_run(small_recipe: Make, tmp_path: Path) -> None:
    before = torch.get_num_threads()
    torch.set_num_threads(2)
    try:
        quiet(small_recipe(epochs=1), tmp_path)
        assert torch.get_num_threads() == 2
    finally:
        torch.set_num_threads(before)
