"""Neuron runs as torch knows them: an autograd function for eager calls, an operator for compiled and exported ones.

`spikeloop::neuron` and `spikeloop::neuron_backward` are opaque to torch.compile and torch.export, which see their shapes
through the fake implementations. Eager calls take an autograd function over the same kernels, since an operator costs
about a tenth of a millisecond more for each training step. Under torch.func another one serves, which knows what vmap
and grad need (both together give the gradients of each sample).

The tensors of a run travel as one list, starting states first, then parameters; everything else about it is the text
of its signature.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from snn.errors import UnsupportedError
from snn.kernels.call import NeuronCall, NeuronResult
from snn.kernels.signature import Signature, describe, parse


def run_kernel(backend: str, call: NeuronCall) -> NeuronResult:
    """All T steps in one generated kernel; gradients flow to x, to starting states and to parameters.

    States have the input's dtype on the CPU; on a GPU they are float32 for an input in half precision.

    Raises:
        TraceError: the neuron cannot be traced.
        ValueError: the surrogate has no closed form (`snn.surrogate.CLOSED_FORMS` lists those that have).
        ShapeError: a parameter does not broadcast against one step of x.
    """
    if backend == "triton":
        from snn.kernels.gpu import on_device

        call = on_device(call)
    x, dtype = call.x, call.x.dtype
    if dtype not in _INPUT_DTYPES[backend]:
        x = x.float()
    real = torch.float64 if x.dtype == torch.float64 else torch.float32
    text = describe(backend, call)
    starts = [call.states[name] for name in call.model.state if isinstance(call.states[name], Tensor)]
    params = [call.params[name] for name in call.model.params if isinstance(call.params[name], Tensor)]
    tensors = [start.to(real).expand(x.shape[1:]) for start in starts] + params
    return _named(_outputs(text, x, tensors), call, dtype)


def _outputs(text: str, x: Tensor, tensors: list[Tensor]) -> Sequence[Tensor]:
    if _is_compiled(x):
        return neuron(x, tensors, text)
    if _transforms_are_active():
        return _Transformable.apply(text, x, *tensors)
    if torch.is_grad_enabled() and (x.requires_grad or any(tensor.requires_grad for tensor in tensors)):
        return _Eager.apply(text, x, *tensors)
    return _forward(parse(text), x, tensors)


def is_eager(x: Tensor) -> bool:
    """True for a call on plain tensors, that no compiler, exporter or transform of torch.func looks at."""
    return not _is_compiled(x) and not _transforms_are_active()


def _is_compiled(x: Tensor) -> bool:
    return torch.compiler.is_compiling() or type(x) not in (Tensor, torch.nn.Parameter)


# Where a release of torch should lack this function, every call takes the slower way that is right in any case.
_transforms_are_active = getattr(torch._C, "_are_functorch_transforms_active", lambda: True)


_INPUT_DTYPES = {
    "numba": (torch.float32, torch.float64),
    "triton": (torch.float32, torch.float64, torch.float16, torch.bfloat16),
}


def _named(outputs: Sequence[Tensor], call: NeuronCall, dtype: torch.dtype) -> NeuronResult:
    states = list(call.model.state)
    ends, sequences = outputs[1 : 1 + len(states)], outputs[1 + len(states) :]
    return NeuronResult(
        outputs[0].to(dtype),
        dict(zip(states, ends, strict=True)),
        dict(zip(call.recorded, sequences, strict=False)),  # kept values follow
    )


def _forward(signature: Signature, x: Tensor, tensors: Sequence[Tensor]) -> list[Tensor]:
    if signature.backend == "triton":
        from snn.kernels.gpu import forward
    else:
        from snn.kernels.cpu import forward
    return forward(signature, x.detach(), *signature.split(tensors))


def _backward(
    signature: Signature,
    x: Tensor,
    tensors: Sequence[Tensor],
    kept: Sequence[Tensor],
    gradients: Sequence[Tensor | None],
) -> list[Tensor]:
    """Gradients of x, of the starting states and of the learnable parameters."""
    if signature.backend == "triton":
        from snn.kernels.gpu import backward
    else:
        from snn.kernels.cpu import backward
    return backward(signature, x.detach(), *signature.split(tensors), list(kept), list(gradients))


def _to_inputs(signature: Signature, gradients: Sequence[Tensor]) -> tuple[Tensor, list[Tensor | None]]:
    """The gradient of x, and one for each tensor of the run (None for parameters that are not learnable)."""
    count = len(signature.start_names)
    learnable = dict(zip(signature.learnable, gradients[1 + count :], strict=True))
    return gradients[0], [*gradients[1 : 1 + count], *(learnable.get(name) for name in signature.param_names)]


def _kept(signature: Signature, outputs: Sequence[Tensor]) -> list[Tensor]:
    return list(outputs[len(outputs) - signature.kept_count :])


def _save_run(ctx: Any, text: str, x: Tensor, tensors: Sequence[Tensor], outputs: Sequence[Tensor]) -> None:
    kept = _kept(parse(text), outputs)
    ctx.text, ctx.tensor_count = text, len(tensors)
    ctx.set_materialize_grads(False)
    ctx.mark_non_differentiable(*kept)
    ctx.save_for_backward(x, *tensors, *kept)


def _gradients(ctx: Any, *gradients: Tensor | None) -> tuple[Any, ...]:
    x, *rest = ctx.saved_tensors
    tensors, kept = rest[: ctx.tensor_count], rest[ctx.tensor_count :]
    arriving = gradients[: len(gradients) - len(kept)]
    signature = parse(ctx.text)
    if torch.is_grad_enabled() or _transforms_are_active():
        found = _Backward.apply(ctx.text, len(tensors), len(kept), x, *tensors, *kept, *arriving)
    else:
        found = _backward(signature, x, tensors, kept, arriving)
    g_x, g_tensors = _to_inputs(signature, found)
    return None, g_x, *g_tensors


class _Eager(torch.autograd.Function):
    """(text, x, *tensors) -> output, end states, recorded sequences, kept values; the quickest form."""

    @staticmethod
    def forward(ctx: Any, text: str, x: Tensor, *tensors: Tensor) -> tuple[Tensor, ...]:
        outputs = tuple(_forward(parse(text), x, tensors))
        _save_run(ctx, text, x, tensors, outputs)
        return outputs

    backward = staticmethod(_gradients)


class _Transformable(torch.autograd.Function):
    """The same for the transforms of torch.func."""

    @staticmethod
    def forward(text: str, x: Tensor, *tensors: Tensor) -> tuple[Tensor, ...]:
        return tuple(_forward(parse(text), x, tensors))

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple[Any, ...], outputs: tuple[Tensor, ...]) -> None:
        text, x, *tensors = inputs
        _save_run(ctx, text, x, tensors, outputs)

    backward = staticmethod(_gradients)

    @staticmethod
    def vmap(info: Any, in_dims: tuple[Any, ...], text: str, x: Tensor, *tensors: Tensor) -> Any:
        x, batched = _batched(parse(text), info.batch_size, in_dims[1], in_dims[2:], x, tensors)
        outputs = _Transformable.apply(text, x, *batched)
        return outputs, _out_dims(parse(text), outputs)


class _Backward(torch.autograd.Function):
    """(text, numbers of tensors and of kept values, x, *tensors, *kept, *arriving gradients) -> gradients."""

    @staticmethod
    def forward(text: str, tensor_count: int, kept_count: int, x: Tensor, *rest: Tensor | None) -> tuple[Tensor, ...]:
        tensors, kept, arriving = _cut(rest, tensor_count, kept_count)
        return tuple(_backward(parse(text), x, tensors, kept, arriving))

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple[Any, ...], outputs: tuple[Tensor, ...]) -> None:
        pass

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor | None) -> Any:
        raise UnsupportedError("second derivatives do not exist in the kernels; use backend='reference'")

    @staticmethod
    def vmap(
        info: Any, in_dims: tuple[Any, ...], text: str, tensor_count: int, kept_count: int, x: Tensor, *rest: Any
    ) -> Any:
        tensors, kept, arriving = _cut(rest, tensor_count, kept_count)
        dims = _cut(in_dims[4:], tensor_count, kept_count)
        shapes = _parameter_shapes(parse(text), tensors, dims[0])
        operands = _batched_backward(parse(text), info.batch_size, (in_dims[3], *dims), (x, tensors, kept, arriving))
        x, tensors, kept, arriving = operands
        found = _Backward.apply(text, tensor_count, kept_count, x, *tensors, *kept, *arriving)
        return _per_sample(found, shapes)


def _cut(rest: Sequence[Any], tensor_count: int, kept_count: int) -> tuple[list[Any], list[Any], list[Any]]:
    edge = tensor_count + kept_count
    return list(rest[:tensor_count]), list(rest[tensor_count:edge]), list(rest[edge:])


def _batched(
    signature: Signature, size: int, x_dim: int | None, dims: Sequence[int | None], x: Tensor, tensors: Sequence[Tensor]
) -> tuple[Tensor, list[Tensor]]:
    """A run over `size` samples as one run: the samples stand after the steps of x [T, size, ...]."""
    x = _placed(x, x_dim, 1, size)
    count = len(signature.start_names)
    starts = [_placed(start, dim, 0, size) for start, dim in zip(tensors[:count], dims[:count], strict=True)]
    params = [
        param if dim is None else _aligned(param.movedim(dim, 0), x.dim() - 1)
        for param, dim in zip(tensors[count:], dims[count:], strict=True)
    ]
    return x, starts + params


def _placed(tensor: Tensor, dim: int | None, place: int, size: int) -> Tensor:
    """The tensor with its samples at dimension `place`; one without samples is shared by all."""
    if dim is not None:
        return tensor.movedim(dim, place)
    shared = tensor.unsqueeze(place)
    return shared.expand(*shared.shape[:place], size, *shared.shape[place + 1 :])


def _aligned(param: Tensor, step_rank: int) -> Tensor:
    """A parameter [samples, ...] that broadcasts against steps [samples, ...] of this rank."""
    return param.reshape(param.shape[0], *(1,) * (step_rank - param.dim()), *param.shape[1:])


def _out_dims(signature: Signature, outputs: Sequence[Tensor]) -> tuple[int, ...]:
    states = len(signature.states)
    return tuple(0 if 1 <= k <= states else 1 for k in range(len(outputs)))


def _batched_backward(signature: Signature, size: int, dims: Any, operands: Any) -> tuple[Any, ...]:
    """As `_batched`; learnable parameters get a copy for each sample, since each sample has a gradient of its own."""
    (x_dim, tensor_dims, kept_dims, arriving_dims), (x, tensors, kept, arriving) = dims, operands
    count, states = len(signature.start_names), len(signature.states)
    step_rank = x.dim() - 1 + (x_dim is None)
    wide, starts = _batched(signature, size, x_dim, tensor_dims[:count], x, tensors[:count])
    params = []
    for name, param, dim in zip(signature.param_names, tensors[count:], tensor_dims[count:], strict=True):
        if dim is None and name in signature.learnable:
            param, dim = param.expand(size, *param.shape), 0
        params.append(param if dim is None else _aligned(param.movedim(dim, 0), step_rank))
    kept = [_placed(value, dim, 1, size) for value, dim in zip(kept, kept_dims, strict=True)]
    places = [0 if 1 <= k <= states else 1 for k in range(len(arriving))]
    arriving = [
        None if gradient is None else _placed(gradient, dim, place, size)
        for gradient, dim, place in zip(arriving, arriving_dims, places, strict=True)
    ]
    return wide, starts + params, kept, arriving


def _parameter_shapes(signature: Signature, tensors: Sequence[Tensor], dims: Sequence[int | None]) -> list[torch.Size]:
    """The shapes that each sample sees of the learnable parameters."""
    shapes = {}
    names = (*signature.start_names, *signature.param_names)
    for name, tensor, dim in zip(names, tensors, dims, strict=True):
        shapes[name] = tensor.shape if dim is None else tensor.select(dim, 0).shape
    return [shapes[name] for name in signature.learnable]


def _per_sample(found: Sequence[Tensor], shapes: Sequence[torch.Size]) -> tuple[tuple[Tensor, ...], tuple[int, ...]]:
    """Gradients of a batched run and the samples' dimension of each; `shapes` are those of the learnable parameters."""
    first = len(found) - len(shapes)
    params = [gradient.reshape(-1, *shape) for gradient, shape in zip(found[first:], shapes, strict=True)]
    return (*found[:first], *params), (1, *(0 for _ in found[1:]))


