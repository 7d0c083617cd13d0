"""One call of a neuron over T steps: what every backend takes and returns."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import torch

from snn.declaration import NeuronModel


@dataclass(frozen=True)
class NeuronCall:
    """The inputs of a run over T steps.

    Attributes:
        model: the declared neuron.
        x: input currents [T, ...].
        states: starting value of each state, a tensor [...] like one step of x, or a number.
        params: every parameter of the model: a switch, a number, or a tensor that broadcasts against one step of x.
        surrogate: SpikingJelly surrogate object.
        recorded: names of states whose whole sequence is wanted.
        keep: keep what the backward pass needs of every step, instead of recomputing it from x.
    """

    model: NeuronModel
    x: torch.Tensor
    states: Mapping[str, Any]
    params: Mapping[str, Any]
    surrogate: Callable[[torch.Tensor], torch.Tensor]
    recorded: tuple[str, ...] = ()
    keep: bool = False


@dataclass(frozen=True)
class NeuronResult:
    """Output [T, ...], final states [...] and recorded state sequences [T, ...]."""

    output: torch.Tensor
    states: dict[str, torch.Tensor]
    sequences: dict[str, torch.Tensor]
