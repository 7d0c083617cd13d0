"""What the kernel backends work out alike before they run: the traced step, the kernel's specification, the values."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch

from snn.declaration import NeuronModel
from snn.kernels.broadcast import Layout, kernel_layout
from snn.kernels.call import NeuronCall, NeuronResult
from snn.kernels.kernel_text import KernelSpec
from snn.kernels.trace import TracedStep, is_switch, trace
from snn.surrogate import ClosedForm, closed_form

DTYPES = {torch.float32: "float32", torch.float64: "float64"}

_traced: dict[tuple[NeuronModel, tuple[tuple[str, Any], ...]], TracedStep] = {}


def traced_step(model: NeuronModel, params: Mapping[str, Any]) -> TracedStep:
    """The trace of `model` under the switches among `params`, made once.

    Raises:
        TraceError: the model cannot be traced.
    """
    key = (model, tuple((name, value) for name, value in params.items() if is_switch(value)))
    if key not in _traced:
        _traced[key] = trace(model, params)
    return _traced[key]


@dataclass(frozen=True)
class Plan:
    """Everything about a run that is not a tensor of the autograd graph.

    Attributes:
        step, form, spec: what the kernels are generated from.
        states: names of the states in declaration order.
        start_values: states that start at a number.
        scalars: parameters that are numbers.
        layouts: parameters that are tensors, detached.
        surrogate_values: the surrogate's numbers in the order of `form.params`.
    """

    step: TracedStep
    form: ClosedForm
    spec: KernelSpec
    states: tuple[str, ...]
    start_values: dict[str, float]
    scalars: dict[str, float]
    layouts: dict[str, Layout]
    surrogate_values: tuple[float, ...]

    def result(self, outputs: Sequence[torch.Tensor], dtype: torch.dtype) -> NeuronResult:
        """Names the tensors (output, end states, sequences) that a run returned; the output in `dtype`."""
        ends, sequences = outputs[1 : 1 + len(self.states)], outputs[1 + len(self.states) :]
        return NeuronResult(
            outputs[0].to(dtype),
            dict(zip(self.states, ends, strict=True)),
            dict(zip(self.spec.recorded, sequences, strict=True)),
        )


def plan_call(call: NeuronCall, dtype: torch.dtype) -> tuple[Plan, dict[str, torch.Tensor], list[torch.Tensor]]:
    """The plan of a call whose states are held in `dtype`, its starting states and its learnable parameter values.

    Raises:
        TraceError: the neuron cannot be traced.
        ValueError: the surrogate has no closed form (`snn.surrogate.CLOSED_FORMS` lists those that have).
        ShapeError: a parameter does not broadcast against one step of x.
    """
    form = closed_form(call.surrogate)
    if form is None:
        raise ValueError(f"surrogate {type(call.surrogate).__name__} has no closed form for a kernel")
    step = traced_step(call.model, call.params)
    shape = call.x.shape[1:]
    values = {name: call.params[name] for name in step.values}
    tensors = {name: value.to(dtype) for name, value in values.items() if isinstance(value, torch.Tensor)}
    layouts = {name: kernel_layout(name, value, shape) for name, value in tensors.items()}
    starts = {name: value for name, value in call.states.items() if isinstance(value, torch.Tensor)}
    starts = {name: value.to(dtype).expand(shape).contiguous() for name, value in starts.items()}
    grad = torch.is_grad_enabled()
    spec = KernelSpec(
        dtype=DTYPES[dtype],
        arrays=frozenset(name for name, layout in layouts.items() if layout.values.numel() > 1),
        learnable=tuple(name for name in layouts if grad and layouts[name].values.requires_grad),
        recorded=call.recorded,
    )
    plan = Plan(
        step,
        form,
        spec,
        tuple(call.model.state),
        {name: float(value) for name, value in call.states.items() if name not in starts},
        {name: float(value) for name, value in values.items() if name not in tensors},
        {name: Layout(layout.values.detach(), layout.inner) for name, layout in layouts.items()},
        tuple(float(getattr(call.surrogate, name)) for name in form.params),
    )
    return plan, starts, [layouts[name].values for name in spec.learnable]