@torch.library.custom_op("spikeloop::neuron", mutates_args=())
def neuron(x: Tensor, tensors: Sequence[Tensor], signature: str) -> list[Tensor]:
    """A run over x [T, ...]: output, end states, recorded sequences and kept values."""
    return _forward(parse(signature), x, tensors)


@neuron.register_fake
def _(x: Tensor, tensors: Sequence[Tensor], signature: str) -> list[Tensor]:
    known = parse(signature)
    real = torch.float64 if x.dtype == torch.float64 else torch.float32
    ends = [x.new_empty(x.shape[1:], dtype=real) for _ in known.states]
    sequences = [x.new_empty(x.shape, dtype=real) for _ in range(len(known.recorded) + known.kept_count)]
    return [x.new_empty(x.shape), *ends, *sequences]


@torch.library.custom_op("spikeloop::neuron_backward", mutates_args=())
def neuron_backward(
    x: Tensor, tensors: Sequence[Tensor], kept: Sequence[Tensor], arriving: Sequence[Tensor | None], signature: str
) -> list[Tensor]:
    """Gradients of x, of the starting states and of the learnable parameters."""
    return _backward(parse(signature), x, tensors, kept, arriving)


@neuron_backward.register_fake
def _(
    x: Tensor, tensors: Sequence[Tensor], kept: Sequence[Tensor], arriving: Sequence[Tensor | None], signature: str
) -> list[Tensor]:
    known = parse(signature)
    starts, params = known.split(tensors)
    return [x.new_empty(x.shape)] + [
        value.new_empty(value.shape) for value in (*starts.values(), *(params[name] for name in known.learnable))
    ]


