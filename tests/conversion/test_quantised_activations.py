"""QCFS and QuantAct: values, gradients and steps against closed forms, finite differences and plain torch."""

from __future__ import annotations

import copy
import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn

import snn
from snn.conversion.activations import QCFS, QuantAct, step_counts


def gradients(module: nn.Module, x: torch.Tensor, parameter: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    x = x.clone().requires_grad_()
    to_x, to_parameter = torch.autograd.grad(module(x).sum(), [x, parameter])
    return to_x, to_parameter


@pytest.mark.parametrize(
    ("x", "h", "to_x", "to_threshold"),
    [(0.3, 0.25, 1.0, -0.05), (0.05, 0.0, 1.0, -0.05), (1.05, 1.0, 0.0, 1.0), (-0.2, 0.0, 0.0, 0.0)],
)
def test_qcfs_values_and_gradients_are_the_published_ones(x: float, h: float, to_x: float, to_threshold: float) -> None:
    activation = QCFS(levels=4, init=1.0).double()
    given_x = torch.tensor([x], dtype=torch.float64)
    assert activation(given_x).item() == h
    by_x, by_threshold = gradients(activation, given_x, activation.threshold)
    assert by_x.item() == to_x
    assert by_threshold.item() == pytest.approx(to_threshold, abs=1e-12)


def test_qcfs_table_of_four_levels() -> None:
    x = torch.tensor([-0.3, 0.05, 0.1, 0.2, 0.35, 0.5, 0.75, 0.999, 1.4])
    assert QCFS(4, init=1.0)(x).tolist() == [0.0, 0.0, 0.0, 0.25, 0.25, 0.5, 0.75, 1.0, 1.0]


def test_the_ends_of_the_clip_pass_no_gradient() -> None:
    x = torch.tensor([0.0, 1.0, -0.125, 1.875], requires_grad=True)
    QCFS(4, 1.0)(x)[:2].sum().backward()
    assert x.grad is not None
    assert x.grad[:2].tolist() == [0.0, 0.0]
    x.grad = None
    QuantAct(8, step=0.25)(x)[2:].sum().backward()  # positions -1/2 and 7 1/2
    assert x.grad[2:].tolist() == [0.0, 0.0]


def test_qcfs_equals_clip_then_floor_in_plain_torch() -> None:
    x = torch.randn(500, dtype=torch.float64) * 3
    activation = QCFS(levels=8, init=2.5).double()
    threshold = torch.tensor(2.5, dtype=torch.float64, requires_grad=True)
    x_plain = x.clone().requires_grad_()
    clipped = (x_plain / threshold).clamp(0, 1) * 8
    plain = ((clipped + 0.5).floor() - clipped).detach() + clipped
    plain = plain / 8 * threshold
    assert torch.allclose(activation(x), plain, atol=1e-12)
    expected = torch.autograd.grad(plain.sum(), [x_plain, threshold])
    for ours, theirs in zip(gradients(activation, x, activation.threshold), expected, strict=True):
        assert torch.allclose(ours, theirs, atol=1e-10)


def test_dithered_qcfs_has_the_clipped_input_as_its_mean_and_equal_shifts_within_a_channel() -> None:
    torch.manual_seed(0)
    x = torch.tensor([-0.2, 0.05, 0.3, 0.6, 0.99, 1.4], dtype=torch.float64).view(1, 1, 6, 1).expand(4000, 2, 6, 3)
    h = QCFS(levels=4, init=1.0, dither=True).double().train()(x)
    assert torch.equal(h, h[..., :1].expand_as(h))
    assert not torch.equal(h[:, 0], h[:, 1])
    assert bool(((h * 4) % 1 == 0).all())
    assert torch.allclose(h.mean((0, 1, 3)), x[0, 0, :, 0].clamp(0, 1), atol=5 * 0.125 / 8000**0.5)


def test_dither_is_off_in_evaluation_and_follows_the_seed() -> None:
    x = torch.randn(50, 8, 3)
    activation = QCFS(levels=4, init=1.5, dither=True)
    plain = QCFS(levels=4, init=1.5)
    assert torch.equal(activation.eval()(x), plain(x))
    activation.train()
    drawn = []
    for seed in (3, 3, 4):
        torch.manual_seed(seed)
        drawn.append(activation(x))
    assert torch.equal(drawn[0], drawn[1])
    assert not torch.equal(drawn[0], drawn[2])
    assert activation.state_dict().keys() == plain.state_dict().keys()


def test_dithered_gradients_are_straight_through() -> None:
    x = torch.randn(300, 2, dtype=torch.float64)
    activation = QCFS(levels=4, init=1.0, dither=True).double().train()
    torch.manual_seed(0)
    h = activation(x).detach()
    torch.manual_seed(0)
    by_x, by_threshold = gradients(activation, x, activation.threshold)
    inside = (x > 0) & (x < 1)
    assert torch.equal(by_x, inside.double())
    slopes = torch.where(inside, h - x, (x >= 1).double())
    assert by_threshold.item() == pytest.approx(slopes.sum().item(), abs=1e-9)


def test_dither_must_be_a_truth_value() -> None:
    with pytest.raises(TypeError, match="dither must be True or False, got 'yes'"):
        QCFS(4, dither="yes")  # type: ignore[arg-type]


def test_gradient_of_the_step_by_hand() -> None:
    """u = 0.3, step = 0.25, hi = 7: count 1, position 1.2."""
    activation = QuantAct(levels=8, step=0.25).double()
    u = torch.tensor([0.3], dtype=torch.float64)
    to_u, to_step = gradients(activation, u, activation.step)
    assert activation(u).item() == 0.25
    assert to_u.item() == 1.0
    assert to_step.item() == pytest.approx(-0.2 / math.sqrt(7), abs=1e-12)


@pytest.mark.parametrize("signed", [False, True])
@pytest.mark.parametrize("per_channel", [False, True])
def test_quantiser_equals_a_plain_reference(signed: bool, per_channel: bool) -> None:
    u = torch.randn(6, 3, 5, 4, dtype=torch.float64) * 2
    activation = QuantAct(levels=16, signed=signed, per_channel=per_channel).double().train()
    activation(u)
    axes = (0, 2, 3) if per_channel else (0, 1, 2, 3)
    step = 2 * u.abs().mean(axes, keepdim=True) / math.sqrt(activation.hi)
    assert torch.allclose(activation.step.expand_as(u[0]), step[0].expand_as(u[0]), atol=1e-14)

    position = u / step
    count = (position + 0.5).floor().clamp(activation.lo, activation.hi)
    assert torch.allclose(activation(u), step * count, atol=1e-12)
    unclipped = (position + 0.5).floor()
    inside = (unclipped >= activation.lo) & (unclipped <= activation.hi)
    slope = torch.where(inside, count - position, count)
    shared = u.numel() // (3 if per_channel else 1)
    to_step = slope.sum(axes, keepdim=True)[0] / math.sqrt(activation.hi * shared)
    by_u, by_step = gradients(activation, u, activation.step)
    assert torch.equal(by_u, inside.double())
    assert torch.allclose(by_step.flatten(), to_step.flatten(), atol=1e-10)


def test_bounds() -> None:
    assert [(q.lo, q.hi) for q in (QuantAct(16), QuantAct(16, signed=True), QuantAct(17, signed=True))] == [
        (0, 15),
        (-8, 7),
        (-8, 8),
    ]


@settings(max_examples=80, deadline=None)
@given(
    st.lists(st.integers(-400, 400), min_size=1, max_size=12),
    st.integers(-3, 2),
    st.integers(2, 20),
    st.booleans(),
)
def test_quantising_twice_changes_nothing_and_error_is_half_a_step(
    sixteenths: list[int], exponent: int, levels: int, signed: bool
) -> None:
    levels += signed  # two signed levels are refused
    activation = QuantAct(levels, signed, step=2.0**exponent).double().eval()
    u = torch.tensor(sixteenths, dtype=torch.float64) / 16
    q = activation(u)
    assert torch.equal(activation(q), q)
    step = 2.0**exponent
    within = (u >= activation.lo * step) & (u <= activation.hi * step)
    assert bool(((q - u).abs()[within] <= step / 2).all())
    assert torch.equal(q / step, step_counts(u, torch.tensor(step), activation.lo, activation.hi))


def test_halves_are_rounded_upwards() -> None:
    counts = step_counts(torch.tensor([-1.5, -0.5, 0.5, 1.5, 2.5]), torch.tensor(1.0), -8, 7)
    assert counts.tolist() == [-1.0, 0.0, 1.0, 2.0, 3.0]


def test_step_is_set_once_and_survives_saving() -> None:
    activation = QuantAct(16, per_channel=True)
    with pytest.raises(ValueError, match="the step is not set"):
        activation.eval()(torch.ones(2, 3))
    optimiser = torch.optim.SGD(activation.parameters(), lr=0.1)
    activation.train()(torch.rand(8, 3, 2, 2)).sum().backward()
    first = activation.step.detach().clone()
    assert first.shape == (3, 1, 1)
    optimiser.step()
    assert not torch.equal(activation.step, first)
    learned = activation.step.detach().clone()
    activation(torch.rand(8, 3, 2, 2) * 100)
    assert torch.equal(activation.step, learned)
    other = QuantAct(16, per_channel=True)
    other.load_state_dict(activation.state_dict())
    x = torch.rand(4, 3, 2, 2)
    assert torch.equal(other.eval()(x), activation.eval()(x))
    assert torch.equal(copy.deepcopy(activation)(x), activation(x))


def test_a_silent_channel_gets_the_mean_step() -> None:
    activation = QuantAct(4, per_channel=True)
    u = torch.tensor([[1.0, 0.0, 3.0], [1.0, 0.0, 3.0]])
    activation(u)
    assert torch.allclose(activation.step, 2 * torch.tensor([1.0, 2.0, 3.0]) / math.sqrt(3))


def test_fixed_step_gets_no_gradient() -> None:
    activation = QuantAct(16, step=0.5, learnable=False)
    assert not any(parameter.requires_grad for parameter in activation.parameters())


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: QCFS(0), "levels must be at least 1, got 0"),
        (lambda: QCFS(4, init=0.0), "init must be > 0"),
        (lambda: QuantAct(1), "levels must be at least 2, got 1"),
        (lambda: QuantAct(2, signed=True), "take 3 levels"),
        (lambda: QuantAct(4, step=-1.0), "step must be > 0"),
        (lambda: QuantAct(4)(torch.zeros(3)), "sets no step"),
        (lambda: QuantAct(4, step=1.0).set_step(torch.tensor([1.0, 0.0])), "step must be > 0"),
    ],
)
def test_bad_arguments_are_named(call: object, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        call()  # type: ignore[operator]


def test_other_channels_are_refused() -> None:
    activation = QuantAct(4, per_channel=True)
    activation(torch.rand(2, 3, 4, 4))
    with pytest.raises(snn.ShapeError, match=r"shape \(3, 1, 1\).*shape \(2, 5, 4, 4\)"):
        activation(torch.rand(2, 5, 4, 4))


def test_float32_and_half_run() -> None:
    x = torch.randn(50)
    exact = QCFS(8, init=1.0)(x)
    assert torch.equal(QCFS(8, init=1.0).to(torch.bfloat16)(exact.bfloat16()).float(), exact)
