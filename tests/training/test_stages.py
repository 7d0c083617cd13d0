"""Trainings in stages: what each starts from, what is reported, and exact continuation in the middle of one."""

from __future__ import annotations

import csv
import json
import os
import shutil
import signal
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from test_resume import differences
from tiny_data import BATCH

from neuromorphic.compiler.checkpoint_cli import load_run
from snn.models import SpikingMLP
from snn.training import Recipe, RecipeError, train
from snn.training.checkpoint import load_checkpoint
from snn.training.command_line import main
from snn.training.data import load_splits
from snn.training.recipe_parse import recipe_from_dict
from snn.training.stages import stage_recipes

TEXT = f"""
data: {{name: 'tiny_data:load', batch_size: {BATCH}, val_fraction: 0.2, shift: 1}}
encoding: {{name: direct, steps: 1}}
network: {{class: SpikingMLP, hidden: [16, 12], dropout: 0.2, dropout_mask: sequence, weight_init: he, neuron: {{class: DIET}}}}
optimizer: {{class: Adam, lr: 0.01}}
epochs: 3
accelerator: cpu
devices: 1
stages:
  - name: ann
    weights_from: null
    recipe: {{network: {{batch_norm: true, neuron: {{class: torch.nn.ReLU}}}}, epochs: 1}}
  - name: T3
    fold_norms: true
    calibrate: {{percentile: 90, steps: 10, images: 20}}
    recipe: {{encoding: {{steps: 3}}}}
  - {{name: T1, revive: true, recipe: {{encoding: {{steps: 1}}, optimizer: {{lr: 0.005}}}}}}
"""
STAGES = ("ann", "T3", "T1")


def recipe_of(folder: Path, text: str = TEXT) -> Path:
    path = folder / "stages.yaml"
    path.write_text(text, encoding="utf-8")
    return path


