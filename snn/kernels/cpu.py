"""The CPU backend: runs the generated Numba kernels on tensors, with gradients."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np
import torch

from snn.errors import UnsupportedError
from snn.kernels import memory, threads
from snn.kernels.broadcast import per_parameter
from snn.kernels.call import NeuronCall, NeuronResult
from snn.kernels.cpu_source import KernelSource, backward_source, forward_source
from snn.kernels.kernel_text import KernelSpec
from snn.kernels.plan import DTYPES, Plan, plan_call
from snn.kernels.source_cache import load_source
from snn.kernels.trace import TracedStep
from snn.surrogate import ClosedForm


@dataclass(frozen=True)
class _Kernel:
    """A compiled function and the scratch that each thread of it needs."""

    function: Callable[..., None]
    source: KernelSource

    def launch(self, arguments: list[Any], neurons: int, steps: int, dtype: str) -> None:
        def work(pieces: Iterable[tuple[int, int]]) -> None:
            with memory.scratch(self.source.work_values, dtype) as values:
                scratch = [values]
                if self.source.saved_rows is not None:
                    scratch.append(np.empty((steps, self.source.saved_rows * self.source.width), dtype))
                for first, last in pieces:
                    self.function(*arguments, first, last, *scratch)

        count = torch.get_num_threads()
        threads.run(work, threads.ranges(neurons, steps, count, self.source.width), count)


@dataclass
class _Kernels:
    """The kernels of one neuron under one set of switches, generated when first used."""

    step: TracedStep
    _known: dict[tuple[Any, ...], _Kernel] = field(default_factory=dict)

    def forward(self, form: ClosedForm, spec: KernelSpec) -> _Kernel:
        return self._kernel("forward", forward_source, form, spec)

    def backward(self, form: ClosedForm, spec: KernelSpec) -> _Kernel:
        return self._kernel("backward", backward_source, form, spec)

    def _kernel(self, kind: str, generate: Callable[..., KernelSource], form: ClosedForm, spec: KernelSpec) -> _Kernel:
        key = (kind, form.name, spec)
        if key not in self._known:
            source = generate(self.step, form, spec)
            self._known[key] = _Kernel(getattr(load_source(source.name, source.text), kind), source)
        return self._known[key]


_kernels: dict[TracedStep, _Kernels] = {}


def _kernels_of(step: TracedStep) -> _Kernels:
    if step not in _kernels:
        _kernels[step] = _Kernels(step)
    return _kernels[step]


def _start(plan: Plan, name: str, tensors: Mapping[str, torch.Tensor]) -> list[Any]:
    if name in plan.start_values:
        return [np.array([plan.start_values[name]], plan.spec.dtype), 0]
    return [tensors[name].numpy().reshape(-1), 1]


def _parameters(plan: Plan, real: Callable[[float], Any]) -> list[Any]:
    arguments: list[Any] = []
    for name in plan.step.values:
        if name in plan.spec.arrays:
            layout = plan.layouts[name]
            arguments += [layout.values.numpy(), layout.inner]
        elif name in plan.layouts:
            arguments.append(real(plan.layouts[name].values.item()))
        else:
            arguments.append(real(plan.scalars[name]))
    return arguments + [real(value) for value in plan.surrogate_values]


def run_cpu(call: NeuronCall) -> NeuronResult:
    """All T steps in one generated kernel; gradients flow to x, to starting states and to parameters.

    Raises:
        TraceError: the neuron cannot be traced.
        ValueError: the surrogate has no closed form (`snn.surrogate.CLOSED_FORMS` lists those that have).
    """
    x = call.x if call.x.dtype in DTYPES else call.x.float()
    plan, starts, learnable = plan_call(call, x.dtype)
    return plan.result(_Run.apply(plan, x, tuple(starts), *starts.values(), *learnable), call.x.dtype)


def _steps(x: torch.Tensor) -> tuple[np.ndarray, int]:
    """x as contiguous rows [T or 1, N] and the row step; one row is enough where every step is the same memory."""
    rows = x[:1] if x.shape[0] > 1 and x.stride(0) == 0 else x
    return rows.contiguous().numpy().reshape(rows.shape[0], -1), int(rows is x)


class _Run(torch.autograd.Function):
    """(plan, x, names of starting states, *starting states, *learnable parameters) -> output, end states, sequences."""

    @staticmethod
    def forward(ctx: Any, plan: Plan, x: torch.Tensor, start_names: tuple[str, ...], *tensors: torch.Tensor) -> Any:
        starts = {name: value.detach() for name, value in zip(start_names, tensors, strict=False)}
        real = np.dtype(plan.spec.dtype).type
        rows, step = _steps(x.detach())
        output = memory.empty(x.shape, x.dtype)
        ends = [memory.empty(x.shape[1:], x.dtype) for _ in plan.states]
        sequences = [memory.empty(x.shape, x.dtype) for _ in plan.spec.recorded]
        arguments: list[Any] = [rows, step, _rows(output)]
        for name, end in zip(plan.states, ends, strict=True):
            arguments += [*_start(plan, name, starts), _flat(end)]
        arguments += [_rows(sequence) for sequence in sequences]
        arguments += _parameters(plan, real)
        _kernels_of(plan.step).forward(plan.form, replace(plan.spec, learnable=())).launch(
            arguments, rows.shape[1], x.shape[0], plan.spec.dtype
        )
        ctx.plan, ctx.start_names = plan, start_names
        ctx.set_materialize_grads(False)
        ctx.save_for_backward(x, *tensors)
        return (output, *ends, *sequences)

    @staticmethod
    def backward(ctx: Any, g_output: torch.Tensor | None, *gradients: torch.Tensor | None) -> Any:
        if torch.is_grad_enabled():  # asked for with create_graph=True
            raise UnsupportedError("second derivatives do not exist in the CPU kernels; use backend='reference'")
        plan: Plan = ctx.plan
        x, *tensors = ctx.saved_tensors
        starts = dict(zip(ctx.start_names, tensors, strict=False))
        real = np.dtype(plan.spec.dtype).type
        rows, step = _steps(x)
        neurons = rows.shape[1]
        g_x = memory.empty(x.shape, x.dtype)
        g_starts = {name: memory.empty((neurons,), x.dtype) for name in plan.states}
        g_params = {name: memory.empty((neurons,), x.dtype) for name in plan.spec.learnable}
        g_ends, g_sequences = gradients[: len(plan.states)], gradients[len(plan.states) :]

        def whole(gradient: torch.Tensor | None) -> np.ndarray:
            return _rows(torch.zeros(x.shape, dtype=x.dtype) if gradient is None else gradient.contiguous())

        arguments: list[Any] = [rows, step, whole(g_output), _rows(g_x)]
        for name, g_end in zip(plan.states, g_ends, strict=True):
            arguments += _start(plan, name, starts)
            arguments += [np.zeros(1, plan.spec.dtype), 0] if g_end is None else [_flat(g_end.contiguous()), 1]
            arguments.append(g_starts[name].numpy())
        arguments += [whole(gradient) for gradient in g_sequences]
        arguments += _parameters(plan, real)
        arguments += [gradient.numpy() for gradient in g_params.values()]
        _kernels_of(plan.step).backward(plan.form, plan.spec).launch(arguments, neurons, x.shape[0], plan.spec.dtype)
        to_starts = [g_starts[name].view(x.shape[1:]) for name in ctx.start_names]
        to_params = [per_parameter(gradient, plan.layouts[name]) for name, gradient in g_params.items()]
        return (None, g_x, None, *to_starts, *to_params)


def _flat(tensor: torch.Tensor) -> np.ndarray:
    return tensor.numpy().reshape(-1)


def _rows(tensor: torch.Tensor) -> np.ndarray:
    return tensor.numpy().reshape(tensor.shape[0], -1)
