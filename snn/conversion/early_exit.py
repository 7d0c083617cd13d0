"""Answers that are given as soon as they are clear, instead of after all steps."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

import torch

from snn.errors import ShapeError


def exit_steps(readouts: torch.Tensor, margin: float, first: int = 1) -> torch.Tensor:
    """Return the first step at which the best class leads the second by `margin`, T where it never does.

    Args:
        readouts: [T, B, classes], entry t is the read-out after t + 1 steps, as a converted network returns them.
        margin: lead in units of the logits, >= 0.
        first: no answer before this step, in [1, T].
    Returns: int64 [B], in [first, T].
    Raises: ShapeError for another number of dimensions or a single class; ValueError for a margin or step out of range.

    >>> exit_steps(torch.tensor([[[1.0, 0.8]], [[2.0, 0.5]], [[2.0, 0.0]]]), margin=1.0).tolist()
    [2]
    """
    if readouts.dim() != 3 or readouts.shape[2] < 2 or len(readouts) < 1:
        raise ShapeError(f"exit_steps: readouts must be [T, B, classes >= 2], got shape {tuple(readouts.shape)}")
    T = len(readouts)
    if not margin >= 0:
        raise ValueError(f"exit_steps: margin must be >= 0, got {margin}")
    if not 1 <= first <= T:
        raise ValueError(f"exit_steps: first must lie in [1, {T}], got {first}")
    best = readouts.topk(2, dim=2).values  # [T, B, 2]
    clear = best[..., 0] - best[..., 1] >= margin
    clear[: first - 1] = False
    clear[-1] = True
    return clear.to(torch.uint8).argmax(0) + 1


@dataclass(frozen=True)
class EarlyExit:
    """Result of an early-exit read-out over a set of images.

    Attributes:
        margin: lead of the best class at which the answer is given, unit of the logits.
        accuracy: share of right answers.
        mean_steps: mean step of the answer.
        distribution: number of images answered at step 1, 2, ..., T.
    """

    margin: float
    accuracy: float
    mean_steps: float
    distribution: tuple[int, ...]

    def to_dict(self) -> dict[str, Any]:
        """The same as plain values."""
        return {
            "margin": self.margin,
            "accuracy": self.accuracy,
            "mean_steps": self.mean_steps,
            "distribution": list(self.distribution),
        }


class ExitSums:
    """Counts early answers over batches.

    Args:
        margin, first: see `exit_steps`.
    """

    def __init__(self, margin: float, first: int = 1) -> None:
        self.margin, self.first = margin, first
        self.correct = 0
        self.distribution = torch.zeros(0, dtype=torch.int64)

    def add(self, readouts: torch.Tensor, labels: torch.Tensor) -> None:
        """Add a batch: read-outs [T, B, classes] and labels [B], with the T of the batches before."""
        at = exit_steps(readouts, self.margin, self.first)
        answers = readouts.argmax(2)[at - 1, torch.arange(len(at), device=at.device)]
        self.correct += int((answers == labels.to(answers.device)).sum())
        counts = torch.bincount(at.cpu() - 1, minlength=len(readouts))
        self.distribution = counts if not len(self.distribution) else self.distribution + counts

    def result(self) -> EarlyExit:
        """The figures so far.

        Raises: ValueError without images.
        """
        images = int(self.distribution.sum())
        if not images:
            raise ValueError("early exit: there are no images")
        steps = torch.arange(1, len(self.distribution) + 1)
        mean_steps = float((steps * self.distribution).sum()) / images
        return EarlyExit(float(self.margin), self.correct / images, mean_steps, tuple(self.distribution.tolist()))


def early_exit(batches: Iterable[tuple[torch.Tensor, torch.Tensor]], margin: float, first: int = 1) -> EarlyExit:
    """Answer every image at the first step where the best class leads by `margin`.

    Args:
        batches: pairs of read-outs [T, B, classes] and labels [B], all of the same T.
        margin, first: see `exit_steps`.
    Raises: ValueError without images.

    >>> readouts = torch.tensor([[[1.0, 0.8]], [[0.5, 2.0]], [[2.0, 0.0]]])
    >>> early_exit([(readouts, torch.tensor([1]))], margin=1.0)
    EarlyExit(margin=1.0, accuracy=1.0, mean_steps=2.0, distribution=(0, 1, 0))
    """
    sums = ExitSums(margin, first)
    for readouts, labels in batches:
        sums.add(readouts, labels)
    return sums.result()
