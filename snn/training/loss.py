"""Cross-entropy of a sequence of logits."""

from typing import Literal

import torch
from torch.nn import functional as F


def sequence_cross_entropy(
    logits: torch.Tensor, labels: torch.Tensor, on: Literal["mean", "steps"] = "mean", label_smoothing: float = 0.0
) -> torch.Tensor:
    """Return the cross-entropy of the mean logits, or the mean over time of each step's cross-entropy.

    "mean":   L = CE(1/T sum_t y[t], label)
    "steps":  L = 1/T sum_t CE(y[t], label), never below the first since CE is convex.

    Args:
        logits: [T, B, classes].
        labels: int64 [B].
        on: "mean" or "steps".
        label_smoothing: share of the target spread evenly over all classes.
    Returns: scalar, averaged over B.

    >>> y = torch.tensor([[[2.0, 0.0]], [[0.0, 2.0]]])
    >>> [round(sequence_cross_entropy(y, torch.tensor([0]), on).item(), 4) for on in ("mean", "steps")]
    [0.6931, 1.1269]
    """
    if on == "mean":
        return F.cross_entropy(logits.mean(0), labels, label_smoothing=label_smoothing)
    T = len(logits)
    return F.cross_entropy(logits.flatten(0, 1), labels.repeat(T), label_smoothing=label_smoothing)
