"""Equilibrium propagation and contrastive Hebbian learning: two phases of relaxation, the slow baseline."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import nn

from snn.learning.given_gradients import apply_gradients
from snn.learning.graph import graph_of
from snn.learning.linear_maps import Gradients
from snn.learning.relaxation import add_correlations, relax
from snn.learning.rule import CreditRule
from snn.neurons.checks import require_above
from snn.training.bptt import Backward, StepResult

NAME = "eqprop"


@dataclass(frozen=True)
class EquilibriumOptions:
    """Args:
    beta: strength of the nudge in the second phase, > 0.
    feedback: strength of the feedback from each layer to the one below, > 0.
    free_sweeps, nudged_sweeps: sweeps of each phase; the second one needs as many as the network has layers.
    """

    beta: float = 0.5
    feedback: float = 0.1
    free_sweeps: int = 20
    nudged_sweeps: int = 20

    def __post_init__(self) -> None:
        require_above(NAME, "beta", self.beta, 0.0)
        require_above(NAME, "feedback", self.feedback, 0.0)
        for name, value in (("free_sweeps", self.free_sweeps), ("nudged_sweeps", self.nudged_sweeps)):
            if value < 1:
                raise ValueError(f"{NAME}: {name} must be >= 1, got {value}")


class EquilibriumPropagation(CreditRule):
    """Two phases: the network relaxes freely, then with its output nudged by -beta dl/da; the weights learn from both.

        gradient of the weights into layer k = -1 / (beta feedback^(L - k)) <z_k z_{k-1}^T (nudged) - z_k z_{k-1}^T (free)>

    With weak feedback this is the gradient of the feedforward network up to O(beta + feedback) (Xie and Seung); the
    output is nudged, as in equilibrium propagation, not clamped. Feedback that is strong trains another network than the
    one that the forward pass evaluates. The difference of the two phases shrinks by `feedback` at each layer on the way
    down, and with it the number of its correct digits.

    Args:
        loss: cross-entropy or squared error.
        options: `EquilibriumOptions`.
    Networks: see `snn.learning.graph.graph_of`; T = 1.
    Source: Scellier and Bengio, Frontiers in Computational Neuroscience 2017; Xie and Seung, Neural Computation 2003.
    """

    Options: ClassVar[type] = EquilibriumOptions

    def prepare(self, network: nn.Module, steps: int = 1) -> None:
        graph_of(network, NAME).check_steps(steps, NAME)

    def __call__(self, network: nn.Module, x: torch.Tensor, labels: torch.Tensor, backward: Backward) -> StepResult:
        options = self.options
        graph = graph_of(network, NAME)
        gradients: Gradients = {}
        with torch.no_grad(), torch.autocast(x.device.type, enabled=False):
            start = graph.forward(graph.batch(x, NAME))
            free = relax(graph, start, options.feedback, options.free_sweeps)
            nudged = relax(
                graph,
                free,
                options.feedback,
                options.nudged_sweeps,
                lambda a: options.beta * self.loss.errors(a, labels),
            )
            add_correlations(graph, nudged, 1.0 / options.beta, options.feedback, gradients)
            add_correlations(graph, free, -1.0 / options.beta, options.feedback, gradients)
            value = self.loss(start[-1].unsqueeze(0), labels)
        apply_gradients(value, gradients, backward)
        return StepResult(value, start[-1])
