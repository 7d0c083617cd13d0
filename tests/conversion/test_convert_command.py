"""The command convert: run folders and files of weights to folders that the other commands read."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn

from snn.conversion.command_line import main
from snn.conversion.layer_report import LayerSums
from snn.conversion.run_network import ConvertedRun, plain_network
from snn.models import AnalogMLP, AnalogVGG
from snn.training import Recipe, train
from snn.training.recipe import DataOptions, EncodingOptions
from tests.conversion.looped_network import dyadic_images, looped_network

STAGES = [[4], [8]]


class SmallNet(nn.Module):
    """A network as users write it, with functions in its forward."""

    def __init__(self, width: int = 6, classes: int = 10) -> None:
        super().__init__()
        self.conv = nn.Conv2d(1, width, 3, padding=1)
        self.fc = nn.Linear(width * 16, classes)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        y: torch.Tensor = self.fc(torch.nn.functional.avg_pool2d(torch.relu(self.conv(x)), 2).flatten(1))
        return y


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A short run of a small ReLU network on the digits."""
    folder = tmp_path_factory.mktemp("runs") / "ann"
    network: dict[str, Any] = {
        "class": "AnalogVGG",
        "stages": STAGES,
        "hidden": [16],
        "pool": "average",
        "batch_norm": True,
    }
    recipe = Recipe(
        data=DataOptions("digits", batch_size=48),
        encoding=EncodingOptions(steps=1),
        network=network,
        optimizer={"class": "SGD", "lr": 0.05, "momentum": 0.9},
        epochs=3,
        threads=1,
    )
    train(recipe, folder, report=lambda line: None)
    return folder


@pytest.fixture(scope="module")
def converted(trained: Path) -> Path:
    folder = trained.parent / "snn"
    arguments = ["--recipe", "rate", "--option", "percentile=99", "--T", "8", "--samples", "200"]
    assert main([str(trained), "--run-dir", str(folder), *arguments]) == 0
    return folder


def weights_file(folder: Path, **arguments: Any) -> Path:
    torch.manual_seed(0)
    file = folder / "net.pt"
    torch.save(SmallNet(**arguments).state_dict(), file)
    return file


def test_run_folder_is_complete(converted: Path) -> None:
    names = {path.name for path in converted.iterdir()}
    assert names == {
        "config.yaml",
        "environment.json",
        "checkpoints",
        "metrics.json",
        "report.json",
        "report.md",
        "accuracy.png",
        "errors.png",
        "rates.png",
    }
    report, metrics = (json.loads((converted / name).read_text()) for name in ("report.json", "metrics.json"))
    assert report["images"] == metrics["test_images"] == 200
    assert report["accuracy"][-1] == metrics["test_accuracy"] > 0.5
    assert [path.name for path in converted.parent.glob(".*")] == []


def test_loaded_network_equals_the_conversion(converted: Path, trained: Path) -> None:
    from neuromorphic.compiler.checkpoint_cli import load_run

    loaded = load_run(converted, samples=200)
    assert isinstance(loaded.network, ConvertedRun)
    with torch.no_grad():
        steps = loaded.network(loaded.x)
        direct = loaded.network.network(loaded.x[0], return_all_steps=True)
    cumulative = steps.cumsum(0) / torch.arange(1, 9).view(-1, 1, 1)
    torch.testing.assert_close(cumulative, direct, rtol=1e-4, atol=1e-4)
    report = json.loads((converted / "report.json").read_text())
    rows = torch.linspace(0, 359, 200).round().long()
    images, labels = __import__("spikedata").load("digits", split="test").batch(rows)
    accuracy = (loaded.network.network(images).argmax(1) == labels).double().mean()
    assert float(accuracy) == pytest.approx(report["accuracy"][-1], abs=0.006)


@pytest.mark.parametrize("engine", ["torch", "event"])
def test_simulate_runs_the_folder(converted: Path, engine: str, tmp_path: Path) -> None:
    from neuromorphic.compiler.checkpoint_cli import main as simulate

    file = tmp_path / "out.json"
    options = ["--engine", engine, "--samples", "60", "--json", str(file)]
    assert simulate(["--checkpoint", str(converted), *options]) == 0
    found = json.loads(file.read_text())
    assert found["T"] == 8
    assert found["equal_predictions"] >= 0.98
    assert found["torch_accuracy"] > 0.5


