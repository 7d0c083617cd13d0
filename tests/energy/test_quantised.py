"""Quantised weights, spikes of several bits, and the equivalences between bits and steps."""

from __future__ import annotations

import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn

import snn
from neuromorphic.energy import SPIKES, Signal, count, estimate
from neuromorphic.energy.designs import Design, designs_of_budget
from neuromorphic.energy.models.bits import bit_budget, information_bits, levels
from neuromorphic.energy.quantised import (
    LevelIF,
    QuantisedConv2d,
    QuantisedLinear,
    QuantisedNet,
    bit_planes,
    bit_serial_product,
    quantised_weight,
    weight_codes,
)


def test_known_codes() -> None:
    codes, step = weight_codes(torch.tensor([-0.5, 0.3, 1.0]), 8)
    assert codes.tolist() == [-64, 38, 127]  # -63.5 rounds to the even number
    assert step.item() == pytest.approx(1 / 127)


@settings(max_examples=50, deadline=None)
@given(st.integers(1, 12), st.integers(0, 10_000), st.booleans())
def test_quantiser_properties(bits: int, seed: int, per_channel: bool) -> None:
    w = torch.randn(4, 6, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)
    q = quantised_weight(w, bits, per_channel)
    assert torch.allclose(quantised_weight(q, bits, per_channel), q, rtol=1e-12)
    assert torch.equal(quantised_weight(-w, bits, per_channel), -q)
    codes, _ = weight_codes(w, bits, per_channel)
    assert len(codes.unique()) <= (2 if bits == 1 else 2**bits - 1)
    assert torch.equal(codes, codes.round())


def test_one_bit_weights() -> None:
    q = quantised_weight(torch.tensor([[0.0, -3.0, 1.0]], dtype=torch.float64), 1)
    assert q.tolist() == [[4 / 3, -4 / 3, 4 / 3]]


def test_a_silent_channel_stays_silent() -> None:
    w = torch.tensor([[0.0, 0.0], [1.0, -1.0]])
    assert quantised_weight(w, 4, per_channel=True).tolist() == w.tolist()


def test_gradients_pass_straight_through() -> None:
    w = torch.randn(3, 4, requires_grad=True)
    c = torch.randn(3, 4)
    (quantised_weight(w, 2) * c).sum().backward()
    assert torch.equal(w.grad, c)
    assert quantised_weight(w, 32) is w


@pytest.mark.parametrize("bits", [1, 3, 32])
def test_layers_compute_with_the_coded_weights(bits: int) -> None:
    linear, conv = QuantisedLinear(5, 4, bits), QuantisedConv2d(2, 3, 3, bits, padding=1)
    x, image = torch.randn(2, 5), torch.randn(2, 2, 6, 6)
    assert torch.equal(linear(x), nn.functional.linear(x, linear.coded_weight(), linear.bias))
    assert torch.equal(conv(image), nn.functional.conv2d(image, conv.coded_weight(), conv.bias, padding=1))
    counted = count(nn.Sequential(linear), x).layers[0]
    assert counted.weight_bits == bits
    assert counted.weight_nonzero_count == int(linear.coded_weight().ne(0).sum())


@settings(max_examples=30, deadline=None)
@given(st.integers(1, 6), st.integers(0, 10_000))
def test_bit_serial_equals_direct(bits: int, seed: int) -> None:
    generator = torch.Generator().manual_seed(seed)
    weight = torch.randint(-8, 8, (5, 7), generator=generator)
    codes = torch.randint(0, 2**bits, (7, 3), generator=generator)
    assert torch.equal(bit_serial_product(weight, codes, bits), weight @ codes)


def test_planes_without_shifts_are_another_function() -> None:
    codes, weight = torch.tensor([[5]]), torch.tensor([[3]])
    assert bit_serial_product(weight, codes, 3).item() == 15
    assert sum((weight @ plane).item() for plane in bit_planes(codes, 3)) == 6
    with pytest.raises(ValueError, match=r"codes must be in 0\.\.3"):
        bit_planes(codes, 2)


def coded(x: float, steps: int, bits: int, rounding: str) -> list[int]:
    layer = LevelIF(bits, rounding, step_mode="m")  # type: ignore[arg-type]
    y = layer(torch.full((steps, 1), x, dtype=torch.float64))
    return (y * (2**bits - 1)).round().long().flatten().tolist()


