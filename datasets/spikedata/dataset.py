"""A data set of images, whole in memory."""

import operator
import os
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property

import torch
from torch.utils import data as torch_data

Reader = Callable[[str, str | os.PathLike[str] | None, bool], tuple[torch.Tensor, torch.Tensor, str]]


@dataclass(frozen=True)
class DatasetSpec:
    """What is known of a data set before it is read.

    Args:
        name: name for `spikedata.load`.
        title: one line for people.
        shape: of one image, (C, H, W).
        peak: pixel value that stands for intensity 1.
        classes: name of each label.
        counts: number of images of each split.
        read: function (split, root, download) -> (pixels uint8 [N, C, H, W], labels int64 [N], source).
    """

    name: str
    title: str
    shape: tuple[int, int, int]
    peak: int
    classes: tuple[str, ...]
    counts: Mapping[str, int]
    read: Reader


class ImageDataset(torch_data.Dataset[tuple[torch.Tensor, int]]):
    """Images and labels of one split.

    Pixels stay bytes (60,000 MNIST images: 47 MB) and become float32 intensities x = pixel / peak in [0, 1] batch by
    batch, which costs less than fetching four times the memory. Works as a map-style dataset of (image, label) in a
    DataLoader; `batch` is the faster way for a loop of one's own.

    Args:
        spec: the entry of `DATASETS`.
        split: "train" or "test".
        pixels: uint8 [N, C, H, W], at most spec.peak.
        labels: int64 [N], each below len(spec.classes).
        source: where the pixels come from, such as "idx" or "jpeg".
    Raises: ValueError if the tensors do not fit the spec.
    """

    def __init__(self, spec: DatasetSpec, split: str, pixels: torch.Tensor, labels: torch.Tensor, source: str) -> None:
        shape = (spec.counts[split], *spec.shape)
        if pixels.shape != shape or pixels.dtype != torch.uint8:
            raise ValueError(
                f"{spec.name} {split}: pixels must be uint8 {shape}, got {pixels.dtype} {tuple(pixels.shape)}"
            )
        if labels.shape != shape[:1] or labels.dtype != torch.int64:
            raise ValueError(
                f"{spec.name} {split}: labels must be int64 {shape[:1]}, got {labels.dtype} {tuple(labels.shape)}"
            )
        if int(labels.min()) < 0 or int(labels.max()) >= len(spec.classes):
            raise ValueError(
                f"{spec.name} {split}: labels must be 0 to {len(spec.classes) - 1}, "
                f"got {int(labels.min())} to {int(labels.max())}"
            )
        if int(pixels.max()) > spec.peak:
            raise ValueError(f"{spec.name} {split}: pixels must be at most {spec.peak}, got {int(pixels.max())}")
        self.spec = spec
        self.split = split
        self.pixels = pixels
        self.labels = labels
        self.source = source

    @property
    def name(self) -> str:
        """Name for `spikedata.load`."""
        return self.spec.name

    @property
    def shape(self) -> tuple[int, int, int]:
        """Shape of one image, (C, H, W)."""
        return self.spec.shape

    @property
    def classes(self) -> tuple[str, ...]:
        """Name of each label."""
        return self.spec.classes

    @cached_property
    def images(self) -> torch.Tensor:
        """All intensities, float32 [N, C, H, W] in [0, 1]; made on first use and kept, 4 times the size of pixels."""
        return self._intensities(self.pixels)

    def batch(self, indices: torch.Tensor | Sequence[int] | slice) -> tuple[torch.Tensor, torch.Tensor]:
        """Return several images at once.

        Args:
            indices: int64 tensor or sequence of positions, or a slice.
        Returns: intensities float32 [B, C, H, W] and labels int64 [B].
        Raises: IndexError if a position is outside the data set.
        """
        where = indices if isinstance(indices, slice | torch.Tensor) else torch.as_tensor(indices, dtype=torch.int64)
        return self._intensities(self.pixels[where]), self.labels[where]

    def _intensities(self, pixels: torch.Tensor) -> torch.Tensor:
        return pixels.to(torch.float32).div_(self.spec.peak)

    def __len__(self) -> int:
        return len(self.labels)

    def __getitem__(self, index: int) -> tuple[torch.Tensor, int]:
        position = operator.index(index)
        return self._intensities(self.pixels[position]), int(self.labels[position])

    def __getitems__(self, indices: list[int]) -> list[tuple[torch.Tensor, int]]:
        images, labels = self.batch(indices)
        return list(zip(images.unbind(0), labels.tolist(), strict=True))

    def __getstate__(self) -> dict[str, object]:
        # The float copy would only make the pickle for a worker five times larger.
        return {key: value for key, value in self.__dict__.items() if key != "images"}

    def __repr__(self) -> str:
        return (
            f"ImageDataset({self.name!r}, split={self.split!r}, images={len(self)}, shape={self.shape}, "
            f"source={self.source!r})"
        )
