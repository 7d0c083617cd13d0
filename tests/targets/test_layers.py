"""Integer layers: known integers, third-party truth, and torch against the compiled loops bit for bit."""

from __future__ import annotations

import doctest
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from neuromorphic.targets import connections, layers, neurons
from neuromorphic.targets.arithmetic import bit_shift_step, cuba_step, event_if_step, fixed_point_step
from neuromorphic.targets.connections import IntegerConv, IntegerLinear
from neuromorphic.targets.layers import Flatten, IntegerLayer, SumPool, cuba_dense
from neuromorphic.targets.network import AnalogInput, IntegerNetwork
from neuromorphic.targets.neurons import BitShiftNeuron, CubaNeuron, EventIFNeuron, FixedPointNeuron, IntegerNeuron
from snn.errors import ShapeError, UnsupportedError

TRUTH = Path(__file__).parents[1] / "conformance" / "loihi_dense" / "loihi_dense.npz"


@pytest.mark.parametrize("module", [connections, layers, neurons])
def test_examples_in_docstrings(module: Any) -> None:
    names = {"torch": torch, "CubaNeuron": CubaNeuron}
    assert doctest.testmod(module, extraglobs=names).failed == 0


@pytest.mark.parametrize("form", ["torch", "compiled"])
def test_recorded_spikes_of_a_dense_layer(form: str) -> None:
    """2000 steps of 256 neurons, recorded from Lava: not one spike differs."""
    truth = np.load(TRUTH)
    layer = cuba_dense(truth["weight"], vth=6, du=4095, dv=415, latency=1)
    x = torch.from_numpy(truth["spikes_in"].T.copy()).unsqueeze(1).float()
    spikes = (layer if form == "torch" else IntegerNetwork({"dense": layer}).run)(x)[:, 0]
    assert truth["spikes_out"].sum() == 1826
    assert int((spikes.detach().numpy() != truth["spikes_out"].T).sum()) == 0


def test_cuba_layer_gives_the_known_integers() -> None:
    neuron = CubaNeuron(200, 2047, 512)
    states, u, v = neuron.start(torch.zeros(1, 1, dtype=torch.float64)), [], []
    for a in (100, 0, -38, 0, 0, 256, 100, 0, 0, 0):
        _, states = neuron.step(torch.tensor([[float(a)]], dtype=torch.float64), states)
        u.append(int(states[0]))
        v.append(int(states[1]))
    assert u == [6400, 3200, -832, -416, -208, 16280, 14540, 7270, 3635, 1817]
    assert v == [6400, 8800, 6868, 5593, 4685, 0, 0, 7270, 9996, 10563]


def test_cuba_layer_wraps_clips_and_counts_it() -> None:
    neuron = CubaNeuron(131071, 0, 0)
    spikes = neuron(torch.full((4, 1, 1), 60000.0))
    assert spikes.flatten().tolist() == [0, 1, 0, 0]
    assert neuron.saturated == 2  # one voltage clipped, one current wrapped


NEURONS = {
    "cuba": lambda n, draw: CubaNeuron(
        draw(n, 0, 60), draw(n, 0, 4096), draw(n, 0, 4096), draw(n, -40, 40), draw(n, 0, 8), draw(n, 1, 4)
    ),
    "fixed, toward zero": lambda n, draw: FixedPointNeuron(
        draw(n, 1, 400), draw(n, 0, 4097), draw(n, 0, 4097), draw(n, -9, 9), state_bits=11
    ),
    "fixed, down": lambda n, draw: FixedPointNeuron(draw(n, 1, 90), draw(n, 0, 257), decay_bits=8, rounding="down"),
    "fixed, nearest": lambda n, draw: FixedPointNeuron(
        draw(n, 1, 90), draw(n, 0, 17), decay_bits=4, rounding="nearest", reset="zero"
    ),
    "integrator": lambda n, draw: FixedPointNeuron(5, draw(n, 0, 4097), spiking=False),
    "bit shift": lambda n, draw: BitShiftNeuron(draw(n, -20, 300), draw(n, 0, 6), draw(n, 0, 16), draw(n, -30, 30)),
    "bit shift, narrow": lambda n, draw: BitShiftNeuron(
        draw(n, 20, 100), draw(n, 1, 4), draw(n, 1, 4), most_spikes=3, state_bits=9
    ),
    "event": lambda n, draw: EventIFNeuron(draw(n, 1, 300), draw(n, -200, 1)),
    "event, zero": lambda n, draw: EventIFNeuron(draw(n, 1, 300), reset="zero"),
}


