"""Properties of the models, refusals, and what the package's import brings."""

from __future__ import annotations

import importlib
import json
import os
import pkgutil
import subprocess
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import nn
from worked_network import Replay, network, sequence

import neuromorphic.energy
import snn
from neuromorphic.energy import SPIKES, Counts, Estimate, LayerCounts, Price, Signal, count, estimate
from neuromorphic.energy.estimates import exact, row
from neuromorphic.energy.estimating import MODELS
from neuromorphic.energy.models import horowitz
from neuromorphic.energy.models.snn_or_qnn import break_even_rate
from neuromorphic.targets import load, names


@pytest.fixture(scope="module")
def counts() -> Counts:
    return count(network(), sequence(), call="step", spiking=(Replay,))


def test_public_names() -> None:
    assert sorted(neuromorphic.energy.__all__) == [
        "ANALOG",
        "Counts",
        "Estimate",
        "EventNetwork",
        "LayerActivity",
        "LayerCounts",
        "MODELS",
        "Price",
        "Row",
        "SPIKES",
        "Signal",
        "bit_budget",
        "count",
        "estimate",
        "from_activity",
        "with_geometry",
    ]
    assert all(hasattr(neuromorphic.energy, name) for name in neuromorphic.energy.__all__)


def test_import_brings_no_torch() -> None:
    script = "import sys, neuromorphic.energy; print(*sys.modules)"
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)}
    output = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True, env=environment)
    assert not {"torch", "spikingjelly", "matplotlib", "lightning"} & set(output.stdout.split())


def test_every_model_file_is_listed() -> None:
    folder = importlib.import_module("neuromorphic.energy.models").__path__
    files = {module.name for module in pkgutil.iter_modules(folder)}
    listed = {function.__module__.rpartition(".")[2] for function in MODELS.values()}
    assert files - listed == {"horowitz", "conventions", "chip"}


@pytest.mark.parametrize("model", [*MODELS, "chip:loihi", "chip:truenorth", "chip:gpu", "chip:asic45nm"])
def test_every_row_says_where_its_price_comes_from(counts: Counts, model: str) -> None:
    found = estimate(counts, model)
    assert found.rows
    for entry in found.rows:
        assert entry.price.source
        assert entry.price.node
        assert entry.price.unit
        assert entry.unit == found.unit
        assert entry.low <= entry.typical <= entry.high
    assert found.total.typical == pytest.approx(sum(r.typical for r in found.by_layer().values()))
    assert found.total.high == pytest.approx(sum(r.high for r in found.by_term().values()))
    assert json.loads(found.to_json())["total"]["typical"] == found.total.typical


@pytest.mark.parametrize("model", ["45nm", "lemaire", "keras-spiking", "spikesim", "chip:loihi", "bit-budget"])
def test_twice_the_steps_cost_twice(counts: Counts, model: str) -> None:
    double = count(network(), sequence().repeat(2, 1, 1, 1, 1), call="step", spiking=(Replay,))
    options: dict[str, Any] = {"analog_once": False} if model == "lemaire" else {}
    once, twice = estimate(counts, model, **options).total, estimate(double, model, **options).total
    assert twice.typical == pytest.approx(2 * once.typical)
    assert twice.high == pytest.approx(2 * once.high)


