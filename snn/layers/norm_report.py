"""What folding an MPBN did, and thresholds for integer membranes."""

from __future__ import annotations

from dataclasses import dataclass

import torch


@dataclass(frozen=True)
class FoldedLayer:
    """What folding did to one layer of neurons.

    Attributes:
        name: path of the neurons in the network.
        form: "threshold" (a plain neuron with a threshold per unit) or "signed threshold".
        threshold, sign: per channel or element (and step), float64; the layer fires where sign (h - threshold) >= 0.
        negative_count: units whose weight is negative.
        moved_sign_count: of these, units whose sign went into the weights before them.
        constant_count: units with weight 0, which fire always or never.
        fires_at_rest: indices of units (channels or elements, flattened) that fire without any input; an event-driven
            execution has to visit them at every step.
        checked, differences: spikes compared on random currents, and how many differ.
    """

    name: str
    form: str
    threshold: torch.Tensor
    sign: torch.Tensor
    negative_count: int
    moved_sign_count: int
    constant_count: int
    fires_at_rest: tuple[int, ...]
    checked: int
    differences: int

    def integer_threshold(self, unit: float | torch.Tensor, strict: bool = False) -> torch.Tensor:
        """The thresholds for a membrane that counts in `unit`; see `integer_threshold`."""
        return integer_threshold(self.threshold, self.sign, unit, strict)


@dataclass(frozen=True)
class FoldReport:
    """The layers that were folded; with inputs, the spikes of the whole network compared.

    Attributes:
        layers: one entry per layer of neurons.
        checked, differences: spikes of all folded layers on the given inputs, and how many differ; None without inputs.
    """

    layers: tuple[FoldedLayer, ...]
    checked: int | None
    differences: int | None

    def __str__(self) -> str:
        lines = [
            f"{'layer':24s} {'form':16s} {'negative':>8s} {'moved':>6s} {'zero':>5s} {'at rest':>8s} {'differ':>14s}"
        ]
        lines += [
            f"{layer.name:24s} {layer.form:16s} {layer.negative_count:8d} {layer.moved_sign_count:6d} "
            f"{layer.constant_count:5d} {len(layer.fires_at_rest):8d} {layer.differences:6d}/{layer.checked}"
            for layer in self.layers
        ]
        if self.checked is not None:
            lines.append(f"whole network on the given inputs: {self.differences} of {self.checked} spikes differ")
        return "\n".join(lines)


def integer_threshold(
    threshold: torch.Tensor, sign: torch.Tensor, unit: float | torch.Tensor, strict: bool = False
) -> torch.Tensor:
    """Thresholds n for a membrane k unit with whole k: fire where k >= n (sign 1) or k <= n (sign -1), exactly.

    Args:
        threshold, sign: real thresholds and signs, same shape.
        unit: value of one count of the membrane, > 0, a number or broadcast against threshold.
        strict: True where the real comparison is h > threshold (h < threshold for sign -1), as some chips have it.
    Returns: int64, clamped to +-2**53; a chip's width saturates without harm beyond the membrane's range.

    >>> integer_threshold(torch.tensor([0.4, 0.4, 1.0]), torch.tensor([1, -1, 1]), 0.25).tolist()
    [2, 1, 4]
    """
    if not bool((torch.as_tensor(unit) > 0).all()):
        raise ValueError(f"integer_threshold: unit must be > 0, got {unit}")
    counts = threshold.double() / unit
    upward = counts.floor() + 1 if strict else counts.ceil()
    downward = counts.ceil() - 1 if strict else counts.floor()
    limit = 2.0**53
    return torch.where(sign > 0, upward, downward).clamp(-limit, limit).long()
