"""One step with sums over the batch: values, moments and every gradient against eager torch."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest
import torch
from closeness import assert_close
from hypothesis import given, settings
from hypothesis import strategies as st
from spikingjelly.activation_based import surrogate as sj

from snn.errors import ShapeError, UnsupportedError
from snn.kernels import memory
from snn.kernels.call import NeuronCall
from snn.kernels.lanes import one_step, output_with_moments
from snn.kernels.moments import Moments
from snn.kernels.reference import run_reference
from snn.neurons.adaptive import adaptive_lif
from snn.neurons.cuba import cuba_lif
from snn.neurons.lif import leaky_integrate_and_fire, leaky_integrator

SHAPE = (5, 6, 7, 3)
DOUBLE = torch.float64


def normal(*shape: int, seed: int = 0) -> torch.Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed), dtype=DOUBLE)


def call_of(model: Any, **params: Any) -> NeuronCall:
    """A step from states away from rest, whose tensors all want gradients."""
    states = {name: 0.3 * normal(*SHAPE, seed=k + 1) for k, name in enumerate(model.state)}
    call = NeuronCall(model, 0.4 + 1.5 * normal(*SHAPE), states, {**model.params, **params}, sj.Sigmoid())
    for value in tensors_of(call).values():
        value.requires_grad_()
    return call


def tensors_of(call: NeuronCall) -> dict[str, torch.Tensor]:
    named = {"x": call.x, **call.states, **call.params}
    return {name: value for name, value in named.items() if isinstance(value, torch.Tensor)}


def expected(call: NeuronCall) -> list[torch.Tensor]:
    result = run_reference(replace(call, x=call.x.unsqueeze(0)))
    return [result.output.squeeze(0), *result.states.values()]


def gradients(outputs: list[torch.Tensor], call: NeuronCall) -> list[torch.Tensor | None]:
    total = sum((output * normal(*output.shape, seed=20 + k)).sum() for k, output in enumerate(outputs))
    return list(torch.autograd.grad(total, list(tensors_of(call).values()), allow_unused=True))


CALLS = [
    (leaky_integrate_and_fire, {}),
    (leaky_integrate_and_fire, {"v_reset": None, "decay_input": False}),
    (leaky_integrate_and_fire, {"tau": torch.tensor(2.5, dtype=DOUBLE)}),
    (leaky_integrate_and_fire, {"tau": 2 + normal(6, 1, 1).square(), "v_threshold": 1 + 0.1 * normal(1, 6, 7, 3)}),
    (leaky_integrate_and_fire, {"v_threshold": 1 + 0.1 * normal(5, 1, 1, 3)}),  # differs from sample to sample
    (leaky_integrate_and_fire, {"tau": 2 + normal(7, 1).square(), "detach_reset": True}),
    (cuba_lif, {"c_decay": torch.full((6, 1, 1), 0.4, dtype=DOUBLE)}),
    (adaptive_lif, {"beta": torch.full((3,), 0.3, dtype=DOUBLE)}),
]


@pytest.mark.parametrize(("model", "params"), CALLS, ids=lambda value: getattr(value, "name", ""))
def test_step_equals_the_reference(model: Any, params: dict[str, Any]) -> None:
    call = call_of(model, **params)
    result = one_step(replace(call, recorded=("v",)))
    ours, reference = [result.output, *result.states.values()], expected(call)
    assert 0.03 < reference[0].mean() < 0.8
    for one, other in zip(ours, reference, strict=True):
        assert torch.equal(one, other)
    assert torch.equal(result.sequences["v"], result.states["v"])
    for one, other in zip(gradients(ours, call), gradients(reference, call), strict=True):
        assert one is not None
        assert other is not None
        assert_close(one, other, 1e-11)


@pytest.mark.parametrize("features", [(6,), (6, 7), (6, 7, 3)], ids=str)
def test_moments_equal_those_of_torch(features: tuple[int, ...]) -> None:
    call = call_of(leaky_integrator, tau=2 + normal(6, 1, 1).square())
    output, mean, var = output_with_moments(call, features)
    (reference, *_) = expected(call)
    wide = reference.reshape(5, *features, -1)
    their_var, their_mean = torch.var_mean(wide, (0, -1), correction=0)
    assert torch.equal(output, reference)
    assert_close(mean, their_mean, 1e-12)
    assert_close(var, their_var, 1e-12)
    ours = gradients([output, mean, var], call)
    for one, other in zip(ours, gradients([reference, their_mean, their_var], call), strict=True):
        assert one is not None
        assert other is not None
        assert_close(one, other, 1e-11)
    (by_mean,) = torch.autograd.grad(output_with_moments(call, features)[1].sum(), call.x)
    (by_theirs,) = torch.autograd.grad(expected(call)[0].reshape(5, *features, -1).mean((0, -1)).sum(), call.x)
    assert_close(by_mean, by_theirs, 1e-11)


@settings(max_examples=20, deadline=None)
@given(
    samples=st.integers(1, 9), channels=st.integers(1, 4), pixels=st.integers(1, 40), common=st.floats(-1e4, 1e4),
    seed=st.integers(0, 99),
)  # fmt: skip
def test_both_ways_to_the_moments_agree(samples: int, channels: int, pixels: int, common: float, seed: int) -> None:
    h = common + normal(samples, channels, pixels, seed=seed)
    call = NeuronCall(leaky_integrator, h, {"v": 0.0}, {"tau": 1.0, "decay_input": True}, sj.Sigmoid())
    output, mean, var = output_with_moments(call, (channels,))
    their_mean, their_var = Moments.apply(output, (channels,))
    torch.testing.assert_close(mean, their_mean, rtol=1e-12, atol=1e-12)
    torch.testing.assert_close(var, their_var, rtol=1e-9, atol=1e-9)


def test_only_what_is_wanted_gets_a_gradient() -> None:
    call = call_of(cuba_lif)
    for name, value in tensors_of(call).items():
        value.requires_grad_(name == "c")
    result = one_step(call)
    (ours,) = torch.autograd.grad(result.states["c"].sum(), call.states["c"])
    assert torch.equal(ours, torch.full(SHAPE, 0.5, dtype=DOUBLE))
    call.states["c"].requires_grad_(False)
    assert not one_step(call).output.requires_grad


def test_rows_that_are_not_contiguous() -> None:
    call = call_of(leaky_integrate_and_fire)
    other = replace(call, x=call.x.detach().transpose(1, 3).contiguous().transpose(1, 3).requires_grad_())
    ours, theirs = ([result.output, *result.states.values()] for result in map(one_step, (other, call)))
    for one, same in zip(ours, theirs, strict=True):
        assert torch.equal(one, same)
    for one_gradient, same_gradient in zip(gradients(ours, other), gradients(theirs, call), strict=True):
        assert torch.equal(one_gradient, same_gradient)


def test_every_value_is_written(monkeypatch: pytest.MonkeyPatch) -> None:
    def filled(shape: Any, dtype: torch.dtype) -> torch.Tensor:
        return torch.full(tuple(shape), torch.nan, dtype=dtype)

    monkeypatch.setattr(memory, "empty", filled)
    monkeypatch.setattr("snn.kernels.lanes.empty", filled)
    call = call_of(adaptive_lif, tau=torch.full((6, 1, 1), 2.0, dtype=DOUBLE))
    result = one_step(call)
    for value in [result.output, *result.states.values(), *gradients([result.output, result.states["a"]], call)]:
        assert value is not None
        assert value.isfinite().all()


def test_results_do_not_depend_on_the_number_of_threads() -> None:
    x = torch.randn(40, 8, 16, 16)
    params = {**leaky_integrate_and_fire.params, "tau": torch.full((8, 1, 1), 2.0).requires_grad_()}
    call = NeuronCall(leaky_integrate_and_fire, x, {"v": 0.1}, params, sj.Sigmoid())
    before, results = torch.get_num_threads(), []
    for count in (1, 3):
        torch.set_num_threads(count)
        output, mean, var = output_with_moments(call, (8,))
        (to_tau,) = torch.autograd.grad((output * x).sum() + var.sum(), params["tau"])
        results.append((output, mean, var, to_tau))
    torch.set_num_threads(before)
    for one, three in zip(*results, strict=True):
        assert torch.equal(one, three)


def test_second_derivatives_are_refused() -> None:
    call = call_of(leaky_integrate_and_fire)
    (first,) = torch.autograd.grad(one_step(call).output.sum(), call.x, create_graph=True)
    with pytest.raises(UnsupportedError, match="use backend='reference'"):
        first.sum().backward()


def test_moments_have_second_derivatives() -> None:
    h = normal(4, 3, 2).requires_grad_()
    assert torch.autograd.gradgradcheck(lambda h: Moments.apply(h, (3,)), h)


def test_parameter_of_a_wrong_shape_is_named() -> None:
    call = call_of(leaky_integrate_and_fire, tau=torch.full((5, 1, 1), 2.0, dtype=DOUBLE))
    with pytest.raises(ShapeError, match=r"parameter 'tau' has shape \(5, 1, 1\)"):
        one_step(call)
