"""Losses of a sequence against their formulas."""

from __future__ import annotations

import pytest
import torch

from snn.training.loss import sequence_cross_entropy


def written_out(logits: torch.Tensor, labels: torch.Tensor, smoothing: float) -> torch.Tensor:
    """Cross-entropy of logits [B, K] with the target mixed with the even distribution."""
    B, K = logits.shape
    target = torch.full((B, K), smoothing / K, dtype=logits.dtype)
    target[torch.arange(B), labels] += 1 - smoothing
    log_share = logits - logits.exp().sum(1, keepdim=True).log()
    return -(target * log_share).sum(1).mean()


@pytest.mark.parametrize("smoothing", [0.0, 0.1])
def test_losses_equal_their_formulas(smoothing: float) -> None:
    logits = torch.randn(5, 7, 4, dtype=torch.float64)
    labels = torch.randint(4, (7,))
    mean = sequence_cross_entropy(logits, labels, "mean", smoothing)
    steps = sequence_cross_entropy(logits, labels, "steps", smoothing)
    torch.testing.assert_close(mean, written_out(logits.mean(0), labels, smoothing))
    torch.testing.assert_close(steps, torch.stack([written_out(y, labels, smoothing) for y in logits]).mean())
    assert steps > mean


def test_one_step_makes_both_losses_equal() -> None:
    logits, labels = torch.randn(1, 6, 3), torch.randint(3, (6,))
    torch.testing.assert_close(
        sequence_cross_entropy(logits, labels, "mean"), sequence_cross_entropy(logits, labels, "steps")
    )