def test_integer_engine_is_refused_by_name(converted: Path, capsys: pytest.CaptureFixture[str]) -> None:
    from neuromorphic.compiler.checkpoint_cli import main as simulate

    assert simulate(["--checkpoint", str(converted), "--engine", "int:loihi", "--samples", "20"]) == 2
    assert "--engine int:loihi: converted neurons start at a membrane" in capsys.readouterr().err


def test_energy_counts_additions_behind_spikes(converted: Path, tmp_path: Path) -> None:
    from neuromorphic.energy.command_line import main as energy

    file = tmp_path / "energy.json"
    options = ["--targets", "none", "--models", "45nm", "--samples", "10", "--json", str(file)]
    assert energy([str(converted), *options]) == 0
    text = file.read_text()
    assert "conv2_1" in text
    from neuromorphic.energy import count
    from neuromorphic.energy.runs import from_run

    case = from_run(converted, 10)
    counts = count(case.network, case.x, input_signal=case.input_signal, call=case.call)
    layers = {layer.name: layer for layer in counts.layers}
    assert layers["network.body.readout"].input_signal.is_binary
    assert layers["network.body.conv2_1"].input_signal.kind == "spikes"  # averages of four spikes
    assert 0 < int(layers["network.body.readout"].synops.sum()) < layers["network.body.readout"].dense_synops * 80


@pytest.mark.parametrize("recipe", ["cnn-morph", "srp"])
def test_energy_of_conversions_whose_steps_differ(trained: Path, tmp_path: Path, recipe: str) -> None:
    from neuromorphic.energy.command_line import main as energy

    folder, file, html = tmp_path / "snn", tmp_path / "out.json", tmp_path / "energy.html"
    assert main([str(trained), "--run-dir", str(folder), "--recipe", recipe, "--T", "18", "--samples", "30"]) == 0
    options = ["--targets", "loihi", "--models", "45nm,lemaire", "--samples", "6"]
    assert energy([str(folder), *options, "--json", str(file), "--html", str(html)]) == 0
    (found,) = json.loads(file.read_text())["runs"]
    assert found["steps"] == (18 if recipe == "cnn-morph" else 22)
    assert len(found["accuracy_by_step"]) == 18
    layers = {layer["name"]: layer for layer in found["counts"]["layers"]}
    signal = {"kind": "spikes", "levels": 1, "signed": recipe == "cnn-morph"}
    assert layers["network.body.readout"]["input_signal"] == signal


