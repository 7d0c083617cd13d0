"""Spoken-word sequences, binned: Spiking Heidelberg Digits and Spiking Speech Commands from files, and stand-ins.

Each set is [T, channels] per word: 10 ms bins, 700 cochlea channels summed by fives. The stand-ins need no file. They
have the same shapes and thousands of spikes per word. Their classes differ only in when groups of channels are active
relative to each other, not in how much nor in which are active at once, so that a network without memory cannot tell
them apart. Recorded words as mel bands are in `spikedata.speech_commands`.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch

from spikedata.errors import DataError
from spikedata.root import data_root

STEPS, CHANNELS, SUMMED = 100, 140, 5
BIN_MS = 10.0
STAND_IN_TRAIN, STAND_IN_TEST = 2000, 500
GROUPS, SLOT = 7, 12  # groups of channels of a stand-in, and steps from one to the next
BURST_SPIKES, BURST_WIDTH, BURST_HALF = 30.0, 1.0, 3  # of one channel; width and half length in steps


@dataclass(frozen=True)
class SpokenWords:
    """Sequences with labels, held in memory.

    Attributes:
        frames: spike counts or values [N, T, channels], of any type.
        labels: int64 [N].
        classes: names.
        source: where the data come from.
    """

    frames: torch.Tensor
    labels: torch.Tensor
    classes: Sequence[str]
    source: str

    @property
    def shape(self) -> tuple[int, ...]:
        """Of one word: (T, channels)."""
        return tuple(self.frames.shape[1:])

    def batch(self, indices: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """Sequences float32 [B, T, channels] and labels int64 [B]."""
        return self.frames[indices].float(), self.labels[indices]


def shd(split: str, root: str | None) -> SpokenWords:
    """Spiking Heidelberg Digits from `<root>/shd/shd_<split>.h5`, 20 classes; there is no validation part.

    Raises: DataError if the file is missing or is no such file.
    """
    return _from_file("shd", split, root, 20)


def ssc(split: str, root: str | None) -> SpokenWords:
    """Spiking Speech Commands from `<root>/ssc/ssc_<split>.h5`, 35 classes."""
    return _from_file("ssc", split, root, 35)


def shd_stand_in(split: str, root: str | None) -> SpokenWords:
    """Synthetic sequences of the shape of SHD: 20 classes, spike counts [100, 140]."""
    return _stand_in("shd", split, 20)


def ssc_stand_in(split: str, root: str | None) -> SpokenWords:
    """Synthetic sequences of the shape of SSC: 35 classes, spike counts [100, 140]."""
    return _stand_in("ssc", split, 35)


def speech_commands_stand_in(split: str, root: str | None) -> SpokenWords:
    """Synthetic sequences of the shape of Speech Commands as 140 mel bands every 10 ms: 35 classes, values [101, 140].

    The logarithm of spike counts, smoothed over bands; silence is 0 and the loudest bin of all 1.
    """
    words = _stand_in("speech commands", split, 35)
    louder = torch.log1p(words.frames.float())
    smooth = torch.nn.functional.avg_pool1d(louder, 3, 1, 1)  # along the bands
    frames = torch.nn.functional.pad(smooth / smooth.max(), (0, 0, 0, 1))
    return SpokenWords(frames, words.labels, words.classes, words.source)


def _from_file(name: str, split: str, root: str | None, class_count: int) -> SpokenWords:
    import h5py

    path = data_root(root) / name / f"{name}_{split}.h5"
    if not path.is_file():
        raise DataError(
            f"{name}: no file {path}; get {name}_{split}.h5 from zenkelab.org/datasets, or use spikedata.spoken:{name}_stand_in"
        )
    with h5py.File(path, "r") as file:
        try:
            times, units, labels = file["spikes/times"][:], file["spikes/units"][:], file["labels"][:]
        except KeyError as error:
            raise DataError(f"{name}: {path} has no {error}; expected spikes/times, spikes/units and labels") from error
    frames = np.stack([binned(t, u) for t, u in zip(times, units, strict=True)])
    names = [str(k) for k in range(class_count)]
    return SpokenWords(torch.from_numpy(frames), torch.from_numpy(labels.astype(np.int64)), names, str(path))


def binned(times_s: np.ndarray[Any, Any], units: np.ndarray[Any, Any]) -> np.ndarray[Any, Any]:
    """Spike counts uint8 [100, 140] of one word: 10 ms bins from its first spike on, five channels summed.

    Args:
        times_s: spike times in seconds (16-bit floats in the files; differences are taken in 32 bits).
        units: channel of each spike, 0 to 699.
    """
    frames = np.zeros((STEPS, CHANNELS), np.int64)
    if len(times_s):
        exact = times_s.astype(np.float32)
        step = ((exact - exact.min()) * 1000.0 / BIN_MS).astype(np.int64)
        inside = step < STEPS
        np.add.at(frames, (step[inside], units[inside].astype(np.int64) // SUMMED), 1)
    return frames.clip(0, 255).astype(np.uint8)


def _stand_in(name: str, split: str, class_count: int) -> SpokenWords:
    """Seven groups of 20 neighbouring channels are active one after the other; the class sets their order.

    Groups are 12 steps apart, so that no two are active in one step and a step by itself tells nothing of the class. A
    word is moved as a whole by 0 to 11 steps and each group by a normal jitter of one step. A channel sends a burst of
    about 30 spikes within some four steps; one channel in ten is silent in a word, and 1 % of the bins hold a stray spike.
    """
    if split not in ("train", "test"):
        raise DataError(f"{name}: split must be 'train' or 'test', got {split!r}")
    orders = _orders(class_count)
    count = STAND_IN_TRAIN if split == "train" else STAND_IN_TEST
    draw = np.random.default_rng([len(name), class_count, len(split)])
    labels = draw.permutation(np.arange(count) % class_count)
    begin = BURST_HALF + SLOT * orders[labels] + draw.integers(0, SLOT, (count, 1))
    at = np.clip(begin + draw.normal(size=(count, GROUPS)), BURST_HALF, STEPS - 1 - BURST_HALF)
    at = at.repeat(CHANNELS // GROUPS, axis=1)  # [N, channels], in steps and fractions
    steps = np.floor(at).astype(np.int64)[..., None] + np.arange(-BURST_HALF, BURST_HALF + 1)
    profile = np.exp(-0.5 * ((steps - at[..., None]) / BURST_WIDTH) ** 2) / (BURST_WIDTH * math.sqrt(2 * math.pi))
    loudness = BURST_SPIKES * draw.uniform(0.5, 1.5, (count, CHANNELS)) * (draw.random((count, CHANNELS)) < 0.9)
    spikes = draw.poisson(profile * loudness[..., None])
    frames = (draw.random((count, STEPS, CHANNELS), np.float32) < 0.01).astype(np.uint8)
    word, channel = np.arange(count)[:, None, None], np.arange(CHANNELS)[:, None]
    frames[word, steps, channel] += spikes.astype(np.uint8)
    names = [str(k) for k in range(class_count)]
    return SpokenWords(torch.from_numpy(frames), torch.from_numpy(labels), names, f"synthetic, shaped like {name}")


def _orders(class_count: int) -> np.ndarray[Any, Any]:
    """Place of each group in the order of each class, [classes, GROUPS]; no two classes are alike."""
    draw = np.random.default_rng(class_count)
    found: dict[tuple[int, ...], None] = {}
    while len(found) < class_count:
        found[tuple(draw.permutation(GROUPS))] = None
    return np.array(list(found))
