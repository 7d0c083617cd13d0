"""A trained run folder runs three ways and says how well they agree."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest
import torch

import neuromorphic
from neuromorphic.compiler import checkpoint_cli

pytest.importorskip("sklearn")

from neuromorphic.simulate import main
from snn.training.command_line import main as train


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("runs") / "digits"
    assert train(["--config", "digits", "--epochs", "4", "--run-dir", str(folder)]) == 0
    return folder


@pytest.fixture(scope="module")
def rate_coded(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("runs") / "rate"
    code = ["--encoding.name", "rate", "--encoding.steps", "8"]
    assert train(["--config", "digits", "--epochs", "4", *code, "--run-dir", str(folder)]) == 0
    return folder


def result(run: Path, tmp_path: Path, *arguments: str) -> dict[str, float]:
    file = tmp_path / "out.json"
    assert main(["--checkpoint", str(run), "--json", str(file), *arguments]) == 0
    found: dict[str, float] = json.loads(file.read_text())
    return found


def test_events_agree_with_torch(run: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    found = result(run, tmp_path, "--engine", "event")
    assert found["equal_predictions"] == 1.0
    assert found["equal_spikes"] > 0.9999
    assert found["accuracy"] == found["torch_accuracy"] > 0.8
    trained = json.loads((run / "metrics.json").read_text())
    assert found["torch_accuracy"] == pytest.approx(trained["test_accuracy"], abs=1e-6)
    assert found["ms_per_image"] == pytest.approx(found["us_per_step"] * 4e-3)
    assert "equal spikes" in capsys.readouterr().out


def test_torch_and_integers(rate_coded: Path, tmp_path: Path) -> None:
    assert result(rate_coded, tmp_path, "--engine=torch", "--samples", "50")["equal_predictions"] == 1.0
    integers = result(rate_coded, tmp_path, "--engine=int:loihi", "--samples", "200")
    assert integers["samples"] == 200
    assert integers["equal_predictions"] > 0.9
    assert abs(integers["accuracy"] - integers["torch_accuracy"]) < 0.05
    assert "ms_per_image" in integers


@pytest.mark.parametrize(
    ("arguments", "text"),
    [
        (["--engine", "quantum"], "--engine must be event, torch or int:TARGET, got 'quantum'"),
        (["--engine", "int:pentium"], "pentium"),
        (["--engine", "int:loihi"], "encode it as spikes"),
        (["--samples", "0"], "--samples must lie in [1, "),
    ],
)
def test_mistakes_end_with_2_and_a_reason(
    run: Path, arguments: list[str], text: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["--checkpoint", str(run), *arguments]) == 2
    assert text in capsys.readouterr().err


def test_a_folder_without_a_run(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["--checkpoint", str(tmp_path)]) == 2
    assert "is not a run folder" in capsys.readouterr().err


def test_without_checkpoint_the_command_is_that_of_the_engine(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        main(["--help"])
    assert "microcircuit" in capsys.readouterr().out


def test_names_are_found_and_importing_is_light() -> None:
    assert all(hasattr(neuromorphic, name) for name in neuromorphic.__all__)
    assert callable(neuromorphic.quantize)
    assert callable(neuromorphic.quantize)  # not the module of that name, which the first access has imported
    with pytest.raises(AttributeError, match="no attribute 'compiles'"):
        _ = neuromorphic.compiles
    script = "import sys, neuromorphic; print(sorted({'torch', 'nir', 'spikingjelly'} & set(sys.modules)))"
    output = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)
    assert output.stdout.strip() == "[]"


def test_answers_are_those_of_the_loss_that_was_trained() -> None:
    y = torch.tensor([[[9.0, 0.0]], [[0.0, 2.0]], [[0.0, 2.0]]])  # one loud step beside two that agree
    x = torch.zeros(3, 1, 4)
    assert checkpoint_cli.predictions(lambda part: y, x).tolist() == [0]
    assert checkpoint_cli.predictions(lambda part: y, x, "softmax").tolist() == [1]
