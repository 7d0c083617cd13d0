"""Integer synapses: stored weights of a few bits, as matrices or convolutions, exact in torch and in compiled loops."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable
from typing import Any

import numpy as np
import torch
from torch import nn
from torch.nn import functional as F

from neuromorphic.targets import kernels
from neuromorphic.targets.straight_through import bounded, integers, nearest
from snn.errors import ShapeError

_EXACT_IN_FLOAT32 = 2**24
Shape = tuple[int, ...]
Run = Callable[[np.ndarray], np.ndarray]
"""A compiled loop with its integers: [T, B, I] to [T, B, O]."""


class IntegerConnection(nn.Module, ABC):
    """Weights that are stored as integers.

    The stored integer is step round(weight scale / step), within low..high (halves to even); an arriving spike adds it
    times 2^exponent. Gradients go to `weight` through the rounding and stop where the integer is clipped.

    Args:
        weight: integers (scale 1), or weights of any scale that training may change.
        scale: stored integer per unit of weight; a number, or one for each output channel as [O, 1, ...].
        low, high: range of the stored integer; None takes the range of the given weights.
        step: stored integers are multiples of it.
        exponent: left shift of an arriving weight, >= 0.
    Raises: ValueError if scale is 1 and the weights are not whole numbers in the range.
    """

    scale: torch.Tensor

    def __init__(
        self,
        weight: Any,
        scale: Any = 1.0,
        low: int | None = None,
        high: int | None = None,
        step: int = 1,
        exponent: int = 0,
    ) -> None:
        super().__init__()
        given = torch.as_tensor(weight)
        if torch.as_tensor(scale).eq(1).all():
            given = integers("weight", given)
        if exponent < 0 or step < 1:
            raise ValueError(f"exponent must be >= 0 and step >= 1, got {exponent} and {step}")
        self.weight = nn.Parameter(given.detach().clone().to(torch.float64))
        self.register_buffer("scale", torch.as_tensor(scale, dtype=torch.float64))
        stored = torch.round(self.weight.detach() * self.scale)
        self.low = min(0, int(stored.min())) if low is None else low
        self.high = max(0, int(stored.max())) if high is None else high
        self.step, self.exponent = step, exponent
        if torch.as_tensor(scale).eq(1).all() and not torch.equal(self.stored(), given):
            raise ValueError(f"weight must hold multiples of {step} in {self.low}..{self.high}, got others")

    def stored(self) -> torch.Tensor:
        """The stored integers, float64 like `weight`."""
        whole = nearest(self.weight * self.scale / self.step) * self.step
        low, high = -(-self.low // self.step) * self.step, self.high // self.step * self.step
        return bounded(whole, low, high)

    def clipped_share(self) -> float:
        """Share of the weights that lie beyond the range of the stored integer by more than half a step."""
        with torch.no_grad():
            scaled = self.weight * self.scale
            outside = (scaled < self.low - self.step / 2) | (scaled > self.high + self.step / 2)
            return float(outside.double().mean())

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Sums of arriving weights, float64 integers [T, B, ...], for whole numbers x [T, B, ...]."""
        weight = self.stored() * 2.0**self.exponent
        with torch.no_grad():
            largest = weight.abs().flatten(1).sum(1).max() * x.abs().max() if x.numel() else torch.zeros(())
        dtype = torch.float32 if largest < _EXACT_IN_FLOAT32 else torch.float64
        flat = self.apply_weight(x.flatten(0, 1).to(dtype), weight.to(dtype))
        return flat.unflatten(0, x.shape[:2]).to(torch.float64)

    def weight_array(self, input_first: torch.Tensor) -> np.ndarray:
        """The arriving integers as a contiguous int32 array."""
        with torch.no_grad():
            return np.ascontiguousarray((input_first * 2.0**self.exponent).cpu().numpy().astype(np.int32))

    @abstractmethod
    def apply_weight(self, x: torch.Tensor, weight: torch.Tensor) -> torch.Tensor:
        """The linear map of one batch."""

    @abstractmethod
    def output_shape(self, shape: Shape) -> Shape:
        """Shape of one output for one input; ShapeError where it does not fit."""

    @abstractmethod
    def conv_form(self, shape: Shape) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
        """Weights [C_in / groups, kh, kw, C_out] int32, geometry, input and output (C, H, W), as the kernels take them."""

    @abstractmethod
    def compiled(self, shape: Shape) -> Run:
        """`forward` as a compiled loop over the integers of now, for inputs shaped `shape`: x int32, result int64."""


