"""Dual propagation whose layers exchange nothing but signed events."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, ClassVar, Literal, NamedTuple

import torch
from torch import nn

from snn.learning.dual_propagation import forward_pass, single_pass
from snn.learning.dyadic_inference import Dyadic
from snn.learning.given_gradients import apply_gradients
from snn.learning.graph import graph_of
from snn.learning.rule import CreditRule
from snn.neurons.dyadic_events import EventCode
from snn.training.bptt import Backward, StepResult

NAME = "event_dual_propagation"


@dataclass(frozen=True)
class EventOptions:
    """Args:
    beta: strength of the nudge, > 0.
    code: of both kinds of events, see `EventCode`.
    steps: T of integrate_and_fire.
    activity_threshold: size of an event of the mean, in the unit of the activities.
    difference_threshold: size of an event of the difference, in the same unit; |difference| is at most beta at the output.
    """

    beta: float = 0.5
    code: Literal["integrate_and_fire", "delta"] = "integrate_and_fire"
    steps: int = 16
    activity_threshold: float = 2.0
    difference_threshold: float = 0.5

    def __post_init__(self) -> None:
        _ = (self.settings, self.upward, self.downward)

    @property
    def settings(self) -> Dyadic:
        """Those of the inference: alpha = 1/2, one top-down sweep."""
        return Dyadic(beta=self.beta)

    @property
    def upward(self) -> EventCode:
        """Code of the activities."""
        return EventCode(self.activity_threshold, self.code, self.steps)

    @property
    def downward(self) -> EventCode:
        """Code of the differences."""
        return EventCode(self.difference_threshold, self.code, self.steps)


class EventCounts(NamedTuple):
    """Events of one update, over all layers and samples.

    Attributes:
        activity: sent upwards, the input's included.
        difference: sent downwards.
        samples: B.
    """

    activity: int
    difference: int
    samples: int


class EventDualPropagation(CreditRule):
    """Dual propagation in a spiking form.

    Each layer sends its activity upwards and the difference of its two compartments downwards as signed events
    (`EventCode`); receivers add up event times weight, and a weight changes by the product of the two counts on its sides,
    times the thresholds, over beta B. Only the logits and the target meet as numbers.

    Attributes:
        counts: events of the last update, None before the first.
    Args:
        loss: cross-entropy or squared error.
        options: `EventOptions`.
    Networks: see `snn.learning.graph.graph_of`; T = 1 of the network (the code's steps are its own).
    Source: our construction on Hoier, Staudt and Zach, ICML 2023; a spiking form was not published.
    """

    Options: ClassVar[type] = EventOptions

    def __init__(self, loss: Any = None, options: Any = None) -> None:
        super().__init__(loss, options)
        self.counts: EventCounts | None = None

    def prepare(self, network: nn.Module, steps: int = 1) -> None:
        graph_of(network, NAME).check_steps(steps, NAME)

    def __call__(self, network: nn.Module, x: torch.Tensor, labels: torch.Tensor, backward: Backward) -> StepResult:
        graph = graph_of(network, NAME)
        totals = {"up": 0, "down": 0}

        def sent(code: EventCode, direction: str) -> Any:
            def send(state: torch.Tensor) -> torch.Tensor:
                sums, count = code.events(state)
                totals[direction] += int(count)
                return code.received(sums)

            return send

        with torch.no_grad(), torch.autocast(x.device.type, enabled=False):
            passed = forward_pass(graph, graph.batch(x, NAME), sent(self.options.upward, "up"))
            logits = passed.inputs[-1]
            errors = self.loss.errors(logits, labels)
            down = sent(self.options.downward, "down")
            gradients = single_pass(graph, passed, errors, self.options.settings, down)
            value = self.loss(logits.unsqueeze(0), labels)
        self.counts = EventCounts(totals["up"], totals["down"], len(labels))
        apply_gradients(value, gradients, backward)
        return StepResult(value, logits)
