"""Backpropagation, through time for networks with memory, under the interface of the other rules."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import nn

from snn.learning.rule import CreditRule, as_sequence
from snn.training.bptt import Backward, StepResult, bptt


@dataclass(frozen=True)
class BackpropagationOptions:
    """Args:
    chunk_steps: steps per chunk of a truncated sequence; None goes through all of them, see snn.training.bptt.
    """

    chunk_steps: int | None = None

    def __post_init__(self) -> None:
        if self.chunk_steps is not None and self.chunk_steps < 1:
            raise ValueError(f"bp: chunk_steps must be >= 1 or None, got {self.chunk_steps}")


class Backpropagation(CreditRule):
    """The gradient itself. Any network."""

    Options: ClassVar[type] = BackpropagationOptions

    def prepare(self, network: nn.Module, steps: int = 1) -> None:
        return None

    def __call__(self, network: nn.Module, x: torch.Tensor, labels: torch.Tensor, backward: Backward) -> StepResult:
        if self.options.chunk_steps is not None:
            return bptt(self.loss, self.options.chunk_steps)(network, x, labels, backward)
        logits = as_sequence(network(x))
        value = self.loss(logits, labels)
        backward(value)
        return StepResult(value.detach(), self.loss.scores(logits.detach()))