@pytest.mark.parametrize(
    ("x", "steps", "bits", "rounding", "expected"),
    [
        (0.3, 4, 1, "round", [0, 1, 0, 0]),
        (0.3, 4, 1, "floor", [0, 0, 0, 1]),
        (0.3, 2, 2, "round", [1, 1]),
        (0.3, 2, 2, "floor", [0, 1]),
        (0.3, 1, 4, "round", [5]),
        (0.3, 1, 4, "floor", [4]),
        (0.7, 4, 1, "round", [1, 0, 1, 1]),
        (0.7, 2, 2, "round", [2, 2]),
        (0.7, 1, 4, "round", [11]),
    ],
)
def test_known_level_sequences(x: float, steps: int, bits: int, rounding: str, expected: list[int]) -> None:
    assert coded(x, steps, bits, rounding) == expected


@pytest.mark.parametrize(
    ("steps", "bits", "rounding", "rmse", "largest"),
    [
        (4, 1, "round", 0.0721, 0.1250),
        (4, 1, "floor", 0.1438, 0.2490),
        (2, 2, "round", 0.0481, 0.0833),
        (1, 4, "round", 0.0192, 0.0333),
        (1, 4, "floor", 0.0383, 0.0663),
        (16, 1, "round", 0.0180, 0.0310),
        (16, 1, "floor", 0.0358, 0.0620),
        (4, 4, "round", 0.0048, 0.0083),
    ],
)
def test_static_coding_errors(steps: int, bits: int, rounding: str, rmse: float, largest: float) -> None:
    x = torch.linspace(0, 1, 1001, dtype=torch.float64)
    layer = LevelIF(bits, rounding, step_mode="m")  # type: ignore[arg-type]
    error = layer(x.expand(steps, -1)).mean(0) - x
    assert error.square().mean().sqrt().item() == pytest.approx(rmse, abs=6e-5)
    # A tie at the last grid point may fall on either side in floating point, by one grid step at most.
    assert error.abs().max().item() == pytest.approx(largest, abs=1.1e-3)


def test_one_bit_floor_is_the_ordinary_if() -> None:
    x = torch.randn(40, 3, 50, generator=torch.Generator().manual_seed(2))
    ordinary = snn.IF(v_threshold=1.0, v_reset=None, step_mode="m")
    assert torch.equal(LevelIF(1, step_mode="m")(x), ordinary(x))
    for tenth, spikes in zip(range(1, 10), (0, 1, 2, 2, 3, 4, 4, 5, 6), strict=True):
        # Tenths in eighty-four bits less one: exact sums need dyadic numbers, so scale the threshold instead.
        layer = LevelIF(1, v_threshold=10.0, step_mode="m")
        assert layer(torch.full((7, 1), float(tenth))).sum().item() / 10 == spikes


@pytest.mark.parametrize("steps", [1, 2, 3, 4, 5, 7, 8, 15, 16])
@pytest.mark.parametrize("start", [0.0, 0.5])
def test_steps_carry_exactly_the_bits_of_their_count(steps: int, start: float) -> None:
    """T binary steps of a soft-reset IF with constant input put out the level that one step of T levels does."""
    x = torch.arange(1024, dtype=torch.float64) / 1024  # dyadic: all sums are exact
    spiking = LevelIF(1, v_start=start, step_mode="m")(x.expand(steps, -1)).sum(0)
    quantised = torch.clamp(torch.floor(steps * x + start), 0, steps)
    assert torch.equal(spiking, quantised)
    distinct = len(spiking.unique())
    assert distinct <= steps + 1 == levels(steps, 1)
    assert math.ceil(math.log2(steps + 1)) == information_bits(steps)
    if steps + 1 == 2 ** information_bits(steps):  # the same function as one layer of that many bits
        one_step = LevelIF(information_bits(steps), "floor", v_threshold=1.0, v_start=start, step_mode="m")
        assert torch.equal(one_step((steps * x).unsqueeze(0)).squeeze(0), spiking)


def test_information_bits_and_levels() -> None:
    assert [information_bits(T) for T in (1, 2, 3, 4, 5, 7, 8, 15, 16)] == [1, 2, 2, 3, 3, 3, 4, 4, 5]
    assert [levels(T, b) for T, b in ((4, 1), (2, 2), (1, 4), (4, 4), (16, 1))] == [5, 7, 16, 61, 17]


def test_gradients_of_levels() -> None:
    x = torch.tensor([[-0.5, 0.2, 0.9, 1.4]], requires_grad=True)
    LevelIF(2, step_mode="m")(x).sum().backward()
    assert x.grad.tolist() == [[0.0, 1.0, 1.0, 0.0]]


