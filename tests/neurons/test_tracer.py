"""The bipolar neuron with tracer against hand-worked runs, SpikingJelly, and the quantiser at which it settles."""

from __future__ import annotations

import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from spikingjelly.activation_based.neuron.spikezip import STBIFNode

import snn
from snn.conversion.activations import step_counts
from snn.neurons.tracer import settled_after, unsettled_steps

BACKENDS = pytest.mark.parametrize("backend", ["reference", "numba"])


def run(layer: snn.STBIF, *currents: float) -> tuple[list[float], list[float], list[float]]:
    """Outputs, membranes q and counts S of one neuron, step by step."""
    outputs, membranes, counts = [], [], []
    for current in currents:
        outputs.append(layer(torch.tensor([current], dtype=torch.float64)).item())
        membranes.append(round(layer.v.item(), 9))
        counts.append(layer.count.item())
    return outputs, membranes, counts


@BACKENDS
def test_one_neuron_step_by_step(backend: str) -> None:
    """Step 0.5, bounds 0..3: it fires three times, waits, and takes two spikes back."""
    outputs, membranes, counts = run(snn.STBIF(0.5, 0, 3, backend=backend), 1.3, 0, 0, 0, -0.6, 0, 0)
    assert outputs == [1, 1, 1, 0, -1, -1, 0]
    assert membranes == [2.1, 1.1, 0.1, 0.1, -0.1, 0.9, 0.9]
    assert counts == [1, 2, 3, 3, 2, 1, 1]


@BACKENDS
@pytest.mark.parametrize(
    ("first", "second", "plain", "residual", "with_tracer"),
    [
        ("10101", "01010", 2, 0.5, [1, -1, 1, -1, 1, 1]),
        ("11100", "00011", 4, -1.5, [1, 1, 1, 1, -1, -1]),
        ("00111", "11000", 1, 1.5, [0, 0, 0, 0, 1, 1]),
    ],
)
def test_arrival_order_misleads_a_plain_neuron_only(
    first: str, second: str, plain: int, residual: float, with_tracer: list[int], backend: str
) -> None:
    """Two inputs with weights +2 and -2: their order decides what an IF neuron counts, but not what ST-BIF counts."""
    current = torch.tensor([2.0 * int(a) - 2.0 * int(b) for a, b in zip(first, second, strict=True)])
    integrate = snn.IF(v_threshold=1.0, v_reset=None, step_mode="m", backend=backend)
    spikes, state = integrate(current.view(5, 1, 1), state={"v": torch.full((1, 1), 0.5)})
    assert spikes.sum().item() == plain
    assert state["v"].item() == residual
    layer = snn.STBIF(1.0, 0, 5, step_mode="m", backend=backend)
    outputs = layer(torch.cat([current, torch.zeros(1)]).view(6, 1))
    assert outputs.flatten().tolist() == with_tracer
    assert layer.v.item() == 0.5
    assert layer.steps_to_settle() == 0


def dyadic(shape: tuple[int, ...], generator: torch.Generator, span: int = 64) -> torch.Tensor:
    """Multiples of 1/16 in +- span / 16, which sum without rounding."""
    return torch.randint(-span, span + 1, shape, generator=generator).double() / 16


@BACKENDS
@pytest.mark.parametrize("seed", [0, 1, 2])
@pytest.mark.parametrize(("lo", "hi"), [(0, 15), (-8, 7), (-3, 1)])
def test_it_settles_at_the_quantiser_in_any_order(lo: int, hi: int, seed: int, backend: str) -> None:
    generator = torch.Generator().manual_seed(seed)
    steps = torch.tensor([0.25, 0.5, 2.0]).double().view(3, 1)
    currents = dyadic((12, 5, 3, 7), generator)
    total = currents.sum(0)
    wanted = step_counts(total, steps, lo, hi)
    counts = []
    for order in (torch.arange(12), torch.randperm(12, generator=generator)):
        layer = snn.STBIF(steps, lo, hi, step_mode="m", backend=backend)
        tail = torch.zeros(hi - lo, 5, 3, 7, dtype=torch.float64)
        _, state = layer(torch.cat([currents[order], tail]), state=None)
        counts.append(state["count"])
        assert torch.equal(state["total"], total)
        assert layer.steps_to_settle() == 0
        assert not layer(torch.zeros(4, 5, 3, 7, dtype=torch.float64), state=state)[0].any()
        inside = (wanted > lo) & (wanted < hi)
        q = layer.v
        assert bool(((q >= 0) & (q < 1))[inside].all())
    assert torch.equal(counts[0], wanted)
    assert torch.equal(counts[1], wanted)


