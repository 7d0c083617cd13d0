"""Layers in a row over a time-first sequence: stateless ones see all steps at once, neurons see them in order."""

import inspect
from collections.abc import Mapping
from typing import Any, Final

import torch
from spikingjelly.activation_based.base import MemoryModule
from torch import nn

# States of all neurons of a stack, by layer name.
StackState = dict[str, Any]


class NotCarried:
    """Type of the default of `state`: the call starts fresh and returns no state."""


NOT_CARRIED: Final = NotCarried()

# Layers that give the same result at every step when their input does, so that a repeated image needs one pass. Not
# among them: dropout, whose mask is another at each step.
_REPEATABLE = (
    nn.Linear,
    nn.modules.conv._ConvNd,
    nn.modules.batchnorm._BatchNorm,
    nn.modules.pooling._AvgPoolNd,
    nn.modules.pooling._MaxPoolNd,
    nn.Flatten,
    nn.Identity,
)


class Stack(nn.Module):
    """Named layers applied in order to a sequence [T, B, ...].

    Stateless layers are applied to [T * B, ...] at once, so batch normalisation takes its statistics over time and
    batch. Layers with memory (SpikingJelly's `MemoryModule`, our neurons) get [T, B, ...] and start from a fresh state.

    A sequence that repeats one input, a view with stride 0 over time as direct coding gives, passes the stateless
    layers up to the first neuron once instead of T times. Values and gradients are those of the T passes up to the
    order of summation; only the running variance of batch normalisation differs, since its factor n / (n - 1) then
    counts each repeated value once.

    Args:
        layers: name to layer, in order. Names with a dot are not allowed.
    Call: `y = stack(x)`, or `y, state = stack(x, state=state)` to carry the neurons' states from one part of a sequence
        to the next; state=None starts fresh, and the returned state is detached.
    Input: [T, B, ...].
    Returns: [T, B, ...].
    """

    def __init__(self, layers: Mapping[str, nn.Module]) -> None:
        super().__init__()
        self.layers = nn.ModuleDict(layers)
        self._takes_state = {
            name: isinstance(layer, MemoryModule) and "state" in inspect.signature(layer.forward).parameters
            for name, layer in self.layers.items()
        }

    def forward(self, x: torch.Tensor, state: StackState | NotCarried | None = NOT_CARRIED) -> Any:
        carried = not isinstance(state, NotCarried)
        before = self._checked(state)
        after: StackState = {}
        T = len(x)
        repeated = T > 1 and x.stride(0) == 0
        if repeated:
            x = x[:1]
        for name, layer in self.layers.items():
            if repeated and not _is_repeatable(layer):
                x = x.expand(T, *x.shape[1:])
                repeated = False
            if not isinstance(layer, MemoryModule):
                x = layer(x.flatten(0, 1)).unflatten(0, (len(x), -1))
            elif carried:
                x, after[name] = self._continue(name, layer, x, before.get(name))
            else:
                x = self._restart(name, layer, x)
        if repeated:
            x = x.expand(T, *x.shape[1:])
        return (x, after) if carried else x

    def _checked(self, state: StackState | NotCarried | None) -> StackState:
        if state is None or isinstance(state, NotCarried):
            return {}
        if not isinstance(state, dict):
            raise TypeError(f"Stack: state must be what a call returned, or None, got a {type(state).__name__}")
        for name in state:
            if name not in self.layers:
                raise ValueError(f"Stack: state is of a layer {name!r} that this network does not have")
        return state

    def _restart(self, name: str, layer: MemoryModule, x: torch.Tensor) -> torch.Tensor:
        if not self._takes_state[name]:
            layer.reset()
        y: torch.Tensor = layer(x)
        return y

    def _continue(self, name: str, layer: MemoryModule, x: torch.Tensor, state: Any) -> tuple[torch.Tensor, Any]:
        if self._takes_state[name]:
            y, after = layer(x, state=state)
            return y, after
        # A SpikingJelly layer keeps its state inside.
        layer.reset()
        for key, value in (state or {}).items():
            setattr(layer, key, value)
        y = layer(x)
        layer.detach()
        return y, dict(layer.named_memories())


def _is_repeatable(layer: nn.Module) -> bool:
    # A subclass from elsewhere may draw random numbers at every step.
    return isinstance(layer, _REPEATABLE) and type(layer).__module__.startswith("torch.nn.modules.")
