"""What tensor functions in a network's `forward` mean for the graph of layers."""

from __future__ import annotations

from math import prod
from typing import Any

import numpy as np
import torch

from neuromorphic.compiler.graph import Affine, OverTime, Shape
from snn.errors import UnsupportedError

UNCHANGED = frozenset(
    {"contiguous", "clone", "detach", "detach_", "requires_grad_", "to", "float", "double", "type_as", "cpu", "dropout"}
)
"""Functions that return the same numbers in evaluation mode."""

ARITHMETIC = frozenset(
    {
        "add",
        "add_",
        "__add__",
        "__radd__",
        "__iadd__",
        "sub",
        "sub_",
        "subtract",
        "__sub__",
        "__rsub__",
        "__isub__",
        "rsub",
    }
    | {"mul", "mul_", "multiply", "__mul__", "__rmul__", "__imul__", "div", "div_", "divide", "true_divide"}
    | {"__truediv__", "__itruediv__", "neg", "__neg__"}
)

IGNORED = frozenset(
    {
        "zeros_like",
        "ones_like",
        "empty_like",
        "full_like",
        "rand_like",
        "new_zeros",
        "new_ones",
        "new_full",
        "new_empty",
    }
)
"""Functions that use a tensor for its shape and dtype only."""

MOVES = frozenset(
    {"flatten", "view", "reshape", "unflatten", "squeeze", "unsqueeze", "permute", "transpose", "swapaxes", "swapdims"}
    | {
        "movedim",
        "moveaxis",
        "t",
        "ravel",
        "view_as",
        "reshape_as",
        "flip",
        "roll",
        "__getitem__",
        "__get__",
        "__iter__",
    }
    | {
        "cat",
        "concat",
        "concatenate",
        "stack",
        "hstack",
        "vstack",
        "chunk",
        "split",
        "split_with_sizes",
        "tensor_split",
    }
    | {"unbind", "select", "narrow", "index_select", "atleast_2d", "atleast_3d"}
)
"""Functions that only move elements; where to is found by running them on numbered elements."""

_ALIASES = {"__radd__": "add", "__rmul__": "mul", "multiply": "mul", "subtract": "sub", "divide": "div"}


def over_time(name: str, args: Any, kwargs: Any, in_time: bool) -> OverTime | None:
    """The sum or mean over the first dimension of a sequence, or None for anything else."""
    if name not in ("mean", "sum") or not in_time:
        return None
    dims = args[1] if len(args) > 1 else kwargs.get("dim")
    keep = args[2] if len(args) > 2 else kwargs.get("keepdim", False)
    return OverTime(name == "mean") if dims in (0, (0,), [0]) and not keep else None


def arithmetic(name: str, operands: list[Any], shape: Shape, in_time: bool, place: str) -> list[Affine | None]:
    """For each operand that belongs to the network, the affine map that it takes before the sum of all; None for none.

    Raises:
        UnsupportedError: a product or quotient of two parts of the network.
    """
    base = _ALIASES.get(name, name.strip("_"))
    base = {"iadd": "add", "isub": "sub", "imul": "mul", "itruediv": "div", "truediv": "div", "true_divide": "div"}.get(
        base, base
    )
    ours = [not isinstance(item, int | float | torch.Tensor) for item in operands[:2]]
    if base == "rsub":
        operands, ours, base = [operands[1], operands[0]], [ours[1], ours[0]], "sub"
    size = prod(shape)
    minus = Affine(np.full(size, -1.0))
    if base == "neg":
        return [minus]
    if all(ours):
        if base not in ("add", "sub"):
            raise UnsupportedError(f"{place}: {base} of two signals of the network has no event form")
        second = minus if base == "sub" else None
        return [None, second] if name != "rsub" else [second, None]
    constant = _flat_constant(operands[0] if ours[1] else operands[1], shape, in_time, place)
    if base == "add":
        return [None if not constant.any() else Affine(np.ones(size), constant)]
    if base == "sub":
        return [Affine(np.ones(size), -constant) if ours[0] else Affine(np.full(size, -1.0), constant)]
    if base == "div" and not ours[0]:
        raise UnsupportedError(f"{place}: division by a signal of the network has no event form")
    return [Affine(constant if base == "mul" else 1.0 / constant)]


def _flat_constant(value: Any, shape: Shape, in_time: bool, place: str) -> np.ndarray:
    tensor = torch.as_tensor(value).detach().double().cpu()
    lead = (1, 1) if in_time else (1,)
    try:
        with torch._C.DisableTorchFunction():
            return tensor.broadcast_to((*lead, *shape)).reshape(-1).numpy().copy()
    except RuntimeError:
        raise UnsupportedError(
            f"{place}: a tensor of shape {tuple(tensor.shape)} does not broadcast over features {shape}"
        ) from None


def moved(
    func: Any, args: Any, kwargs: Any, tensors: list[torch.Tensor], shapes: list[tuple[tuple[int, ...], int]]
) -> list[tuple[np.ndarray | None, bool, Shape]] | str:
    """Where each element of the results comes from, if `func` only moves elements; else the reason why it does not.

    The function is run on tensors that hold the flat numbers of their own elements; numbers of the second sample lie
    higher by a constant, which shows the batch dimension of the results.

    Returns:
        for each result: flat index into the concatenated features of all inputs (None where nothing moves), whether it
        has a time dimension, and its feature shape.
    """
    total = sum(size for _, size in shapes)
    numbered: dict[int, torch.Tensor] = {}
    first = 0
    for tensor, (shape, size) in zip(tensors, shapes, strict=True):
        rows = torch.stack([torch.arange(first, first + size) + sample * total for sample in range(2)])
        numbered[id(tensor)] = rows.reshape(shape)
        first += size

    def replaced(item: Any) -> Any:
        if isinstance(item, tuple | list):
            return type(item)(replaced(part) for part in item)
        return numbered.get(id(item), item) if isinstance(item, torch.Tensor) else item

    try:
        results = func(*replaced(args), **{key: replaced(value) for key, value in kwargs.items()})
    except (RuntimeError, TypeError, ValueError, IndexError):
        return "it does more than move elements"
    found = []
    for result in results if isinstance(results, tuple | list) else [results]:
        if not isinstance(result, torch.Tensor) or result.dtype != torch.int64:
            return "it does more than move elements"
        in_time = result.dim() > 1 and tuple(result.shape[:2]) == (1, 2)
        if not in_time and (result.dim() == 0 or result.shape[0] != 2):
            return "it does not keep the batch apart"
        numbers: torch.Tensor = result.reshape(2, -1)
        if not bool((numbers[1] - numbers[0] == total).all()):
            return "it does not keep the batch apart"
        index = numbers[0].numpy()
        if index.size and not (index.min() >= 0 and index.max() < total):
            return "it does more than move elements"
        if not in_time and any(len(shape) > 1 and shape[:2] == (1, 2) for shape, _ in shapes) and result.dim() == 1:
            return "it leaves no features"
        same = index.size == total and bool((index == np.arange(total)).all())
        found.append(
            (None if same else index.copy(), in_time, tuple(result.shape[2:] if in_time else result.shape[1:]))
        )
    return found
