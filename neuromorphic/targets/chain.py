"""A trained torch network as a chain of weights, pooling and neurons, with normalisation folded into the weights."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any

import torch
from spikingjelly.activation_based import layer as sj_layer
from spikingjelly.activation_based import neuron as sj_neuron
from spikingjelly.activation_based.base import MemoryModule
from torch import nn
from torch.nn import functional as F

import snn
from snn.errors import UnsupportedError
from snn.models.stack import Stack

_DROPPED = (nn.Identity, nn.modules.dropout._DropoutNd, sj_layer.Dropout, sj_layer.Dropout2d)


@dataclass(eq=False)
class FloatNeuron:
    """A layer of neurons in one form: c = c_kept c + gain x; h = v_kept v + c + shift; z = [h >= threshold]; v = 0 or h -
    threshold. The membrane is counted from the reset value.

    Attributes:
        family: "if", "lif", "cuba", or "li" for an integrator, whose output is h.
        v_kept, c_kept: shares that stay, tensors that broadcast over neurons; c_kept = 0 without a current.
        gain: factor of the input.
        shift: added at every step.
        threshold: above the reset value.
        reset: "zero" or "subtract".
        module: the layer.
        recurrent: weights from the layer's own spikes, [N, N], or None.
    """

    family: str
    v_kept: torch.Tensor
    c_kept: torch.Tensor
    gain: torch.Tensor
    shift: torch.Tensor
    threshold: torch.Tensor
    reset: str
    module: nn.Module
    recurrent: torch.Tensor | None = None

    def largest(self, x: torch.Tensor, quantile: float) -> tuple[float, float]:
        """The given quantile of |h| and of |c| over a calibration input x [T, B, ...]."""
        c = v = z = torch.zeros_like(x[0], dtype=torch.float64)
        currents, membranes = [], []
        for x_t in x.double():
            if self.recurrent is not None:
                x_t = x_t + z @ self.recurrent.double().T
            c = self.c_kept * c + self.gain * x_t
            h = self.v_kept * v + c + self.shift
            z = (h >= self.threshold).double() if self.family != "li" else torch.zeros_like(h)
            v = h - z * self.threshold if self.reset == "subtract" else h * (1 - z)
            currents.append(c.abs().flatten())
            membranes.append(h.abs().flatten())
        return tuple(_quantile(torch.cat(values), quantile) for values in (membranes, currents))  # type: ignore[return-value]


def _quantile(values: torch.Tensor, quantile: float) -> float:
    if quantile >= 1:
        return float(values.max())
    return float(values.kthvalue(max(1, int(quantile * values.numel()))).values)


@dataclass(eq=False)
class FloatLayer:
    """Weights, what is pooled before and after them, and the neurons behind.

    Attributes:
        name: dotted name of the weight layer.
        weight, bias: with normalisation folded in, float64; bias [O].
        conv: stride, padding, dilation, groups of a convolution; empty for a linear layer.
        flatten_before: the input is flattened.
        pool_before, pool_after: windows of average pooling before the weights and between weights and neurons.
        neuron_name: dotted name of the neurons; "" for a read-out without state.
        neuron: None for a read-out without state.
    """

    name: str
    weight: torch.Tensor
    bias: torch.Tensor
    conv: dict[str, Any] = field(default_factory=dict)
    flatten_before: bool = False
    pool_before: list[Any] = field(default_factory=list)
    pool_after: Any = None
    neuron_name: str = ""
    neuron: FloatNeuron | None = None

    def prepared(self, x: torch.Tensor) -> torch.Tensor:
        """x [T, B, ...] pooled and flattened as the weights take it."""
        for window in self.pool_before:
            x = _average(x, window)
        return x.flatten(2) if self.flatten_before else x

    def current(self, x: torch.Tensor) -> torch.Tensor:
        """What the neurons receive for spikes x [T, B, ...], in the dtype of x."""
        x = self.prepared(x)
        weight, bias = self.weight.to(x.dtype), self.bias.to(x.dtype)
        flat = x.flatten(0, 1)
        if not self.conv:
            y = F.linear(flat, weight, bias)
        else:
            y = (F.conv1d if weight.dim() == 3 else F.conv2d)(flat, weight, bias, **self.conv)
        y = y.unflatten(0, x.shape[:2])
        return y if self.pool_after is None else _average(y, self.pool_after)

    def output(self, current: torch.Tensor) -> torch.Tensor:
        """What the layer's neurons make of their input [T, B, ...], from a fresh state."""
        if self.neuron is None:
            return current
        module = self.neuron.module
        if isinstance(module, MemoryModule):
            module.reset()
        y: torch.Tensor = module(current)
        return y


