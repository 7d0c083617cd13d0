"""The graph of layers between torch (or NIR) and the event network: what is computed at one time step, with shapes.

Shapes are those of one step of one sample, without time and batch. Flat indices are row-major in these shapes. Weights
are NumPy arrays in the dtype of the module that they came from.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from math import prod
from typing import Any

import numpy as np

from snn.declaration import NeuronModel
from snn.surrogate import ClosedForm

Shape = tuple[int, ...]
Pair = tuple[int, int]


@dataclass(frozen=True, eq=False)
class Input:
    """The network's input."""


@dataclass(frozen=True, eq=False)
class Dense:
    """y = W x + b over all features; weight [out, in], bias [out] or None."""

    weight: np.ndarray
    bias: np.ndarray | None = None


@dataclass(frozen=True, eq=False)
class DelayedDense:
    """y[t, o] = sum over i of weight[o, i] x[t - steps[o, i], i] + bias[o]; steps int64 [out, in], >= 0."""

    weight: np.ndarray
    steps: np.ndarray
    bias: np.ndarray | None = None


@dataclass(frozen=True, eq=False)
class Conv:
    """Cross-correlation as in torch over (C, H, W), or (C, L) with H = 1.

    weight [C_out, C_in / groups, kh, kw], bias [C_out] or None; zeros are padded on both sides of each axis.
    """

    weight: np.ndarray
    bias: np.ndarray | None = None
    stride: Pair = (1, 1)
    padding: Pair = (0, 0)
    dilation: Pair = (1, 1)
    groups: int = 1


@dataclass(frozen=True, eq=False)
class Pool:
    """Sum over windows times `factor`: 1 for sum pooling, 1 / window size for average pooling."""

    kernel: Pair
    stride: Pair
    padding: Pair
    factor: float


@dataclass(frozen=True, eq=False)
class MaxPool:
    """Largest value of each window; padding never wins."""

    kernel: Pair
    stride: Pair
    padding: Pair
    dilation: Pair = (1, 1)


@dataclass(frozen=True, eq=False)
class Affine:
    """y = scale x + shift, elementwise; both flat, one value per feature; a shift of None is 0."""

    scale: np.ndarray
    shift: np.ndarray | None = None


@dataclass(frozen=True, eq=False)
class Take:
    """y[i] = concatenation of all inputs [index[i]]: reshape (index None), permutation, slice, concatenation."""

    index: np.ndarray | None = None


@dataclass(frozen=True, eq=False)
class Add:
    """Sum of all inputs."""


@dataclass(frozen=True, eq=False)
class Delay:
    """y[t, i] = x[t - steps[i], i]; steps int64, flat, >= 0."""

    steps: np.ndarray


@dataclass(frozen=True, eq=False)
class Fire:
    """A layer of declared neurons.

    Attributes:
        model: its scalar step.
        params: every parameter: a switch, a number, or a flat array with one value per neuron.
        form: the closed form of its surrogate, whose forward is the spike.
        surrogate_values: numbers of that form by name.
        kind: class name, for reports and messages.
    """

    model: NeuronModel
    params: Mapping[str, Any]
    form: ClosedForm
    surrogate_values: Mapping[str, float] = field(default_factory=dict)
    kind: str = ""


@dataclass(frozen=True, eq=False)
class OverTime:
    """Sum or mean of the input over all steps of a run; only as the network's last layer."""

    mean: bool


Op = Input | Dense | DelayedDense | Conv | Pool | MaxPool | Affine | Take | Add | Delay | Fire | OverTime


@dataclass(frozen=True, eq=False)
class Layer:
    """One node of the graph.

    Attributes:
        name: dotted name of the module, with a suffix for operations that are no module.
        op: what it computes.
        inputs: names of the layers that feed it.
        shape: of its output.
        late: inputs of which it sees the value of the step before (zero at the first).
        where: the line of the user's model that asked for it, "" where unknown.
    """

    name: str
    op: Op
    inputs: tuple[str, ...]
    shape: Shape
    late: frozenset[str] = frozenset()
    where: str = ""

    @property
    def size(self) -> int:
        """Features of the output."""
        return prod(self.shape)

    def __str__(self) -> str:
        place = f" (at {self.where})" if self.where else ""
        return f"{self.name!r}{place}"


@dataclass
class LayerGraph:
    """Layers in an order in which each follows its inputs, those read late excepted.

    Attributes:
        layers: by name.
        output: name of the layer whose value the network returns.
        time_first: the torch module takes sequences [T, B, ...]; False: single steps [B, ...].
    """

    layers: dict[str, Layer]
    output: str
    time_first: bool = True

    @property
    def input(self) -> Layer:
        """The layer that stands for the network's input."""
        return next(layer for layer in self.layers.values() if isinstance(layer.op, Input))

    def __iter__(self) -> Iterator[Layer]:
        return iter(self.layers.values())

    def consumers(self) -> dict[str, list[str]]:
        """Names of the layers that read each layer; the network's output counts as a reader named ""."""
        readers: dict[str, list[str]] = {name: [] for name in self.layers}
        for layer in self:
            for name in layer.inputs:
                readers[name].append(layer.name)
        readers[self.output].append("")
        return readers

    def neurons(self) -> list[Layer]:
        """The layers of neurons, in order."""
        return [layer for layer in self if isinstance(layer.op, Fire)]


def as_map(shape: Shape) -> tuple[int, int, int]:
    """(C, H, W) of a shape (C, H, W) or (C, L); the caller has checked the number of dimensions."""
    return (shape[0], 1, shape[1]) if len(shape) == 2 else (shape[0], shape[1], shape[2])


def conv_size(size: int, kernel: int, stride: int, padding: int, dilation: int = 1) -> int:
    """Outputs of a convolution or pooling along one axis."""
    return (size + 2 * padding - dilation * (kernel - 1) - 1) // stride + 1
