"""Placement: known networks, limits of every core, conserved totals, refusals with their reasons."""

from __future__ import annotations

import importlib.util
import json
from dataclasses import replace
from math import ceil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from torch import nn

import snn
from neuromorphic import targets
from neuromorphic.energy import ANALOG, SPIKES, Counts, LayerCounts, count
from neuromorphic.targets.geometry import placed_layers
from neuromorphic.targets.mapper import map as place_network
from neuromorphic.targets.mapping import Mapping, MappingError
from neuromorphic.targets.placement import core_limits, entries_of, make_block
from neuromorphic.targets.placement_energy import Activity, placement_energy, step_seconds
from snn.errors import UnsupportedError
from snn.models import SpikingConvNet, SpikingMLP, SpikingVGG


@pytest.fixture(scope="module")
def tiny() -> Counts:
    """The worked network of the energy tests: 4 layers, 410 neurons, 3744 synaptic operations of spikes."""
    path = Path(__file__).parents[1] / "energy" / "worked_network.py"
    spec = importlib.util.spec_from_file_location("worked_network_of_energy", path)
    assert spec is not None and spec.loader is not None  # noqa: PT018
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    found = count(module.network(), module.sequence(), spiking=[module.Replay], call="step")
    named = [replace(layer, neuron_model="IFNode") if layer.neuron_count else layer for layer in found.layers]
    return replace(found, layers=tuple(named))


def test_tiny_network_geometry(tiny: Counts) -> None:
    layers = placed_layers(tiny)
    assert [layer.neurons for layer in layers] == [256, 128, 16, 10]
    assert [int(layer.inputs_of(0, layer.positions).sum()) for layer in layers[:2]] == [484, 121]
    assert [layer.analog for layer in layers] == [True, False, False, False]


def test_tiny_network_on_loihi_fits_one_core(tiny: Counts) -> None:
    mapping = place_network(tiny, "loihi")
    assert mapping.cores_used == 1
    assert [layer.synapses for layer in mapping.layers] == [1936, 3872, 2048, 160]
    assert [layer.words for layer in mapping.layers[2:]] == [384, 32]
    sheet = targets.load("loihi")
    memory = dict(sheet.sections["memory"])
    memory["index_bits"] = replace(memory["index_bits"], value=(8,))  # the known words are of 8-bit indices
    target = replace(sheet, sections={**sheet.sections, "memory": memory})
    sparse = [
        make_block(target, n, layer, (0, layer.size[0]), (0, layer.positions), 8, lambda _: 0).words
        for n, layer in enumerate(placed_layers(tiny)[:2])
    ]
    assert sparse == [548, 1224]


def test_tiny_network_energy_on_loihi(tiny: Counts) -> None:
    mapping = place_network(tiny, "loihi", step_us=10.0)
    assert mapping.energy is not None
    terms = {term.term: term for term in mapping.energy}
    assert terms["synaptic operations"].count == 3744
    assert terms["synaptic operations"].low_pj == pytest.approx(88358.4)
    assert terms["neuron updates"].count == 1640
    assert (terms["neuron updates"].low_pj, terms["neuron updates"].high_pj) == pytest.approx((85280, 132840))
    assert terms["static"].typical_pj == pytest.approx(4.16e6)
    assert mapping.step_us == 10.0
    assert mapping.latency_us == pytest.approx((4 + 4) * 10.0)
    low = terms["synaptic operations"].low_pj + terms["neuron updates"].low_pj
    assert 18 < terms["static"].typical_pj / (low + 47560) < terms["static"].typical_pj / low < 25


def test_tiny_network_on_padded_kernels(tiny: Counts) -> None:
    assert [entries_of(layer) for layer in placed_layers(tiny)] == [(64, 256), (512, 128), (2048, 16), (256, 10)]
    mapping = place_network(tiny, "speck")
    assert mapping.cores_used == 4
    assert mapping.cores_available == 9
    assert mapping.energy is None
    assert "energy.per_event.synop_pj" in mapping.energy_note


def test_tiny_network_words_with_shared_weights(tiny: Counts) -> None:
    assert [layer.words for layer in place_network(tiny, "loihi2").layers] == [9, 36, 512, 48]


