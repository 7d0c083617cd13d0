"""How many stored integers make one unit of a weight: the range that 8 (or 4, or 2) bits are spent on."""

from __future__ import annotations

import torch

METHODS = ("max", "percentile", "mse")


def clipping_point(
    weight: torch.Tensor, method: str, percentile: float, levels: int, per_channel: bool
) -> torch.Tensor:
    """The magnitude that becomes the largest stored integer.

    Args:
        weight: [O, ...].
        method: "max" of |w|; "percentile" of |w|; "mse": the point of 80 between 20 % and 100 % of the largest |w| that
            makes the squared error of the rounded and clipped weights smallest.
        percentile: for that method, 0 < percentile <= 100.
        levels: largest stored integer divided by its step.
        per_channel: one point for each output.

    Returns: [O, 1, ...] or a scalar; all-zero weights give 1.
    Raises: ValueError for an unknown method.
    """
    if method not in METHODS:
        raise ValueError(f"method must be one of {METHODS}, got {method!r}")
    rows = weight.detach().double().abs().flatten(1) if per_channel else weight.detach().double().abs().reshape(1, -1)
    largest = rows.max(1).values
    if method == "percentile":
        if not 0 < percentile <= 100:
            raise ValueError(f"percentile must lie in (0, 100], got {percentile}")
        rank = max(1, round(percentile / 100 * rows.shape[1]))
        point = rows.kthvalue(rank, 1).values
        point = torch.where(point > 0, point, largest)
    elif method == "mse":
        point = _least_squares(rows, largest, levels)
    else:
        point = largest
    point = torch.where(largest > 0, point, torch.ones_like(point))
    return point.view(-1, *[1] * (weight.dim() - 1)) if per_channel else point[0]


def _least_squares(rows: torch.Tensor, largest: torch.Tensor, levels: int) -> torch.Tensor:
    best, error = largest, torch.full_like(largest, torch.inf)
    for share in torch.linspace(0.2, 1.0, 80, dtype=torch.float64):
        point = (largest * share).clamp(min=1e-300)
        step = (point / levels).unsqueeze(1)
        found = (torch.round(rows / step).clamp(max=levels) * step - rows).square().sum(1)
        best = torch.where(found < error, point, best)
        error = torch.minimum(found, error)
    return best