def _save(ctx: Any, inputs: tuple[Any, ...], output: list[Tensor]) -> None:
    x, tensors, ctx.text = inputs
    ctx.tensor_count = len(tensors)
    ctx.set_materialize_grads(False)
    ctx.save_for_backward(x, *tensors, *_kept(parse(ctx.text), output))


def _differentiate(ctx: Any, gradients: Sequence[Tensor | None]) -> tuple[Any, ...]:
    signature = parse(ctx.text)
    x, *rest = ctx.saved_tensors
    tensors, kept = rest[: ctx.tensor_count], rest[ctx.tensor_count :]
    arriving = list(gradients[: len(gradients) - len(kept)])
    g_x, g_tensors = _to_inputs(signature, neuron_backward(x, tensors, kept, arriving, ctx.text))
    return g_x, g_tensors, None


neuron.register_autograd(_differentiate, setup_context=_save)


@neuron.register_vmap
def _(info: Any, in_dims: tuple[Any, ...], x: Tensor, tensors: Sequence[Tensor], signature: str) -> Any:
    known = parse(signature)
    x, tensors = _batched(known, info.batch_size, in_dims[0], in_dims[1], x, tensors)
    outputs = neuron(x, tensors, signature)
    return outputs, list(_out_dims(known, outputs))


@neuron_backward.register_vmap
def _(
    info: Any,
    in_dims: tuple[Any, ...],
    x: Tensor,
    tensors: Sequence[Tensor],
    kept: Sequence[Tensor],
    arriving: Sequence[Tensor | None],
    signature: str,
) -> Any:
    known = parse(signature)
    shapes = _parameter_shapes(known, tensors, in_dims[1])
    operands = _batched_backward(known, info.batch_size, in_dims[:4], (x, tensors, kept, arriving))
    gradients, dims = _per_sample(neuron_backward(*operands, signature), shapes)
    return list(gradients), list(dims)