@pytest.mark.parametrize(
    ("name", "limit", "needed", "allowed"),
    [
        ("odin", "fabric.neurons", 410, 256),
        ("xylo", "connections.inputs", 64, 16),
        ("xylo", "connections.convolutions", 1, 0),
        ("truenorth", "weights.distinct_per_neuron", 510, 4),
        ("akida", "neuron.models", 1, 0),
        ("northpole", "neuron.models", 1, 0),
    ],
)
def test_tiny_network_is_refused_by_name(tiny: Counts, name: str, limit: str, needed: float, allowed: float) -> None:
    with pytest.raises(MappingError) as caught:
        place_network(tiny, name)
    refusal = next(refusal for refusal in caught.value.refusals if refusal.limit == limit)
    assert (refusal.needed, refusal.allowed, refusal.excess) == (needed, allowed, needed - allowed)
    assert refusal.fix
    assert limit in str(caught.value)
    assert f"{needed:g} needed, {allowed:g} allowed" in str(caught.value)


def test_feature_map_that_no_core_holds_names_the_channels_that_fit() -> None:
    net = nn.Sequential(nn.Conv2d(16, 32, 3, padding=1), snn.IF(v_reset=None, step_mode="m"))
    counts = count(_over_time(net), torch.zeros(1, 1, 16, 64, 64), input_signal=SPIKES)
    with pytest.raises(MappingError, match="16 output channels instead of 32") as caught:
        place_network(counts, "speck")
    (refusal,) = caught.value.refusals
    assert (refusal.limit, refusal.needed, refusal.allowed) == ("memory.core_neuron_entries", 131072, 65536)
    fits = nn.Sequential(nn.Conv2d(16, 16, 3, padding=1), snn.IF(v_reset=None, step_mode="m"))
    counts = count(_over_time(fits), torch.zeros(1, 1, 16, 64, 64), input_signal=SPIKES)
    assert place_network(counts, "speck").cores_used == 1


class _OverTime(nn.Module):
    """Stateless layers of a Sequential see [T * B, ...], neurons [T, B, ...]."""

    def __init__(self, layers: nn.Sequential) -> None:
        super().__init__()
        self.layers = layers

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        for layer in self.layers:
            x = layer(x) if isinstance(layer, snn.Neuron) else layer(x.flatten(0, 1)).unflatten(0, x.shape[:2])
        return x


def _over_time(layers: nn.Sequential) -> nn.Module:
    return _OverTime(layers).eval()


def _counts(net: nn.Module, *shape: int, steps: int = 3, rate: float = 0.3) -> Counts:
    x = (torch.rand(steps, 2, *shape, generator=torch.Generator().manual_seed(0)) < rate).float()
    return count(net.eval(), x, input_signal=SPIKES)


@pytest.fixture(scope="module")
def networks() -> dict[str, Counts]:
    torch.manual_seed(3)
    lively = {"class": "LIF", "v_threshold": 0.2}
    return {
        "mlp": _counts(SpikingMLP((784,), 10, hidden=(800, 400), neuron=lively), 784),
        "conv": _counts(SpikingConvNet((1, 28, 28), 10, neuron=lively), 1, 28, 28),
        "vgg": _counts(SpikingVGG((3, 32, 32), 10, channels=(32, 64, 128), neuron=lively), 3, 32, 32),
        "recurrent": _counts(SpikingMLP((40,), 5, hidden=(300,), neuron="RecurrentLIF"), 40),
    }


@pytest.mark.parametrize("name", ["loihi", "loihi2", "tianjic"])
@pytest.mark.parametrize("net", ["mlp", "conv", "vgg", "recurrent"])
def test_no_core_is_above_a_limit_and_nothing_is_lost(networks: dict[str, Counts], net: str, name: str) -> None:
    target = targets.load(name)
    layers = placed_layers(networks[net])
    from neuromorphic.targets.mapper import place

    cores = place(layers, target, 8)
    assert cores is not None
    for core in cores:
        for limit, allowed in core_limits(target).items():
            assert core.used(limit) == sum(block.uses()[limit] for block in core.blocks) <= allowed
    for number, layer in enumerate(layers):
        held = np.zeros((layer.size[0], layer.positions), np.int64)
        for core in cores:
            for block in core.blocks:
                if block.layer == number:
                    held[slice(*block.channels), slice(*block.positions)] += 1
        assert (held == 1).all()
        neurons = sum(block.neurons for core in cores for block in core.blocks if block.layer == number)
        assert neurons == layer.neurons


def test_messages_are_spikes_times_receiving_cores(networks: dict[str, Counts]) -> None:
    """A dense network: every spike goes to each core of the next layer."""
    mapping = place_network(networks["mlp"], "loihi")
    layers = placed_layers(networks["mlp"])
    expected = sum(
        layer.spikes_out * len(set(after.cores)) for layer, after in zip(layers, mapping.layers[1:], strict=False)
    )
    assert expected > 0
    assert mapping.messages == pytest.approx(expected)
    assert mapping.messages == pytest.approx(sum(sent for _, _, sent in mapping.traffic))
    own = sum(sent for source, receiver, sent in mapping.traffic if source == receiver)
    assert mapping.between_cores == pytest.approx(mapping.messages - own)


