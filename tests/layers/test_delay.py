"""Delayed layers: known answers, gradients, whole delays, streaming and the ways to train them."""

from __future__ import annotations

import copy
import math
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from spikingjelly.activation_based import functional
from torch import nn

import snn
from snn.errors import ShapeError
from snn.layers import (
    DelayedConv1d,
    DelayedConv2d,
    DelayedLinear,
    anneal_sigma,
    annealed_sigma,
    clamp_delays,
    delay_gaussian,
    delay_parameter_groups,
    round_delays,
)
from snn.layers.delay_gaussian import Gaussian
from snn.layers.delay_ops import TwoTap, whole_delays_forward
from snn.layers.delay_path import delayed_sum
from snn.layers.delay_positions import rounded_half_up
from snn.layers.delay_reference import delayed_linear_reference, tap_kernel_reference

DOUBLE = torch.float64
KINDS = ["synaptic", "axonal", "dendritic"]
KERNELS = ["gaussian", "two-tap"]
SIZES = [(7, 3, 5, 4, 3), (30, 19, 18, 7, 8), (5, 2, 3, 2, 9), (1, 1, 1, 1, 1), (215, 2, 70, 3, 11)]
SIGMAS = [None, 0.5, 2.0, 6.0]


def problem(T: int, B: int, inputs: int, outputs: int, max_delay: int, dtype: torch.dtype = DOUBLE) -> Any:
    x = torch.randn(T, B, inputs, dtype=dtype)
    weight = torch.randn(outputs, inputs, dtype=dtype)
    delay = torch.rand(outputs, inputs, dtype=dtype) * max_delay
    return [value.requires_grad_() for value in (x, weight, delay)]


def impulse_at(t: int, T: int) -> torch.Tensor:
    x = torch.zeros(T, 1, 1, dtype=DOUBLE)
    x[t] = 1
    return x


def one_synapse(max_delay: int, delay: float, weight: float, kernel: Any, **arguments: Any) -> DelayedLinear:
    layer = DelayedLinear(1, 1, max_delay, kernel=kernel, **arguments).double()
    with torch.no_grad():
        layer.weight.fill_(weight)
        layer.positions.delay.fill_(delay)
    return layer


@pytest.mark.parametrize("sigma", SIGMAS)
@pytest.mark.parametrize("sizes", SIZES, ids=str)
def test_fast_sums_equal_the_reference(sizes: Any, sigma: float | None) -> None:
    leaves = problem(*sizes)
    max_delay = sizes[-1]
    expected = delayed_linear_reference(*leaves, max_delay, sigma)
    y = TwoTap.apply(*leaves, max_delay) if sigma is None else Gaussian.apply(*leaves, max_delay, sigma)
    cotangent = torch.randn_like(y)
    torch.testing.assert_close(y, expected, rtol=1e-9, atol=1e-9)
    for ours, theirs in zip(
        torch.autograd.grad((y * cotangent).sum(), leaves),
        torch.autograd.grad((expected * cotangent).sum(), leaves),
        strict=True,
    ):
        torch.testing.assert_close(ours, theirs, rtol=1e-8, atol=1e-8)