class IntegerLinear(IntegerConnection):
    """Weights [O, I]; see `IntegerConnection`."""

    def apply_weight(self, x: torch.Tensor, weight: torch.Tensor) -> torch.Tensor:
        self.output_shape(tuple(x.shape[1:]))
        return F.linear(x, weight)

    def output_shape(self, shape: Shape) -> Shape:
        if len(shape) != 1 or shape[0] != self.weight.shape[1]:
            raise ShapeError(f"IntegerLinear: one input must have shape ({self.weight.shape[1]},), got {shape}")
        return (self.weight.shape[0],)

    def matrix(self) -> np.ndarray:
        """Arriving integers [I, O] int32."""
        return self.weight_array(self.stored().T)

    def conv_form(self, shape: Shape) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
        out = self.output_shape(shape)
        geometry = np.array([1, 1, 0, 0, 1, 1, 1], np.int64)
        matrix = self.matrix()[:, None, None, :]
        return matrix, geometry, np.array([*shape, 1, 1], np.int64), np.array([*out, 1, 1], np.int64)

    def compiled(self, shape: Shape) -> Run:
        self.output_shape(shape)
        matrix = self.matrix()
        return lambda x: kernels.linear_sums(x, matrix)


class IntegerConv(IntegerConnection):
    """Weights [O, C / groups, kh, kw] or [O, C / groups, k]; see `IntegerConnection`.

    Args:
        weight, scale, low, high, step, exponent: see `IntegerConnection`.
        stride, padding, dilation: as in torch, numbers or one per axis; padding is with zeros.
        groups: as in torch.
    """

    def __init__(
        self,
        weight: Any,
        scale: Any = 1.0,
        low: int | None = None,
        high: int | None = None,
        step: int = 1,
        exponent: int = 0,
        *,
        stride: Any = 1,
        padding: Any = 0,
        dilation: Any = 1,
        groups: int = 1,
    ) -> None:
        super().__init__(weight, scale, low, high, step, exponent)
        axes = self.weight.dim() - 2
        if axes not in (1, 2):
            raise ShapeError(f"IntegerConv: weight must have 3 or 4 dimensions, got shape {tuple(self.weight.shape)}")
        self.stride, self.padding, self.dilation = (
            (value,) * axes if isinstance(value, int) else tuple(value) for value in (stride, padding, dilation)
        )
        self.groups = groups

    def apply_weight(self, x: torch.Tensor, weight: torch.Tensor) -> torch.Tensor:
        self.output_shape(tuple(x.shape[1:]))
        conv = F.conv1d if weight.dim() == 3 else F.conv2d
        return conv(x, weight, None, self.stride, self.padding, self.dilation, self.groups)

    def output_shape(self, shape: Shape) -> Shape:
        outputs, per_group, *kernel = self.weight.shape
        if len(shape) != len(kernel) + 1 or shape[0] != per_group * self.groups:
            axes = "H, W" if len(kernel) == 2 else "L"
            raise ShapeError(f"IntegerConv: one input must have shape ({per_group * self.groups}, {axes}), got {shape}")
        sizes = [
            (size + 2 * padding - dilation * (k - 1) - 1) // stride + 1
            for size, k, stride, padding, dilation in zip(
                shape[1:], kernel, self.stride, self.padding, self.dilation, strict=True
            )
        ]
        if min(sizes) < 1:
            raise ShapeError(f"IntegerConv: the kernel {tuple(kernel)} does not fit into an input of shape {shape}")
        return (outputs, *sizes)

    def conv_form(self, shape: Shape) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
        out, weight = self.output_shape(shape), self.stored()
        one, none, both = (1,), (0,), (*self.stride, *self.padding, *self.dilation)
        if weight.dim() == 3:
            weight, shape, out = weight.unsqueeze(2), (shape[0], 1, shape[1]), (out[0], 1, out[1])
            both = one + self.stride + none + self.padding + one + self.dilation
        geometry = np.array([*both, self.groups], np.int64)
        stored = self.weight_array(weight.permute(1, 2, 3, 0))
        return stored, geometry, np.array(shape, np.int64), np.array(out, np.int64)

    def compiled(self, shape: Shape) -> Run:
        form = self.conv_form(shape)
        return lambda x: kernels.conv_sums(x, *form)
