"""Dyadic states as signed events: the spiking form of what dyads send to each other."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import torch

from snn.neurons.checks import require_above


def integrate_and_fire(
    value: torch.Tensor, accumulator: torch.Tensor, threshold: float
) -> tuple[torch.Tensor, torch.Tensor]:
    """Do one step of a signed integrate-and-fire unit with soft reset.

    charge  u = accumulator + value; fire  s = round(u / threshold); reset  u - s threshold.

    The first event comes at half the threshold, so that what is left behind, at most threshold / 2, has no preferred sign.

    Args:
        value: input, any shape.
        accumulator: u after the step before.
        threshold: charge of one event, > 0.
    Returns: s, the number of events with their sign, and the new accumulator.
    """
    u = accumulator + value
    s = torch.round(u / threshold)
    return s, u - threshold * s


@dataclass(frozen=True)
class EventCode:
    """How a graded state becomes events.

    - integrate_and_fire: the state drives a signed integrate-and-fire unit for `steps` steps; received is threshold times
      the mean number of events per step, which is within threshold / (2 steps) of the state.
    - delta: events are sent at once until what was sent is within threshold / 2 of the state; received is threshold times
      their number.

    Args:
        threshold: size of one event, > 0.
        code: integrate_and_fire or delta.
        steps: T of integrate_and_fire, >= 1.
    """

    threshold: float
    code: Literal["integrate_and_fire", "delta"] = "integrate_and_fire"
    steps: int = 8

    def __post_init__(self) -> None:
        require_above("EventCode", "threshold", self.threshold, 0.0)
        if self.code not in ("integrate_and_fire", "delta"):
            raise ValueError(f"EventCode: code must be 'integrate_and_fire' or 'delta', got {self.code!r}")
        if self.steps < 1:
            raise ValueError(f"EventCode: steps must be >= 1, got {self.steps}")

    def events(self, state: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """Return the signed sum of each unit's events, in the shape of `state`, and the number of all events.

        >>> sums, count = EventCode(0.5, steps=4).events(torch.tensor([0.3, -0.5, 0.05]))
        >>> sums.tolist(), int(count)
        ([2.0, -4.0, 0.0], 6)
        """
        if self.code == "delta":
            sums = torch.round(state / self.threshold)
            return sums, sums.abs().sum()
        accumulator, sums = torch.zeros_like(state), torch.zeros_like(state)
        count = torch.zeros((), dtype=torch.float64, device=state.device)
        for _ in range(self.steps):
            s, accumulator = integrate_and_fire(state, accumulator, self.threshold)
            sums += s
            count += s.abs().sum()
        return sums, count

    def received(self, sums: torch.Tensor) -> torch.Tensor:
        """Return the state that the receivers of these events see."""
        return sums * (self.threshold / (self.steps if self.code == "integrate_and_fire" else 1))
