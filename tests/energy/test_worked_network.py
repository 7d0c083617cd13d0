"""Known numbers of the worked network, under every convention."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import pytest
from worked_network import Replay, image, network, sequence

from neuromorphic.energy import Counts, Estimate, bit_budget, count, estimate
from neuromorphic.energy.models.lemaire import access_pj


@pytest.fixture(scope="module")
def counts() -> Counts:
    return count(network(), sequence(), call="step", spiking=(Replay,))


SPIKING = ("c2", "f1", "f2")


def total(found: Estimate, layers: Iterable[str] | None = None, terms: Iterable[str] | None = None) -> float:
    chosen = [row for row in found.rows if layers is None or row.layer in set(layers)]
    return sum(row.typical for row in chosen if terms is None or row.term in set(terms))


@pytest.mark.parametrize(
    ("what", "expected"),
    [
        ("dense_synops_padded", (2304, 4608, 2048, 160)),
        ("dense_synops", (1936, 3872, 2048, 160)),
    ],
)
def test_dense_products_of_a_step(counts: Counts, what: str, expected: tuple[int, ...]) -> None:
    assert tuple(getattr(layer, what) for layer in counts.connections) == expected


@pytest.mark.parametrize(
    ("what", "expected"),
    [
        ("synops", (6624, 1936, 1648, 160)),
        ("synops_nonzero", (6096, 1763, 1498, 146)),
        ("acs", (0, 1936, 1648, 160)),
        ("macs", (6624, 0, 0, 0)),
        ("input_events", (4 * 54, 128, 103, 16)),
    ],
)
def test_counted_integers(counts: Counts, what: str, expected: tuple[int, ...]) -> None:
    assert tuple(layer.total(what) for layer in counts.connections) == expected


def test_counts_of_each_step(counts: Counts) -> None:
    assert counts["c2"].synops_nonzero.flatten().tolist() == [431, 451, 437, 444]
    assert counts["f1"].synops_nonzero.flatten().tolist() == [379, 362, 378, 379]
    assert counts["f2"].synops_nonzero.flatten().tolist() == [37, 36, 36, 37]


def test_neurons(counts: Counts) -> None:
    assert [layer.total("output_events") for layer in counts.neurons] == [128, 103, 16, 4]
    assert counts.total("neuron_updates") == 1640
    assert counts.parameter_count == 2570
    assert counts.footprint_bytes == 10280
    assert count(network(bias=False), sequence(), call="step", spiking=(Replay,)).footprint_bytes == 10128


PAIRS = ("fp32", "fp16", "int8", "int32")
TABLE: list[tuple[str, dict[str, Any], tuple[float, ...]]] = [
    ("sop once", {"convention": "sop", "analog_once": True}, (14299.2, 5100.8, 653.28, 7784.0)),
    ("sop each step", {"convention": "sop"}, (46094.4, 15468.8, 2243.04, 29902.4)),
    ("spikingjelly", {"convention": "spikingjelly"}, (45763.2, 15321.6, 2232.0, 29865.6)),
    ("neurobench", {"convention": "neurobench"}, (31107.9, 10506.8, 1504.29, 19847.9)),
    ("syops", {"convention": "syops"}, (52358.99, 17695.55, 2530.37, 33351.89)),
    ("dense once", {"convention": "dense", "analog_once": True}, (41952, 13680, 2097.6, 29184)),
    ("dense", {"convention": "dense"}, (167808, 54720, 8390.4, 116736)),
]


@pytest.mark.parametrize(("options", "energies"), [entry[1:] for entry in TABLE], ids=[entry[0] for entry in TABLE])
@pytest.mark.parametrize("precision", PAIRS)
def test_45nm_energies(counts: Counts, precision: str, options: dict[str, Any], energies: tuple[float, ...]) -> None:
    found = estimate(counts, "45nm", precision=precision, **options)
    # The two fractional energies are printed with four digits after rounding of 5838.875 additions.
    assert found.total.typical == pytest.approx(energies[PAIRS.index(precision)], rel=1e-6, abs=0.005)


def test_syops_without_bias() -> None:
    counts = count(network(bias=False), sequence(), call="step", spiking=(Replay,))
    found = estimate(counts, "45nm", convention="syops")
    assert sum(row.count for row in found.rows if row.term.startswith("AC")) == 5752
    assert sum(row.count for row in found.rows if row.term.startswith("MAC")) == 9216
    assert found.total.typical == pytest.approx(47570.4, rel=1e-9)


def test_syops_by_layer(counts: Counts) -> None:
    rows = estimate(counts, "45nm", convention="syops").rows
    by_layer = {row.layer: row.count for row in rows}
    assert by_layer == {
        "c1": 10240,
        "s1": 1024,
        "c2": 2368,
        "s2": 512,
        "f1": 1660.875,
        "s3": 64,
        "f2": 170,
        "s4": 40,
    }


def test_the_default_convention_lies_between_skipping_and_dense(counts: Counts) -> None:
    found = estimate(counts, "45nm", precision="fp32")
    synaptic = [row for row in found.rows if row.term in ("AC", "MAC")]
    assert sum(row.count for row in synaptic if row.term == "AC") == 3744
    assert sum(row.count_low for row in synaptic if row.term == "AC") == 3407
    assert sum(row.count_high for row in synaptic if row.term == "AC") == 4112
    (first,) = [row for row in synaptic if row.term == "MAC"]
    assert (first.count_low, first.count, first.count_high) == (6096, 4 * 1936, 4 * 2304)
    assert total(found, terms=["AC (neurons)"]) == pytest.approx(1640 * 0.9)


LEMAIRE = {
    "c2": ((128, 103, 9216, 512, 9728, 4711), 390073.857, 471.1, 2109.5, 1740.8),
    "f1": ((103, 16, 1648, 64, 1712, 1728), 70562.702, 172.8, 377.6, 164.8),
    "f2": ((16, 4, 160, 40, 200, 204), 8194.464, 20.4, 148.4, 16.0),
}
MEMORY = ("read inputs", "write outputs", "read weights", "read biases", "read potentials", "write potentials")


@pytest.mark.parametrize("layer", SPIKING)
def test_lemaire_by_layer(counts: Counts, layer: str) -> None:
    integers, memory, operations, _, addressing = LEMAIRE[layer]
    found = estimate(counts, "lemaire")
    rows = {row.term: row for row in found.rows if row.layer == layer}
    assert tuple(rows[term].count for term in (*MEMORY[:5], "operations AC")) == integers
    assert rows["write potentials"].count == rows["read potentials"].count
    assert total(found, [layer], MEMORY) == pytest.approx(memory, abs=5e-4)
    assert total(found, [layer], ["operations AC", "operations MAC"]) == pytest.approx(operations)
    assert total(found, [layer], ["addressing AC", "addressing MAC"]) == pytest.approx(addressing)


def test_lemaire_of_the_spiking_layers(counts: Counts) -> None:
    assert total(estimate(counts, "lemaire"), SPIKING) == pytest.approx(471416.92, abs=5e-3)


def test_lemaire_memory_prices() -> None:
    assert access_pj(2048, 32) == pytest.approx(13.9143, abs=5e-5)
    assert access_pj(262144, 32) == pytest.approx(104.6358, abs=5e-5)
    assert access_pj(0, 32) == 13.2


@pytest.mark.parametrize(
    ("device", "energy"),
    [
        ("loihi", 336469.4),
        ("spinnaker2", 6.9729e6),
        ("spinnaker", 1.425762e8),
        ("gpu", 2.859e6),
        ("arm", 8.577e6),
        ("cpu", 8.1958e7),
    ],
)
def test_keras_spiking(counts: Counts, device: str, energy: float) -> None:
    magnitude = float(image().mean())
    found = estimate(counts, "keras-spiking", device=device, input_magnitude=magnitude)
    assert found.total.typical == pytest.approx(energy, rel=1e-6)


def test_spikesim(counts: Counts) -> None:
    found = estimate(counts, "spikesim")
    assert {row.layer: round(row.typical, 3) for row in found.rows} == {"c1": 212092.454, "c2": 53023.113}
    assert found.total.typical == pytest.approx(265115.567, rel=1e-8)
    assert found.notes == ("not priced: f1, f2",)


def test_neurobench_metrics(counts: Counts) -> None:
    metrics = estimate(counts, "neurobench").metrics
    assert metrics["footprint"] == 10280
    assert metrics["parameter_count"] == 2570
    assert metrics["connection_sparsity"] == 0.0904
    assert metrics["activation_sparsity"] == pytest.approx((1640 - 251) / 1640, abs=0)
    assert metrics["effective_macs"] == 6096
    assert metrics["effective_acs"] == 3407
    assert metrics["dense"] == 32064


@pytest.mark.parametrize(("weight_bits", "s_ace", "ns_ace"), [(1, 27264, 4112), (8, 218112, 32896)])
def test_bit_budget_of_the_spiking_layers(counts: Counts, weight_bits: int, s_ace: int, ns_ace: int) -> None:
    rows = [row for row in estimate(counts, "bit-budget", weight_bits=weight_bits).rows if row.layer in SPIKING]
    assert sum(row.high for row in rows) == s_ace
    assert sum(row.typical for row in rows) == ns_ace


@pytest.mark.parametrize(("options", "cost"), [({"analog_once": True}, 18432), ({}, 73728), ({"input_bits": 1}, 9216)])
def test_the_first_layer_of_the_bit_budget(counts: Counts, options: dict[str, Any], cost: int) -> None:
    first = estimate(counts, "bit-budget", weight_bits=1, **options).rows[0]
    assert (first.layer, first.high) == ("c1", cost)


@pytest.mark.parametrize(
    ("bits", "budget"),
    [((16, 1, 4), 64), ((8, 8, 1), 64), ((8, 1, 4), 32), ((1, 4, 1), 4), ((1, 2, 2), 4), ((1, 1, 4), 4)],
)
def test_bit_budgets(bits: tuple[int, int, int], budget: int) -> None:
    assert bit_budget(weight_bits=bits[0], spike_bits=bits[1], steps=bits[2]) == budget


def test_two_samples_double_the_counts(counts: Counts) -> None:
    both = count(network(), sequence(2), call="step", spiking=(Replay,))
    assert both == counts.merged(counts)
    assert estimate(both, "lemaire").total == estimate(counts, "lemaire").total


def test_all_steps_at_once_give_the_same_counts(counts: Counts) -> None:
    net = network(all_steps=True)
    flat = sequence().flatten(0, 1)
    found = count(net, flat, call="batch", spiking=(Replay,), steps=1)
    for ours, one in zip(counts.layers, found.layers, strict=True):
        assert ours.synops.flatten().tolist() == one.synops.flatten().tolist()


def test_permuted_time_leaves_the_totals(counts: Counts) -> None:
    net = network()
    for layer in net:
        if isinstance(layer, Replay):
            layer.spikes = layer.spikes[[2, 0, 3, 1]]
    found = count(net, sequence(), call="step", spiking=(Replay,))
    assert [layer.total("synops") for layer in found.layers] == [layer.total("synops") for layer in counts.layers]


def test_json_returns_the_same_counts(counts: Counts) -> None:
    assert Counts.from_json(counts.to_json()) == counts