def _average(x: torch.Tensor, window: tuple[int, ...]) -> torch.Tensor:
    pool = F.avg_pool1d if len(window) == 1 else F.avg_pool2d
    return pool(x.flatten(0, 1), window).unflatten(0, x.shape[:2])


def float_chain(module: nn.Module, example: torch.Tensor) -> list[FloatLayer]:
    """The layers of a network in evaluation mode.

    Args:
        module: a network over all steps, [T, B, ...] -> [T, B, ...]; a copy of nothing: it is only read.
        example: input [T, B, ...], used to resolve adaptive pooling and to check that the chain computes the network.
    Raises: UnsupportedError naming the first layer that has no integer form, or if the network is no chain.
    """
    builder = _Builder()
    with torch.no_grad():
        x = example[:1, :1]
        for name, leaf in _leaves(module):
            x = builder.add(name, leaf, x)
    layers = builder.finished()
    with torch.no_grad():
        was_training = module.training
        module.eval()
        _reset(module)
        expected = module(example)
        _reset(module)
        module.train(was_training)
        found = example
        for layer in layers:
            found = layer.output(layer.current(found))
        for window in builder.trailing:
            found = _average(found, window)
        _reset(module)
    if builder.trailing:
        raise UnsupportedError("quantize: the network ends in pooling; end it in weights or neurons")
    if found.shape != expected.shape or not _close(found, expected):
        raise UnsupportedError(
            f"quantize: {type(module).__name__} is not the chain of its layers "
            f"({', '.join(layer.name for layer in layers)}): branches, residual sums and other code between layers are "
            "not quantised"
        )
    return layers


def _close(found: torch.Tensor, expected: torch.Tensor) -> bool:
    """Equal up to rounding, which may move a few spikes."""
    tolerance = 1e-3 * expected.abs().max().clamp(min=1e-6)
    return float(((found - expected).abs() > tolerance).double().mean()) < 0.02


def _reset(module: nn.Module) -> None:
    for part in module.modules():
        if isinstance(part, MemoryModule):
            part.reset()


def _leaves(module: nn.Module, prefix: str = "") -> Iterator[tuple[str, nn.Module]]:
    children = dict(module.named_children())
    is_container = isinstance(module, nn.Sequential | nn.ModuleList | nn.ModuleDict | Stack)
    if isinstance(module, MemoryModule) and not isinstance(module, nn.Sequential):
        yield prefix, module
    elif children and (is_container or type(module).__module__.partition(".")[0] != "torch"):
        for name, child in children.items():
            yield from _leaves(child, f"{prefix}.{name}" if prefix else name)
    elif not is_container:
        yield prefix, module