def test_inputs_far_apart_add_before_they_are_quantised() -> None:
    layer = snn.STBIF(1.0, 0, 7)
    run(layer, 0.4, *[0.0] * 8)
    assert layer.count.item() == 0
    run(layer, 0.4, *[0.0] * 8)
    assert layer.count.item() == 1  # the quantiser of 0.4 + 0.4, not twice the quantiser of 0.4


@settings(max_examples=60, deadline=None)
@given(
    st.lists(st.floats(-20, 20, width=32), min_size=1, max_size=6),
    st.floats(0.0625, 3.0, width=32),
    st.integers(-6, 0),
    st.integers(1, 6),
)
def test_one_arrival_settles_bit_for_bit_in_float32_within_the_bound(
    inputs: list[float], step: float, lo: int, hi: int
) -> None:
    """Real-valued input and step: still the quantiser's own number, after max(hi, -lo) steps and one spike a step."""
    u = torch.tensor(inputs)
    length = int(settled_after(lo, hi))
    layer = snn.STBIF(step, lo, hi, step_mode="m", backend="reference")
    outputs = layer(torch.cat([u.view(1, -1), torch.zeros(length - 1, len(inputs))]))
    counts = step_counts(u, torch.tensor(step), lo, hi)
    assert torch.equal(outputs.sum(0), counts)
    t = torch.arange(1, length + 1).view(-1, 1)
    assert torch.equal(outputs, counts.sign() * (t <= counts.abs()))


def test_a_tiny_negative_rest_does_not_fire() -> None:
    """q + 1 rounds to 1 in float, the comparison with the count does not."""
    layer = snn.STBIF(1.0, -4, 4)
    assert run(layer, -0.5 - 1e-9, 0.0, 0.0)[0] == [-1.0, 0.0, 0.0]


def test_equal_to_spikingjellys_on_dyadic_input() -> None:
    generator = torch.Generator().manual_seed(0)
    currents = dyadic((40, 6), generator).float()
    expected = STBIFNode(0.5, level=16, sym=True, step_mode="m")(currents)
    ours = snn.STBIF(0.5, -8, 7, step_mode="m")(currents) * 0.5
    assert torch.equal(ours, expected)


def test_unsettled_steps_counts_what_is_owed() -> None:
    total, count = torch.tensor([3.2, -1.0, 0.2, 99.0]), torch.tensor([1.0, 2.0, 0.0, 7.0])
    assert unsettled_steps(total, count, 1.0, 0, 7).tolist() == [2.0, 2.0, 0.0, 0.0]
    assert settled_after(-8, 7) == 8
    assert math.isinf(settled_after(0, math.inf))


@settings(max_examples=60, deadline=None)
@given(st.lists(st.integers(-300, 300), min_size=1, max_size=9), st.integers(-6, 0), st.integers(1, 6))
def test_settled_after_bounds_every_run(sixteenths: list[int], lo: int, hi: int) -> None:
    currents = torch.tensor(sixteenths, dtype=torch.float64).view(-1, 1) / 16
    last = int(settled_after(lo, hi, arrived=len(sixteenths)))
    tail = torch.zeros(last + 3 - len(sixteenths), 1, dtype=torch.float64)
    outputs = snn.STBIF(1.0, lo, hi, step_mode="m", backend="reference")(torch.cat([currents, tail]))
    assert not outputs[last:].any()


def test_without_an_upper_bound_it_only_forbids_negative_counts() -> None:
    layer = snn.STBIF(1.0, 0, math.inf, step_mode="m")
    z = layer(torch.tensor([30.0] + [0.0] * 40 + [-50.0] + [0.0] * 40).view(-1, 1))
    assert (z[:41].sum().item(), z.sum().item()) == (30.0, 0.0)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"theta": 0.0}, "theta must be > 0"),
        ({"lo": 1}, "needs lo <= 0 < hi"),
        ({"hi": 0}, "needs lo <= 0 < hi"),
        ({"hi": 2.5}, "hi must be a whole number of spikes, got 2.5"),
        ({"lo": -math.inf}, "lo must be finite"),
    ],
)
def test_bad_arguments_are_named(arguments: dict[str, float], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        snn.STBIF(**arguments)
