"""How a parameter tensor is laid out along the flattened neurons of one step."""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch

from snn.errors import ShapeError

WIDE = 256  # neurons of a sample from which their gradients are summed row by row


@dataclass(frozen=True)
class Layout:
    """Neuron n reads `values[(n // inner) % values.numel()]`; `values` is contiguous and one-dimensional."""

    values: torch.Tensor
    inner: int


def kernel_layout(name: str, value: torch.Tensor, step_shape: torch.Size) -> Layout:
    """The layout of parameter `value` along a step of shape `step_shape` ([B, ...]).

    A parameter that varies along neighbouring dimensions (channels, or all features) is used as it is; any other is
    expanded to one value per neuron of a sample.

    Raises:
        ShapeError: the parameter does not broadcast against `step_shape`.
    """
    fits = all(size in (1, whole) for size, whole in zip(reversed(value.shape), reversed(step_shape), strict=False))
    if value.dim() > len(step_shape) or not fits:
        raise ShapeError(
            f"parameter {name!r} has shape {tuple(value.shape)}, which does not broadcast against one step "
            f"of the input, {tuple(step_shape)}; a value per channel of [B, C, H, W] has shape (C, 1, 1)"
        )
    shape = (1,) * (len(step_shape) - value.dim()) + tuple(value.shape)
    varying = [k for k, size in enumerate(shape) if size != 1]
    if not varying:
        return Layout(value.reshape(1), 1)
    first, last = varying[0], varying[-1] + 1
    if shape[first:last] != tuple(step_shape[first:last]):
        first, last = min(first, 1), len(shape)
        value = value.reshape(shape).expand((*shape[:first], *step_shape[first:]))
    return Layout(value.reshape(-1).contiguous(), math.prod(step_shape[last:]))


def per_parameter(gradient: torch.Tensor, layout: Layout) -> torch.Tensor:
    """Sums a gradient per neuron [N] to the gradient of `layout.values`, in float64 and in a fixed order."""
    width = layout.values.numel() * layout.inner
    if width >= WIDE:  # whole rows are added at once, several times faster than numpy's conversion
        row = gradient.view(-1, width).sum(0, dtype=torch.float64)
        return row.view(-1, layout.inner).sum(1).to(gradient.dtype)
    lanes = gradient.numpy().reshape(-1, layout.values.numel(), layout.inner)
    return torch.from_numpy(lanes.sum(axis=(0, 2), dtype="float64")).to(gradient.dtype)