def test_preparations_are_refused_by_the_event_engine(
    trained: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    from neuromorphic.compiler.checkpoint_cli import main as simulate

    folder = tmp_path / "snn"
    assert main([str(trained), "--run-dir", str(folder), "--recipe", "srp", "--T", "4", "--samples", "30"]) == 0
    capsys.readouterr()
    assert simulate(["--checkpoint", str(folder), "--engine", "event", "--samples", "5"]) == 2
    assert "--engine event: a first run of 4 steps sets masks" in capsys.readouterr().err


@pytest.mark.slow  # the neurons are compiled twice, for the run and for the comparison in float64
def test_simulate_runs_sum_coding_spike_by_spike(trained: Path, tmp_path: Path) -> None:
    from neuromorphic.compiler.checkpoint_cli import main as simulate

    folder, file = tmp_path / "snn", tmp_path / "out.json"
    command = [str(trained), "--run-dir", str(folder), "--recipe", "cnn-morph", "--T", "18", "--samples", "30"]
    assert main(command) == 0
    assert simulate(["--checkpoint", str(folder), "--engine", "event", "--samples", "20", "--json", str(file)]) == 0
    figures = json.loads(file.read_text())
    assert figures["equal_predictions"] >= 0.95
    assert figures["equal_spikes"] > 0.999
    assert figures["torch_accuracy"] > 0.5


def test_conversions_whose_steps_differ_are_refused_by_engines(
    trained: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    from neuromorphic.compiler.checkpoint_cli import main as simulate
    from neuromorphic.energy.command_line import main as energy

    folder = tmp_path / "td"
    assert main([str(trained), "--run-dir", str(folder), "--recipe", "td", "--T", "3", "--samples", "30"]) == 0
    report = json.loads((folder / "report.json").read_text())
    assert report["coding"] == "sum"
    assert report["agreement"] == [1.0, 1.0, 1.0]
    assert simulate(["--checkpoint", str(folder), "--engine", "torch", "--samples", "30"]) == 0
    capsys.readouterr()
    assert simulate(["--checkpoint", str(folder), "--engine", "event", "--samples", "5"]) == 2
    assert "sends real values, not events; use --engine torch" in capsys.readouterr().err
    assert energy([str(folder), "--targets", "none", "--samples", "5"]) == 2
    assert "sends real values and works its function out anew in each step" in capsys.readouterr().err


def test_file_of_weights_with_its_class(tmp_path: Path) -> None:
    file, folder = weights_file(tmp_path, width=3), tmp_path / "out"
    model = ["--model", f"{__name__}:SmallNet", "--model-args", "{width: 3}", "--data", "digits"]
    report = tmp_path / "report.json"
    arguments = [str(file), *model, "--T", "4", "--samples", "50", "--run-dir", str(folder), "--json", str(report)]
    assert main(arguments) == 0
    assert report.read_text() == (folder / "report.json").read_text()
    from neuromorphic.compiler.checkpoint_cli import load_run

    loaded = load_run(folder, samples=5)
    assert loaded.network(loaded.x).shape == (4, 5, 10)


def test_target_accuracy_takes_the_fewest_steps(trained: Path, converted: Path, tmp_path: Path) -> None:
    curve = json.loads((converted / "report.json").read_text())["accuracy"]
    wanted = curve[3]
    common = ["--option", "percentile=99", "--samples", "200", "--run-dir", str(tmp_path / "out")]
    assert main([str(trained), *common, "--target-accuracy", str(wanted), "--max-T", "8"]) == 0
    report = json.loads((tmp_path / "out" / "report.json").read_text())
    first = next(step for step, value in enumerate(curve, 1) if value >= wanted)
    assert report["T"] == first
    assert report["accuracy"][-1] >= wanted


def test_unreachable_target_is_an_error(trained: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    options = ["--target-accuracy", "1.0", "--max-T", "1", "--samples", "100", "--run-dir", str(tmp_path / "out")]
    assert main([str(trained), *options]) == 2
    assert "--target-accuracy 1.0 is not reached within --max-T 1: the best is" in capsys.readouterr().err
    assert not (tmp_path / "out").exists()


def test_early_exit_is_reported(trained: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    options = ["--T", "8", "--samples", "50", "--early-exit", "2.5", "--run-dir", str(tmp_path / "out")]
    assert main([str(trained), *options]) == 0
    assert "early exit at a margin of 2.5" in capsys.readouterr().out
    found = json.loads((tmp_path / "out" / "report.json").read_text())["early_exit"]
    assert sum(found["distribution"]) == 50


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--recipe", "rte"], "no recipe 'rte'; did you mean 'rate'?"),
        (["--option", "percent=99"], "recipe 'rate' has no option 'percent'; did you mean 'percentile'?"),
        (["--option", "percentile"], "--option must be NAME=VALUE, got 'percentile'"),
        (["--option", "start=0", "--option", "start=0.5"], "--option start is given twice"),
        (["--option", "start=2"], r"start must lie in [0, 1), got 2"),
        (["--T", "0"], "--T must be at least 1, got 0"),
        (["--T", "4", "--target-accuracy", "0.9"], "give either --T or --target-accuracy"),
        (["--target-accuracy", "95"], "--target-accuracy must lie in (0, 1], got 95"),
        (["--samples", "361"], "--samples must be at most the 360 test images, got 361"),
        (["--early-exit", "-1"], "--early-exit must be >= 0, got -1"),
        (["--model", "a:b"], "--model and --data belong together"),
        (["--json", "/nowhere/x.json"], "--json: the folder /nowhere does not exist"),
    ],
)
def test_wrong_calls_name_the_flag(
    trained: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], arguments: list[str], message: str
) -> None:
    assert main([str(trained), "--run-dir", str(tmp_path / "out"), *arguments]) == 2
    assert message in capsys.readouterr().err
    assert list(tmp_path.iterdir()) == []


def test_wrong_sources_are_named(
    trained: Path, converted: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    target = ["--run-dir", str(tmp_path / "out")]
    file = weights_file(tmp_path)
    text = tmp_path / "text.pt"
    text.write_text("no weights")
    model = ["--model", f"{__name__}:SmallNet", "--data", "digits"]
    cases = [
        ([str(tmp_path / "none"), *target], "is no run folder"),
        ([str(converted), *target], "is converted already"),
        ([str(file), *target], "is a file; say --model"),
        ([str(file), *model, "--model-args", "{width: 4}", *target], "does not fit"),
        (
            [str(file), *model, "--model-args", "{with: 4}", *target],
            "SmallNet has no such argument; did you mean 'width'?",
        ),
        ([str(file), *model, "--model-args", "4", *target], "--model-args must be a mapping"),
        ([str(file), "--model", "nothing.here:Net", "--data", "digits", *target], "cannot be imported"),
        ([str(file), "--model", "Net", "--data", "digits", *target], "--model must be package.module:Class"),
        ([str(file), *model[:2], "--data", "digit", *target], "unknown 'digit'; did you mean 'digits'?"),
        ([str(text), *model, *target], "is not a file of weights"),
        ([str(tmp_path / "none.pt"), *model, *target], "there is no file"),
        ([str(trained), "--run-dir", str(file)], "is a file"),
        ([str(trained), "--run-dir", str(tmp_path)], "holds files that are not a run"),
        ([str(trained), "--run-dir", str(converted)], "replace it with --overwrite"),
    ]
    for arguments, message in cases:
        assert main(arguments) == 2
        assert message in capsys.readouterr().err
    assert not (tmp_path / "out").exists()


def test_overwrite_replaces_the_whole_folder(trained: Path, tmp_path: Path) -> None:
    folder = tmp_path / "out"
    common = [str(trained), "--run-dir", str(folder), "--samples", "40"]
    assert main([*common, "--T", "2"]) == 0
    (folder / "raster.png").write_bytes(b"old")
    assert main([*common, "--T", "3", "--overwrite"]) == 0
    assert json.loads((folder / "report.json").read_text())["T"] == 3
    assert not (folder / "raster.png").exists()
    report, metrics = (json.loads((folder / name).read_text()) for name in ("report.json", "metrics.json"))
    assert metrics["source_accuracy"] == report["source_accuracy"] != report["accuracy"][-1]
    assert metrics["test_accuracy"] == report["accuracy"][-1]
    rates = {layer["name"]: layer["events"] / layer["neurons"] / 3 for layer in report["layers"]}
    assert metrics["spike_rates"] == pytest.approx(rates)
    assert [path.name for path in tmp_path.iterdir()] == ["out"]


def test_interrupt_leaves_nothing_behind(
    trained: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """Ctrl-C while the second batch is measured."""
    measured = []
    add = LayerSums.add

    def interrupted(self: LayerSums, *arguments: Any) -> None:
        measured.append(self.images)
        if self.images:
            raise KeyboardInterrupt
        add(self, *arguments)

    monkeypatch.setattr(LayerSums, "add", interrupted)
    assert main([str(trained), "--run-dir", str(tmp_path / "out"), "--T", "2", "--samples", "300"]) == 130
    assert measured[-1] > 0
    assert "interrupted; nothing was written" in capsys.readouterr().err
    assert list(tmp_path.iterdir()) == []


def test_failure_while_writing_keeps_the_old_folder(
    trained: Path, converted: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from snn.conversion.report import ConversionReport

    folder = tmp_path / "out"
    common = [str(trained), "--run-dir", str(folder), "--samples", "40", "--T", "2"]
    assert main(common) == 0
    before = (folder / "report.json").read_text()

    def interrupted(self: ConversionReport, path: Path) -> list[Path]:
        raise KeyboardInterrupt

    monkeypatch.setattr(ConversionReport, "plot", interrupted)
    assert main([*common, "--overwrite"]) == 130
    assert (folder / "report.json").read_text() == before
    assert [path.name for path in tmp_path.iterdir()] == ["out"]


def test_plain_network_computes_what_the_stack_computes() -> None:
    torch.manual_seed(0)
    x = torch.rand(3, 1, 8, 8)
    for network in (AnalogVGG((1, 8, 8), 4, STAGES, [5], "average", "ReLU", True), AnalogMLP((1, 8, 8), 4)):
        network.eval()
        assert torch.equal(plain_network(network)(x), network(x.unsqueeze(0))[0])
    own = looped_network().source
    assert plain_network(own) is own
    assert own(dyadic_images(2)).shape == (2, 4)


def test_changing_input_is_refused_where_one_image_is_taken() -> None:
    ann = {"class": "AnalogMLP", "hidden": [6]}
    network = ConvertedRun((4,), 3, ann, "rate", 6, {"percentile": 100.0})
    for layer in network.network.layers().values():
        layer.set_threshold(torch.tensor(1.0))
    x = torch.rand(2, 4)
    repeated = x.expand(6, 2, 4)
    network.network.skipped_steps.fill_(2)
    with torch.no_grad():
        torch.testing.assert_close(network(repeated).mean(0), network.network(x))
        torch.testing.assert_close(network(repeated.clone()).mean(0), network.network(x))
        with pytest.raises(ValueError, match="takes one image"):
            network(torch.rand(6, 2, 4))
