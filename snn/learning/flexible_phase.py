"""Contrastive learning with flexible phases: every sample sees one phase only, drawn at random, and learns at once."""

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

NAME = "flexible_phase"


def phase_weight(phase: torch.Tensor, probability: float) -> torch.Tensor:
    """Return d / P(d), the factor that makes the update of one phase an unbiased estimate of the contrast.

        E[d / P(d) phi] = E_positive[phi] - E_negative[phi]

    Args:
        phase: d, +1 or -1, any shape.
        probability: P(d = +1), in (0, 1).

    >>> phase_weight(torch.tensor([1.0, -1.0]), 0.25).tolist()
    [4.0, -1.3333333730697632]
    """
    return torch.where(phase > 0, 1.0 / probability, -1.0 / (1.0 - probability))


def estimator_variance(positive_square: float, negative_square: float, difference: float, probability: float) -> float:
    """Return the variance of d / P(d) phi for one draw.

        s+ / p + s- / (1 - p) - difference^2

    Args:
        positive_square, negative_square: s+ and s-, mean squares of phi in the two phases.
        difference: mean of phi in the positive phase minus that in the negative.
        probability: p = P(d = +1), in (0, 1).

    >>> estimator_variance(9.0, 1.0, 2.0, 0.75)
    12.0
    """
    return positive_square / probability + negative_square / (1.0 - probability) - difference**2


def best_probability(positive_square: float, negative_square: float) -> float:
    """Return the P(d = +1) that makes `estimator_variance` smallest, sqrt(s+) / (sqrt(s+) + sqrt(s-)).

    >>> best_probability(9.0, 1.0)
    0.75
    """
    root = positive_square**0.5
    return root / (root + negative_square**0.5)


@dataclass(frozen=True)
class FlexibleOptions:
    """Args:
    beta: distance between the nudges of the two phases, +beta / 2 towards the target and -beta / 2 away, > 0.
    feedback: strength of the feedback from each layer to the one below, > 0.
    sweeps: sweeps of relaxation; at least as many as the network has layers.
    probability: share of samples in the positive phase, in (0, 1).
    balanced: draw the phases of a batch without replacement, round(probability B) of them positive; False draws each
        on its own. Balanced, what all samples have in common cancels within the batch.
    """

    beta: float = 1.0
    feedback: float = 0.5
    sweeps: int = 10
    probability: float = 0.5
    balanced: bool = True

    def __post_init__(self) -> None:
        require_above(NAME, "beta", self.beta, 0.0)
        require_above(NAME, "feedback", self.feedback, 0.0)
        if self.sweeps < 1:
            raise ValueError(f"{NAME}: sweeps must be >= 1, got {self.sweeps}")
        if not 0 < self.probability < 1:
            raise ValueError(f"{NAME}: probability must lie in (0, 1), got {self.probability}")


class FlexiblePhase(CreditRule):
    """Contrastive Hebbian learning that is local in time: no state of one phase waits for the other.

    Each sample is presented in one phase d, drawn at random: its output is nudged towards (d = 1) or away from the
    target (d = -1), the network relaxes, and the weights change by d / P(d) times the correlations of that phase alone.
    Over many presentations this follows the contrast of the two phases, and so the gradient, as `EquilibriumPropagation`
    does; a single one is very noisy.

    The phases are drawn from torch's generator, which training sets from the run's seed.

    Args:
        loss: cross-entropy or squared error.
        options: `FlexibleOptions`.
    Networks: see `snn.learning.graph.graph_of`; T = 1.
    Source: Williams, Bredenberg and Lajoie, ICML 2023 (phases drawn at random with weights 1 / P); nudges to both sides in
        place of a free and a nudged phase are ours.
    """

    Options: ClassVar[type] = FlexibleOptions

    def prepare(self, network: nn.Module, steps: int = 1) -> None:
        graph_of(network, NAME).check_steps(steps, NAME)

    def __call__(self, network: nn.Module, x: torch.Tensor, labels: torch.Tensor, backward: Backward) -> StepResult:
        options = self.options
        graph = graph_of(network, NAME)
        gradients: Gradients = {}
        with torch.no_grad(), torch.autocast(x.device.type, enabled=False):
            start = graph.forward(graph.batch(x, NAME))
            phase, weight = draw_phases(len(labels), options.probability, options.balanced, start[-1])
            push = 0.5 * options.beta * phase.unsqueeze(1)
            states = relax(graph, start, options.feedback, options.sweeps, lambda a: push * self.loss.errors(a, labels))
            add_correlations(graph, states, weight / options.beta, options.feedback, gradients)
            value = self.loss(start[-1].unsqueeze(0), labels)
        apply_gradients(value, gradients, backward)
        return StepResult(value, start[-1])


def draw_phases(B: int, probability: float, balanced: bool, like: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """Return d and d / P(d) of each sample, [B], in the type and on the device of `like`.

    Balanced, at least one sample is in each phase, and P is the share of the batch that is.

    Raises: ValueError if a balanced batch has fewer than two samples.
    """
    if not balanced:
        phase = torch.where(torch.rand(B) < probability, 1.0, -1.0).to(like)
        return phase, phase_weight(phase, probability)
    if B < 2:
        raise ValueError(f"{NAME}: a balanced batch needs at least two samples, got {B}")
    positive = min(max(round(probability * B), 1), B - 1)
    phase = torch.where(torch.randperm(B) < positive, 1.0, -1.0).to(like)
    return phase, phase_weight(phase, positive / B)