def test_pooling_is_part_of_the_connection() -> None:
    """3x3 with padding 1 and pooling by 2 behind it is 4x4 at stride 2; pooling in front doubles kernel and stride."""
    net = nn.Sequential(nn.Conv2d(1, 2, 3, padding=1), nn.AvgPool2d(2), snn.IF(step_mode="m"))
    (layer,) = placed_layers(count(_over_time(net), torch.zeros(1, 1, 1, 4, 4), input_signal=SPIKES))
    assert (layer.kernel, layer.stride, layer.padding, layer.size) == ((4, 4), (2, 2), (1, 1), (2, 2, 2))
    assert layer.inputs_of(0, 4).tolist() == [[1, 2, 2, 1], [2, 4, 4, 2], [2, 4, 4, 2], [1, 2, 2, 1]]
    assert layer.inputs_of(0, 1).sum() == 9
    net = nn.Sequential(
        nn.Conv2d(1, 2, 1), snn.IF(step_mode="m"), nn.AvgPool2d(2), nn.Conv2d(2, 3, 3, padding=1), snn.IF(step_mode="m")
    )
    _, layer = placed_layers(count(_over_time(net), torch.zeros(1, 1, 1, 8, 8), input_signal=SPIKES))
    assert (layer.kernel, layer.stride, layer.padding) == ((6, 6), (2, 2), (2, 2))
    assert (layer.source, layer.size, layer.pool) == ((2, 8, 8), (3, 4, 4), (2, 2))
    assert entries_of(layer) == (2 * 2**4 * 2**2, 3 * 2**4)
    net = nn.Sequential(nn.Conv2d(1, 2, 3), snn.IF(step_mode="m"), nn.AvgPool2d(3, stride=2), snn.IF(step_mode="m"))
    with pytest.raises(UnsupportedError, match="pools with overlap"):
        place_network(
            count(_over_time(nn.Sequential(*net[:3], nn.Conv2d(2, 1, 1))), torch.zeros(1, 1, 1, 9, 9)), "loihi"
        )


