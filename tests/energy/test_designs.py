"""Training the splits of a Bit Budget and comparing them."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest

from neuromorphic.energy.designs import Design, Outcome, pareto, picture, sweep, table, to_dict, train_designs
from snn.training.recipe import DataOptions, Recipe

pytest.importorskip("sklearn")

RECIPE = Recipe(
    data=DataOptions(batch_size=128), network={"class": "QuantisedNet", "hidden": [16, 16]}, epochs=1, threads=1
)


@pytest.fixture(scope="module")
def outcomes(tmp_path_factory: pytest.TempPathFactory) -> list[Outcome]:
    designs = (Design("SNN", 4, 1, 4), Design("QNN", 4, 4, 1), Design("ANN", 32, None, 1))
    said: list[str] = []
    folder = tmp_path_factory.mktemp("designs")
    found = train_designs(RECIPE, designs, folder, seeds=(0, 1), samples=30, report=said.append)
    assert len(said) == 6
    assert sorted(path.name for path in folder.iterdir()) == [
        *("w32-sfloat-T1-seed0", "w32-sfloat-T1-seed1"),
        *("w4-s1-T4-seed0", "w4-s1-T4-seed1"),
        *("w4-s4-T1-seed0", "w4-s4-T1-seed1"),
    ]
    return found


def test_equal_budgets_cost_equal_arithmetic(outcomes: list[Outcome]) -> None:
    spiking, quantised, floating = outcomes
    products = 64 * 16 + 16 * 16 + 16 * 10
    assert spiking.design.budget == quantised.design.budget == 16
    assert spiking.s_ace == quantised.s_ace == 64 * 16 * 4 * 8 + (16 * 16 + 16 * 10) * 16
    assert floating.s_ace == 64 * 16 * 32 * 8 + (products - 64 * 16) * 32 * 32
    for found in outcomes:
        assert found.ns_ace < found.s_ace
        assert 0 < found.rate < 1
        assert len(found.accuracies) == 2
        assert all(0.05 < accuracy < 1 for accuracy in found.accuracies)
        assert found.energies_pj.keys() == {"45nm", "lemaire"}
        assert min(found.accuracies) <= found.accuracy <= max(found.accuracies)
    assert [found.design.activation_levels for found in outcomes] == [5, 16, None]
    # Float products cost twenty times those of eight bits.
    assert floating.energies_pj["45nm"] > 10 * quantised.energies_pj["45nm"]


def test_table_and_picture(outcomes: list[Outcome], tmp_path: Path) -> None:
    lines = table(outcomes).splitlines()
    assert len(lines) == 2 + len(outcomes)
    assert len({line.count("|") for line in lines}) == 1
    front = pareto([(found.ns_ace, found.accuracy) for found in outcomes])
    stars = [line for line in lines[2:] if line.endswith("| * |")]
    assert len(stars) == len(front)
    picture(outcomes, "test", tmp_path / "sweep.png")
    assert (tmp_path / "sweep.png").read_bytes().startswith(b"\x89PNG")
    assert to_dict(outcomes)[0]["budget"] == 16


def test_finished_runs_are_not_repeated(tmp_path: Path) -> None:
    said: list[str] = []
    recipe = replace(RECIPE, network={"class": "QuantisedNet", "hidden": [8]})
    first = sweep(recipe, 2, tmp_path, weight_bits=(2,), samples=10, report=said.append)
    assert [(o.design.spike_bits, o.design.steps) for o in first] == [(1, 1)]
    metrics = tmp_path / "w2-s1-T1-seed0" / "metrics.json"
    written = metrics.stat().st_mtime_ns
    again = sweep(recipe, 2, tmp_path, weight_bits=(2,), samples=10, report=said.append)
    assert metrics.stat().st_mtime_ns == written
    assert again == first
