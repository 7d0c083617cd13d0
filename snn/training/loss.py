"""Losses of a sequence of logits."""

from dataclasses import dataclass
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


def soft_targets(labels: torch.Tensor, logits: torch.Tensor, label_smoothing: float = 0.0) -> torch.Tensor:
    """Return (1 - s) onehot(label) + s / classes in the shape [B, classes] and type of the logits."""
    classes = logits.shape[-1]
    target = torch.full_like(logits, label_smoothing / classes)
    return target.scatter_add_(-1, labels.unsqueeze(-1), torch.full_like(logits[..., :1], 1.0 - label_smoothing))


def sequence_squared_error(
    logits: torch.Tensor, labels: torch.Tensor, on: Literal["mean", "steps"] = "mean", label_smoothing: float = 0.0
) -> torch.Tensor:
    """Return half the squared distance to the one-hot label, summed over classes and averaged over B.

    Args: as in `sequence_cross_entropy`; "steps" also averages over time.

    >>> sequence_squared_error(torch.tensor([[[0.0, 0.5]]]), torch.tensor([1])).item()
    0.125
    """
    if on == "mean":
        logits = logits.mean(0, keepdim=True)
    target = soft_targets(labels, logits[0], label_smoothing)
    return 0.5 * (logits - target).square().sum(-1).mean()


@dataclass(frozen=True)
class SequenceLoss:
    """A loss by name, with its derivative for rules that do not differentiate it.

    Args:
        name: cross_entropy or squared_error.
        on: mean (of the logits averaged over time) or steps (of each step's logits, averaged over time).
        label_smoothing: share of the target spread evenly over all classes.
    Call: with logits [T, B, classes] and labels [B]; returns a scalar, averaged over B.
    Raises: ValueError for another name.

    >>> SequenceLoss("squared_error").errors(torch.tensor([[0.0, 0.5]]), torch.tensor([1]))
    tensor([[ 0.0000, -0.5000]])
    """

    name: Literal["cross_entropy", "squared_error"] = "cross_entropy"
    on: Literal["mean", "steps"] = "mean"
    label_smoothing: float = 0.0

    def __post_init__(self) -> None:
        if self.name not in ("cross_entropy", "squared_error"):
            raise ValueError(f"loss: name must be cross_entropy or squared_error, got {self.name!r}")

    def __call__(self, logits: torch.Tensor, labels: torch.Tensor) -> torch.Tensor:
        function = sequence_cross_entropy if self.name == "cross_entropy" else sequence_squared_error
        return function(logits, labels, self.on, self.label_smoothing)

    def errors(self, logits: torch.Tensor, labels: torch.Tensor) -> torch.Tensor:
        """Return dl/dlogits of each sample for logits [B, classes] of one step, not divided by B."""
        outputs = logits.softmax(-1) if self.name == "cross_entropy" else logits
        return outputs - soft_targets(labels, logits, self.label_smoothing)
