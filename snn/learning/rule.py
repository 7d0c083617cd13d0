"""What every rule of credit assignment has in common."""

from __future__ import annotations

from abc import ABC, abstractmethod
from typing import Any, ClassVar

import torch
from torch import nn

from snn.training.bptt import Backward, StepResult
from snn.training.loss import SequenceLoss


class CreditRule(ABC):
    """A rule that fills the gradients of a network from one batch; its call is a `Rule` of snn.training.bptt.

    Args:
        loss: what is minimised; None takes the cross-entropy of the mean logits.
        options: of the rule, an instance of its `Options`; None takes the defaults.
    Raises: TypeError for options of another rule.
    """

    Options: ClassVar[type]
    """Frozen dataclass of the rule's own settings."""

    def __init__(self, loss: SequenceLoss | None = None, options: Any = None) -> None:
        self.loss = SequenceLoss() if loss is None else loss
        self.options = self.Options() if options is None else options
        if not isinstance(self.options, self.Options):
            kind = type(self).__name__
            raise TypeError(f"{kind}: options must be {kind}.Options, got {type(options).__name__}")

    @abstractmethod
    def prepare(self, network: nn.Module, steps: int = 1) -> None:
        """Check that the rule can train the network, and add the parameters that it needs, once, before training.

        Args:
            network: what is going to be trained.
            steps: time steps T of its input.
        Raises: UnsupportedError naming the layer that the rule cannot train, or for more steps than it can use.
        """

    @abstractmethod
    def __call__(self, network: nn.Module, x: torch.Tensor, labels: torch.Tensor, backward: Backward) -> StepResult:
        """Add to `.grad` of the parameters.

        Args:
            network: what is trained.
            x: input [T, B, ...] ([B, ...] for a network that takes no time axis).
            labels: int64 [B].
            backward: called in place of `loss.backward()`.
        """


def as_sequence(logits: torch.Tensor) -> torch.Tensor:
    """Return logits as [T, B, classes]; those of a network without a time axis, [B, classes], are one step."""
    return logits if logits.dim() == 3 else logits.unsqueeze(0)
