"""`accelerate`: an existing SpikingJelly network with this package's neurons and layers in place of its own."""

from __future__ import annotations

import copy
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from torch import nn

from snn.layers.sparse import SpikeConv2d, SpikeLinear
from snn.neurons.cuba import CubaLIF
from snn.neurons.graded import MultiSpikeLIF
from snn.neurons.lif import IF, LIF, PLIF
from snn.neurons.neuron import Neuron


@dataclass(frozen=True)
class Replacement:
    """What became of one layer.

    Attributes:
        name: dotted name in the network; "" is the network itself.
        module: its class before.
        by: the class that took its place, or None.
        reason: why it stayed; "" where it was replaced.
    """

    name: str
    module: str
    by: str | None
    reason: str = ""

    def __str__(self) -> str:
        return f"{self.name or '(network)'}: {self.module} " + (f"-> {self.by}" if self.by else self.reason)


@dataclass(frozen=True)
class AccelerationReport:
    """Every neuron, and every linear and convolution layer if those were asked for, in the order of the network."""

    rows: tuple[Replacement, ...]

    @property
    def replaced(self) -> tuple[Replacement, ...]:
        """The layers that were replaced."""
        return tuple(row for row in self.rows if row.by is not None)

    @property
    def kept(self) -> tuple[Replacement, ...]:
        """The layers that stayed, each with its reason."""
        return tuple(row for row in self.rows if row.by is None)

    def __str__(self) -> str:
        first = f"{len(self.replaced)} of {len(self.rows)} layers replaced"
        return "\n".join([first, *(f"  {row}" for row in self.rows)])


def accelerate(net: nn.Module, layers: bool = False, *, inplace: bool = False) -> tuple[nn.Module, AccelerationReport]:
    """Replaces SpikingJelly's neurons, and if asked its and torch's linear and 2-D convolution layers, by ours.

    Outputs, gradients, state_dict keys, parameters (the same objects if `inplace`), membrane states, step modes and
    training modes stay; so does SpikingJelly's rule that a network continues from its last state until
    `functional.reset_net(net)`. Only exact classes are replaced: a subclass may have changed what the class does.

    Args:
        net: a network; one that is itself a neuron or such a layer is replaced whole.
        layers: also replace Linear and Conv2d by `SpikeLinear` and `SpikeConv2d`, which read only the non-zero inputs
            where that is faster.
        inplace: change `net` itself; False changes a deep copy.

    Returns: the network and a report of what was replaced by what, and what was not and why.
    Raises: TypeError if net is not a module.

    >>> from spikingjelly.activation_based import neuron
    >>> net, report = accelerate(nn.Sequential(nn.Linear(4, 3), neuron.LIFNode(step_mode="m")))
    >>> print(report)
    1 of 1 layers replaced
      1: LIFNode -> LIF
    """
    if not isinstance(net, nn.Module):
        raise TypeError(f"accelerate: net must be a torch.nn.Module, got {type(net).__name__}")
    if not inplace:
        net = copy.deepcopy(net)
    makers = _makers(layers)
    rows: list[Replacement] = []
    made: dict[int, nn.Module] = {}
    for name, module in list(net.named_modules()):
        if not _is_candidate(module, layers):
            continue
        maker = makers.get(type(module))
        reason = _obstacle(module) if maker is not None else f"has no equal here (exact classes: {_names(makers)})"
        if maker is None or reason:
            rows.append(Replacement(name, type(module).__name__, None, reason))
            continue
        made[id(module)] = _dressed(maker(module), module)
        rows.append(Replacement(name, type(module).__name__, type(made[id(module)]).__name__))
    for parent in list(net.modules()):
        for name, child in list(parent._modules.items()):
            if id(child) in made:
                setattr(parent, name, made[id(child)])
    return made.get(id(net), net), AccelerationReport(tuple(rows))


