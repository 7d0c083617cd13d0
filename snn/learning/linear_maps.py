"""The maps between two layers of neurons, each with its transpose and weight gradient, without an autograd graph."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping
from typing import Any

import torch
from torch import nn
from torch.nn import functional as F
from torch.nn.utils import parametrize

from snn.errors import UnsupportedError

Gradients = dict[torch.Tensor, torch.Tensor]
"""Parameter -> its gradient."""
FEEDBACK = "feedback"
"""Name of the parameter of a layer that takes the place of its weight in the transposed direction."""


def add_gradient(gradients: Gradients, parameter: torch.Tensor | None, value: torch.Tensor) -> None:
    """Add `value` to the entry of `parameter`, if there is such a parameter."""
    if parameter is not None:
        gradients[parameter] = gradients[parameter] + value if parameter in gradients else value


class LinearMap(ABC):
    """One map x -> y between layers, linear apart from a bias or the routing of a maximum.

    Args:
        name: of the layer in the network.
    """

    def __init__(self, name: str) -> None:
        self.name = name

    @abstractmethod
    def forward(self, x: torch.Tensor) -> tuple[torch.Tensor, Any]:
        """Return y, and what the other methods need of this evaluation."""

    @abstractmethod
    def transposed(self, delta: torch.Tensor, saved: Any) -> torch.Tensor:
        """Return J^T delta, J the Jacobian at the evaluation that `saved` is of."""


class WeightedMap(LinearMap):
    """A map with weights. What `forward` saves is x itself, so that the gradient can be taken at another point."""

    @property
    @abstractmethod
    def layer(self) -> nn.Module:
        """The layer with the weights."""

    @abstractmethod
    def collect(self, delta: torch.Tensor, saved: Any, gradients: Gradients) -> None:
        """Add the gradients of <delta, y> with respect to weights and bias."""

    @abstractmethod
    def both(self, delta: torch.Tensor, saved: Any, gradients: Gradients) -> torch.Tensor:
        """Do `collect` and `transposed` at the same evaluation."""

    @abstractmethod
    def transposed_by(self, weight: torch.Tensor, delta: torch.Tensor, saved: Any) -> torch.Tensor:
        """Return what `transposed` would with another weight of the same shape."""


class Dense(WeightedMap):
    """torch.nn.Linear on [B, ..., features]; with a parameter `feedback` [out, in], that in the transposed direction."""

    def __init__(self, name: str, layer: nn.Linear) -> None:
        super().__init__(name)
        self._layer = layer
        self._feedback = layer._parameters.get(FEEDBACK)

    @property
    def layer(self) -> nn.Module:
        return self._layer

    def forward(self, x: torch.Tensor) -> tuple[torch.Tensor, Any]:
        return F.linear(x, self._layer.weight, self._layer.bias), x

    def transposed(self, delta: torch.Tensor, saved: Any) -> torch.Tensor:
        return delta @ (self._layer.weight if self._feedback is None else self._feedback)

    def transposed_by(self, weight: torch.Tensor, delta: torch.Tensor, saved: Any) -> torch.Tensor:
        return delta @ weight

    def collect(self, delta: torch.Tensor, saved: Any, gradients: Gradients) -> None:
        rows = delta.flatten(0, -2)
        weight = rows.T @ saved.flatten(0, -2)
        add_gradient(gradients, self._layer.weight, weight)
        add_gradient(gradients, self._feedback, weight)
        if self._layer.bias is not None:
            add_gradient(gradients, self._layer.bias, rows.sum(0))

    def both(self, delta: torch.Tensor, saved: Any, gradients: Gradients) -> torch.Tensor:
        self.collect(delta, saved, gradients)
        return self.transposed(delta, saved)


class Convolution(WeightedMap):
    """torch.nn.Conv1d, Conv2d or Conv3d with zero padding; `feedback` as in `Dense`."""

    def __init__(self, name: str, layer: nn.modules.conv._ConvNd) -> None:
        super().__init__(name)
        self._layer = layer
        self._feedback = layer._parameters.get(FEEDBACK)
        self._padding = _padding(name, layer)

    @property
    def layer(self) -> nn.Module:
        return self._layer

    def forward(self, x: torch.Tensor) -> tuple[torch.Tensor, Any]:
        layer = self._layer
        y = torch.convolution(
            x, layer.weight, layer.bias, layer.stride, self._padding, layer.dilation, False, [0], layer.groups
        )
        return y, x

    def transposed(self, delta: torch.Tensor, saved: Any) -> torch.Tensor:
        return self.transposed_by(self._layer.weight if self._feedback is None else self._feedback, delta, saved)

    def transposed_by(self, weight: torch.Tensor, delta: torch.Tensor, saved: Any) -> torch.Tensor:
        grads = self._backward(delta, saved, weight, (True, False, False))
        assert grads[0] is not None
        return grads[0]

    def collect(self, delta: torch.Tensor, saved: Any, gradients: Gradients) -> None:
        grads = self._backward(delta, saved, self._layer.weight, (False, True, self._layer.bias is not None))
        self._add(grads, gradients)

    def both(self, delta: torch.Tensor, saved: Any, gradients: Gradients) -> torch.Tensor:
        if self._feedback is not None:
            self.collect(delta, saved, gradients)
            return self.transposed(delta, saved)
        grads = self._backward(delta, saved, self._layer.weight, (True, True, self._layer.bias is not None))
        self._add(grads, gradients)
        assert grads[0] is not None
        return grads[0]

    def _add(self, grads: tuple[torch.Tensor | None, ...], gradients: Gradients) -> None:
        assert grads[1] is not None
        add_gradient(gradients, self._layer.weight, grads[1])
        add_gradient(gradients, self._feedback, grads[1])
        if grads[2] is not None:
            add_gradient(gradients, self._layer.bias, grads[2])

    def _backward(
        self, delta: torch.Tensor, x: torch.Tensor, weight: torch.Tensor, wanted: tuple[bool, bool, bool]
    ) -> tuple[torch.Tensor | None, ...]:
        layer = self._layer
        grads: tuple[torch.Tensor | None, ...] = torch.ops.aten.convolution_backward(
            delta,
            x,
            weight,
            [layer.out_channels],
            layer.stride,
            self._padding,
            layer.dilation,
            False,
            [0],
            layer.groups,
            wanted,
        )
        return grads


def _padding(name: str, layer: nn.modules.conv._ConvNd) -> list[int]:
    if layer.padding_mode != "zeros":
        raise UnsupportedError(f"{name!r} ({type(layer).__name__}): padding_mode must be 'zeros'")
    if layer.padding == "valid":
        return [0] * len(layer.kernel_size)
    if layer.padding == "same":
        if any(size % 2 == 0 for size in layer.kernel_size):
            raise UnsupportedError(f"{name!r} ({type(layer).__name__}): padding 'same' needs an odd kernel_size")
        return [d * (k - 1) // 2 for k, d in zip(layer.kernel_size, layer.dilation, strict=True)]
    return [int(p) for p in layer.padding]


class AveragePool(LinearMap):
    """torch.nn.AvgPool2d, linear, so its transpose is exact."""

    def __init__(self, name: str, layer: nn.AvgPool2d) -> None:
        super().__init__(name)
        self._arguments = (
            _pair(layer.kernel_size),
            _pair(layer.stride),
            _pair(layer.padding),
            layer.ceil_mode,
            layer.count_include_pad,
            layer.divisor_override,
        )

    def forward(self, x: torch.Tensor) -> tuple[torch.Tensor, Any]:
        return F.avg_pool2d(x, *self._arguments), x

    def transposed(self, delta: torch.Tensor, saved: Any) -> torch.Tensor:
        return torch.as_tensor(torch.ops.aten.avg_pool2d_backward(delta, saved, *self._arguments))


class AdaptiveAveragePool(LinearMap):
    """torch.nn.AdaptiveAvgPool2d, linear."""

    def __init__(self, name: str, layer: nn.AdaptiveAvgPool2d) -> None:
        super().__init__(name)
        self._pool = layer

    def forward(self, x: torch.Tensor) -> tuple[torch.Tensor, Any]:
        return self._pool(x), x

    def transposed(self, delta: torch.Tensor, saved: Any) -> torch.Tensor:
        return torch.as_tensor(torch.ops.aten._adaptive_avg_pool2d_backward(delta, saved))


class MaxPool(LinearMap):
    """torch.nn.MaxPool2d: routes to the largest entry of the state at which it was evaluated."""

    def __init__(self, name: str, layer: nn.MaxPool2d) -> None:
        super().__init__(name)
        stride = layer.kernel_size if layer.stride is None else layer.stride
        self._arguments = (
            _pair(layer.kernel_size),
            _pair(stride),
            _pair(layer.padding),
            _pair(layer.dilation),
            layer.ceil_mode,
        )

    def forward(self, x: torch.Tensor) -> tuple[torch.Tensor, Any]:
        y, indices = torch.ops.aten.max_pool2d_with_indices(x, *self._arguments)
        return y, (x, indices)

    def transposed(self, delta: torch.Tensor, saved: Any) -> torch.Tensor:
        x, indices = saved
        grad = torch.ops.aten.max_pool2d_with_indices_backward(delta, x, *self._arguments, indices)
        return torch.as_tensor(grad)


class Flatten(LinearMap):
    """torch.nn.Flatten."""

    def __init__(self, name: str, layer: nn.Flatten) -> None:
        super().__init__(name)
        self._flatten = layer

    def forward(self, x: torch.Tensor) -> tuple[torch.Tensor, Any]:
        return self._flatten(x), x.shape

    def transposed(self, delta: torch.Tensor, saved: Any) -> torch.Tensor:
        return delta.reshape(saved)


_WEIGHTED = (nn.Linear, nn.modules.conv._ConvNd)
_MAPS: Mapping[type[nn.Module], Any] = {
    nn.Linear: Dense,
    nn.modules.conv._ConvNd: Convolution,
    nn.AvgPool2d: AveragePool,
    nn.AdaptiveAvgPool2d: AdaptiveAveragePool,
    nn.MaxPool2d: MaxPool,
    nn.Flatten: Flatten,
}


def linear_map(name: str, layer: nn.Module) -> LinearMap | None:
    """Return the map of a torch layer, None if it is none of those that this module knows.

    A subclass from elsewhere may compute something else and is not known.

    Raises: UnsupportedError for weights that are worked out from other parameters.
    """
    known = type(layer).__module__.startswith(("torch.nn.modules.", "snn.layers."))
    if parametrize.is_parametrized(layer) or ("weight" in vars(layer) and isinstance(layer, _WEIGHTED)):
        raise UnsupportedError(f"{name!r} ({type(layer).__name__}): the weight must be a parameter of its own")
    if not known or isinstance(layer, nn.modules.conv._ConvTransposeNd):
        return None
    for kind, make in _MAPS.items():
        if isinstance(layer, kind):
            made: LinearMap = make(name, layer)
            return made
    return None


def _pair(value: int | tuple[int, ...]) -> list[int]:
    return [value, value] if isinstance(value, int) else list(value)
