"""Losses of a sequence of logits."""

from dataclasses import dataclass
from typing import Literal, get_args

import torch
from torch.nn import functional as F

On = Literal["mean", "steps", "softmax"]


def votes(logits: torch.Tensor, on: On) -> torch.Tensor:
    """Return what each step of logits [T, B, classes] adds to the decision: softmax(y[t]) for "softmax", else y[t].

    The class with the largest mean over time is the answer.
    """
    return logits.softmax(-1) if on == "softmax" else logits


def running_scores(logits: torch.Tensor, on: On = "mean") -> torch.Tensor:
    """Return what the loss would see [T, B, classes] if the sequence ended after each step: the mean of the logits, or for
    "softmax" the sum of the steps' softmax.
    """
    summed = votes(logits, on).cumsum(0)
    if on == "softmax":
        return summed
    return summed / torch.arange(1, len(logits) + 1, dtype=logits.dtype, device=logits.device).view(-1, 1, 1)


def sequence_cross_entropy(
    logits: torch.Tensor, labels: torch.Tensor, on: On = "mean", label_smoothing: float = 0.0
) -> torch.Tensor:
    """Return the cross-entropy of the mean logits, of the steps' summed softmax, or the mean of each step's cross-entropy.

    "mean":     L = CE(1/T sum_t y[t], label)
    "steps":    L = 1/T sum_t CE(y[t], label), never below the first since CE is convex.
    "softmax":  L = CE(sum_t softmax(y[t]), label), where CE applies a softmax again (Hammouamri et al., ICLR 2024).

    Args:
        logits: [T, B, classes].
        labels: int64 [B].
        on: "mean", "steps" or "softmax".
        label_smoothing: share of the target spread evenly over all classes.
    Returns: scalar, averaged over B.

    >>> y = torch.tensor([[[2.0, 0.0]], [[0.0, 2.0]]])
    >>> [round(sequence_cross_entropy(y, torch.tensor([0]), on).item(), 4) for on in ("mean", "steps")]
    [0.6931, 1.1269]
    """
    if on == "mean":
        return F.cross_entropy(logits.mean(0), labels, label_smoothing=label_smoothing)
    if on == "softmax":
        return F.cross_entropy(votes(logits, on).sum(0), labels, label_smoothing=label_smoothing)
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
        on: mean (of the logits averaged over time), steps (of each step's logits, averaged over time) or, for
            cross_entropy, softmax (of the sum over time of each step's softmax).
        label_smoothing: share of the target spread evenly over all classes.
    Call: with logits [T, B, classes] and labels [B]; returns a scalar, averaged over B.
    Raises: ValueError for another name, or squared_error on softmax.

    >>> SequenceLoss("squared_error").errors(torch.tensor([[0.0, 0.5]]), torch.tensor([1]))
    tensor([[ 0.0000, -0.5000]])
    """

    name: Literal["cross_entropy", "squared_error"] = "cross_entropy"
    on: On = "mean"
    label_smoothing: float = 0.0

    def __post_init__(self) -> None:
        if self.name not in ("cross_entropy", "squared_error"):
            raise ValueError(f"loss: name must be cross_entropy or squared_error, got {self.name!r}")
        if self.on not in get_args(On):
            raise ValueError(f"loss: on must be one of {get_args(On)}, got {self.on!r}")
        if self.on == "softmax" and self.name != "cross_entropy":
            raise ValueError(f"loss: on 'softmax' is for cross_entropy, got {self.name!r}")

    def __call__(self, logits: torch.Tensor, labels: torch.Tensor) -> torch.Tensor:
        if self.name == "cross_entropy":
            return sequence_cross_entropy(logits, labels, self.on, self.label_smoothing)
        return sequence_squared_error(logits, labels, "steps" if self.on == "steps" else "mean", self.label_smoothing)

    def scores(self, logits: torch.Tensor) -> torch.Tensor:
        """Return the mean over time of `votes` of logits [T, B, classes], whose largest entry is the answer."""
        return votes(logits, self.on).mean(0)

    def errors(self, logits: torch.Tensor, labels: torch.Tensor) -> torch.Tensor:
        """Return dl/dlogits of each sample for logits [B, classes] of one step, not divided by B."""
        outputs = logits.softmax(-1) if self.name == "cross_entropy" else logits
        return outputs - soft_targets(labels, logits, self.label_smoothing)