def _is_candidate(module: nn.Module, layers: bool) -> bool:
    if isinstance(module, Neuron | SpikeLinear | SpikeConv2d):
        return False
    if layers and isinstance(module, nn.Linear | nn.modules.conv._ConvNd):
        return True
    from spikingjelly.activation_based import neuron

    spiking = (neuron.BaseNode, neuron.SimpleBaseNode)
    return isinstance(module, spiking) or type(module).__module__.startswith(neuron.__name__)


def _names(makers: dict[type, Any]) -> str:
    return ", ".join(sorted({kind.__name__ for kind in makers}))


def _obstacle(module: nn.Module) -> str:
    """Why a module of a known class must stay, or ""."""
    if getattr(module, "store_v_seq", False) and module.step_mode == "s":
        return "store_v_seq in single steps appends to one sequence, here it holds the last call"
    if getattr(module, "_neuron_precision", None) is not None:
        return f"runs in its own precision, {module._neuron_precision}"
    if getattr(module, "padding_mode", "zeros") not in ("zeros", "reflect", "replicate", "circular"):
        return f"padding mode {module.padding_mode!r}"
    return ""


def _dressed(new: nn.Module, old: nn.Module) -> nn.Module:
    """The new layer with the old one's mode, states and hooks."""
    new.train(old.training)
    if isinstance(new, Neuron):
        new.step_mode = str(old.step_mode)
        new.carry_state = True
        for name, value in old.named_memories():  # type: ignore[operator]
            if name in new._memories:
                new._memories[name] = value
    for hooks in ("_forward_hooks", "_forward_pre_hooks", "_backward_hooks", "_backward_pre_hooks"):
        getattr(new, hooks).update(getattr(old, hooks))
    return new


def _common(node: Any) -> dict[str, Any]:
    return {
        "v_threshold": node.v_threshold,
        "surrogate_function": node.surrogate_function,
        "detach_reset": node.detach_reset,
        "store_v_seq": node.store_v_seq,
    }


def _plif(node: Any) -> PLIF:
    new = PLIF(decay_input=node.decay_input, v_reset=node.v_reset, **_common(node))
    new.w = node.w
    return new


def _cuba(node: Any) -> CubaLIF:
    new = CubaLIF(node.c_decay, node.v_decay, node.v_threshold, node.v_reset, node.surrogate_function)
    new.detach_reset = node.detach_reset
    return new


def _linear(layer: nn.Linear) -> SpikeLinear:
    new = SpikeLinear(layer.in_features, layer.out_features, layer.bias is not None, device="meta")
    new.weight, new.bias = layer.weight, layer.bias
    return new


def _conv2d(layer: nn.Conv2d) -> SpikeConv2d:
    new = SpikeConv2d(
        layer.in_channels,
        layer.out_channels,
        layer.kernel_size,  # type: ignore[arg-type]
        layer.stride,  # type: ignore[arg-type]
        layer.padding,  # type: ignore[arg-type]
        layer.dilation,  # type: ignore[arg-type]
        layer.groups,
        layer.bias is not None,
        layer.padding_mode,
        device="meta",
    )
    new.weight, new.bias = layer.weight, layer.bias
    return new


def _makers(layers: bool) -> dict[type, Callable[[Any], nn.Module]]:
    """What makes the equal of each class that has one."""
    from spikingjelly.activation_based import layer, neuron

    makers: dict[type, Callable[[Any], nn.Module]] = {
        neuron.IFNode: lambda node: IF(v_reset=node.v_reset, **_common(node)),
        neuron.LIFNode: lambda node: LIF(
            tau=node.tau, decay_input=node.decay_input, v_reset=node.v_reset, **_common(node)
        ),
        neuron.ParametricLIFNode: _plif,
        neuron.CUBALIFNode: _cuba,
        neuron.ILIFNode: lambda node: MultiSpikeLIF(tau=node.tau, **_common(node)),
    }
    if layers:
        makers |= {nn.Linear: _linear, layer.Linear: _linear, nn.Conv2d: _conv2d, layer.Conv2d: _conv2d}
    return makers