def test_half_the_spikes_halve_the_rate_based_count() -> None:
    net = network()
    net.s1.spikes = net.s1.spikes.clone()
    fired = net.s1.spikes[0].nonzero()
    for c, i, j in fired[: len(fired) // 2].tolist():
        net.s1.spikes[:, c, i, j] = False
    whole = count(network(), sequence()[:1], call="step", spiking=(Replay,))
    half = count(net, sequence()[:1], call="step", spiking=(Replay,))
    full_rows = {r.layer: r.count for r in estimate(whole, "45nm", convention="sop").rows}
    half_rows = {r.layer: r.count for r in estimate(half, "45nm", convention="sop").rows}
    assert half_rows["c2"] == full_rows["c2"] / 2
    assert half["c2"].total("synops") == pytest.approx(whole["c2"].total("synops") / 2, rel=0.2)


def test_interpolated_prices_say_so() -> None:
    assert horowitz.add_price("int16").typical == pytest.approx(0.0533, abs=5e-5)
    assert horowitz.MULTIPLY_PJ["int16"] == pytest.approx(0.78, abs=5e-3)
    assert horowitz.mac_price("int16").typical == pytest.approx(0.833, abs=5e-3)
    assert "interpolated" in horowitz.mac_price("int16").source
    assert "interpolated" not in horowitz.mac_price("int8").source


@pytest.mark.parametrize(("bits", "precision"), [(4, "int8"), (8, "int8"), (16, "fp16"), (32, "fp32")])
def test_arithmetic_is_as_wide_as_the_weights(counts: Counts, bits: int, precision: str) -> None:
    layers = tuple(replace(layer, weight_bits=bits) if layer.is_connection else layer for layer in counts.layers)
    narrow = replace(counts, layers=layers)
    assert estimate(narrow, "45nm") == estimate(narrow, "45nm", precision=precision)
    assert precision in estimate(narrow, "45nm").convention


def test_break_even_rates() -> None:
    assert break_even_rate(4, 0.5, 8.0) == (1.0, 0.125, 0.5)
    with pytest.raises(ValueError, match="steps >= 1"):
        break_even_rate(0, 0.5, 1.0)


def test_spiking_against_quantised(counts: Counts) -> None:
    found = estimate(counts, "snn-or-qnn", hops=0.0)
    terms = found.by_term()
    assert terms["accumulate"].typical == pytest.approx(3744 * 0.05448)
    assert terms["compare"].typical == pytest.approx((128 + 16 + 10) * 4 * 0.05448)
    assert terms["subtract"].typical == pytest.approx((103 + 16 + 4) * 0.05448)
    assert found.metrics["activation_bits"] == 3
    # T s_r of c2 is 0.5, so half of its twin's activations are zero; three accumulations make a 3-bit product.
    assert found.metrics["c2: qnn_pj"] == pytest.approx(0.5 * 4608 * 3 * 0.05448)
    assert found.metrics["c2: break-even rate"] == pytest.approx(3 * 0.5 / 4)
    moved = estimate(counts, "snn-or-qnn", hops=2.0)
    assert moved.by_term()["move 8-bit addresses"].typical == pytest.approx(128 * 8 * 2 * 3.0)
    assert moved.metrics["c2: qnn_pj"] - found.metrics["c2: qnn_pj"] == pytest.approx(256 * 3 * 2 * 0.25)


def test_widths_of_a_bit_budget(counts: Counts) -> None:
    wide = replace(counts["c2"], input_signal=Signal("spikes", 4))
    layers = tuple(wide if layer.name == "c2" else layer for layer in counts.layers)
    (entry,) = [
        r for r in estimate(replace(counts, layers=layers), "bit-budget", weight_bits=1).rows if r.layer == "c2"
    ]
    assert entry.high == 4608 * 4 * 3
    named = estimate(counts, "bit-budget", weight_bits={"c1": 8, "c2": 4, "f1": 2, "f2": 1})
    assert [r.price.typical for r in named.rows] == [64, 4, 2, 1]
    with pytest.raises(ValueError, match="no entry for layer 'f2'"):
        estimate(counts, "bit-budget", weight_bits={"c1": 8, "c2": 4, "f1": 2})
    exact_rows = {r.layer: r for r in estimate(counts, "bit-budget", weight_bits=1, exact_fanout=True).rows}
    assert (exact_rows["c2"].typical, exact_rows["c2"].high) == (1936, 3872 * 4)
    # The weights of the network are held as float32.
    assert estimate(counts, "bit-budget").rows[1].price.typical == 32


def test_a_chip_with_prices_per_event(counts: Counts) -> None:
    found = estimate(counts, "chip:loihi")
    terms = found.by_term()
    assert terms["synaptic operations"].typical == pytest.approx(88358.4)
    assert (terms["neuron updates"].low, terms["neuron updates"].high) == (pytest.approx(85280), pytest.approx(132840))
    assert any("routing between cores is left out" in note for note in found.notes)
    fast = estimate(counts, "chip:loihi", step_us=10.0)
    assert fast.by_term()["static"].typical == pytest.approx(4 * 10 * 104 * 1e3)
    far = estimate(counts, "chip:loihi", hops=2.0).by_term()["hops"]
    x, y = (load("loihi").sections["energy.per_event"][key] for key in ("hop_x_pj", "hop_y_pj"))
    assert (far.low, far.high) == (pytest.approx(251 * 2 * x.low), pytest.approx(251 * 2 * y.high))
    per_core = estimate(counts, "chip:loihi", step_us=10.0, cores=3).by_term()["static"].typical
    assert per_core == pytest.approx(4 * 10 * 3 * 0.815 * 1e3, rel=0.01)


def test_a_chip_with_an_all_in_price(counts: Counts) -> None:
    found = estimate(counts, "chip:truenorth")
    assert set(found.by_term()) == {"synaptic operations (analog input)", "synaptic operations"}
    assert found.by_term()["synaptic operations"].typical == pytest.approx(3744 * 26)
    assert {entry.price.scope for entry in found.rows} == {"all-in"}


def test_arithmetic_sheets_follow_the_weights(counts: Counts) -> None:
    floating = estimate(counts, "chip:asic45nm")
    assert floating.by_term()["synaptic operations"].typical == pytest.approx(3744 * 0.9)
    layers = tuple(replace(layer, weight_bits=8) if layer.is_connection else layer for layer in counts.layers)
    narrow = estimate(replace(counts, layers=layers), "chip:asic45nm")
    assert narrow.by_term()["synaptic operations"].typical == pytest.approx(3744 * 0.03)


def test_chips_without_prices_refuse_by_name(counts: Counts) -> None:
    refused = {}
    for name in names():
        try:
            estimate(counts, f"chip:{name}")
        except snn.UnsupportedError as error:
            refused[name] = str(error)
    assert "loihi2" in refused
    assert all(f"chip:{name}: no total energy" in text for name, text in refused.items())
    assert set(refused) == {name for name in names() if load(name).energy_scope is None} - {"asic45nm"}


def test_a_sheet_of_ones_own(counts: Counts, tmp_path: Path) -> None:
    sheet = tmp_path / "mine.toml"
    sheet.write_text(
        'name = "mine"\ntitle = "My chip"\n[sources]\nlab = "measured by us"\n[energy.all_in]\n'
        'synop_pj = { low = 1, value = 2, high = 4, source = "lab", evidence = "measured" }\n'
    )
    found = estimate(counts, f"chip:{sheet}")
    spiking = found.by_term()["synaptic operations"]
    assert (spiking.low, spiking.typical, spiking.high) == (3407, 2 * 3744, 4 * 3744)
    assert "measured by us" in found.rows[0].price.source


@pytest.mark.parametrize(
    ("model", "options", "error", "text"),
    [
        ("45nn", {}, ValueError, "did you mean '45nm'"),
        ("45nm", {"precison": "fp32"}, ValueError, "did you mean 'precision'"),
        ("45nm", {"precision": "fp8"}, ValueError, "precision must be one of"),
        ("45nm", {"convention": "so"}, ValueError, "did you mean 'sop'"),
        ("lemaire", {"bits": 5}, ValueError, "bits 5 has no known operations"),
        ("lemaire", {"addressing": "none"}, ValueError, "addressing must be"),
        ("keras-spiking", {"device": "lohi"}, ValueError, "did you mean 'loihi'"),
        ("snn-or-qnn", {"hops": -1}, ValueError, "hops must be >= 0"),
        ("chip:lohi", {}, ValueError, "did you mean 'loihi'"),
        ("chip:loihi", {"hop": 1}, ValueError, "did you mean 'hops'"),
        ("bit-budget", {"input_bits": 0}, ValueError, "input_bits"),
        ("bit-budget", {"weight_bits": 0}, ValueError, "weight_bits must be >= 1"),
    ],
)
def test_wrong_calls(counts: Counts, model: str, options: dict[str, Any], error: type[Exception], text: str) -> None:
    with pytest.raises(error, match=text):
        estimate(counts, model, **options)


def test_estimates_need_counts() -> None:
    with pytest.raises(TypeError, match="what count"):
        estimate({}, "45nm")  # type: ignore[arg-type]


def test_models_that_cannot_price_a_network_refuse() -> None:
    plain = count(nn.Sequential(nn.Linear(3, 2)), torch.ones(1, 3))
    with pytest.raises(snn.UnsupportedError, match="no layer of known shape has spikes"):
        estimate(plain, "snn-or-qnn")
    with pytest.raises(snn.UnsupportedError, match="no two-dimensional convolution"):
        estimate(plain, "spikesim")


def test_an_empty_network_costs_nothing() -> None:
    empty = Counts((), steps=1, samples=1)
    for model in ("45nm", "bit-budget", "lemaire", "neurobench", "chip:truenorth"):
        assert estimate(empty, model).total.typical == 0
    static = estimate(empty, "chip:loihi")
    assert {entry.term for entry in static.rows} == {"static"}


def test_scopes_are_never_mixed() -> None:
    alone = row("a", "x", 1.0, exact(1.0, "pJ", "n", "s"))
    whole = row("a", "y", 1.0, exact(1.0, "pJ", "n", "s", "all-in"))
    with pytest.raises(ValueError, match="cannot be added"):
        Estimate("mixed", "", (alone, whole))
    with pytest.raises(ValueError, match="is in bits, not pJ"):
        Estimate("mixed", "", (row("a", "x", 1.0, alone.price, "bits"),))
    with pytest.raises(ValueError, match="no energy without a device"):
        _ = row("a", "x", 1.0, alone.price, "bits").typical_pj
    with pytest.raises(ValueError, match="low <= typical"):
        Price(2, 1, 3, "", "", "")


def integers(*shape: int) -> np.ndarray:
    return np.arange(np.prod(shape)).reshape(shape)


def test_counts_refuse_what_does_not_fit() -> None:
    with pytest.raises(TypeError, match="must hold integers"):
        LayerCounts("a", "linear", synops=np.ones((1, 1)))
    with pytest.raises(ValueError, match=r"must be \[steps, B\]"):
        LayerCounts("a", "linear", synops=integers(2, 2), adds=integers(1, 2))
    with pytest.raises(ValueError, match="kind must be one of"):
        LayerCounts("a", "dense")  # type: ignore[arg-type]
    layer = LayerCounts("a", "linear", synops=integers(2, 3), input_signal=SPIKES)
    with pytest.raises(ValueError, match="names must differ"):
        Counts((layer, layer), 2, 3)
    with pytest.raises(ValueError, match="has 3 samples"):
        Counts((layer,), 2, 4)
    with pytest.raises(KeyError, match="no layer 'b'"):
        Counts((layer,), 2, 3)["b"]
    with pytest.raises(ValueError, match="not counts of format"):
        Counts.from_json("{}")
    with pytest.raises(ValueError, match="different networks"):
        Counts((layer,), 2, 3).merged(Counts((), 2, 3))
    with pytest.raises(ValueError, match="read-only"):
        layer.synops[0, 0] = 1
    with pytest.raises(ValueError, match="kind must be"):
        Signal("graded")  # type: ignore[arg-type]
    with pytest.raises(ValueError, match="levels must be"):
        Signal("spikes")


def test_the_first_steps_of_a_count(counts: Counts) -> None:
    short = counts.up_to(2)
    assert short.steps == 2
    assert short["c2"].synops.tolist() == counts["c2"].synops[:2].tolist()
    assert count(network(), sequence()[:2], call="step", spiking=(Replay,)) == short
    with pytest.raises(ValueError, match=r"steps must be in 1\.\.4"):
        counts.up_to(5)


def test_memory_of_layers(counts: Counts) -> None:
    assert counts["c2"].parameter_bytes == (288 + 8) * 4
    assert counts["s2"].state_bytes() == 128 * 4
    assert counts["s2"].state_bytes(bits=12) == 192
    assert counts["c2"].weight_reads.tolist() == counts["c2"].synops.tolist()
    assert counts["s2"].membrane_reads.tolist() == [[128]] * 4
    assert counts.per_sample("acs").tolist() == [3744]