def drawing(seed: int) -> Any:
    generator = torch.Generator().manual_seed(seed)
    return lambda n, low, high: torch.randint(low, high, (n,) if isinstance(n, int) else n, generator=generator)


@pytest.mark.parametrize("name", NEURONS)
@pytest.mark.parametrize("seed", range(4))
def test_torch_equals_compiled_for_dense_layers(name: str, seed: int) -> None:
    draw = drawing(seed)
    layer = IntegerLayer(IntegerLinear(draw((13, 17), -127, 128)), NEURONS[name](13, draw), latency=seed % 2)
    network = IntegerNetwork({"layer": layer})
    x = draw((31, 3, 17), 0, 3).float()
    z = network(x)
    assert z.abs().sum() > 0
    assert torch.equal(z, network.run(x))
    assert torch.equal(z[:, 1:2], network(x[:, 1:2]))  # rows of the batch do not meet


@pytest.mark.parametrize("name", ["cuba", "fixed, toward zero", "bit shift", "bit shift, narrow"])
def test_torch_equals_compiled_with_feedback(name: str) -> None:
    draw = drawing(7)
    feedback = IntegerLinear(draw((13, 13), -50, 51))
    layer = IntegerLayer(IntegerLinear(draw((13, 17), -127, 128)), NEURONS[name](13, draw), recurrent=feedback)
    network = IntegerNetwork({"layer": layer})
    x = draw((31, 2, 17), 0, 2).float()
    z = network(x)
    assert torch.equal(z, network.run(x))
    without = IntegerLayer(layer.connection, layer.neuron)
    assert not torch.equal(z, without(x).float())


CONVOLUTIONS = [
    ((2, 7, 9), (4, 2, 3, 3), {"padding": 1}),
    ((2, 7, 9), (4, 2, 3, 2), {"stride": (2, 1), "padding": (0, 1)}),
    ((4, 8, 8), (6, 2, 3, 3), {"groups": 2, "dilation": 2, "padding": 2}),
    ((3, 12), (5, 3, 4), {"stride": 2, "padding": 1}),
]


@pytest.mark.parametrize(("shape", "weight", "arguments"), CONVOLUTIONS)
@pytest.mark.parametrize("name", ["cuba", "fixed, toward zero", "event"])
def test_torch_equals_compiled_for_convolutions(shape: Any, weight: Any, arguments: Any, name: str) -> None:
    draw = drawing(3)
    connection = IntegerConv(draw(weight, -60, 61), **arguments)
    out = connection.output_shape(shape)
    layer = IntegerLayer(connection, NEURONS[name](out, draw))
    network = IntegerNetwork({"layer": layer, "flatten": Flatten()})
    x = draw((9, 2, *shape), 0, 3).float()
    z = network(x)
    assert z.shape[2] == np.prod(out)
    assert z.abs().sum() > 0
    assert torch.equal(z, network.run(x))


def test_pooling_shift_exponent_and_readout_in_both_forms() -> None:
    draw = drawing(5)
    stages = {
        "conv": IntegerLayer(
            IntegerConv(draw((4, 1, 3, 3), -9, 10), exponent=3, padding=1),
            FixedPointNeuron(draw((4, 1, 1), 5, 60), 3000, bias=draw((4, 1, 1), -5, 6)),
            SumPool((2, 2)),
            right_shift=2,
        ),
        "pool": SumPool((2, 2)),
        "flatten": Flatten(),
        "out": IntegerLayer(IntegerLinear(draw((3, 16), -9, 10)), bias=draw(3, -4, 5)),
    }
    network = IntegerNetwork(stages, AnalogInput(255.0, 0, 255), 7.0)
    x = torch.rand(5, 2, 1, 9, 9, generator=torch.Generator().manual_seed(1))
    y = network(x)
    assert network.shapes((1, 9, 9)) == [(4, 4, 4), (4, 2, 2), (16,), (3,)]
    assert len(y.unique()) > 3
    assert torch.equal(y, network.run(x))