def test_hops_are_tile_borders_on_the_way(networks: dict[str, Counts]) -> None:
    """Four cores a tile, 32 tiles on a mesh of side 6, filled row by row in a winding line."""
    mapping = place_network(networks["mlp"], "loihi")
    place = [(column if row % 2 == 0 else 5 - column, row) for row in range(6) for column in range(6)]
    across = [
        (sent * abs(place[a // 4][0] - place[b // 4][0]), sent * abs(place[a // 4][1] - place[b // 4][1]))
        for a, b, sent in mapping.traffic
    ]
    assert mapping.hops_x == pytest.approx(sum(x for x, _ in across))
    assert mapping.hops_y == pytest.approx(sum(y for _, y in across))
    assert mapping.hops_x > 0


def test_convolutions_send_less_than_dense_layers(networks: dict[str, Counts]) -> None:
    mapping = place_network(networks["vgg"], "loihi2")
    layers = placed_layers(networks["vgg"])
    dense = sum(
        layer.spikes_out * len(set(after.cores)) for layer, after in zip(layers, mapping.layers[1:], strict=False)
    )
    assert 0 < mapping.messages < dense


@settings(max_examples=25, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    inputs=st.integers(1, 3000),
    hidden=st.lists(st.integers(1, 3000), min_size=1, max_size=3),
    bits=st.sampled_from([1, 2, 4, 8]),
)
def test_any_dense_network_is_placed_or_refused(inputs: int, hidden: list[int], bits: int) -> None:
    layers, before = [], inputs
    for number, size in enumerate(hidden):
        shape: dict[str, Any] = {"samples": 1}
        del shape["samples"]
        layers.append(
            LayerCounts(
                f"l{number}",
                "linear",
                inputs=(f"n{number - 1}",) if number else ("input",),
                input_shape=(before,),
                output_shape=(size,),
                weight_shape=(size, before),
                weight_count=size * before,
                input_signal=SPIKES,
                synops=np.ones((2, 1), np.int64),
            )
        )
        layers.append(
            LayerCounts(
                f"n{number}",
                "neuron",
                inputs=(f"l{number}",),
                input_shape=(size,),
                output_shape=(size,),
                neuron_count=size,
                state_variables=1,
                neuron_model="LIF",
                hard_reset=True,
                output_signal=SPIKES,
                output_events=np.full((2, 1), size, np.int64),
            )
        )
        before = size
    counts = Counts(tuple(layers), 2, 1, (inputs,), SPIKES)
    mapping = place_network(counts, "loihi", weight_bits=bits)
    assert [layer.neurons for layer in mapping.layers] == hidden
    assert [layer.synapses for layer in mapping.layers] == [
        a * b for a, b in zip([inputs, *hidden], hidden, strict=False)
    ]
    assert mapping.cores_used is not None
    assert mapping.cores_used >= ceil(sum(hidden) / 1024)
    assert all(0 <= share <= 1 for share in mapping.utilisation.values())


def test_fewer_bits_never_need_more_cores(networks: dict[str, Counts]) -> None:
    used = [place_network(networks["conv"], "loihi", weight_bits=bits).cores_used for bits in (1, 2, 4, 8)]
    assert used == sorted(used)  # type: ignore[type-var]
    assert used[0] < used[-1]  # type: ignore[operator]


def test_smallest_change_that_fits_is_suggested() -> None:
    net = SpikingMLP((4000,), 10, hidden=(4000,))
    with pytest.raises(MappingError, match=r"fabric\.cores: \d+ needed, 128 allowed") as caught:
        place_network(net, "loihi")
    wanted = next(int(word) for word in caught.value.suggestion.replace("-bit", " ").split() if word.isdigit())
    assert caught.value.suggestion == f"{wanted}-bit weights instead of 8 fit"
    assert place_network(net, "loihi", weight_bits=wanted).cores_used is not None
    wider = min(b for b in (2, 3, 4, 5, 6, 8) if b > wanted)
    with pytest.raises(MappingError):
        place_network(net, "loihi", weight_bits=wider)


def test_splitter_neurons_are_asked_for_and_two_bits_fit() -> None:
    net = nn.Sequential(nn.Linear(200, 250), snn.IF(step_mode="m"), nn.Linear(250, 400), snn.IF(step_mode="m"))
    with pytest.raises(MappingError, match=r"put 500 splitter neurons behind '0'"):
        place_network(net, "truenorth", weight_bits=2)
    small = nn.Sequential(nn.Linear(200, 250), snn.IF(step_mode="m"), nn.Linear(250, 200), snn.IF(step_mode="m"))
    mapping = place_network(small, "truenorth", weight_bits=2)
    assert mapping.cores_used == 2
    assert "all-in" in mapping.energy_note
    with pytest.raises(MappingError, match="quantise the weights to 2 bits"):
        place_network(small, "truenorth", weight_bits=4)


def test_neurons_and_resets_that_a_chip_lacks() -> None:
    net = nn.Sequential(nn.Linear(8, 8), snn.LIF(v_reset=None, step_mode="m"))
    with pytest.raises(MappingError, match=r"neuron\.reset of '1'.*use v_reset=0\.0"):
        place_network(net, "loihi")
    net = nn.Sequential(nn.Linear(8, 8), snn.ALIF(step_mode="m"))
    with pytest.raises(MappingError, match=r"'adaptive' neurons are not there: use if or lif or cuba"):
        place_network(net, "loihi")
    assert place_network(net, "loihi2").cores_used == 1


def test_frame_rate_gives_duty_cycle_or_refusal(tiny: Counts) -> None:
    mapping = place_network(tiny, "loihi", step_us=1000.0, frames_per_second=100)
    assert mapping.duty_cycle == pytest.approx(0.4)
    assert mapping.energy is not None
    static = next(term for term in mapping.energy if term.term == "static")
    assert static.typical_pj == pytest.approx(104 * 0.01 * 1e9)
    with pytest.raises(MappingError, match=r"frames_per_second: 300 needed, 250 allowed.*at 4 steps, or 3 steps"):
        place_network(tiny, "loihi", step_us=1000.0, frames_per_second=300)


def test_an_empty_network_costs_static_energy_only() -> None:
    mapping = place_network(Counts((), 10, 1), "loihi")
    assert mapping.cores_used == 0
    assert mapping.dynamic_pj == (0, 0, 0)
    assert mapping.energy_pj is not None
    assert mapping.energy_pj[1] == pytest.approx(104 * 10 * mapping.step_us * 1e-6 * 1e9)  # type: ignore[operator]


def test_hops_price_only_hops() -> None:
    target = targets.load("loihi")
    base = Activity(100, 50, 30, 7, 5, 0, 4)
    terms, _ = placement_energy(target, base, 1e-3)
    doubled, _ = placement_energy(target, replace(base, hops_x=14, hops_y=10), 1e-3)
    assert terms is not None
    assert doubled is not None
    for a, b in zip(terms, doubled, strict=True):
        factor = 2 if a.term.startswith("hops") else 1
        assert b.typical_pj == factor * a.typical_pj
    assert sum(term.typical_pj for term in terms) == pytest.approx(
        100 * 23.6 + 50 * 81 + 30 * 1.7 + 7 * 3.0 + 5 * 4.0 + 104e-3 * 1e-3 * 1e12
    )


@pytest.mark.parametrize("name", ["truenorth", "spinnaker", "spinnaker2", "odin", "reckon", "cpu"])
def test_nothing_is_added_to_an_all_in_price(name: str) -> None:
    terms, said = placement_energy(targets.load(name), Activity(100, 50, 30, 7, 5, 1000, 4), 1e-3)
    assert terms is not None
    assert {term.term for term in terms} <= {"synaptic operations", "products", "neuron updates"}
    assert "nothing is added" in said


def test_a_step_is_as_long_as_its_busiest_core() -> None:
    target = targets.load("loihi")
    assert step_seconds(target, 1, 0, 0, None)[0] == pytest.approx(5.8e-6)
    busy, origin = step_seconds(target, 32, 1e6, 1000, None)
    assert busy == pytest.approx((465 + 3.5e6 + 8400) * 1e-9)
    assert origin == "busiest core"
    assert step_seconds(target, 32, 1e6, 1000, 10.0)[0] == busy
    assert step_seconds(target, 1, 0, 0, 10.0) == (pytest.approx(1e-5), "given")
    assert step_seconds(targets.load("truenorth"), 1, 0, 0, None) == (pytest.approx(1e-3), "data sheet")
    assert step_seconds(targets.load("loihi2"), 1, 0, 0, None) == (None, "")


def test_analog_inputs_and_missing_data_are_said() -> None:
    counts = _counts(SpikingMLP((8,), 4, hidden=(6,)), 8)
    analog = count(SpikingMLP((8,), 4, hidden=(6,)).eval(), torch.rand(3, 2, 8), input_signal=ANALOG)
    assert not any("analog" in note for note in place_network(counts, "loihi").notes)
    assert any("analog input" in note for note in place_network(analog, "loihi").notes)
    with pytest.raises(ValueError, match=r"pass data=\[T, B, \.\.\.\]"):
        place_network(SpikingConvNet((1, 8, 8), 4), "loihi")
    with pytest.raises(ValueError, match="step_us must be > 0"):
        place_network(counts, "loihi", step_us=0)
    with pytest.raises(ValueError, match="weight_bits must be a whole number"):
        place_network(counts, "loihi", weight_bits=0)
    with pytest.raises(ValueError, match="did you mean 'loihi'"):
        place_network(counts, "lohi")
    with pytest.raises(TypeError, match="network must be Counts or a torch"):
        place_network(3, "loihi")


def test_layers_without_a_place_are_refused() -> None:
    net = nn.Sequential(nn.Conv2d(1, 2, 3), nn.MaxPool2d(2), snn.IF(step_mode="m"))
    with pytest.raises(UnsupportedError, match=r"'layers\.1' takes maxima"):
        place_network(count(_over_time(net), torch.zeros(1, 1, 1, 8, 8)), "loihi")


def test_report_as_text_and_json(networks: dict[str, Counts]) -> None:
    mapping = place_network(networks["conv"], "loihi", frames_per_second=10)
    assert isinstance(mapping, Mapping)
    text = str(mapping)
    assert "Intel Loihi" in text
    assert "energy per inference" in text
    values = json.loads(mapping.to_json())
    assert values["cores_used"] == mapping.cores_used
    assert values["energy_pj"] == list(mapping.energy_pj)  # type: ignore[arg-type]


def test_a_chip_of_ones_own_file_is_mapped(tmp_path: Path) -> None:
    path = tmp_path / "mine.toml"
    entry = '{{ value = {}, source = "me", evidence = "measured" }}'.format
    path.write_text(
        'name = "mine"\ntitle = "Mine"\n[sources]\nme = "a report"\n'
        f"[fabric]\ncores = {entry(3)}\nneurons_per_core = {entry(10)}\n"
        f"[energy.all_in]\nsynop_pj = {entry(2.5)}\n",
        encoding="utf8",
    )
    counts = _counts(SpikingMLP((6,), 4, hidden=(21,)), 6)
    mapping = place_network(counts, path)
    assert mapping.cores_used == 3
    assert mapping.energy_pj is not None
    assert mapping.energy_pj[1] == pytest.approx(2.5 * sum(layer.synops for layer in placed_layers(counts)))
    with pytest.raises(MappingError, match=r"fabric\.cores: 4 needed, 3 allowed \(1 too many\)"):
        place_network(_counts(SpikingMLP((6,), 4, hidden=(31,)), 6), path)
