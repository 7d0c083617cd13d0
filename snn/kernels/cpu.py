"""The CPU backend: runs the generated Numba kernels on tensors, forwards and backwards."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np
import torch

from snn.kernels import memory, threads
from snn.kernels.cpu_source import KernelSource, backward_source, forward_source
from snn.kernels.kernel_text import KernelSpec
from snn.kernels.plan import Plan, plan_run
from snn.kernels.signature import Signature
from snn.kernels.source_cache import load_source
from snn.kernels.trace import TracedStep
from snn.surrogate import ClosedForm


@dataclass(frozen=True)
class Kernel:
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
    _known: dict[tuple[Any, ...], Kernel] = field(default_factory=dict)

    def forward(self, form: ClosedForm, spec: KernelSpec) -> Kernel:
        return self._kernel("forward", forward_source, form, spec)

    def backward(self, form: ClosedForm, spec: KernelSpec) -> Kernel:
        return self._kernel("backward", backward_source, form, spec)

    def _kernel(self, kind: str, generate: Callable[..., KernelSource], form: ClosedForm, spec: KernelSpec) -> Kernel:
        key = (kind, form.name, spec)
        if key not in self._known:
            source = generate(self.step, form, spec)
            self._known[key] = Kernel(getattr(load_source(source.name, source.text), kind), source)
        return self._known[key]


_kernels: dict[TracedStep, _Kernels] = {}


def _kernels_of(step: TracedStep) -> _Kernels:
    if step not in _kernels:
        _kernels[step] = _Kernels(step)
    return _kernels[step]


def _start(signature: Signature, name: str, starts: Mapping[str, torch.Tensor], dtype: str) -> list[Any]:
    if name in signature.start_values:
        return [np.array([signature.start_values[name]], dtype), 0]
    return [starts[name].detach().numpy().reshape(-1), 1]


def _parameters(plan: Plan) -> list[Any]:
    signature, real = plan.signature, np.dtype(plan.spec.dtype).type
    arguments: list[Any] = []
    for name in signature.step.values:
        if name in plan.spec.arrays:
            layout = plan.layouts[name]
            arguments += [layout.values.numpy(), layout.inner]
        elif name in plan.layouts:
            arguments.append(real(plan.layouts[name].values.item()))
        else:
            arguments.append(real(signature.scalars[name]))
    return arguments + [real(value) for value in signature.surrogate_values]


def _steps(x: torch.Tensor) -> tuple[np.ndarray, int]:
    """x as contiguous rows [T or 1, N] and the row step; one row is enough where every step is the same memory."""
    rows = x[:1] if x.shape[0] > 1 and x.stride(0) == 0 else x
    return rows.contiguous().numpy().reshape(rows.shape[0], -1), int(rows is x)


def forward(
    signature: Signature, x: torch.Tensor, starts: Mapping[str, torch.Tensor], params: Mapping[str, torch.Tensor]
) -> list[torch.Tensor]:
    """A run over x [T, ...]: output, end states, recorded sequences and kept values."""
    plan = plan_run(signature, x.shape[1:], params, x.dtype)
    rows, step = _steps(x)
    output = memory.empty(x.shape, x.dtype)
    ends = [memory.empty(x.shape[1:], x.dtype) for _ in signature.states]
    sequences = [memory.empty(x.shape, x.dtype) for _ in range(len(signature.recorded) + signature.kept_count)]
    arguments: list[Any] = [rows, step, _rows(output)]
    for name, end in zip(signature.states, ends, strict=True):
        arguments += [*_start(signature, name, starts, plan.spec.dtype), _flat(end)]
    arguments += [_rows(sequence) for sequence in sequences]
    arguments += _parameters(plan)
    spec = plan.spec if signature.keep else replace(plan.spec, learnable=())
    kernel = _kernels_of(signature.step).forward(signature.form, spec)
    kernel.launch(arguments, rows.shape[1], x.shape[0], plan.spec.dtype)
    return [output, *ends, *sequences]


def backward(
    signature: Signature,
    x: torch.Tensor,
    starts: Mapping[str, torch.Tensor],
    params: Mapping[str, torch.Tensor],
    kept: list[torch.Tensor],
    arriving: list[torch.Tensor | None],
) -> list[torch.Tensor]:
    """Gradients of x, of the starting states and of the learnable parameters.

    Args:
        kept: what the forward run returned of it.
        arriving: gradients of the output, the end states and the recorded sequences; None stands for zeros.
    """
    plan = plan_run(signature, x.shape[1:], params, x.dtype)
    dtype = plan.spec.dtype
    rows, step = _steps(x)
    neurons = rows.shape[1]
    g_x = memory.empty(x.shape, x.dtype)
    g_starts = {name: memory.empty((neurons,), x.dtype) for name in signature.states}
    g_params = {name: memory.empty((neurons,), x.dtype) for name in signature.learnable}
    g_output, *g_rest = arriving
    g_ends, g_sequences = g_rest[: len(signature.states)], g_rest[len(signature.states) :]

    def whole(gradient: torch.Tensor | None) -> np.ndarray:
        return _rows(torch.zeros(x.shape, dtype=x.dtype) if gradient is None else gradient.detach().contiguous())

    arguments: list[Any] = [rows, step, whole(g_output), _rows(g_x)]
    for name, g_end in zip(signature.states, g_ends, strict=True):
        arguments += _start(signature, name, starts, dtype)
        arguments += [np.zeros(1, dtype), 0] if g_end is None else [_flat(g_end.detach().contiguous()), 1]
        arguments.append(g_starts[name].numpy())
    arguments += [whole(gradient) for gradient in g_sequences]
    arguments += [_rows(value.contiguous()) for value in kept]
    arguments += _parameters(plan)
    arguments += [gradient.numpy() for gradient in g_params.values()]
    kernel = _kernels_of(signature.step).backward(signature.form, plan.spec)
    kernel.launch(arguments, neurons, x.shape[0], dtype)
    to_starts = [g_starts[name].view(x.shape[1:]) for name in signature.start_names]
    return [g_x, *to_starts, *plan.parameter_gradients(g_params, params)]


def _flat(tensor: torch.Tensor) -> np.ndarray:
    return tensor.numpy().reshape(-1)


def _rows(tensor: torch.Tensor) -> np.ndarray:
    return tensor.numpy().reshape(tensor.shape[0], -1)
