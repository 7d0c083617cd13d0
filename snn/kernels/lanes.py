"""One step of a neuron over a batch on the CPU, with sums over the samples taken in the same pass over memory.

For computations between whose steps the samples of a batch meet, as they do for the statistics of a membrane. Parameters
per channel then get gradients from sums over the batch, and the kernel returns these per lane instead of one value per
neuron. Rows and lanes: see `lane_source`.
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor

from snn.errors import UnsupportedError
from snn.kernels.broadcast import Layout, kernel_layout
from snn.kernels.call import NeuronCall, NeuronResult
from snn.kernels.cpu import Kernel
from snn.kernels.lane_source import LaneMap, lane_source
from snn.kernels.lower import forward_step, gradients_of
from snn.kernels.memory import empty
from snn.kernels.moments import gradient_line, of_channels
from snn.kernels.plan import DTYPES
from snn.kernels.signature import describe, parse
from snn.kernels.source_cache import load_source
from snn.kernels.trace import OUTPUT

Operand = Tensor | Layout | float
"""What a kernel reads: rows [B, ...] or one [1, ...] for all samples, values per lane, or a number."""


def one_step(call: NeuronCall) -> NeuronResult:
    """The step of `call`, whose x is one step [B, ...]; so are output, states and recorded states of the result."""
    outputs = (OUTPUT, *(f"s_{name}" for name in call.model.state))
    output, *ends = _applied(call, outputs, None)
    states = dict(zip(call.model.state, ends, strict=True))
    return NeuronResult(output, states, {name: states[name] for name in call.recorded})


def output_with_moments(call: NeuronCall, features: tuple[int, ...]) -> tuple[Tensor, Tensor, Tensor]:
    """The output of the step of `call` [B, ...], its mean and its biased variance, both of shape `features`.

    The features are the leading dimensions of a sample; the statistics go over all others and over the batch.
    """
    output, mean, var = _applied(call, (OUTPUT,), features)
    return output, mean, var


def _applied(call: NeuronCall, outputs: tuple[str, ...], features: tuple[int, ...] | None) -> tuple[Tensor, ...]:
    x = call.x
    starts = [call.states[name] for name in call.model.state if isinstance(call.states[name], Tensor)]
    params = {name: call.params[name] for name in call.model.params if isinstance(call.params[name], Tensor)}
    tensors = [start.to(x.dtype).expand(x.shape) for start in starts]
    tensors += [_in_form(name, value, x) for name, value in params.items()]
    run = _Run(describe("numba", call), outputs, features, x.shape, x.dtype)
    found: tuple[Tensor, ...] = _Step.apply(run, x, *tensors)
    return found


def _in_form(name: str, value: Tensor, x: Tensor) -> Tensor:
    """A parameter as rows [B, ...] if it differs between samples, else without the dimension of the batch."""
    kernel_layout(name, value.detach(), x.shape)  # raises where it does not broadcast
    if value.dim() < x.dim():
        return value
    return value[0] if len(value) == 1 else value.to(x.dtype).expand(x.shape)


@dataclass(frozen=True)
class _Run:
    """A step but for its tensors.

    Attributes:
        text: of the signature.
        outputs: what is wanted, "z" and new states "s_v".
        features: shape of the moments of the first output, or None.
        shape, dtype: of x.
    """

    text: str
    outputs: tuple[str, ...]
    features: tuple[int, ...] | None
    shape: torch.Size
    dtype: torch.dtype

    @property
    def tensor_names(self) -> list[str]:
        """x, starting states and parameters, as the kernels call them."""
        signature = parse(self.text)
        return ["x", *(f"s_{name}" for name in signature.start_names), *(f"p_{name}" for name in signature.param_names)]

    def forward_map(self) -> LaneMap:
        return _forward_map(self.text, self.outputs, self.features is not None)

    def adjoint_map(self, wanted: _Wanted) -> LaneMap:
        """Gradients of what is wanted from those of the outputs and of the moments."""
        return _adjoint_map(self.text, self.outputs, wanted, self.features is not None)

    def operands(self, tensors: Mapping[str, Tensor]) -> dict[str, Operand]:
        """All that a map of this run may read, but gradients; `tensors` are those at hand."""
        signature = parse(self.text)
        found: dict[str, Operand] = {f"s_{name}": self.row(value) for name, value in signature.start_values.items()}
        found |= {f"p_{name}": value for name, value in signature.scalars.items()}
        names = signature.form.params
        found |= {f"surrogate_{n}": value for n, value in zip(names, signature.surrogate_values, strict=True)}
        return found | {name: self.operand(value) for name, value in tensors.items()}

    def row(self, value: float) -> Tensor:
        """One row of this value, which holds for all samples."""
        return torch.full((1, *self.shape[1:]), value, dtype=self.dtype)

    def operand(self, value: Tensor) -> Operand:
        value = value.detach().to(self.dtype)
        return value if value.dim() == len(self.shape) else kernel_layout("", value, self.shape[1:])


class _Wanted(NamedTuple):
    """Names of the tensors whose gradients are wanted: those that are rows, and parameters per lane."""

    rows: tuple[str, ...]
    params: tuple[str, ...]


class _Step(torch.autograd.Function):
    """(run, x, *tensors) -> its outputs; with features also mean and variance of the first."""

    @staticmethod
    def forward(ctx: Any, run: _Run, x: Tensor, *tensors: Tensor) -> tuple[Tensor, ...]:
        by_name = dict(zip(run.tensor_names, (x, *tensors), strict=True))
        written, moments = _forward(run, run.operands(by_name))
        outputs = tuple(written[name] for name in run.outputs)
        wanted = [name for name, needed in zip(by_name, ctx.needs_input_grad[1:], strict=True) if needed]
        rows = [name for name in wanted if by_name[name].dim() == x.dim()]
        ctx.run, ctx.wanted = run, _Wanted(tuple(rows), tuple(name for name in wanted if name not in rows))
        if wanted:
            reads = run.adjoint_map(ctx.wanted).leaves
            kept = [value if name in reads or name in ctx.wanted.params else None for name, value in by_name.items()]
            ctx.save_for_backward(*kept, *([outputs[0], moments[0]] if moments else []))
        ctx.set_materialize_grads(False)
        return outputs + moments

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor | None) -> tuple[Any, ...]:
        run, saved = ctx.run, ctx.saved_tensors
        lane_map = run.adjoint_map(ctx.wanted)

        def compute(*tensors: Tensor | None) -> tuple[Tensor, ...]:
            return _gradients(run, lane_map, tensors[: len(saved)], tensors[len(saved) :])

        apply = functools.partial(_Derivative.apply, compute) if torch.is_grad_enabled() else compute
        by_name = dict(zip((*lane_map.writes, *lane_map.sums), apply(*saved, *gradients), strict=True))
        return (None, *(by_name.get(name) for name in run.tensor_names))


class _Derivative(torch.autograd.Function):
    """(compute, *tensors) -> compute(*tensors), for gradients that have no derivatives themselves."""

    @staticmethod
    def forward(ctx: Any, compute: Callable[..., tuple[Tensor, ...]], *tensors: Tensor | None) -> tuple[Tensor, ...]:
        return compute(*tensors)

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor | None) -> Any:
        raise UnsupportedError("second derivatives do not exist in the kernels; use backend='reference'")


def _forward(run: _Run, operands: dict[str, Operand]) -> tuple[dict[str, Tensor], tuple[Tensor, ...]]:
    """The outputs by name; with features also mean and biased variance of the only one."""
    if run.features is None:
        return _compute(run.forward_map(), operands, run.shape, run.dtype)[0], ()
    sample = run.shape[1:]
    first = {name: value[:1] if isinstance(value, Tensor) else value for name, value in operands.items()}
    zero = kernel_layout("origin", torch.zeros(sample, dtype=run.dtype), sample)
    # sums are of distances from the first sample, so that a large common value costs no digits
    origin, _ = _compute(run.forward_map(), first | {"origin": zero}, (1, *sample), run.dtype)
    layout = kernel_layout("origin", origin[OUTPUT][0], sample)
    written, sums = _compute(run.forward_map(), operands | {"origin": layout}, run.shape, run.dtype)
    total, square = sums["total"].numpy(), sums["square"].numpy()
    offset = total / run.shape[0]
    mean = layout.values.numpy() + offset
    moments = of_channels(mean, square - offset * total, run.shape[0], torch.Size(run.features).numel())
    return written, tuple(moment.view(run.features) for moment in moments)


def _gradients(
    run: _Run, lane_map: LaneMap, saved: Sequence[Tensor | None], gradients: Sequence[Tensor | None]
) -> tuple[Tensor, ...]:
    """Gradients of what `lane_map` writes and sums."""
    names = run.tensor_names
    tensors = {name: value for name, value in zip(names, saved, strict=False) if value is not None}
    operands = run.operands(tensors)
    for name, g in zip(run.outputs, gradients, strict=False):
        operands[f"g_{name}"] = run.row(0.0) if g is None else g
    if run.features is not None:
        h, mean = (value for value in saved[len(names) :] if value is not None)
        g_mean, g_var = (torch.zeros_like(mean) if g is None else g for g in gradients[len(run.outputs) :])
        slope, level = gradient_line(mean, run.shape, g_mean, g_var)
        operands |= {"h": h, "slope": run.operand(slope), "level": run.operand(level)}
    written, sums = _compute(lane_map, operands, run.shape, run.dtype)
    to_params = []
    for name, total in sums.items():
        layout, param = operands[name], tensors[name]
        assert isinstance(layout, Layout)
        to_params.append(layout.gradient(total, param.shape).to(param.dtype))
    return (*written.values(), *to_params)


@functools.lru_cache(maxsize=4096)
def _forward_map(text: str, outputs: tuple[str, ...], moments: bool) -> LaneMap:
    signature = parse(text)
    plain = forward_step(signature.step, signature.form)
    nodes = {OUTPUT: plain.output} | {f"s_{name}": node for name, node in plain.new_states.items()}
    sums = {}
    if moments:
        graph = signature.step.graph
        distance = graph.node("sub", plain.output, graph.leaf("input", "origin"))
        sums = {"total": distance, "square": graph.node("mul", distance, distance)}
    return LaneMap("outputs", signature.step, signature.form, {name: nodes[name] for name in outputs}, sums)


@functools.lru_cache(maxsize=4096)
def _adjoint_map(text: str, outputs: tuple[str, ...], wanted: _Wanted, moments: bool) -> LaneMap:
    signature = parse(text)
    step, graph = signature.step, signature.step.graph
    nodes = {OUTPUT: step.output} | {f"s_{name}": node for name, node in step.new_states.items()}
    seeds = [(nodes[name], graph.leaf("grad", name)) for name in outputs]
    if moments:
        slope, h, level = (graph.leaf("input", name) for name in ("slope", "h", "level"))
        seeds.append((step.output, graph.node("add", graph.node("mul", slope, h), level)))
    leaves = {"x": graph.leaf("input", "x")}
    leaves |= {f"s_{name}": graph.leaf("state", name) for name in step.new_states}
    leaves |= {f"p_{name}": graph.leaf("param", name) for name in step.values}
    found = gradients_of(step, signature.form, seeds, {name: leaves[name] for name in (*wanted.rows, *wanted.params)})
    writes = {name: node for name, node in found.items() if name in wanted.rows}
    sums = {name: node for name, node in found.items() if name in wanted.params}
    return LaneMap("gradients", step, signature.form, writes, sums)


def _compute(
    lane_map: LaneMap, operands: Mapping[str, Operand], shape: Sequence[int], dtype: torch.dtype
) -> tuple[dict[str, Tensor], dict[str, Tensor]]:
    """Runs a map over a batch of this shape: what it writes [B, ...], and its sums over the batch [N]."""
    samples, count = shape[0], torch.Size(shape[1:]).numel()
    given = {name: operands[name] for name in lane_map.leaves}
    rows = {name: value for name, value in given.items() if isinstance(value, Tensor)}
    layouts = {name: value for name, value in given.items() if isinstance(value, Layout)}
    lanes = {name: layout for name, layout in layouts.items() if layout.values.numel() > 1}
    kernel = _kernel(lane_map, tuple(rows), tuple(lanes), DTYPES[dtype])
    real = np.dtype(DTYPES[dtype]).type
    written = {name: empty(torch.Size(shape), dtype) for name in lane_map.writes}
    sums = {name: torch.empty(count, dtype=dtype) for name in lane_map.sums}
    arguments: list[Any] = [samples]
    for row in (*rows.values(), *written.values()):
        step = int(len(row) == samples)  # 0 stays on the only row
        arguments += [row.contiguous().numpy().reshape(len(row), count), step]
    for layout in lanes.values():
        arguments += [layout.values.numpy(), layout.inner]
    for name, value in given.items():
        if name not in rows and name not in lanes:
            arguments.append(real(value.values.item() if isinstance(value, Layout) else value))
    kernel.launch([*arguments, *(total.numpy() for total in sums.values())], count, samples, DTYPES[dtype])
    return written, sums


@functools.lru_cache(maxsize=4096)
def _kernel(lane_map: LaneMap, rows: tuple[str, ...], lanes: tuple[str, ...], dtype: str) -> Kernel:
    source = lane_source(lane_map, rows, lanes, dtype)
    return Kernel(getattr(load_source(source.name, source.text), lane_map.kind), source)
