"""What a run leaves in its folder, and which epoch its test accuracy is of."""

from __future__ import annotations

import csv
import json
import os
import re
import signal
import socket
import subprocess
import sys
from pathlib import Path

import pytest
import torch
import yaml
from tiny_data import BATCH, TEST, TRAIN, recipe_file

from snn.training.checkpoint import load_checkpoint
from snn.training.command_line import main, parse
from snn.training.recorder import Recorder
from snn.training.run_folder import RunFolder

ROOT = Path(__file__).parents[2]


def rows(folder: Path) -> list[dict[str, str]]:
    with (folder / "metrics.csv").open() as file:
        return list(csv.DictReader(file))


def test_config_gives_the_same_recipe_again(finished_run: Path, tmp_path: Path) -> None:
    given = parse(["--config", str(recipe_file(tmp_path)), "--run-dir", "x"])[1]
    assert parse(["--config", str(finished_run / "config.yaml"), "--run-dir", "x"])[1] == given


def test_metrics_hold_the_figures(finished_run: Path) -> None:
    metrics = json.loads((finished_run / "metrics.json").read_text())
    last = rows(finished_run)[-1]
    assert metrics["epochs"] == 4
    assert metrics["test_accuracy"] == float(last["test_accuracy"])
    assert metrics["test_accuracy_is_of"] == "epoch 4, the last"
    assert metrics["train_seconds"] == pytest.approx(sum(float(row["seconds"]) for row in rows(finished_run)), abs=0.01)
    assert metrics["spikes_per_neuron_per_step"] == float(last["spikes_per_neuron_per_step"])
    assert 0 < metrics["spikes_per_neuron_per_step"] < 1
    assert metrics["spikes_per_neuron"] == 5 * metrics["spikes_per_neuron_per_step"]
    assert (metrics["train_images"], metrics["validation_images"], metrics["test_images"]) == (TRAIN, 0, TEST)


def test_history_has_one_row_per_epoch(finished_run: Path) -> None:
    assert [row["epoch"] for row in rows(finished_run)] == ["1", "2", "3", "4"]
    assert (finished_run / "metrics.csv").read_text().count("epoch,") == 1