class _Builder:
    """Puts leaves together into layers, following the shape of the signal."""

    def __init__(self) -> None:
        self.layers: list[FloatLayer] = []
        self.trailing: list[Any] = []
        self.flattened = False
        self.open = False  # the last layer has weights and waits for its neurons

    def add(self, name: str, leaf: nn.Module, x: torch.Tensor) -> torch.Tensor:
        """Take one more leaf; x [T, B, ...] is its input, of which only the shape counts; returns its output's."""
        if isinstance(leaf, nn.Linear | nn.Conv1d | nn.Conv2d):
            self._weights(name, leaf)
            return self._through(x)
        if isinstance(leaf, nn.modules.batchnorm._BatchNorm):
            self._fold(name, leaf)
        elif isinstance(leaf, nn.AvgPool1d | nn.AvgPool2d | nn.AdaptiveAvgPool1d | nn.AdaptiveAvgPool2d):
            return self._pool(name, leaf, x)
        elif isinstance(leaf, nn.Flatten):
            self.flattened = True
            return x.flatten(2)
        elif isinstance(leaf, _DROPPED):
            return x
        elif isinstance(leaf, MemoryModule):
            self._neurons(name, leaf)
        else:
            raise UnsupportedError(f"quantize: {name!r} ({type(leaf).__name__}) has no integer form")
        return x

    def _through(self, x: torch.Tensor) -> torch.Tensor:
        """`current` of an input that was already pooled and flattened on the way here."""
        layer = self.layers[-1]
        pools, flatten = layer.pool_before, layer.flatten_before
        layer.pool_before, layer.flatten_before = [], False
        y = layer.current(x)
        layer.pool_before, layer.flatten_before = pools, flatten
        return y

    def _weights(self, name: str, leaf: nn.Linear | nn.Conv1d | nn.Conv2d) -> None:
        if self.open:
            raise UnsupportedError(f"quantize: {name!r} follows {self.layers[-1].name!r} without neurons between them")
        conv: dict[str, Any] = {}
        if isinstance(leaf, nn.Conv1d | nn.Conv2d):
            if leaf.padding_mode != "zeros" or isinstance(leaf.padding, str):
                raise UnsupportedError(
                    f"quantize: {name!r} pads with {leaf.padding_mode!r}; only numbers of zeros are kept"
                )
            conv = {
                "stride": leaf.stride,
                "padding": leaf.padding,
                "dilation": leaf.dilation,
                "groups": leaf.groups,
            }
        weight = leaf.weight.detach().double()
        bias = torch.zeros(len(weight), dtype=torch.float64) if leaf.bias is None else leaf.bias.detach().double()
        self.layers.append(FloatLayer(name, weight, bias, conv, self.flattened, self.trailing))
        self.trailing, self.flattened, self.open = [], False, True

    def _fold(self, name: str, norm: nn.modules.batchnorm._BatchNorm) -> None:
        if (
            not self.open
            or self.layers[-1].pool_after is not None
            or norm.running_var is None
            or norm.running_mean is None
        ):
            raise UnsupportedError(
                f"quantize: {name!r} ({type(norm).__name__}) does not follow weights, so it cannot be folded"
            )
        scale = 1.0 / torch.sqrt(norm.running_var.double() + norm.eps)
        if norm.weight is not None:
            scale = scale * norm.weight.detach().double()
        shift = torch.zeros_like(scale) if norm.bias is None else norm.bias.detach().double()
        layer = self.layers[-1]
        layer.weight = layer.weight * scale.view(-1, *[1] * (layer.weight.dim() - 1))
        layer.bias = (layer.bias - norm.running_mean.double()) * scale + shift

    def _pool(self, name: str, leaf: nn.Module, x: torch.Tensor) -> torch.Tensor:
        window = _window(name, leaf, tuple(x.shape[2:]))
        if self.open:
            if self.layers[-1].pool_after is not None:
                raise UnsupportedError(f"quantize: {name!r} pools twice between weights and neurons")
            self.layers[-1].pool_after = window
        else:
            self.trailing.append(window)
        return _average(x, window)

    def _neurons(self, name: str, leaf: MemoryModule) -> None:
        if not self.open:
            raise UnsupportedError(f"quantize: neurons {name!r} do not follow weights")
        if getattr(leaf, "step_mode", "m") != "m":
            raise UnsupportedError(f"quantize: neurons {name!r} are in step mode 's'; call set_step_mode(network, 'm')")
        self.layers[-1].neuron_name, self.layers[-1].neuron = name, float_neuron(name, leaf)
        self.open = False

    def finished(self) -> list[FloatLayer]:
        if not self.layers:
            raise UnsupportedError("quantize: the network has no weights")
        return self.layers


