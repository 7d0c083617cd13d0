"""The digits, read so slowly that a process can be killed in the middle of an epoch; also a data set of one's own."""

from __future__ import annotations

import time
from typing import Any

import torch

import spikedata


class SlowDigits:
    def __init__(self, split: str) -> None:
        self._digits = spikedata.load("digits", split=split)
        self.labels = self._digits.labels
        self.classes = self._digits.classes
        self.shape = self._digits.shape
        self.source = "slow digits"

    def batch(self, indices: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        time.sleep(0.03)
        return self._digits.batch(indices)


def load(split: str, root: str | None) -> Any:
    return SlowDigits(split)


def broken(split: str, root: str | None) -> Any:
    raise FileNotFoundError(f"no file for {split}")