def test_checkpoints_say_what_was_run(finished_run: Path) -> None:
    for name in ("last", "best"):
        content = load_checkpoint(finished_run / "checkpoints" / f"{name}.ckpt")
        record = content["spikeloop"]
        assert record["recipe"] == yaml.safe_load((finished_run / "config.yaml").read_text())
        assert record["seed"] == 0
        assert record["environment"]["versions"]["torch"] == torch.__version__
        assert set(record["generators"]) == {"python", "numpy", "torch", "cuda"}
        assert "network.stack.layers.linear1.weight" in content["state_dict"]
    assert content["global_step"] == len(content["callbacks"]["Recorder"]["history"]) * (TRAIN // BATCH)


def test_tensorboard_has_every_epoch_once(finished_run: Path) -> None:
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    events = EventAccumulator(str(finished_run / "tensorboard"))
    events.Reload()
    scalars = events.Scalars("test_accuracy")
    assert [event.step for event in scalars] == [1, 2, 3, 4]
    expected = [float(row["test_accuracy"]) for row in rows(finished_run)]
    assert [event.value for event in scalars] == pytest.approx(expected)


@pytest.mark.parametrize("name", ["accuracy.png", "raster.png"])
def test_pictures_show_something(name: str, finished_run: Path) -> None:
    from matplotlib.image import imread

    picture = imread(finished_run / name)[..., :3]
    assert min(picture.shape[:2]) > 200
    assert 0.005 < (picture < 0.9).any(-1).mean() < 0.7


def train(folder: Path, *arguments: str) -> Path:
    run = folder / "run"
    assert main(["--config", str(recipe_file(folder)), "--run-dir", str(run), *arguments]) == 0
    return run


def weights(run: Path) -> torch.Tensor:
    state = load_checkpoint(run / "checkpoints" / "last.ckpt")["state_dict"]
    return torch.cat([value.flatten().double() for value in state.values()])


def test_same_seed_same_weights_other_seed_others(finished_run: Path, tmp_path: Path) -> None:
    torch.manual_seed(77)
    for seed in ("0", "1"):
        (tmp_path / seed).mkdir()
    assert torch.equal(weights(train(tmp_path / "0")), weights(finished_run))
    assert not torch.equal(weights(train(tmp_path / "1", "--seed=1")), weights(finished_run))


def test_gradient_is_clipped_to_the_norm(tmp_path: Path) -> None:
    steps = ["--epochs=1", "--optimizer={class: SGD, lr: 1.0}", "--schedule={name: constant}", "--clip_norm=1e-3"]
    first = train(tmp_path, *steps, "--trainer.limit_train_batches=1", "--network.batch_norm=false")
    (tmp_path / "two").mkdir()
    second = train(tmp_path / "two", *steps, "--trainer.limit_train_batches=2", "--network.batch_norm=false")
    assert float((weights(first) - weights(second)).norm()) == pytest.approx(1e-3, rel=1e-3)


def test_validation_chooses_the_epoch(tmp_path: Path) -> None:
    run = train(tmp_path, "--data.val_fraction=0.4")
    history = rows(run)
    best = max(history, key=lambda row: float(row["val_accuracy"]))
    metrics = json.loads((run / "metrics.json").read_text())
    assert metrics["test_accuracy_is_of"] == f"epoch {best['epoch']}, best on validation"
    assert metrics["test_accuracy"] == float(best["test_accuracy"])
    assert (metrics["train_images"], metrics["validation_images"]) == (36, 24)
    assert load_checkpoint(run / "checkpoints" / "best.ckpt")["epoch"] == int(best["epoch"]) - 1


@pytest.mark.parametrize(("has_validation", "best"), [(True, 1), (False, 2)])
def test_test_accuracy_never_chooses(has_validation: bool, best: int, tmp_path: Path) -> None:
    recorder = Recorder(RunFolder(tmp_path), has_validation, print)
    recorder.history = [
        {"epoch": 1, "train_loss": 0.3, "val_accuracy": 0.9, "test_accuracy": 0.1},
        {"epoch": 2, "train_loss": 0.1, "val_accuracy": 0.9, "test_accuracy": 0.2},
        {"epoch": 3, "train_loss": 0.2, "val_accuracy": 0.5, "test_accuracy": 0.9},
    ]
    assert recorder.best_epoch() == best


def test_truncated_training_runs(tmp_path: Path) -> None:
    assert len(rows(train(tmp_path, "--bptt_steps=2", "--epochs=1"))) == 1


def test_no_training_step_is_an_error(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    arguments = ["--config", str(recipe_file(tmp_path)), "--run-dir", str(tmp_path / "run")]
    assert main([*arguments, "--trainer.limit_train_batches=0"]) == 2
    assert "no training step" in capsys.readouterr().err


def test_digits_are_learned(tmp_path: Path) -> None:
    arguments = ["--config", "digits", "--run-dir", str(tmp_path / "run"), "--epochs=4", "--accelerator=cpu"]
    assert main([*arguments, "--network.neuron.backend=reference", "--devices=1"]) == 0
    assert json.loads((tmp_path / "run" / "metrics.json").read_text())["test_accuracy"] > 0.9


@pytest.mark.slow
def test_two_processes_train_on_the_same_batches(finished_run: Path, tmp_path: Path) -> None:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    environment = {
        **os.environ,
        "PYTHONPATH": os.pathsep.join([str(Path(__file__).parent), *filter(None, sys.path)]),
        "OMP_NUM_THREADS": "1",
        "MASTER_ADDR": "127.0.0.1",
        "MASTER_PORT": str(port),
    }
    # Without random draws inside the network the two halves of each batch give the gradient of the whole.
    options = [
        *("--network={class: SpikingMLP, hidden: [16], neuron: {class: LIF, backend: reference}}", "--epochs=2"),
        *("--encoding.name=direct", "--data.shift=0", "--data.flip=false", "--optimizer={class: SGD, lr: 0.5}"),
    ]
    (tmp_path / "two").mkdir()
    alone, two = train(tmp_path, *options), tmp_path / "two" / "run"
    arguments = ["--config", str(recipe_file(tmp_path / "two")), "--run-dir", str(two), *options]
    arguments += ["--devices=2", "--accelerator=cpu", "--strategy=ddp"]
    ended = subprocess.Popen(
        [sys.executable, str(ROOT / "scripts" / "train.py"), *arguments],
        stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, env=environment, start_new_session=True,
    )  # fmt: skip
    try:
        text, _ = ended.communicate(timeout=200)
    except subprocess.TimeoutExpired:
        os.killpg(ended.pid, signal.SIGKILL)
        raise
    assert ended.returncode == 0, text
    assert len(re.findall("test accuracy ", text)) == 1
    torch.testing.assert_close(weights(two), weights(alone), rtol=1e-4, atol=1e-6)
    for one, other in zip(rows(alone), rows(two), strict=True):
        assert float(one["train_loss"]) == pytest.approx(float(other["train_loss"]), rel=1e-4)
        assert one["test_accuracy"] == other["test_accuracy"]


def test_thread_count_of_the_recipe_lasts_for_the_run_only(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    counts = []
    set_count = torch.set_num_threads
    before = torch.get_num_threads()
    monkeypatch.setattr(torch, "set_num_threads", lambda count: counts.append(count) or set_count(count))
    train(tmp_path, "--epochs=1", "--threads=2")
    assert counts[0] == 2
    assert torch.get_num_threads() == before