def test_frozen_network_keeps_its_integers() -> None:
    layer = cuba_dense([[100, 50]], vth=99, du=4095, dv=0)
    network = IntegerNetwork({"layer": layer})
    x = torch.tensor([[[1.0, 0.0]], [[0.0, 1.0]]])
    frozen = network.frozen((2,))
    assert frozen(x).flatten().tolist() == [1, 0]
    with torch.no_grad():
        layer.connection.weight.zero_()
    assert network.run(x).flatten().tolist() == [0, 0]
    assert frozen(x).flatten().tolist() == [1, 0]
    with pytest.raises(ShapeError, match=r"one input must have shape \(2,\), got \(3,\)"):
        frozen(torch.ones(2, 1, 3))


def test_right_shift_rounds_halves_upward() -> None:
    layer = IntegerLayer(IntegerLinear([[1]]), FixedPointNeuron(100, 4096, spiking=False), right_shift=1)
    x = torch.tensor([3.0, 1.0, 2.0, 4.0]).view(4, 1, 1)
    assert layer(x).flatten().tolist() == [2, 3, 4, 6]


def test_sequential_saturation_of_the_bit_shift_current() -> None:
    """Up to the ceiling of 255 and down again: the order of the spikes matters and both forms keep it."""
    layer = IntegerLayer(
        IntegerLinear([[127] * 4 + [-100] * 2]), BitShiftNeuron(20, 1, 15, most_spikes=1, state_bits=9)
    )
    network = IntegerNetwork({"layer": layer})
    x = torch.ones(1, 1, 6)
    # 127, 254, 255, 255, 155, 55 leaves 55 - 27 = 28 on the membrane; without clipping on the way it would be 154.
    assert network(x).item() == network.run(x).item() == 1
    assert layer.neuron is not None
    layer.neuron.threshold.fill_(29)
    assert network(x).item() == network.run(x).item() == 0


@settings(max_examples=60, deadline=None)
@given(
    a=st.lists(st.integers(-3000, 3000), min_size=1, max_size=12),
    du=st.integers(0, 4095),
    dv=st.integers(0, 4095),
    vth=st.integers(0, 3000),
    mantissa=st.integers(-4096, 4095),
    exponent=st.integers(0, 7),
    refractory=st.integers(1, 5),
)
def test_cuba_layer_is_its_scalar_function(
    a: list[int], du: int, dv: int, vth: int, mantissa: int, exponent: int, refractory: int
) -> None:
    u = v = hold = 0
    expected = []
    for value in a:
        z, u, v, hold = cuba_step(value, u, v, hold, du + 1, dv, vth, mantissa << exponent, refractory)
        expected.append(z)
    neuron = CubaNeuron(vth, du, dv, mantissa, exponent, refractory)
    assert neuron(torch.tensor(a).view(-1, 1, 1)).flatten().tolist() == expected


@settings(max_examples=60, deadline=None)
@given(
    a=st.lists(st.integers(-300, 300), min_size=1, max_size=12),
    kept=st.tuples(st.integers(0, 256), st.integers(0, 256)),
    threshold=st.integers(1, 500),
    rounding=st.sampled_from(list(neurons.ROUNDINGS)),
    subtract=st.booleans(),
)
def test_fixed_point_layer_is_its_scalar_function(
    a: list[int], kept: tuple[int, int], threshold: int, rounding: str, subtract: bool
) -> None:
    c = v = 0
    expected = []
    code = list(neurons.ROUNDINGS).index(rounding)
    for value in a:
        z, c, v = fixed_point_step(value, c, v, kept[1], kept[0], threshold, 3, 8, 11, code, subtract)
        expected.append(z)
    neuron = FixedPointNeuron(
        threshold,
        *kept,
        bias=3,
        decay_bits=8,
        state_bits=11,
        rounding=rounding,
        reset="subtract" if subtract else "zero",
    )
    assert neuron(torch.tensor(a).view(-1, 1, 1)).flatten().tolist() == expected


