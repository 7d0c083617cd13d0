"""Outputs of a layer of the source network beside those of the spiking one: means, correlation, and some of them for a plot."""

from __future__ import annotations

import torch

SHOWN_POINTS = 1500
"""Most pairs of a layer that a report keeps for its scatter plot."""


class OutputPairs:
    """Running sums over pairs (activation a, output y), and up to `SHOWN_POINTS` of them.

    Attributes:
        points: [n, 2].
        count: number of pairs.
    """

    def __init__(self) -> None:
        self.points = torch.zeros(0, 2)
        self.count = 0
        self._sums = dict.fromkeys(("a", "y", "aa", "yy", "ay"), 0.0)

    def add(self, a: torch.Tensor, y: torch.Tensor) -> None:
        """Add pairs: both of the same shape, float64."""
        for key, value in (("a", a), ("y", y), ("aa", a * a), ("yy", y * y), ("ay", a * y)):
            self._sums[key] += float(value.sum())
        self.count += a.numel()
        room = SHOWN_POINTS - len(self.points)
        if room > 0:
            pairs = torch.stack([a.flatten(), y.flatten()], 1)
            # The first batch fills half of the room, so that later ones are shown too.
            chosen = torch.linspace(0, len(pairs) - 1, min(len(pairs), max(1, room // 2))).round().long()
            self.points = torch.cat([self.points, pairs[chosen.to(pairs.device)].float().cpu()])

    @property
    def means(self) -> tuple[float, float]:
        """Of a and of y."""
        return self._sums["a"] / self.count, self._sums["y"] / self.count

    @property
    def correlation(self) -> float | None:
        """Pearson correlation; None where a or y is constant."""
        a, y = self.means
        aa, yy = self._sums["aa"] / self.count, self._sums["yy"] / self.count
        spread = (aa - a * a, yy - y * y)
        if min(spread) <= 1e-12 * max(aa, yy):
            return None
        return (self._sums["ay"] / self.count - a * y) / (spread[0] * spread[1]) ** 0.5
