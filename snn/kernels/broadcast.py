"""How a parameter tensor is laid out along the flattened neurons of one step."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
import torch

from snn.errors import ShapeError

WIDE = 256  # neurons of a sample from which their gradients are summed row by row


@dataclass(frozen=True)
class Layout:
    """Neuron n reads `values[(n // inner) % values.numel()]`; `values` is contiguous and one-dimensional.

    `shape` is that of the values before they were flattened, aligned with the dimensions of a step.
    """

    values: torch.Tensor
    inner: int
    shape: tuple[int, ...]

    def gradient(self, per_neuron: torch.Tensor, shape: torch.Size) -> torch.Tensor:
        """Sums a gradient per neuron [N] to that of the parameter of shape `shape`, in float64 and in a fixed order."""
        if not per_neuron.numel():
            return per_neuron.new_zeros(shape)
        lanes = per_neuron.reshape(-1, self.values.numel(), self.inner)
        if lanes.device.type != "cpu":
            summed = lanes.sum(dim=(0, 2), dtype=torch.float64)
        elif lanes[0].numel() >= WIDE:  # torch adds whole rows several times faster than numpy's conversion
            row = lanes.sum(0, dtype=torch.float64)
            summed = torch.from_numpy(row.numpy().sum(axis=1))
        else:  # torch's order of summation would depend on the number of threads
            summed = torch.from_numpy(np.asarray(lanes.numpy().sum(axis=(0, 2), dtype=np.float64)))
        aligned = (1,) * (len(self.shape) - len(shape)) + tuple(shape)
        return summed.view(self.shape).sum_to_size(aligned).view(shape).to(per_neuron.dtype)


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
        return Layout(value.reshape(1), 1, shape)
    first, last = varying[0], varying[-1] + 1
    if shape[first:last] != tuple(step_shape[first:last]):
        first, last = min(first, 1), len(shape)
        shape = (*shape[:first], *step_shape[first:])
        value = value.expand(shape)
    return Layout(value.reshape(-1).contiguous(), math.prod(step_shape[last:]), shape)