def test_reset_is_differentiated_unless_detached() -> None:
    gradients = []
    for detach in (False, True):
        x = torch.full((2, 1), 0.4, requires_grad=True)
        LevelIF(2, detach_reset=detach, step_mode="m")(x)[1].sum().backward()
        gradients.append(x.grad[0].item())
    assert gradients == [0.0, 1.0]


@pytest.mark.parametrize(
    ("arguments", "text"),
    [
        ({"spike_bits": 0}, "spike_bits must be in 1..16"),
        ({"spike_bits": 2, "rounding": "up"}, "rounding must be"),
        ({"spike_bits": 2, "decay": 1.5}, "decay must be in"),
        ({"spike_bits": 2, "v_threshold": 0.0}, "v_threshold must be > 0"),
    ],
)
def test_wrong_arguments_of_neurons(arguments: dict[str, object], text: str) -> None:
    with pytest.raises(ValueError, match=text):
        LevelIF(**arguments)  # type: ignore[arg-type]


def test_wrong_bits() -> None:
    with pytest.raises(ValueError, match=r"weight_bits must be in 1\.\.32"):
        QuantisedLinear(2, 2, 0)
    with pytest.raises(ValueError, match="bits must be >= 1"):
        weight_codes(torch.ones(2, 2), 0)
    with pytest.raises(ValueError, match="spike_bits must be a whole number"):
        bit_budget(weight_bits=1, spike_bits=0, steps=1)
    with pytest.raises(ValueError, match="steps must be >= 1"):
        information_bits(0)


@pytest.mark.parametrize(("spike_bits", "signal"), [(1, SPIKES), (2, Signal("spikes", 3)), (4, Signal("spikes", 15))])
def test_counts_of_a_quantised_network(spike_bits: int, signal: Signal) -> None:
    net = QuantisedNet((1, 4, 4), 3, weight_bits=4, spike_bits=spike_bits, hidden=(8, 8)).eval()
    x = torch.rand(2, 3, 1, 4, 4)
    counts = count(net, x)
    inner = counts["stack.layers.linear2"]
    assert inner.input_signal == signal
    assert inner.weight_bits == 4
    neuron = counts["stack.layers.neuron1"]
    assert not neuron.leaky
    assert neuron.hard_reset is False
    z = net.stack.layers["neuron1"](net.front(x))
    assert neuron.output_magnitude.tolist() == (z * (2**spike_bits - 1)).sum(2).round().long().tolist()
    effort = estimate(counts, "bit-budget")
    (row,) = [row for row in effort.rows if row.layer.endswith("linear2")]
    assert row.high == 8 * 8 * 2 * 4 * spike_bits
    assert row.typical == row.high * inner.total("input_events") / (2 * 3 * 8)


def test_a_repeated_image_passes_the_first_layer_once() -> None:
    net = QuantisedNet((1, 4, 4), 3, weight_bits=4, spike_bits=1, hidden=(8,)).eval()
    image = torch.rand(1, 2, 1, 4, 4)
    repeated, copied = image.expand(5, -1, -1, -1, -1), image.repeat(5, 1, 1, 1, 1)
    assert torch.allclose(net(repeated), net(copied))
    assert count(net, repeated)["front.layers.linear1"].steps == 1
    assert count(net, copied)["front.layers.linear1"].steps == 5


def test_effort_does_not_depend_on_the_split_of_a_budget() -> None:
    efforts = set()
    for spike_bits, steps in ((1, 4), (2, 2), (4, 1)):
        net = QuantisedNet((1, 4, 4), 3, weight_bits=2, spike_bits=spike_bits, hidden=(8, 8)).eval()
        rows = estimate(count(net, torch.rand(steps, 2, 1, 4, 4)), "bit-budget").rows
        efforts.add(sum(row.high for row in rows if not row.layer.endswith("linear1")))
        assert all(row.typical <= row.high for row in rows)
    assert len(efforts) == 1


def test_designs_of_a_budget() -> None:
    found = designs_of_budget(16, (1, 4, 8))
    assert {(d.weight_bits, d.spike_bits, d.steps) for d in found} == {
        *((1, s, 16 // s) for s in (1, 2, 4, 8)),
        *((4, s, 4 // s) for s in (1, 2, 4)),
        *((8, s, 2 // s) for s in (1, 2)),
    }
    assert all(d.budget == 16 for d in found)
    assert Design("float", 32, None, 1).budget == 1024
    with pytest.raises(ValueError, match="no b_w b_s T = 7"):
        designs_of_budget(7, (2, 4))
