"""Backpropagation through time, whole or truncated, as a rule that fills the gradients of a network."""

from collections.abc import Callable
from typing import NamedTuple

import torch
from torch import nn

Loss = Callable[[torch.Tensor, torch.Tensor], torch.Tensor]
Backward = Callable[[torch.Tensor], None]


class StepResult(NamedTuple):
    """What a rule reports of one batch, detached."""

    loss: torch.Tensor  # scalar
    logits: torch.Tensor  # [B, classes], averaged over time, or their softmax where the loss is on it


# A rule takes (network, input [T, B, ...], labels [B], backward) and adds to `.grad` of the network's parameters. It
# calls `backward(loss)` in place of `loss.backward()`, so that precision scaling and averaging over processes apply.
Rule = Callable[[nn.Module, torch.Tensor, torch.Tensor, Backward], StepResult]


def bptt(loss: Loss, chunk_steps: int | None = None) -> Rule:
    """Return backpropagation through time as a rule.

    With chunk_steps = k the sequence is cut into chunks of k steps (the last may be shorter). Each chunk starts from
    the states the one before it ended with, detached, and is trained as a presentation of its own: its loss is the
    recipe's loss on the logits of the chunk, weighted by its share of the steps, and its graph is freed before the next
    chunk begins, so memory grows with k and not with T. The gradients of all chunks add up to one optimiser step:

        L_k = sum_c (T_c / T) * loss(y[chunk c], label),   with the states between chunks constant.

    For the loss per step this is the untruncated loss exactly. For the loss on mean logits it is an upper bound of
    it (cross-entropy is convex) that reaches it at k >= T and the loss per step at k = 1. The alternative, the gradient
    of the loss on the mean over all T, needs all chunks' logits before the first backward pass, so it would run every
    chunk twice or keep the memory that truncation is there to save.

    Args:
        loss: function of logits [T, B, classes] and labels [B], a mean over B.
        chunk_steps: k >= 1, or None for all steps at once.
    Raises: ValueError if chunk_steps < 1; TypeError at the first batch if the network cannot carry state.
    """
    if chunk_steps is not None and chunk_steps < 1:
        raise ValueError(f"bptt: chunk_steps must be >= 1 or None, got {chunk_steps}")

    def rule(network: nn.Module, x: torch.Tensor, labels: torch.Tensor, backward: Backward) -> StepResult:
        T = len(x)
        if chunk_steps is None or chunk_steps >= T:
            logits = network(x)
            value = loss(logits, labels)
            backward(value)
            return StepResult(value.detach(), logits.detach().mean(0))
        state = None
        total = torch.zeros((), device=x.device)
        logit_sum = torch.zeros((), device=x.device)
        for chunk in x.split(chunk_steps):
            logits, state = network(chunk, state=state)
            value = loss(logits, labels) * (len(chunk) / T)
            backward(value)
            total = total + value.detach()
            logit_sum = logit_sum + logits.detach().sum(0)
        return StepResult(total, logit_sum / T)

    return rule
