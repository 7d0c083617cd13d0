"""Which modules are layers of neurons, and what their state is: ours, SpikingJelly's and snnTorch's."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import Any, cast

import torch
from spikingjelly.activation_based.base import MemoryModule
from spikingjelly.activation_based.neuron import BaseNode
from torch import nn

from neuromorphic.energy.counts import ANALOG, SPIKES, Signal
from neuromorphic.energy.quantised import LevelIF
from snn.conversion.layers import SpikingLayer
from snn.declaration import NeuronModel
from snn.errors import UnsupportedError
from snn.kernels.graph import Node, TraceError
from snn.kernels.trace import trace
from snn.neurons import BipolarIF, Neuron

_SNNTORCH = "snntorch._neurons.neurons.SpikingNeuron"
_NO_LEAK = {"v_threshold", "v_reset", "detach_reset", "theta", "v_start", "lo", "hi", "most"}

Spiking = Sequence[type[nn.Module] | str]
"""Further layers whose output is declared to be spikes: classes, or names of modules."""


@dataclass(frozen=True)
class NeuronKind:
    """What is known of a layer of neurons.

    Attributes:
        model: class name.
        state_variables: numbers per neuron.
        leaky: the neurons decay.
        hard_reset: True sets the membrane, False subtracts the threshold, None where unknown.
        signal: what the layer puts out.
        all_steps: the input of one call is [T, B, ...] and not [B, ...]; None where the shape has to tell.
        membrane: attribute that holds the membrane after each step; "" where single steps are not seen.
        unit: value of one spike.
    """

    model: str
    state_variables: int
    leaky: bool
    hard_reset: bool | None
    signal: Signal
    all_steps: bool | None
    membrane: str = ""
    unit: float = 1.0


def neuron_kind(module: nn.Module, name: str, spiking: Spiking) -> NeuronKind | None:
    """What kind of neurons a module is; None where it is no layer of neurons.

    Raises: UnsupportedError for a neuron layer that hides weights where no hook sees them.
    """
    if isinstance(module, Neuron):
        return _ours(module)
    if isinstance(module, BaseNode):
        return _spikingjelly(module)
    if _is_snntorch(module):
        _refuse_hidden_weights(module, name)
        return _snntorch(module)
    if name in spiking or any(isinstance(module, kind) for kind in spiking if isinstance(kind, type)):
        _refuse_hidden_weights(module, name)
        return NeuronKind(type(module).__name__, 1, False, None, SPIKES, None)
    return None


def signals_of_conversions(modules: Mapping[str, nn.Module]) -> dict[str, Signal]:
    """What the neurons inside of spiking layers of converted networks send, by the name of the neurons.

    Args:
        modules: by name, as `named_modules` gives them.
    """
    found = {}
    for name, module in modules.items():
        if isinstance(module, SpikingLayer):
            least, most = module.step_counts
            found[f"{name}.neuron" if name else "neuron"] = Signal("spikes", max(most, -least), signed=least < 0)
    return found


def _ours(module: Neuron) -> NeuronKind:
    single = module.step_mode == "s"
    return NeuronKind(
        model=type(module).__name__,
        state_variables=len(module.model.state),
        leaky=_leaks(module),
        hard_reset=_resets_hard(module),
        signal=_our_signal(module),
        all_steps=not single,
        membrane="v" if single and "v" in module.model.state else "",
        unit=float(module.call_params()["v_threshold"]) if isinstance(module, LevelIF) else 1.0,
    )


def _leaks(module: Neuron) -> bool:
    if isinstance(module, LevelIF):
        return float(module.call_params()["decay"]) < 1.0
    return bool(set(module.model.params) - _NO_LEAK)


def _resets_hard(module: Neuron) -> bool | None:
    params = module.call_params()
    if "v_reset" in params:
        return params["v_reset"] is not None
    return False if "v_threshold" in params or "theta" in params else None


def _our_signal(module: Neuron) -> Signal:
    if not _fires(module.model):
        return ANALOG
    # A surrogate that counts several spikes in one step knows their largest number.
    levels = getattr(module.surrogate_function, "max_spike_count", 1)
    return Signal("spikes", int(levels), signed=isinstance(module, BipolarIF))


@lru_cache
def _fires(model: NeuronModel) -> bool:
    try:
        return _has_spike(trace(model, model.params).output)
    except TraceError:
        return True


def _has_spike(node: Node) -> bool:
    return node.op == "spike" or any(_has_spike(argument) for argument in node.args)


def _spikingjelly(module: BaseNode) -> NeuronKind:
    names = {base.__name__ for base in type(module).__mro__}
    levels = getattr(module.surrogate_function, "max_spike_count", 1)
    single = module.step_mode == "s"
    states = [name for name in module._memories if name not in ("v_seq", "h_seq")]
    return NeuronKind(
        model=type(module).__name__,
        state_variables=len(states),
        leaky="IFNode" not in names,
        hard_reset=module.v_reset is not None,
        signal=Signal("spikes", int(levels)),
        all_steps=not single,
        membrane="v" if single else "",
    )


def _snntorch(module: Any) -> NeuronKind:
    variables = {"Synaptic": 2, "RSynaptic": 2, "Alpha": 3, "SLSTM": 2, "SConv2dLSTM": 2}
    return NeuronKind(
        model=type(module).__name__,
        state_variables=variables.get(type(module).__name__, 1),
        leaky=True,
        hard_reset={"zero": True, "subtract": False}.get(module.reset_mechanism),
        signal=SPIKES,
        all_steps=False,
        membrane="mem",
    )


def _refuse_hidden_weights(module: nn.Module, name: str) -> None:
    hidden = [key for key, value in module.named_parameters(recurse=False) if value.dim() >= 2]
    if hidden:
        raise UnsupportedError(
            f"count: {name!r} ({type(module).__name__}) holds the weights {hidden} itself, so its synaptic operations "
            "cannot be seen; split it into nn.Linear or nn.Conv layers and neurons"
        )


def reset_all(network: nn.Module) -> None:
    """Put every layer with state back to its start."""
    for module in network.modules():
        if isinstance(module, MemoryModule):
            module.reset()
        elif _is_snntorch(module):
            # snntorch.utils.reset leaves the membranes of nested networks as they are.
            cast(Any, module).reset_mem()


def _is_snntorch(module: nn.Module) -> bool:
    return any(f"{base.__module__}.{base.__qualname__}" == _SNNTORCH for base in type(module).__mro__)


def membrane_of(module: nn.Module, kind: NeuronKind) -> torch.Tensor | None:
    """The membrane as it is now, or None."""
    value = getattr(module, kind.membrane, None) if kind.membrane else None
    return value if isinstance(value, torch.Tensor) else None