def _window(name: str, leaf: nn.Module, shape: tuple[int, ...]) -> tuple[int, ...]:
    axes = 1 if "1d" in type(leaf).__name__ else 2

    def per_axis(value: Any) -> tuple[int, ...]:
        return (value,) * axes if isinstance(value, int) else tuple(value)

    if isinstance(leaf, nn.AdaptiveAvgPool1d | nn.AdaptiveAvgPool2d):
        sizes = [out or size for out, size in zip(per_axis(leaf.output_size), shape[-axes:], strict=True)]
        if any(size % out for out, size in zip(sizes, shape[-axes:], strict=True)):
            raise UnsupportedError(f"quantize: {name!r} pools {shape[-axes:]} to {tuple(sizes)} with unequal windows")
        return tuple(size // out for out, size in zip(sizes, shape[-axes:], strict=True))
    window = per_axis(leaf.kernel_size)
    if per_axis(leaf.stride) != window or any(per_axis(leaf.padding)) or leaf.ceil_mode:
        raise UnsupportedError(f"quantize: {name!r} pools with overlap, padding or ceil_mode")
    return window


def float_neuron(name: str, leaf: nn.Module) -> FloatNeuron:
    """The common form of a layer of neurons.

    Raises: UnsupportedError for a neuron outside the families of IF, LIF, CUBA and LI.
    """
    one, zero = torch.tensor(1.0, dtype=torch.float64), torch.tensor(0.0, dtype=torch.float64)
    recurrent = None
    if isinstance(leaf, snn.RecurrentLIF):
        if not isinstance(leaf.recurrent, nn.Linear) or leaf.recurrent.bias is not None:
            raise UnsupportedError(f"quantize: the feedback of {name!r} must be a Linear without bias")
        recurrent = leaf.recurrent.weight.detach().double()
    values = {key: _number(getattr(leaf, key, None)) for key in ("tau", "v_threshold", "c_decay", "v_decay", "w")}
    threshold, v_reset = values["v_threshold"], _number(getattr(leaf, "v_reset", None))
    soft = v_reset is None
    rest = zero if v_reset is None else v_reset
    shift, c_kept, gain = zero, zero, one
    if isinstance(leaf, snn.LI):
        family, v_kept, threshold = "li", 1 - 1 / values["tau"], one
    elif isinstance(leaf, snn.CubaLIF):
        family, v_kept, c_kept = "cuba", values["v_decay"], values["c_decay"]
        shift = rest * (v_kept - 1)
    elif isinstance(leaf, snn.LIF | snn.RecurrentLIF | sj_neuron.LIFNode):
        family, v_kept = "lif", 1 - 1 / values["tau"]
    elif isinstance(leaf, snn.PLIF | sj_neuron.ParametricLIFNode):
        family, v_kept = "lif", 1 - torch.sigmoid(values["w"])
    elif isinstance(leaf, snn.IF | sj_neuron.IFNode):
        family, v_kept = "if", one
    else:
        raise UnsupportedError(
            f"quantize: neurons {name!r} ({type(leaf).__name__}) have no integer form; accepted: IF, LIF, PLIF, CubaLIF, "
            "RecurrentLIF, LI and SpikingJelly's IFNode, LIFNode, ParametricLIFNode"
        )
    if family in ("lif", "li") and getattr(leaf, "decay_input", True):
        gain = 1 - v_kept
    return FloatNeuron(
        family, v_kept, c_kept, gain, shift, threshold - rest, "subtract" if soft else "zero", leaf, recurrent
    )


def _number(value: Any) -> Any:
    return None if value is None else torch.as_tensor(value).detach().double()
