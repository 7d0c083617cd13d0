"""Calibration data in the forms that users have it: a tensor, images with labels, or batches of either."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

import torch

from snn.errors import ShapeError

BATCH = 64
"""Samples that calibration gives the network at once where the caller has made no batches."""


@dataclass(frozen=True)
class CalibrationData:
    """Batches of inputs [B, ...], and their labels [N] or None."""

    batches: tuple[torch.Tensor, ...]
    labels: torch.Tensor | None

    @property
    def images(self) -> torch.Tensor:
        """All inputs [N, ...]."""
        return torch.cat(self.batches)


def calibration_data(given: Any) -> CalibrationData:
    """Brings calibration data into batches; all of it stays in memory.

    Args:
        given: a tensor [N, ...], a pair (inputs [N, ...], labels [N]), or an iterable of batches of either.
    Raises:
        TypeError: something else, or inputs that are no floating-point tensor.
        ShapeError: no samples, or labels that do not fit.
    """
    if isinstance(given, torch.Tensor) or _is_pair(given):
        pairs = [_pair(given)]
    elif isinstance(given, Iterable) and not isinstance(given, str | bytes | dict):
        pairs = [_pair(batch) for batch in given]
    else:
        raise TypeError(f"calibration must be a tensor, (inputs, labels) or batches of them, got {_kind(given)}")
    if not pairs or not sum(len(inputs) for inputs, _ in pairs):
        raise ShapeError("calibration: there are no samples")
    labels = [label for _, label in pairs if label is not None]
    if labels and len(labels) != len(pairs):
        raise ShapeError("calibration: some batches have labels and some have none")
    batches = (
        [part for inputs, _ in pairs for part in inputs.split(BATCH)] if len(pairs) == 1 else [x for x, _ in pairs]
    )
    return CalibrationData(tuple(batch for batch in batches if len(batch)), torch.cat(labels) if labels else None)


def _is_pair(given: Any) -> bool:
    return (
        isinstance(given, tuple | list)
        and len(given) == 2
        and all(isinstance(part, torch.Tensor) for part in given)
        and given[1].dim() <= 1
    )


def _pair(batch: Any) -> tuple[torch.Tensor, torch.Tensor | None]:
    inputs, labels = (batch[0], batch[1]) if _is_pair(batch) else (batch, None)
    if isinstance(inputs, tuple | list) and len(inputs) == 1:
        inputs = inputs[0]
    if not isinstance(inputs, torch.Tensor) or not inputs.is_floating_point():
        raise TypeError(f"calibration: inputs must be floating-point tensors [B, ...], got {_kind(inputs)}")
    if inputs.dim() < 2:
        raise ShapeError(f"calibration: inputs must be [B, ...], got shape {tuple(inputs.shape)}")
    if not bool(torch.isfinite(inputs).all()):
        raise ValueError("calibration: inputs hold values that are not finite")
    if labels is not None and labels.shape != inputs.shape[:1]:
        raise ShapeError(f"calibration: {len(inputs)} inputs and labels of shape {tuple(labels.shape)}")
    return inputs.detach(), labels


def _kind(item: Any) -> str:
    return f"a {item.dtype} tensor" if isinstance(item, torch.Tensor) else f"a {type(item).__name__}"