@settings(max_examples=60, deadline=None)
@given(
    a=st.lists(st.integers(-3000, 3000), min_size=1, max_size=10),
    shifts=st.tuples(st.integers(0, 15), st.integers(0, 15)),
    threshold=st.integers(-5, 3000),
    bias=st.integers(-50, 50),
)
def test_bit_shift_layer_is_its_scalar_function(
    a: list[int], shifts: tuple[int, int], threshold: int, bias: int
) -> None:
    i = v = 0
    expected = []
    for value in a:
        z, i, v = bit_shift_step(min(max(i + value, -(2**15)), 2**15 - 1), v, 0, *shifts, threshold, bias, 31, 16)
        expected.append(z)
    neuron = BitShiftNeuron(threshold, *shifts, bias)
    assert neuron(torch.tensor(a).view(-1, 1, 1)).flatten().tolist() == expected


def test_event_layer_sends_known_events_one_by_one() -> None:
    weights = (38, 38, 127, -64, -254, 300, 0)
    v, expected = 0, 0
    for weight in weights:
        z, v = event_if_step(weight, v, 127, -127, True)
        expected += z
    layer = IntegerLayer(IntegerLinear([weights]), EventIFNeuron(127, -127))
    assert layer(torch.ones(1, 1, 7)).item() == expected == 2
    one_by_one = layer(torch.eye(7).unsqueeze(1))
    assert one_by_one.flatten().tolist() == [0, 0, 1, 0, 0, 1, 0]


@pytest.mark.parametrize("name", NEURONS)
def test_gradients_reach_weights_and_bias(name: str) -> None:
    draw = drawing(2)
    layer = IntegerLayer(IntegerLinear(draw((5, 6), -9, 10)), NEURONS[name](5, draw))
    layer(draw((6, 2, 6), 0, 2).float()).sum().backward()
    gradient = layer.connection.weight.grad
    assert gradient is not None
    assert bool(torch.isfinite(gradient).all())
    assert gradient.abs().sum() > 0


def test_an_integer_network_trains() -> None:
    """Forward stays in integers while the loss falls."""
    draw = drawing(0)
    connection = IntegerLinear(torch.randn(8, 6, dtype=torch.float64), 30.0, -127, 127)
    layer = IntegerLayer(connection, FixedPointNeuron(60, 2048, unit=60.0))
    network = IntegerNetwork({"layer": layer})
    x, wanted = draw((8, 4, 6), 0, 2).float(), draw((8, 4, 8), 0, 2).float()
    optimizer = torch.optim.Adam([connection.weight], lr=0.05)
    losses = []
    for _ in range(30):
        z = network(x)
        assert set(z.unique().tolist()) <= {0.0, 1.0}
        loss = (z - wanted).square().mean()
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        losses.append(loss.item())
    assert losses[-1] < 0.8 * losses[0]
    assert torch.equal(network(x), network.run(x))


def test_weights_are_stored_as_the_format_says() -> None:
    connection = IntegerLinear(torch.tensor([[0.5, 0.515625, 0.53, -0.53, 1.0, 3.97, 4.2]]), 64.0, -256, 254, 2)
    assert connection.stored().tolist() == [[32, 32, 34, -34, 64, 254, 254]]
    assert connection.clipped_share() == pytest.approx(1 / 7)
    connection.stored().sum().backward()
    assert connection.weight.grad is not None
    assert connection.weight.grad.tolist() == [[64, 64, 64, 64, 64, 64, 0]]


