"""What may stand between charge and fire of a declared neuron: a normalisation of its membrane.

A neuron whose step says `u, h = over_threshold(h, threshold)` is wrapped, not rewritten: the wrapped model has the same
step and a few more parameters, so the generated kernels hold the normalisation as they hold any other parameter.
"""

from __future__ import annotations

import functools
from abc import abstractmethod
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from types import SimpleNamespace
from typing import Any

import torch
from torch import nn

from snn.declaration import NeuronModel, new_model
from snn.kernels.backend import run
from snn.kernels.call import NeuronCall, NeuronResult
from snn.kernels.graph import Graph, Node, Symbol, TraceError
from snn.kernels.memory import empty
from snn.kernels.moments import Moments
from snn.kernels.operator import is_eager
from snn.ops import membrane_seen_through

CHARGED = "charged_membrane"
HALF = (torch.float16, torch.bfloat16)


@dataclass(frozen=True, eq=False)
class MembraneView:
    """How the threshold test and the reset see the membrane.

    Attributes:
        name: part of the wrapped model's name.
        params: added parameters with their neutral values.
        see: (h, threshold, p) -> (distance over the threshold, membrane that the reset acts on).
    """

    name: str
    params: Mapping[str, float]
    see: Callable[[Any, Any, Any], tuple[Any, Any]]


def _normalised_to_compare(h: Any, threshold: Any, p: Any) -> tuple[Any, Any]:
    return p.norm_scale * h + p.norm_shift - threshold, h


def _normalised_for_good(h: Any, threshold: Any, p: Any) -> tuple[Any, Any]:
    normalised = p.norm_scale * h + p.norm_shift
    return normalised - threshold, normalised


def _signed_threshold(h: Any, threshold: Any, p: Any) -> tuple[Any, Any]:
    return p.fire_sign * (h - p.fire_threshold), h


COMPARED = MembraneView("normalised", {"norm_scale": 1.0, "norm_shift": 0.0}, _normalised_to_compare)
CARRIED = MembraneView("carried", {"norm_scale": 1.0, "norm_shift": 0.0}, _normalised_for_good)
SIGNED = MembraneView("signed", {"fire_sign": 1.0, "fire_threshold": 1.0}, _signed_threshold)


class MembraneNorm(nn.Module):
    """Interface of what a neuron takes as `membrane_norm`.

    Attributes:
        view: how the membrane is seen.
        step_count: number of steps with values of their own, or None if all steps share them.
        shape: of the values of a step: [C], or a whole sample.
    """

    view: MembraneView
    step_count: int | None
    shape: tuple[int, ...]

    @property
    @abstractmethod
    def uses_batch(self) -> bool:
        """True while the values depend on the membranes of the batch, step by step."""

    @abstractmethod
    def values(self, step: int, dims: int) -> dict[str, torch.Tensor]:
        """The view's parameters at `step`, shaped for a step of the input with `dims` dimensions ([B, ...])."""

    @abstractmethod
    def batch_values(
        self, mean: torch.Tensor, var: torch.Tensor, count: int, step: int, dims: int
    ) -> dict[str, torch.Tensor]:
        """The view's parameters at `step` from the batch, differentiable.

        Args:
            mean, var: of `count` membranes each, of shape `shape`; the variance is the biased one.
            dims: as in `values`.
        """

    @abstractmethod
    def check_call(self, x: torch.Tensor, continued: bool) -> None:
        """Raises for an input [T, B, ...] that does not fit; `continued` tells that the call starts from a state."""


@functools.cache
def with_view(model: NeuronModel, view: MembraneView) -> NeuronModel:
    """The model with the added parameters of `view`, firing and resetting as it sees the membrane."""

    def step(x: Any, s: Any, p: Any) -> tuple[Any, dict[str, Any]]:
        with membrane_seen_through(lambda h, threshold: view.see(h, threshold, p)):
            return model.step(x, s, p)

    params = {**model.params, **view.params}
    return new_model(f"{model.name}_{view.name}", step, model.state, params, f"{model.key}+{view.name}")


@functools.cache
def charge_alone(model: NeuronModel) -> NeuronModel:
    """A model whose output is the membrane after the charge; its states do not move."""

    def step(x: Any, s: Any, p: Any) -> tuple[Any, dict[str, Any]]:
        h, _ = _membrane_and_threshold(model, x, s, p)
        return h, {name: getattr(s, name) for name in model.state}

    return new_model(f"{model.name}_charge", step, model.state, model.params, f"{model.key}+charge")


@functools.cache
def fire_alone(model: NeuronModel, view: MembraneView) -> NeuronModel:
    """A model that takes up the step after the charge; the membrane is its parameter `CHARGED`."""

    def step(x: Any, s: Any, p: Any) -> tuple[Any, dict[str, Any]]:
        with membrane_seen_through(lambda _, threshold: view.see(getattr(p, CHARGED), threshold, p)):
            return model.step(x, s, p)

    params = {**model.params, **view.params, CHARGED: 0.0}
    return new_model(f"{model.name}_{view.name}_fire", step, model.state, params, f"{model.key}+{view.name}+fire")


def _membrane_and_threshold(model: NeuronModel, x: Any, s: Any, p: Any) -> tuple[Any, Any]:
    seen: list[tuple[Any, Any]] = []

    def look(h: Any, threshold: Any) -> tuple[Any, Any]:
        seen.append((h, threshold))
        return h - threshold, h

    with membrane_seen_through(look):
        model.step(x, s, p)
    if len(seen) != 1:
        raise TraceError(f"neuron {model.name!r} asks over_threshold() {len(seen)} times, a norm needs exactly one")
    return seen[0]


