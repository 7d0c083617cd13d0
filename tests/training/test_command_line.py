"""Mistakes in a recipe or on the command line: exit code 2, no traceback, and the wrong key by name."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from tiny_data import recipe_file

import snn
from neuromorphic.cli import main as spikeloop
from snn.training.command_line import main, parse
from snn.training.recipe import DataOptions, EncodingOptions, LossOptions, Recipe, ScheduleOptions

MISTAKES = {
    # text of the recipe: what the message must contain
    "epoch: 3": ["'epoch'", "did you mean 'epochs'"],
    "data: {name: digits, batchsize: 3}": ["'data.batchsize'", "did you mean 'batch_size'"],
    "schedule: {nam: cosine}": ["'schedule.nam'", "did you mean 'name'"],
    "1: 2": ["unknown key '1'"],
    "epochs: three": ["epochs", "three"],
    "epochs: 2.5": ["epochs", "2.5"],
    "epochs: 0": ["epochs must be >= 1, got 0"],
    "data: {batch_size: 0}": ["data.batch_size must be >= 1, got 0"],
    "data: {batch_size: [3]}": ["batch_size"],
    "data: digits": ["data must be a mapping", "'digits'"],
    "data: {val_fraction: 1.0}": ["data.val_fraction must be in [0, 1), got 1.0"],
    "data: {name: digits, val_fraction: 0.0001}": ["data.val_fraction", "less than one image"],
    "data: {name: digits, batch_size: 9999}": ["data.batch_size must be at most the 1437 training images, got 9999"],
    "data: {name: digit}": ["data.name", "'digit'", "did you mean 'digits'"],
    "data: {name: 'nowhere:load'}": ["data.name 'nowhere:load'", "cannot be imported"],
    "data: {name: 'tiny_data:lod'}": ["data.name 'tiny_data:lod'", "cannot be imported"],
    "data: {name: ':load'}": ["data.name ':load'", "cannot be imported"],
    "encoding: {name: poisson}": ["encoding.name", "poisson", "latency"],
    "encoding: {steps: 0}": ["encoding.steps must be >= 1, got 0"],
    "loss: {on: max}": ["loss.on", "max", "steps"],
    "loss: {label_smoothing: 1}": ["loss.label_smoothing must be in [0, 1), got 1"],
    "schedule: {warmup_epochs: 30}": ["schedule.warmup_epochs must be at most epochs = 10, got 30"],
    "seed: -1": ["seed must be in [0, 2**63), got -1"],
    "clip_norm: 0": ["clip_norm must be > 0 or null, got 0"],
    "bptt_steps: 0": ["bptt_steps must be >= 1 or null, got 0"],
    "network: SpikingMLP": ["network", "SpikingMLP"],
    "network: {hidden: [3]}": ["network must be a mapping with the key 'class'"],
    "network: {class: SpikingMPL}": ["network.class", "'SpikingMPL'", "did you mean 'SpikingMLP'"],
    "network: {class: 3}": ["network.class must be a name, got 3"],
    "network: {class: os.path}": ["network.class", "'os.path'"],
    "network: {class: torch.optim.SGD}": ["network.class", "'torch.optim.SGD' is not a Module"],
    "network: {class: nowhere.Net}": ["network.class", "'nowhere.Net' cannot be imported"],
    "network: {class: ..Net}": ["network.class", "cannot be imported"],
    "network: {class: SpikingMLP, hiden: [3]}": ["network.hiden", "did you mean 'hidden'"],
    "network: {class: SpikingMLP, hidden: 3}": ["hidden must be a list of positive numbers, got 3"],
    "network: {class: SpikingMLP, hidden: [-3]}": ["hidden must be a list of positive numbers, got [-3]"],
    "network: {class: SpikingMLP, dropout: 2}": ["dropout", "2"],
    "network: {class: SpikingMLP, readout: LIF}": ["readout must be 'linear' or 'LI', got 'LIF'"],
    "network: {class: SpikingMLP, neuron: LIFE}": ["neuron", "'LIFE'", "did you mean 'LIF'"],
    "network: {class: SpikingMLP, neuron: {class: LIF, taw: 2.0}}": ["neuron: LIF", "'taw'", "did you mean 'tau'"],
    "network: {class: SpikingMLP, neuron: {class: LIF, tau: 0.5}}": ["neuron: LIF", "tau must be > 1"],
    "network: {class: SpikingMLP, neuron: {class: LIF, step_mode: s}}": ["step_mode must be 'm'"],
    "network: {class: SpikingMLP, neuron: {tau: 2.0}}": ["neuron: a mapping needs the key 'class'"],
    "network: {class: SpikingMLP, neuron: nowhere.LIF}": ["neuron: 'nowhere.LIF' cannot be imported"],
    "network: {class: tiny_data.StatelessNetwork}\nbptt_steps: 2": ["bptt_steps", "StatelessNetwork", "'state'"],
    "network: {class: tiny_data.WholeSequenceNetwork}": [
        "network: WholeSequenceNetwork must return",
        "(4, 2, 10)",
        "(2, 10)",
    ],
    "network: {class: tiny_data.StatelessNetwork}": ["network: StatelessNetwork fails on images (1, 8, 8)"],
    "network: {class: SpikingMLP, neuron: {class: LIF, surrogate_function: ATann}}": ["'ATann'", "did you mean 'ATan'"],
    "network: {class: SpikingMLP, neuron: {class: LIF, surrogate_function: {class: ATan, a: 1}}}": ["ATan", "'a'"],
    "network: {class: SpikingConvNet, neuron: RecurrentLIF, channels: [3]}": ["neuron: RecurrentLIF", "'recurrent'"],
    "threads: 0": ["threads must be >= 1 or null, got 0"],
    "optimizer: {lr: 3}": ["optimizer must be a mapping with the key 'class'"],
    "optimizer: {class: AdamV}": ["optimizer.class", "'AdamV'", "did you mean 'Adam"],
    "optimizer: {class: torch.nn.Linear}": ["optimizer.class", "'torch.nn.Linear' is not a Optimizer"],
    "optimizer: {class: AdamW, learning_rate: 3}": ["optimizer.learning_rate", "AdamW has no such argument"],
    "optimizer: {class: AdamW, lr: fast}": ["optimizer: AdamW(lr='fast')"],
    "optimizer: {class: SGD, lr: -1.0}": ["optimizer: SGD(lr=-1.0)", "-1.0"],
    "trainer: {max_epochs: 3}": ["trainer.max_epochs"],
    "trainer: {detect_anomali: true}": ["trainer.detect_anomali", "did you mean 'detect_anomaly'"],
    "trainer: {devices: 2}": ["trainer.devices: give it as devices"],
    "accelerator: abacus": ["accelerator", "abacus"],
    "strategy: by_hand": ["strategy", "by_hand"],
    "precision: 12-bit": ["precision", "12-bit"],
    "epochs: 3\nepochs: 4": ["'epochs' is given twice", "line 2"],
    "epochs: [": ["not YAML"],
    "- epochs": ["must hold keys and values, got list"],
    "just words": ["must hold keys and values, got str"],
}


def run_recipe(text: str, folder: Path, *arguments: str) -> int:
    recipe = folder / "wrong.yaml"
    recipe.write_text(text, encoding="utf-8")
    return main(["--config", str(recipe), "--run-dir", str(folder / "run"), *arguments])


@pytest.mark.parametrize("text", MISTAKES)
def test_wrong_recipe_is_named_and_leaves_no_folder(
    text: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run_recipe(text, tmp_path) == 2
    error = capsys.readouterr().err
    assert error.startswith("error: ")
    for part in MISTAKES[text]:
        assert part in error
    assert not (tmp_path / "run").exists()


FLAG_MISTAKES = {
    "--epoch 3": ["unknown flag --epoch", "did you mean 'epochs'"],
    "--epochs": ["--epochs needs a value"],
    "--epochs --seed 3": ["--epochs needs a value"],
    "--epochs [": ["--epochs", "not YAML"],
    "--data.batch 3": ["'data.batch'"],
    "--data.name.x 3": ["--data.name.x", "has no keys"],
    "--resume --overwrite": ["--resume and --overwrite exclude each other"],
    "--resume=3": ["resume"],
    "surplus": ["surplus"],
}


@pytest.mark.parametrize("line", FLAG_MISTAKES)
def test_wrong_flag_is_named(line: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    arguments = ["--config", str(recipe_file(tmp_path)), "--run-dir", str(tmp_path / "run"), *line.split()]
    assert main(arguments) == 2
    error = capsys.readouterr().err
    for part in FLAG_MISTAKES[line]:
        assert part in error
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize(
    ("arguments", "part"),
    [
        (["--config", "digits"], "--run-dir is missing"),
        (["--run-dir", "x"], "--config is missing"),
        (["--config", "digit", "--run-dir", "x"], "did you mean 'digits'"),
        (["--config", "no/such.yaml", "--run-dir", "x"], "no file 'no/such.yaml'"),
        (["--config", "nothing-near", "--run-dir", "x", "--resume"], "digits"),
    ],
)
def test_missing_file_or_folder_is_named(arguments: list[str], part: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(arguments) == 2
    assert part in capsys.readouterr().err


def test_existing_run_needs_a_decision(finished_run: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    before = (finished_run / "metrics.json").read_bytes()
    assert main(["--config", str(recipe_file(tmp_path)), "--run-dir", str(finished_run)]) == 2
    error = capsys.readouterr().err
    assert "--resume" in error
    assert "--overwrite" in error
    assert (finished_run / "metrics.json").read_bytes() == before


def test_overwrite_replaces_the_run_and_nothing_else(tmp_path: Path) -> None:
    folder = tmp_path / "run"
    recipe = str(recipe_file(tmp_path))
    assert main(["--config", recipe, "--run-dir", str(folder), "--epochs=2"]) == 0
    (folder / "notes.txt").write_text("mine")
    assert main(["--config", recipe, "--run-dir", str(folder), "--epochs=1", "--overwrite"]) == 0
    assert len((folder / "metrics.csv").read_text().splitlines()) == 2
    assert len(list((folder / "tensorboard").iterdir())) == 1
    assert (folder / "notes.txt").read_text() == "mine"


@pytest.mark.parametrize("flag", ["", "--resume", "--overwrite"])
def test_folder_with_other_files_is_not_touched(flag: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    folder = tmp_path / "run"
    folder.mkdir()
    (folder / "thesis.txt").write_text("years of work")
    arguments = ["--config", str(recipe_file(tmp_path)), "--run-dir", str(folder), *filter(None, [flag])]
    assert main(arguments) == 2
    assert "holds files that are not a run" in capsys.readouterr().err
    assert [path.name for path in folder.iterdir()] == ["thesis.txt"]


def test_run_dir_that_is_a_file(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "run").write_text("")
    assert main(["--config", str(recipe_file(tmp_path)), "--run-dir", str(tmp_path / "run")]) == 2
    assert "is a file" in capsys.readouterr().err


def test_overrides_reach_the_recipe(tmp_path: Path) -> None:
    neuron = {"class": "LIF", "tau": 3, "detach_reset": True}
    options, recipe = parse(
        [
            *("--config=digits", "--run-dir", str(tmp_path), "--epochs", "3", "--data.batch-size=32", "--seed=5"),
            *("--network.hidden", "[7, 8]", "--network.neuron.tau=3", "--optimizer.lr", "1e-3", "--clip_norm=1e0"),
            *("--devices", "[0]", "--loss.on", "steps"),
        ]
    )
    assert options["run_dir"] == tmp_path
    assert recipe == Recipe(
        data=DataOptions(name="digits", batch_size=32),
        encoding=EncodingOptions(name="direct", steps=4),
        network={"class": "SpikingMLP", "hidden": [7, 8], "batch_norm": True, "neuron": neuron},
        optimizer={"class": "AdamW", "lr": 0.001, "weight_decay": 0.01},
        schedule=ScheduleOptions(name="cosine", warmup_epochs=1),
        loss=LossOptions(on="steps"),
        clip_norm=1.0,
        epochs=3,
        seed=5,
        devices=[0],
        threads=1,
    )


@pytest.mark.parametrize("command", [main, lambda arguments: spikeloop(["train", *arguments])])
def test_help_lists_flags_and_recipe_keys(command: object, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as stop:
        command(["--help"])  # type: ignore[operator]
    assert stop.value.code == 0
    text = capsys.readouterr().out
    for part in ("--config", "--run_dir", "--resume", "--overwrite", "--data.batch_size", "--encoding.steps"):
        assert part in text


def test_command_names_its_subcommands(capsys: pytest.CaptureFixture[str]) -> None:
    assert spikeloop(["--help"]) == 0
    assert "train" in capsys.readouterr().out
    assert spikeloop([]) == 2
    assert "train" in capsys.readouterr().out


def test_unknown_subcommand_names_the_closest(capsys: pytest.CaptureFixture[str]) -> None:
    assert spikeloop(["tran"]) == 2
    captured = capsys.readouterr()
    assert "unknown subcommand 'tran'; did you mean 'train'?" in captured.err
    assert captured.out == ""


def test_version_needs_no_torch() -> None:
    code = (
        "import sys; from neuromorphic.cli import main; code = main(['--version']); "
        "sys.exit(code or 10 * ('torch' in sys.modules))"
    )
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(filter(None, sys.path))}
    ended = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, env=environment, timeout=60)
    assert ended.returncode == 0, ended.stderr
    assert ended.stdout.strip()


def test_console_command_trains(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    recipe = str(recipe_file(tmp_path))
    assert spikeloop(["train", "--config", recipe, "--run-dir", str(tmp_path / "run"), "--epochs=1"]) == 0
    text = capsys.readouterr().out
    for part in ("test accuracy", "(epoch 1, the last)", "spikes per neuron", "time per epoch", "raster.png"):
        assert part in text


def test_names_of_neurons_in_recipes_are_those_of_snn() -> None:
    from snn.models.neuron_choice import make_neuron

    for neuron in snn.NEURONS.values():
        if neuron is not snn.RecurrentLIF:  # needs its number of neurons
            assert type(make_neuron(neuron.__name__)) is neuron


def test_missing_library_is_one_line(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setitem(sys.modules, "jsonargparse", None)
    assert main(["--config", "digits", "--run-dir", str(tmp_path / "run")]) == 2
    assert "pip install 'spikeloop[train]'" in capsys.readouterr().err


def test_double_precision_trains_in_double(tmp_path: Path) -> None:
    arguments = ["--config", str(recipe_file(tmp_path)), "--run-dir", str(tmp_path / "run"), "--precision=64-true"]
    assert main([*arguments, "--epochs=1"]) == 0
    weights = torch.load(tmp_path / "run/checkpoints/last.ckpt", weights_only=True)["state_dict"]
    assert weights["network.stack.layers.linear1.weight"].dtype == torch.float64