@pytest.mark.parametrize(
    ("call", "text"),
    [
        (lambda: CubaNeuron(131072, 0, 0), r"vth must lie in 0\.\.131071, got 131072"),
        (lambda: CubaNeuron(1, 4096, 0), r"du must lie in 0\.\.4095, got 4096"),
        (lambda: CubaNeuron(1, 0, -1), r"dv must lie in 0\.\.4095, got -1"),
        (lambda: CubaNeuron(1, 0, 0, 4096), r"bias_mantissa must lie in -4096\.\.4095"),
        (lambda: CubaNeuron(1, 0, 0, 0, 8), r"bias_exponent must lie in 0\.\.7"),
        (lambda: CubaNeuron(1, 0, 0, refractory=0), r"refractory must lie in 1\.\.63"),
        (lambda: CubaNeuron(1.5, 0, 0), r"vth must hold whole numbers, got 1\.5"),
        (lambda: FixedPointNeuron(0, 0), r"threshold must lie in 1\.\.32767, got 0"),
        (lambda: FixedPointNeuron(1, 5000), r"voltage_kept must lie in 0\.\.4096"),
        (lambda: FixedPointNeuron(1, 0, rounding="up"), r"rounding must be one of .*got 'up'"),
        (lambda: FixedPointNeuron(1, 0, state_bits=64), r"state_bits must lie in 2\.\.40"),
        (lambda: BitShiftNeuron(1, 16, 0), r"current_shift must lie in 0\.\.15"),
        (lambda: EventIFNeuron(40000), r"threshold must lie in 1\.\.32767"),
        (lambda: EventIFNeuron(4, 1), r"lowest must lie in -32768\.\.0, got 1"),
        (lambda: EventIFNeuron(4, reset="half"), r"reset must be 'subtract' or 'zero'"),
        (lambda: IntegerLinear([[0.5]]), r"weight must hold whole numbers"),
        (lambda: IntegerLinear([[200]], 1, -128, 127), r"weight must hold multiples of 1 in -128\.\.127"),
        (lambda: IntegerLinear([[3]], step=2), r"multiples of 2"),
        (lambda: IntegerLinear([[3]], exponent=-1), r"exponent must be >= 0"),
        (lambda: IntegerLayer(IntegerLinear([[3]]), latency=-1), r"latency and right_shift must be >= 0"),
        (
            lambda: IntegerNetwork({"a": torch.nn.ReLU()}),
            r"stage 'a' must be an IntegerLayer, SumPool or Flatten, got ReLU",
        ),
        (lambda: IntegerNetwork({})(torch.tensor([[[0.5]]])), r"input must hold whole numbers"),
        (lambda: IntegerLinear([[1, 2]])(torch.ones(1, 1, 3)), r"one input must have shape \(2,\), got \(3,\)"),
        (lambda: IntegerConv([[[[1]]]])(torch.ones(1, 1, 2, 3, 3)), r"shape \(1, H, W\), got \(2, 3, 3\)"),
        (lambda: IntegerConv(torch.ones(1, 1, 3, 3))(torch.ones(1, 1, 1, 2, 2)), r"kernel \(3, 3\) does not fit"),
        (lambda: SumPool((4, 4))(torch.ones(1, 1, 1, 2, 2)), r"window \(4, 4\) does not fit"),
        (lambda: IntegerLayer(IntegerLinear([[1]]), EventIFNeuron(5))(-torch.ones(1, 1, 1)), r"counts >= 0"),
    ],
)
def test_wrong_values_are_named(call: Any, text: str) -> None:
    with pytest.raises((ValueError, TypeError), match=text):
        call()


def test_combinations_that_a_chip_lacks_are_refused() -> None:
    linear, square = IntegerLinear([[1]]), IntegerLinear([[1]])
    with pytest.raises(UnsupportedError, match="feed-forward"):
        IntegerLayer(linear, EventIFNeuron(3), recurrent=square)
    with pytest.raises(UnsupportedError, match="linear layers only"):
        IntegerLayer(IntegerConv([[[[1]]]]), BitShiftNeuron(3, 1, 1))
    with pytest.raises(UnsupportedError, match="right shift"):
        IntegerLayer(linear, CubaNeuron(3, 1, 1), right_shift=1)
    assert issubclass(ShapeError, ValueError)
    assert all(issubclass(kind, IntegerNeuron) for kind in neurons.NEURON_KINDS.values())