@functools.cache
def _threshold_node(model: NeuronModel) -> Node | None:
    """What the membrane is compared with, or None if the model does not fire by `over_threshold`."""
    graph = Graph()
    x = Symbol(graph, graph.leaf("input", "x"))
    s = SimpleNamespace(**{name: Symbol(graph, graph.leaf("state", name)) for name in model.state})
    p = SimpleNamespace(
        **{
            name: value if value is None or isinstance(value, bool) else Symbol(graph, graph.leaf("param", name))
            for name, value in model.params.items()
        }
    )
    try:
        _, threshold = _membrane_and_threshold(model, x, s, p)
    except (TypeError, AttributeError):
        return None
    return x.lift(threshold)


def has_threshold(model: NeuronModel) -> bool:
    """True for a model that can be given a membrane norm."""
    return _threshold_node(model) is not None


def threshold_parameter(model: NeuronModel) -> str | None:
    """Name of the parameter that alone is the threshold, or None (a threshold that moves with a state)."""
    node = _threshold_node(model)
    return str(node.value) if node is not None and node.op == "param" else None


def run_with_norm(norm: MembraneNorm | None, backend: str, call: NeuronCall, first_step: int = 0) -> NeuronResult:
    """Runs a call whose neuron has the membrane norm `norm`; one kernel over all steps wherever the norm is fixed.

    Args:
        norm: None runs the call as it is.
        backend: as in `snn.kernels.backend.run`.
        call: the call; its model is the neuron's own.
        first_step: number of the call's first step, for norms with values per step.
    """
    if norm is None:
        return run(backend, call)
    model = with_view(call.model, norm.view)
    if norm.step_count is None and not norm.uses_batch:
        return run(backend, replace(call, model=model, params={**call.params, **norm.values(0, call.x.dim() - 1)}))
    x = call.x.float() if call.x.dtype in HALF else call.x
    run_step = _in_one_pass if norm.uses_batch and backend == "numba" and is_eager(x) else _in_two_runs
    states: Mapping[str, Any] = call.states
    steps = []
    for number, x_t in enumerate(_Steps.apply(x), start=first_step):
        steps.append(run_step(norm, backend, replace(call, x=x_t.unsqueeze(0), states=states), number))
        states = steps[-1].states
    sequences = {name: _Sequence.apply(*(step.sequences[name] for step in steps)) for name in call.recorded}
    output = _Sequence.apply(*(step.output for step in steps)).to(call.x.dtype)
    return NeuronResult(output, steps[-1].states, sequences)


def _in_two_runs(norm: MembraneNorm, backend: str, call: NeuronCall, step: int) -> NeuronResult:
    """One step: a run that charges if the norm uses the batch, then one that charges, normalises and fires."""
    dims = call.x.dim() - 1
    if norm.uses_batch:
        charge = run(backend, replace(call, model=charge_alone(call.model), recorded=()))
        h = charge.output.squeeze(0)
        mean, var = Moments.apply(h, norm.shape)
        values = norm.batch_values(mean, var, h.numel() // mean.numel(), step, dims)
    else:
        values = norm.values(step, dims)
    return run(backend, replace(call, model=with_view(call.model, norm.view), params={**call.params, **values}))


def _in_one_pass(norm: MembraneNorm, backend: str, call: NeuronCall, step: int) -> NeuronResult:
    """The same on the CPU: the kernel that charges takes the statistics, and the next one fires from its membrane."""
    from snn.kernels.lanes import one_step, output_with_moments  # brings Numba

    call = replace(call, x=call.x.squeeze(0))
    h, mean, var = output_with_moments(replace(call, model=charge_alone(call.model)), norm.shape)
    values = norm.batch_values(mean, var, h.numel() // mean.numel(), step, h.dim())
    params = {**call.params, **values, CHARGED: h}
    result = one_step(replace(call, model=fire_alone(call.model, norm.view), params=params))
    sequences = {name: sequence.unsqueeze(0) for name, sequence in result.sequences.items()}
    return NeuronResult(result.output.unsqueeze(0), result.states, sequences)


def _joined(parts: Sequence[torch.Tensor], shape: Sequence[int]) -> torch.Tensor:
    """The parts one after the other along the first dimension; on the CPU in memory that is used again."""
    like = parts[0]
    if torch.is_grad_enabled():  # for a second derivative
        return torch.cat(list(parts))
    whole = empty(torch.Size(shape), like.dtype) if like.device.type == "cpu" else like.new_empty(shape)
    for piece, part in zip(whole.split([len(part) for part in parts]), parts, strict=True):
        piece.copy_(part)
    return whole


class _Steps(torch.autograd.Function):
    """x [T, ...] -> its T steps; as `unbind`, with a gradient in memory that is used again."""

    @staticmethod
    def forward(ctx: Any, x: torch.Tensor) -> tuple[torch.Tensor, ...]:
        ctx.shape = x.shape
        return tuple(x_t.view_as(x_t) for x_t in x.unbind())

    @staticmethod
    def backward(ctx: Any, *gradients: torch.Tensor) -> torch.Tensor:
        return _joined([g.unsqueeze(0) for g in gradients], ctx.shape)


class _Sequence(torch.autograd.Function):
    """Steps [1, ...] -> [T, ...]; as `cat`, in memory that is used again."""

    @staticmethod
    def forward(ctx: Any, *steps: torch.Tensor) -> torch.Tensor:
        return _joined(steps, (len(steps), *steps[0].shape[1:]))

    @staticmethod
    def backward(ctx: Any, g: torch.Tensor) -> tuple[torch.Tensor, ...]:
        return g.split(1)
