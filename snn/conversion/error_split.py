"""Why the output of a converted layer differs from the source network's: four terms that add up to the difference."""

from __future__ import annotations

from typing import Literal, NamedTuple

import torch

Coding = Literal["rate", "sum"]


class ErrorSplit(NamedTuple):
    """The terms of phi - a, each of the shape of a."""

    clipping: torch.Tensor
    quantisation: torch.Tensor
    unevenness: torch.Tensor
    propagated: torch.Tensor

    @property
    def total(self) -> torch.Tensor:
        """phi - a."""
        return self.clipping + self.quantisation + self.unevenness + self.propagated


class SpikingResponse(NamedTuple):
    """What one layer of spiking neurons can answer within a run.

    Args:
        theta: value of one spike, > 0, in the unit of the source network; broadcasts against [B, ...].
        initial: membrane before the first step, same unit; broadcasts too.
        lowest: fewest spikes of a run, 0 for neurons that only fire upwards.
        highest: most spikes of a run: T for one per step.
        steps: T.
        coding: "rate": outputs are means over T; "sum": they are sums.
    """

    theta: torch.Tensor
    initial: torch.Tensor
    lowest: float
    highest: float
    steps: int
    coding: Coding

    @property
    def divisor(self) -> int:
        """What sums over the run are divided by: T for means, 1 for sums."""
        return self.steps if self.coding == "rate" else 1

    def counts(self, input_sum: torch.Tensor) -> torch.Tensor:
        """clip(floor((initial + input_sum) / theta), lowest, highest): the spikes for an input that arrives evenly."""
        return torch.floor((self.initial + input_sum) / self.theta).clamp(self.lowest, self.highest)

    def outputs(self, input_sum: torch.Tensor) -> torch.Tensor:
        """The mean (or summed) output that belongs to `counts`."""
        return self.theta * self.counts(input_sum) / self.divisor

    def clipped(self, a: torch.Tensor) -> torch.Tensor:
        """a, held between the outputs of the fewest and of the most spikes."""
        low, high = self.theta * self.lowest / self.divisor, self.theta * self.highest / self.divisor
        return torch.minimum(torch.maximum(a, low), high)


def error_split(
    z: torch.Tensor, a: torch.Tensor, input_sum: torch.Tensor, output_sum: torch.Tensor, response: SpikingResponse
) -> ErrorSplit:
    """Split the error of a layer into what it cannot express, what it rounds, the order of arrival, and its inputs.

    With Q(X) = response.outputs(X), D = response.divisor and clip = response.clipped:

        clipping      = clip(a) - a
        quantisation  = Q(D z) - clip(a)
        unevenness    = output_sum / D - Q(input_sum)
        propagated    = Q(input_sum) - Q(D z)

    Their sum is output_sum / D - a. For a source activation a = relu(z) these are the terms of Bu et al.; a quantised
    activation a = h(z) of the same steps has no quantisation term.

    Args:
        z: the source network's pre-activation, [B, ...].
        a: its activation.
        input_sum: what the spiking layer received, summed over the run.
        output_sum: what it gave, summed over the run, spikes times theta.
        response: what the layer can answer.
    Source: Bu et al., ICLR 2022, section 4, for the three kinds of error.

    >>> one = torch.tensor([1.0])
    >>> response = SpikingResponse(one, one / 2, 0, 4, 4, "rate")
    >>> split = error_split(0.3 * one, 0.3 * one, 2.0 * one, 3.0 * one, response)
    >>> [round(float(term), 2) for term in (*split, split.total)]
    [0.0, -0.05, 0.25, 0.25, 0.45]
    """
    even_on_ann_input = response.outputs(response.divisor * z)
    even = response.outputs(input_sum)
    clipped = response.clipped(a)
    return ErrorSplit(
        clipping=clipped - a,
        quantisation=even_on_ann_input - clipped,
        unevenness=output_sum / response.divisor - even,
        propagated=even - even_on_ann_input,
    )