@pytest.mark.parametrize("sizes", [(23, 7, 8, 5, 4), (9, 5, 7, 6, 12), (12, 4, 3, 3, 1), (10, 1, 9, 1, 5)], ids=str)
def test_gaussian_sums_in_small_pieces(sizes: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    """Pieces that divide nothing evenly, and memory that would show if it were read before it is written."""
    for name, size in {"SEGMENT": 6, "SAMPLES": 3, "INPUTS": 3, "OUTPUTS": 2, "GRADIENT_INPUTS": 2}.items():
        monkeypatch.setattr(delay_gaussian, name, size)
    take = delay_gaussian._Buffers.take
    monkeypatch.setattr(
        delay_gaussian._Buffers, "take", lambda self, name, *shape: take(self, name, *shape).fill_(math.nan)
    )
    leaves = problem(*sizes)
    for sigma in (0.5, 2.0, 6.0):
        y = Gaussian.apply(*leaves, sizes[-1], sigma)
        expected = delayed_linear_reference(*leaves, sizes[-1], sigma)
        torch.testing.assert_close(y, expected, rtol=1e-9, atol=1e-9)
        cotangent = torch.randn_like(y)
        for ours, theirs in zip(
            torch.autograd.grad(y, leaves, cotangent), torch.autograd.grad(expected, leaves, cotangent), strict=True
        ):
            torch.testing.assert_close(ours, theirs, rtol=1e-8, atol=1e-8)


def test_taps_far_from_the_delay_can_be_left_out() -> None:
    """Taps below 1e-20 of the bump are 0, also where the gradients that they get are small."""
    x, weight, delay = problem(40, 4, 6, 5, 24)
    expected = delayed_linear_reference(x, weight, delay, 24, 0.5)
    cotangent = 1e-9 * torch.randn_like(expected)
    wanted = torch.autograd.grad(expected, [weight, delay], cotangent)
    leaves = [value.detach().float().requires_grad_() for value in (x, weight, delay)]
    y = delayed_sum(*leaves, 24, 0.5)
    for ours, theirs in zip(torch.autograd.grad(y, leaves[1:], cotangent.float()), wanted, strict=True):
        assert float((ours - theirs).abs().max() / theirs.abs().max()) < 1e-5


@pytest.mark.parametrize("sigma", [None, 0.7, 3.0])
def test_gradients_equal_finite_differences(sigma: float | None) -> None:
    x, weight, delay = problem(9, 2, 3, 2, 5)
    with torch.no_grad():
        delay.copy_(delay.floor() + 0.2 + 0.6 * torch.rand_like(delay))  # two taps have a kink at whole delays
    assert torch.autograd.gradcheck(lambda *leaves: delayed_sum(*leaves, 6, sigma), (x, weight, delay), atol=1e-6)


def test_float32_and_reduced_precision() -> None:
    leaves = problem(40, 5, 30, 8, 12)
    for sigma in (None, 2.0):
        expected = delayed_linear_reference(*leaves, 12, sigma)
        y = delayed_sum(*(leaf.float() for leaf in leaves), 12, sigma)
        assert y.dtype == torch.float32
        assert float((y - expected).detach().abs().max() / expected.detach().abs().max()) < 1e-5
        half = delayed_sum(leaves[0].bfloat16(), leaves[1].float(), leaves[2].float(), 12, sigma)
        assert half.dtype == torch.bfloat16
        assert float((half - expected).detach().abs().max() / expected.detach().abs().max()) < 0.02


@pytest.mark.parametrize("delay", [0, 5, 12, 17, 24])
@pytest.mark.parametrize("kernel", KERNELS)
def test_a_spike_leaves_after_its_delay(delay: int, kernel: Any) -> None:
    layer = one_synapse(24, delay, 1.5, kernel).eval()
    y = layer(impulse_at(3, 40)).flatten()
    assert y.nonzero().flatten().tolist() == [3 + delay]
    assert y[3 + delay] == 1.5


def test_tap_kernels() -> None:
    delay = torch.tensor(1.7, dtype=DOUBLE)  # position 0.3 of a kernel of five steps, counted from its middle
    gauss = tap_kernel_reference(delay, 4, 0.5).flip(0)
    expected = torch.tensor([0.000020, 0.027287, 0.669425, 0.300792, 0.002475], dtype=DOUBLE)
    torch.testing.assert_close(gauss, expected, atol=5e-7, rtol=0)
    torch.testing.assert_close(
        tap_kernel_reference(delay, 4, None).flip(0), torch.tensor([0, 0, 0.7, 0.3, 0], dtype=DOUBLE)
    )
    assert abs(float(gauss.sum()) - 1) < 2e-7


def test_two_taps_share_a_spike() -> None:
    y = one_synapse(5, 2.25, 2.0, "two-tap").train()(impulse_at(1, 8)).detach().flatten()
    assert y.tolist() == [0, 0, 0, 1.5, 0.5, 0, 0, 0]


def test_two_tap_gradient_formula() -> None:
    x, weight, delay = problem(12, 2, 1, 1, 4)
    with torch.no_grad():
        delay.fill_(2.25)
    y = delayed_sum(x, weight, delay, 4, None)
    g = torch.randn_like(y)
    (g_delay,) = torch.autograd.grad((y * g).sum(), delay)
    late = [torch.cat([torch.zeros_like(x[:n]), x[: len(x) - n]]) for n in (2, 3)]
    torch.testing.assert_close(g_delay, (g * weight * (late[1] - late[0])).sum().view(1, 1))


@pytest.mark.parametrize(
    ("sigma", "means"), [(12.27, (8.57, 12.00, 15.43)), (2.0, (1.30, 12, 22.70)), (0.5, (0.12, 12, 23.88))]
)
def test_bumps_are_cut_at_the_border(sigma: float, means: tuple[float, ...]) -> None:
    taps = tap_kernel_reference(torch.tensor([0.0, 12.0, 24.0], dtype=DOUBLE), 24, sigma)
    found = torch.arange(25, dtype=DOUBLE) @ taps
    torch.testing.assert_close(found, torch.tensor(means, dtype=DOUBLE), atol=0.006, rtol=0)


@pytest.mark.parametrize("kernel", KERNELS)
@pytest.mark.parametrize("training", [True, False])
def test_axonal_and_dendritic_delays_are_synaptic_ones_that_agree(kernel: Any, training: bool) -> None:
    x = torch.randn(20, 3, 6, dtype=DOUBLE)
    for kind in ("axonal", "dendritic"):
        layer = DelayedLinear(6, 4, 7, kind=kind, kernel=kernel).double().train(training)
        full = DelayedLinear(6, 4, 7, kernel=kernel).double().train(training)
        own = layer.positions.delay
        with torch.no_grad():
            full.weight.copy_(layer.weight)
            full.positions.delay.copy_(own.expand(4, 6) if kind == "axonal" else own.view(4, 1).expand(4, 6))
        y, expected = layer(x), full(x)
        torch.testing.assert_close(y, expected, rtol=1e-9, atol=1e-10)
        cotangent = torch.randn_like(y)
        if training:
            (g_full,) = torch.autograd.grad((expected * cotangent).sum(), full.positions.delay)
            (g,) = torch.autograd.grad((y * cotangent).sum(), own)
            torch.testing.assert_close(g, g_full.sum(0 if kind == "axonal" else 1), rtol=1e-8, atol=1e-9)


def test_delays_of_two_layers_add() -> None:
    first, second = one_synapse(9, 4, 1.0, "two-tap").eval(), one_synapse(9, 7, 1.0, "two-tap").eval()
    y = second(first(impulse_at(2, 20))).flatten()
    assert y.nonzero().flatten().tolist() == [13]


def test_no_delay_is_a_linear_layer() -> None:
    layer = DelayedLinear(5, 3, 1, kernel="two-tap", bias=True).double()
    with torch.no_grad():
        layer.positions.delay.zero_()
        layer.bias.normal_()
    x = torch.randn(6, 4, 5, dtype=DOUBLE)
    torch.testing.assert_close(layer(x), nn.functional.linear(x, layer.weight, layer.bias))


def test_splitting_by_delay_is_exact() -> None:
    layer = DelayedLinear(6, 4, 5).double().eval().round_()
    x = torch.randn(12, 2, 6, dtype=DOUBLE)
    d = layer.delays()
    parts = [
        torch.cat([torch.zeros_like(x[:k]), x[: 12 - k]]) @ torch.where(d == k, layer.weight, 0.0).t() for k in range(6)
    ]
    torch.testing.assert_close(layer(x), sum(parts), rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize("dtype", [torch.float32, DOUBLE], ids=str)
@pytest.mark.parametrize("density", [0.01, 0.5])
@pytest.mark.parametrize("graded", [True, False])
def test_single_events_equal_the_dense_form_exactly(density: float, graded: bool, dtype: torch.dtype) -> None:
    weight = torch.randint(-16, 17, (9, 12)).to(dtype) / 8
    delay = torch.randint(0, 8, (9, 12)).to(dtype)
    for B in (1, 5, 33):
        x = (torch.rand(60, B, 12) < density).to(dtype)
        x = x * torch.randint(1, 5, x.shape) if graded else x
        y = whole_delays_forward(x, weight, delay, 7)
        assert torch.equal(y, delayed_linear_reference(x, weight, delay, 7, None))


def test_ring_buffer_gives_the_spikes_of_the_layer() -> None:
    """The event-driven form with one ring of currents per neuron, as on a chip."""
    layer = DelayedLinear(12, 9, 7).double().eval().round_()
    with torch.no_grad():
        layer.weight.copy_(torch.randint(-8, 17, (9, 12)) / 8)
    neuron = snn.LIF(tau=4.0, decay_input=False, step_mode="m").double()
    x = (torch.rand(60, 1, 12) < 0.2).double()
    expected = neuron(layer(x))[:, 0]
    delay, weight = layer.delays().long(), layer.weight.detach()
    ring, v = torch.zeros(8, 9, dtype=DOUBLE), torch.zeros(9, dtype=DOUBLE)
    found = []
    for t in range(60):
        for i in x[t, 0].nonzero().flatten():
            for j in range(9):
                ring[(t + delay[j, i]) % 8, j] += weight[j, i]
        v = v - v / 4.0 + ring[t % 8]
        ring[t % 8] = 0
        z = (v >= 1.0).double()
        v = torch.where(z > 0, 0.0, v)
        found.append(z)
    assert expected.sum() > 20
    assert torch.equal(torch.stack(found), expected)


@settings(deadline=None, max_examples=20)
@given(st.integers(1, 12), st.integers(1, 20), st.integers(1, 3), st.booleans(), st.sampled_from(KINDS))
def test_causal_for_any_size(max_delay: int, T: int, B: int, training: bool, kind: Any) -> None:
    layer = DelayedLinear(3, 2, max_delay, kind=kind, kernel="two-tap").double().train(training)
    x = torch.randn(T, B, 3, dtype=DOUBLE)
    other = x.clone()
    cut = T // 2
    other[cut:] = torch.randn_like(other[cut:])
    with torch.no_grad():
        assert torch.equal(layer(x)[:cut], layer(other)[:cut])


@pytest.mark.parametrize("kernel", KERNELS)
@pytest.mark.parametrize("training", [True, False])
def test_pieces_and_single_steps_equal_the_whole(kernel: Any, training: bool) -> None:
    layer = DelayedLinear(6, 4, 5, kernel=kernel, bias=True).double().train(training)
    x = torch.randn(17, 3, 6, dtype=DOUBLE)
    whole = layer(x)
    state, parts = None, []
    for piece in x.split([2, 9, 6]):
        y, state = layer(piece, state=state)
        parts.append(y)
    torch.testing.assert_close(torch.cat(parts), whole, rtol=1e-9, atol=1e-10)
    layer.step_mode = "s"
    torch.testing.assert_close(torch.stack([layer(x_t) for x_t in x]), whole, rtol=1e-9, atol=1e-10)
    functional.reset_net(layer)
    torch.testing.assert_close(layer(x[0]), whole[0], rtol=1e-9, atol=1e-10)


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("kernel", KERNELS)
@pytest.mark.parametrize("spatial", [1, 2])
def test_convolutions_equal_one_delayed_sum_per_pixel(spatial: int, kernel: Any, kind: Any) -> None:
    layer_class: Any = (DelayedConv1d, DelayedConv2d)[spatial - 1]
    layer = layer_class(2, 3, 3, 4, stride=2, padding=1, kind=kind, kernel=kernel, bias=True).double()
    with torch.no_grad():
        layer.bias.normal_()
    size = (7,) if spatial == 1 else (7, 6)
    x = torch.randn(6, 2, 2, *size, dtype=DOUBLE)
    delay, sigma = layer.positions.current()
    shape = layer.weight.shape
    if kind != "synaptic":
        delay = delay.view((1, -1) if kind == "axonal" else (-1, 1)).expand(shape[:2])
        delay = delay.reshape(*shape[:2], *(1 for _ in range(spatial))).expand(shape)
    taps = layer.weight * tap_kernel_reference(delay, 4, sigma)
    convolve = nn.functional.conv1d if spatial == 1 else nn.functional.conv2d
    expected: Any = 0
    for n in range(5):
        late = torch.cat([torch.zeros_like(x[:n]), x[: 6 - n]]).flatten(0, 1)
        expected = expected + convolve(late, taps[n], None, 2, 1).unflatten(0, (6, 2))
    expected = expected + layer.bias.view(-1, *(1 for _ in range(spatial)))
    torch.testing.assert_close(layer(x), expected, rtol=1e-9, atol=1e-9)
    layer.eval()
    whole = layer(x)
    layer.step_mode = "s"
    torch.testing.assert_close(torch.stack([layer(x_t) for x_t in x]), whole, rtol=1e-9, atol=1e-9)


def test_rounding_is_half_up_and_stays() -> None:
    layer = DelayedLinear(4, 1, 6, kernel="two-tap")
    with torch.no_grad():
        layer.positions.delay.copy_(torch.tensor([[0.5, 1.5, 2.49, 9.0]]))
    assert layer.eval().delays().tolist() == [[1, 2, 2, 6]]
    assert layer.positions.delay.flatten().tolist() == pytest.approx([0.5, 1.5, 2.49, 9.0])
    assert layer.round_() is layer
    assert layer.train().delays().tolist() == [[1, 2, 2, 6]]
    assert not layer.positions.delay.requires_grad
    other = DelayedLinear(4, 1, 6, kernel="two-tap")
    other.load_state_dict(layer.state_dict())
    assert other.positions.is_rounded
    x = torch.randn(9, 2, 4)
    assert torch.equal(other(x), layer(x))
    assert rounded_half_up(torch.tensor([0.5, 1.5, 2.5])).tolist() == [1, 2, 3]


def test_delays_outside_the_range_act_as_the_border_and_still_learn() -> None:
    layer = one_synapse(4, 7.0, 1.0, "two-tap").train()
    x = torch.rand(12, 1, 1, dtype=DOUBLE)
    y = layer(x)
    y.square().sum().backward()
    assert torch.allclose(y[4:], x[:8])
    assert layer.positions.delay.grad.abs().sum() > 0
    clamp_delays(layer)
    assert layer.positions.delay.item() == 4.0


def test_annealing_follows_the_paper() -> None:
    assert annealed_sigma(0, 150, 24) == pytest.approx(12.27)
    assert annealed_sigma(1, 150, 24) == pytest.approx(12 * 0.898633 + 0.27, abs=2e-5)
    assert annealed_sigma(36, 150, 24) > 0.5
    assert [annealed_sigma(epoch, 150, 24) for epoch in (37, 149)] == [0.5, 0.5]
    assert annealed_sigma(1, 60, 30) == pytest.approx(15 * 0.756907 + 0.27, abs=2e-5)
    assert annealed_sigma(0, 3, 24) == 0.5
    net = nn.Sequential(DelayedLinear(3, 3, 8), snn.LIF(step_mode="m"), DelayedLinear(3, 2, 4))
    anneal_sigma(net, 0, 40)
    assert (net[0].positions.sigma, net[2].positions.sigma) == (4.27, 2.27)
    other = copy.deepcopy(net)
    anneal_sigma(net, 39, 40)
    other.load_state_dict(net.state_dict())
    assert other[0].positions.sigma == 0.5


def test_parameter_groups() -> None:
    net = nn.Sequential(DelayedLinear(3, 3, 8, bias=True), snn.LIF(step_mode="m"), DelayedLinear(3, 2, 4).round_())
    others, delays = delay_parameter_groups(net, lr=1e-3)
    assert delays["params"] == [net[0].positions.delay]
    assert (others["lr"], delays["lr"], delays["weight_decay"]) == (1e-3, 0.1, 0.0)
    assert {id(p) for p in others["params"]} == {id(net[0].weight), id(net[0].bias), id(net[2].weight)}
    round_delays(net)
    with pytest.raises(ValueError, match="Sequential has no delays to learn"):
        delay_parameter_groups(net, lr=1e-3)


def test_annealed_gaussian_finds_a_far_delay_and_two_taps_do_not() -> None:
    x = (torch.rand(200, 16, 1) < 0.1).float()
    target = torch.cat([torch.zeros(20, 16, 1), x[:-20]])
    found = {}
    for kernel in KERNELS:
        layer = one_synapse(30, 2.0, 1.0, kernel).float().train()
        groups = delay_parameter_groups(layer, lr=0.01, delay_lr_factor=10)
        optimizer = torch.optim.Adam(groups)
        for step in range(600):
            layer.positions.sigma = 15 * (0.23 / 15) ** min(1, step / 300) + 0.27
            optimizer.zero_grad()
            ((layer(x) - target) ** 2).mean().backward()
            optimizer.step()
            clamp_delays(layer)
        found[kernel] = layer.positions.delay.item()
    assert found["gaussian"] == pytest.approx(20.0, abs=0.3)
    assert abs(found["two-tap"] - 2.0) < 2.0


def test_sums_do_not_depend_on_the_number_of_threads() -> None:
    leaves = problem(20, 50, 12, 9, 6, torch.float32)
    results = []
    before = torch.get_num_threads()
    for count in (1, 3):
        torch.set_num_threads(count)
        y = TwoTap.apply(*leaves, 6)
        results.append([y, *torch.autograd.grad(y.square().sum(), leaves)])
    torch.set_num_threads(before)
    for one, three in zip(*results, strict=True):
        assert torch.equal(one, three)


def test_delays_longer_than_the_sequence() -> None:
    leaves = problem(6, 3, 4, 2, 40)
    for sigma in (None, 9.0):
        expected = delayed_linear_reference(*leaves, 40, sigma)
        y = delayed_sum(*leaves, 40, sigma)
        torch.testing.assert_close(y, expected, rtol=1e-9, atol=1e-9)
        g, g_expected = (torch.autograd.grad(value.square().sum(), leaves) for value in (y, expected))
        for ours, theirs in zip(g, g_expected, strict=True):
            torch.testing.assert_close(ours, theirs, rtol=1e-8, atol=1e-9)


def test_bad_input_is_named() -> None:
    with pytest.raises(ValueError, match="kind must be one of"):
        DelayedLinear(2, 2, 3, kind="somatic")  # type: ignore[arg-type]
    with pytest.raises(ValueError, match="kernel must be 'gaussian' or 'two-tap', got 'max'"):
        DelayedLinear(2, 2, 3, kernel="max")  # type: ignore[arg-type]
    with pytest.raises(ValueError, match="max_delay must be a whole number"):
        DelayedLinear(2, 2, 0)
    layer = DelayedLinear(2, 2, 3)
    with pytest.raises(ShapeError, match=r"\[T, B, in_features\] with in_features=2"):
        layer(torch.zeros(4, 2))
    _, state = layer(torch.zeros(4, 5, 2), state=None)
    with pytest.raises(ShapeError, match=r"'history' has shape \(3, 5, 2\), the input needs \(3, 4, 2\)"):
        layer(torch.zeros(4, 4, 2), state=state)
    with pytest.raises(ShapeError, match=r"\[T, B, 2, H, W\]"):
        DelayedConv2d(2, 3, 3, 4)(torch.zeros(4, 2, 3, 5, 5))
    with pytest.raises(ValueError, match="a size must be a number or 2 numbers"):
        DelayedConv2d(2, 3, (3, 3, 3), 4)
    with pytest.raises(ValueError, match="epochs must be >= 1"):
        annealed_sigma(0, 0, 10)
