"""The command `spikeloop energy`, as a user calls it."""

from __future__ import annotations

import base64
import json
import struct
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import pytest
import torch

from neuromorphic.cli import main as spikeloop
from neuromorphic.energy import Counts, estimate
from neuromorphic.energy.command_line import main
from neuromorphic.energy.pictures import pareto
from neuromorphic.energy.quantised import QuantisedNet

pytest.importorskip("sklearn")


def small_network() -> torch.nn.Module:
    torch.manual_seed(0)
    return QuantisedNet((1, 8, 8), 10, weight_bits=8, spike_bits=1, hidden=(16, 12))


@pytest.fixture(scope="module")
def runs(tmp_path_factory: pytest.TempPathFactory) -> list[Path]:
    """Two finished runs of one epoch."""
    from snn.training import train
    from snn.training.recipe import DataOptions, EncodingOptions, Recipe

    folder = tmp_path_factory.mktemp("runs")
    networks: dict[str, dict[str, Any]] = {
        "spiking": {"class": "SpikingMLP", "hidden": [16]},
        "float": {"class": "neuromorphic.energy.quantised.QuantisedNet", "spike_bits": None, "hidden": [16]},
    }
    for name, network in networks.items():
        steps = 3 if name == "spiking" else 1
        recipe = Recipe(
            data=DataOptions(batch_size=128),
            encoding=EncodingOptions(steps=steps),
            network=network,
            epochs=1,
            threads=1,
        )
        train(recipe, folder / name, report=lambda _: None)
    return [folder / name for name in networks]


class Page(HTMLParser):
    """Tags of a page, and every address that a browser would fetch."""

    def __init__(self) -> None:
        super().__init__()
        self.open: list[str] = []
        self.addresses: list[str] = []
        self.tables = 0

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        if tag not in ("meta", "img", "br"):
            self.open.append(tag)
        self.tables += tag == "table"
        self.addresses += [value or "" for key, value in attrs if key in ("src", "href", "srcset", "data", "action")]

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag


def test_tables_json_and_report(runs: list[Path], tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    arguments = [str(run) for run in runs] + ["--samples", "20", "--json", str(tmp_path / "e.json")]
    arguments += ["--html", str(tmp_path / "e.html"), "--targets", "loihi,loihi2,truenorth"]
    assert spikeloop(["energy", *arguments]) == 0
    printed = capsys.readouterr().out
    assert "chip:loihi " in printed
    assert "chip:loihi2: no total energy" in printed
    assert "placed on chips" in printed
    assert "does not fit" in printed

    values = json.loads((tmp_path / "e.json").read_text())["runs"]
    assert [run["name"] for run in values] == ["spiking", "float"]
    counts = Counts.from_json(json.dumps(values[0]["counts"]))
    assert counts.samples == 20
    assert counts.steps == 3
    assert values[0]["estimates"]["45nm"] == json.loads(estimate(counts, "45nm").to_json())
    assert set(values[0]["refused"]) == {"chip:loihi2"}
    assert set(values[1]["refused"]) == {"chip:loihi2", "snn-or-qnn"}  # a float network has no spikes
    assert len(values[0]["accuracy_by_step"]) == 3
    assert values[0]["mappings"]["loihi"]["cores_used"] >= 1
    assert "fan_in" in values[0]["unmapped"]["truenorth"] or "weights" in values[0]["unmapped"]["truenorth"]
    metrics = json.loads((runs[0] / "metrics.json").read_text())
    assert values[0]["test_accuracy"] == metrics["test_accuracy"]

    page = Page()
    text = (tmp_path / "e.html").read_text(encoding="utf-8")
    page.feed(text)
    assert page.open == []
    assert page.tables > 10
    assert len(page.addresses) == 5  # ranges, accuracy over energy, one raster, bars of both
    assert all(address.startswith("data:image/png;base64,") for address in page.addresses)
    for address in page.addresses:
        png = base64.b64decode(address.partition(",")[2], validate=True)
        assert png.startswith(b"\x89PNG")
        width, height = struct.unpack(">II", png[16:24])
        assert width > 500
        assert height > 150
    for word in ("http:", "https:", "@import", "url(", "<script", "<link"):
        assert word not in text.lower()


def test_accuracy_is_that_of_the_run_on_all_test_inputs(runs: list[Path], tmp_path: Path) -> None:
    file = tmp_path / "all.json"
    assert main([str(runs[0]), "--samples", "360", "--targets", "none", "--models", "45nm", "--json", str(file)]) == 0
    (run,) = json.loads(file.read_text())["runs"]
    assert run["accuracy_by_step"][-1] == pytest.approx(run["test_accuracy"], abs=1e-9)


def test_a_network_from_a_function(capsys: pytest.CaptureFixture[str]) -> None:
    name = f"{__name__}:small_network"
    assert main(["--network", name, "--steps", "2", "--samples", "5", "--targets", "odin"]) == 0
    assert "chip:odin" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("arguments", "text"),
    [
        ([], "give either run folders or --network"),
        (["nowhere"], "no folder of a finished run"),
        (["--network", "nowhere:net"], "must be package.module:function"),
        (["--network", f"{__name__}:Page"], "returned a Page"),
        (["nowhere", "--targets", "lohi"], "did you mean 'loihi'"),
        (["nowhere", "--models", "45mn"], "did you mean '45nm'"),
        (["nowhere", "--json", "missing_folder/e.json"], "the folder missing_folder does not exist"),
        (["--network", f"{__name__}:small_network", "--samples", "0"], "--samples must be >= 1"),
        (["--network", f"{__name__}:small_network", "--data", "digit"], "did you mean 'digits'"),
    ],
)
def test_mistakes_end_with_one_line(arguments: list[str], text: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(arguments) == 2
    error = capsys.readouterr().err
    assert text in error
    assert error.startswith("error: ")
    assert error.count("\n") == 1


def test_pareto_front() -> None:
    assert pareto([(3, 5), (1, 2), (2, 2), (4, 4), (2, 6)]) == [(1, 2), (2, 6)]
    assert pareto([]) == []