@pytest.fixture(scope="session")
def finished_stages(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of an uninterrupted run in stages; only to be read."""
    folder = tmp_path_factory.mktemp("stages")
    assert main(["--config", str(recipe_of(folder)), "--run-dir", str(folder / "run")]) == 0
    return folder / "run"


def require_equal(folder: Path, finished: Path) -> None:
    for stage in STAGES:
        for name in ("last", "best"):
            place = f"stages/{stage}/checkpoints/{name}.ckpt"
            one, two = load_checkpoint(folder / place), load_checkpoint(finished / place)
            one.pop("loops")
            two.pop("loops")
            assert differences(one, two) == []
    one, two = (json.loads((run / "metrics.json").read_text()) for run in (folder, finished))
    assert differences(one, two) == []
    assert (folder / "layers.csv").read_text() == (finished / "layers.csv").read_text()


@pytest.mark.parametrize("end", ["SIGKILL 1 3", "SIGINT 2 1"])
def test_ended_in_the_middle_of_a_stage_and_resumed_equals_uninterrupted(
    end: str, in_child: Callable[..., Any], finished_stages: Path, tmp_path: Path
) -> None:
    folder = tmp_path / "run"
    ended = in_child(["--config", str(recipe_of(tmp_path)), "--run-dir", str(folder)], end)
    assert ended.code == (-signal.SIGKILL if "KILL" in end else 130), ended.text
    assert (folder / "stages/ann/stage.json").is_file()
    assert not (folder / "stages/T3/stage.json").exists()
    assert (folder / "stages/T3/checkpoints/last.ckpt").is_file()
    first = (folder / "stages/ann/checkpoints/last.ckpt").stat().st_mtime_ns
    assert main(["--run-dir", str(folder), "--resume"]) == 0
    assert (folder / "stages/ann/checkpoints/last.ckpt").stat().st_mtime_ns == first
    require_equal(folder, finished_stages)


def test_a_finished_run_is_resumed_without_change_and_replaced_on_request(
    finished_stages: Path, tmp_path: Path
) -> None:
    folder = tmp_path / "run"
    shutil.copytree(finished_stages, folder)
    assert main(["--run-dir", str(folder), "--resume"]) == 0
    require_equal(folder, finished_stages)
    assert main(["--config", str(recipe_of(tmp_path)), "--run-dir", str(folder)]) == 2
    stale = folder / "stages" / "old"
    stale.mkdir()
    assert main(["--config", str(recipe_of(tmp_path)), "--run-dir", str(folder), "--overwrite"]) == 0
    assert not stale.exists()
    require_equal(folder, finished_stages)


def test_a_fresh_process_continues_after_finished_stages(finished_stages: Path, tmp_path: Path) -> None:
    folder = tmp_path / "run"
    shutil.copytree(finished_stages, folder)
    shutil.rmtree(folder / "stages" / "T1")
    paths = os.pathsep.join([str(Path(__file__).parent), *filter(None, sys.path)])
    environment = {**os.environ, "PYTHONPATH": paths, "OMP_NUM_THREADS": "1"}
    script = "import sys; from snn.training.command_line import main; sys.exit(main(sys.argv[1:]))"
    command = [sys.executable, "-c", script, "--run-dir", str(folder), "--resume"]
    ended = subprocess.run(command, capture_output=True, text=True, env=environment, check=False)
    assert ended.returncode == 0, ended.stderr
    require_equal(folder, finished_stages)


def test_what_is_reported(finished_stages: Path) -> None:
    metrics = json.loads((finished_stages / "metrics.json").read_text())
    rows = metrics["stages"]
    assert [(row["stage"], row["weights_from"], row["T"]) for row in rows] == [
        ("ann", None, 1),
        ("T3", "ann", 3),
        ("T1", "T3", 1),
    ]
    assert metrics["test_accuracy"] == rows[-1]["test_accuracy"]
    for row in rows:
        assert row["test_accuracy_is_of"].endswith("best on validation")
        history = list(csv.DictReader((finished_stages / "stages" / row["stage"] / "metrics.csv").open()))
        best = max(history, key=lambda entry: float(entry["val_accuracy"]))
        assert float(best["test_accuracy"]) == row["test_accuracy"]
    assert set(rows[1]["thresholds_at_start"]) == {"stack.layers.neuron1", "stack.layers.neuron2"}
    assert rows[1]["transfer"]["copied"]
    assert rows[0]["ann_over_snn_energy"] == pytest.approx(1)
    assert rows[2]["ann_over_snn_energy"] > 1
    table = list(csv.DictReader((finished_stages / "layers.csv").open()))
    assert [(row["stage"], row["layer"]) for row in table[3:6]] == [
        ("T3", "stack.layers.linear1"),
        ("T3", "stack.layers.linear2"),
        ("T3", "stack.layers.readout"),
    ]
    assert float(table[3]["threshold"]) > 0
    assert table[5]["threshold"] == ""
    assert (finished_stages / "stages.png").read_bytes()[:4] == b"\x89PNG"


def test_the_next_stage_starts_from_the_selected_epoch_and_steps_change_only_the_loop(finished_stages: Path) -> None:
    trained = load_run(finished_stages / "stages" / "T3")
    x = trained.x[:1].expand(3, *trained.x.shape[1:])
    three = trained.network(x)
    for T in (1, 2):
        assert torch.equal(trained.network(x[:T]), three[:T])  # so the sums over T are partial sums


def test_the_folder_of_all_stages_stands_for_the_last(finished_stages: Path) -> None:
    whole, last = load_run(finished_stages), load_run(finished_stages / "stages" / "T1")
    assert torch.equal(whole.network(whole.x), last.network(last.x))
    labels = (whole.network(whole.x).mean(0).argmax(1) == whole.labels).double().mean().item()
    assert labels == json.loads((finished_stages / "metrics.json").read_text())["test_accuracy"]


def stages_recipe(**changes: Any) -> Recipe:
    from snn.training.recipe_yaml import read_yaml

    return recipe_from_dict({**read_yaml(TEXT), **changes})


def test_mappings_are_merged_unless_they_name_a_class() -> None:
    recipes = stage_recipes(stages_recipe())
    assert recipes["T1"].optimizer == {"class": "Adam", "lr": 0.005}
    assert recipes["T3"].network["neuron"] == {"class": "DIET"}
    assert recipes["ann"].network["neuron"] == {"class": "torch.nn.ReLU"}
    assert recipes["ann"].network["hidden"] == [16, 12]
    assert (recipes["ann"].epochs, recipes["T3"].epochs, recipes["T3"].encoding.steps) == (1, 3, 3)
    assert all(recipe.stages == [] for recipe in recipes.values())


def test_frozen_tensors_stay_while_frozen(tmp_path: Path) -> None:
    network = {"class": "SpikingMLP", "hidden": [8], "neuron": {"class": "DIET", "v_threshold": 0.2}}
    stages = [
        {"name": "one", "weights_from": None, "recipe": {"epochs": 1}},
        {"name": "two", "skip": ["readout"], "freeze_epochs": 2, "recipe": {"epochs": 2}},
        {"name": "three", "weights_from": "one", "skip": ["readout"], "freeze_epochs": 1, "recipe": {"epochs": 2}},
    ]
    train(stages_recipe(network=network, stages=stages), tmp_path / "run", report=lambda line: None)
    states = {
        name: load_checkpoint(tmp_path / f"run/stages/{name}/checkpoints/{kind}.ckpt")["state_dict"]
        for name, kind in (("one", "best"), ("two", "last"), ("three", "last"))
    }
    hidden, readout = "network.stack.layers.linear1.weight", "network.stack.layers.readout.weight"
    assert torch.equal(states["one"][hidden], states["two"][hidden])
    assert not torch.equal(states["one"][readout], states["two"][readout])
    assert not torch.equal(states["one"][hidden], states["three"][hidden])


@pytest.mark.parametrize(
    ("changes", "text"),
    [
        ({"stages": [{"name": "a"}]}, "a: the first stage has none before it; set weights_from: null"),
        ({"stages": [{"name": "a", "weights_from": None}, {"name": "a"}]}, "the name 'a' is given twice"),
        (
            {"stages": [{"name": "ab", "weights_from": None}, {"name": "b", "weights_from": "aa"}]},
            r"b: weights_from: no earlier stage 'aa'; accepted: ab",
        ),
        ({"stages": [{"name": "a", "weights_from": None, "recipe": {"epoch": 1}}]}, "a: recipe: unknown key 'epoch'"),
        ({"stages": [{"name": "a", "weights_from": None, "recipe": {"seed": 1}}]}, "cannot change stages or seed"),
        ({"stages": [{"name": "a/b", "weights_from": None}]}, "name must be letters"),
        ({"stages": [{"name": "a", "weights_from": None, "skip": ["x"]}]}, "skip needs weights_from"),
        ({"stages": [{"name": "a", "weight_from": None}]}, r"unknown key 'stages\[1\]\.weight_from'"),
        ({"stages": {"name": "a"}}, "stages must be a list"),
        (
            {"stages": [{"name": "a", "weights_from": None}, {"name": "b", "skip": ["readuot"]}]},
            "b: transfer: skip names no tensor of the new network: 'readuot'",
        ),
        (
            {"stages": [{"name": "a", "weights_from": None}, {"name": "b", "recipe": {"network": {"hidden": [9]}}}]},
            "b: transfer: .* has shape",
        ),
        (
            {"network": {"class": "SpikingMLP"}, "stages": [{"name": "a", "weights_from": None, "revive": True}]},
            "a: SpikingMLP has no DIET layer",
        ),
    ],
)
def test_a_wrong_recipe_is_refused_before_the_folder_is_touched(
    changes: dict[str, Any], text: str, tmp_path: Path
) -> None:
    with pytest.raises(RecipeError, match=text):
        train(stages_recipe(**changes), tmp_path / "run")
    assert not (tmp_path / "run").exists()


def test_a_wrong_key_on_the_command_line_is_one_line(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = recipe_of(tmp_path, TEXT.replace("fold_norms", "fold_norm"))
    assert main(["--config", str(path), "--run-dir", str(tmp_path / "run")]) == 2
    error = capsys.readouterr().err
    assert "stages[2].fold_norm" in error
    assert "did you mean 'fold_norms'?" in error
    assert error.count("\n") == 1


def test_fewer_training_images_are_drawn_by_the_seed() -> None:
    recipe = recipe_from_dict({"data": {"name": "tiny_data:load", "batch_size": 12, "train_images": 30}})
    first, second = (load_splits(recipe.data, seed).train_rows for seed in (0, 1))
    assert len(first) == len(set(first.tolist())) == 30
    assert not torch.equal(first, second)
    with pytest.raises(RecipeError, match="train_images must be at most 60, got 61"):
        load_splits(recipe_from_dict({"data": {"name": "tiny_data:load", "train_images": 61}}).data, 0)


def test_a_dropout_mask_of_the_sequence_is_the_same_at_all_steps_and_another_in_the_next_call() -> None:
    torch.manual_seed(0)
    kinds = {}
    for mask in ("step", "sequence"):
        net = SpikingMLP((4,), 3, (200,), "LIF", dropout=0.5, dropout_mask=mask)  # type: ignore[arg-type]
        seen: list[torch.Tensor] = []
        net.stack.layers["dropout1"].register_forward_hook(lambda module, inputs, z, seen=seen: seen.append(z))
        net.stack.layers["neuron1"].register_forward_hook(lambda module, inputs, z: torch.ones_like(z))
        net(torch.rand(6, 2, 4))
        net(torch.rand(6, 2, 4))
        first, second = (z.view(6, 2, 200) for z in seen)
        assert set(first.unique().tolist()) == {0.0, 2.0}
        kinds[mask] = bool((first == first[0]).all()), torch.equal(first[0], second[0])
    assert kinds == {"step": (False, False), "sequence": (True, False)}
    with pytest.raises(ValueError, match="dropout_mask must be"):
        SpikingMLP((4,), 3, dropout=0.5, dropout_mask="time")  # type: ignore[arg-type]


@pytest.mark.slow
def test_the_chain_on_digits_reaches_one_step_where_the_direct_way_does_not_start(tmp_path: Path) -> None:
    from snn.training.command_line import parse

    _, recipe = parse(["--config", "digits_iir", "--run-dir", str(tmp_path / "run")])
    direct = {
        "name": "direct",
        "weights_from": "ann",
        "calibrate": {"percentile": 90, "steps": 500, "images": 256},
        "recipe": {"encoding": {"steps": 1}, "epochs": 20},
    }
    from snn.training.recipe import recipe_to_dict

    given = recipe_to_dict(recipe)
    given["stages"] = [*given["stages"], direct]
    rows = train(recipe_from_dict(given), tmp_path / "run", report=lambda line: None)["stages"]
    accuracy = {row["stage"]: row["test_accuracy"] for row in rows}
    chain = [row for row in rows if row["stage"] in ("T5", "T4", "T3", "T2", "T1")]
    assert accuracy["T1"] > accuracy["direct"] + 0.4
    assert accuracy["T5"] > 0.93
    spikes = [row["spikes_per_neuron"] for row in chain]
    assert spikes == sorted(spikes, reverse=True)
    thresholds = [sum(layer["threshold"] for layer in row["layers"] if layer["threshold"]) for row in chain]
    assert sum(chain[0]["thresholds_at_start"].values()) > thresholds[0] > thresholds[-1]
    assert rows[-1]["weights_without_gradient"]
