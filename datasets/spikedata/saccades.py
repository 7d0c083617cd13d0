"""Images seen by an event camera that jumps along a known path, and grey images rebuilt from the events.

The camera is moved to eight places one after the other, by whole pixels, along a closed path: before the first place it is at
the last. At each place a pixel sends an ON event if it has become brighter by at least the threshold since the place
before, an OFF event if darker. One image gives [8, 2, H, W] zeros and ones: steps, then ON and OFF.

For training: data.name spikedata.saccades:mnist (events, encoding sequence with 8 steps) or spikedata.saccades:mnist_rebuilt
(grey images). The images themselves are those of `spikedata.load`.

Source: the path of ES-ImageNet (Lin et al., Frontiers in Neuroscience 2021); its threshold and its way of rebuilding images
with shifted frames are taken over in kind, not in numbers.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch

from spikedata.catalogue import load
from spikedata.dataset import ImageDataset

PATH_X = (0, 2, 1, 0, 2, 1, 1, 2)
PATH_Y = (2, 1, 0, 1, 2, 0, 1, 1)
STEPS = len(PATH_X)
THRESHOLD = 0.1


def saccade_events(images: torch.Tensor, threshold: float = THRESHOLD) -> torch.Tensor:
    """Events of the moving camera.

    Each step t, with the image moved by (PATH_X[t], PATH_Y[t]) pixels to the right and down, F[t], and zeros entering:
    ON = [F[t] - F[t - 1] >= threshold], OFF = [F[t - 1] - F[t] >= threshold], where F[-1] = F[7].

    Args:
        images: intensities [B, C, H, W]; several channels are averaged to grey.
        threshold: > 0, in the unit of the intensities.
    Returns: events 0/1, [B, 8, 2, H, W], dtype of the images.
    Raises: ValueError for another shape or threshold.
    """
    if images.dim() != 4:
        raise ValueError(f"saccade_events: images must be [B, C, H, W], got {tuple(images.shape)}")
    if not threshold > 0:
        raise ValueError(f"saccade_events: threshold must be > 0, got {threshold}")
    grey = images.mean(1)
    places = list(zip(PATH_X, PATH_Y, strict=True))
    frames = torch.stack([_moved(grey, x, y) for x, y in places], 1)  # [B, 8, H, W]
    change = frames - frames.roll(1, 1)
    return torch.stack([change >= threshold, change <= -threshold], 2).to(images.dtype)


def rebuilt_images(events: torch.Tensor) -> torch.Tensor:
    """Grey images from the events of the moving camera.

    Each step's ON - OFF is moved back by the place of the camera, and the mean over the steps is taken: an edge that the
    camera has crossed several times stands out, in the sign of its contrast.

    Args:
        events: [B, 8, 2, H, W].
    Returns: values in [-1, 1], [B, 1, H, W].
    Raises: ValueError for another shape.
    """
    if events.dim() != 5 or events.shape[1:3] != (STEPS, 2):
        raise ValueError(f"rebuilt_images: events must be [B, {STEPS}, 2, H, W], got {tuple(events.shape)}")
    signed = events[:, :, 0] - events[:, :, 1]  # [B, 8, H, W]
    back = [_moved(signed[:, t], -x, -y) for t, (x, y) in enumerate(zip(PATH_X, PATH_Y, strict=True))]
    return torch.stack(back, 1).mean(1, keepdim=True)


def _moved(images: torch.Tensor, right: int, down: int) -> torch.Tensor:
    """Images [B, H, W] moved by whole pixels; what enters is zero."""
    H, W = images.shape[-2:]
    moved = torch.zeros_like(images)
    rows, columns = slice(max(down, 0), H + min(down, 0)), slice(max(right, 0), W + min(right, 0))
    from_rows, from_columns = slice(max(-down, 0), H - max(down, 0)), slice(max(-right, 0), W - max(right, 0))
    moved[..., rows, columns] = images[..., from_rows, from_columns]
    return moved


@dataclass(frozen=True)
class SeenImages:
    """A data set whose images are turned into what the camera sees, a batch at a time.

    Attributes:
        images: the data set.
        see: images [B, C, H, W] -> inputs [B, *shape].
        shape: of one input.
        source: where the data come from.
    """

    images: ImageDataset
    see: Callable[[torch.Tensor], torch.Tensor]
    shape: tuple[int, ...]
    source: str

    @property
    def labels(self) -> torch.Tensor:
        """int64 [N]."""
        return self.images.labels

    @property
    def classes(self) -> Sequence[str]:
        """Name of each label."""
        return self.images.classes

    def batch(self, indices: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """Inputs float32 [B, *shape] and labels int64 [B]."""
        images, labels = self.images.batch(indices)
        return self.see(images), labels


def _events(name: str, split: str, root: str | None) -> SeenImages:
    images = load(name, split=split, root=root)
    _, H, W = images.shape
    return SeenImages(images, saccade_events, (STEPS, 2, H, W), f"events of a camera moved over {images.source}")


def _rebuilt(name: str, split: str, root: str | None) -> SeenImages:
    images = load(name, split=split, root=root)
    _, H, W = images.shape
    source = f"rebuilt from events of a camera moved over {images.source}"
    return SeenImages(images, lambda x: rebuilt_images(saccade_events(x)), (1, H, W), source)


def digits(split: str, root: str | None) -> SeenImages:
    """Events of scikit-learn's digits, [8, 2, 8, 8]."""
    return _events("digits", split, root)


def digits_rebuilt(split: str, root: str | None) -> SeenImages:
    """Grey images [1, 8, 8] rebuilt from the events of `digits`."""
    return _rebuilt("digits", split, root)


def mnist(split: str, root: str | None) -> SeenImages:
    """Events of MNIST, [8, 2, 28, 28]."""
    return _events("mnist", split, root)


def mnist_rebuilt(split: str, root: str | None) -> SeenImages:
    """Grey images [1, 28, 28] rebuilt from the events of `mnist`."""
    return _rebuilt("mnist", split, root)


def cifar10(split: str, root: str | None) -> SeenImages:
    """Events of CIFAR-10 in grey, [8, 2, 32, 32]."""
    return _events("cifar10", split, root)


def cifar10_rebuilt(split: str, root: str | None) -> SeenImages:
    """Grey images [1, 32, 32] rebuilt from the events of `cifar10`."""
    return _rebuilt("cifar10", split, root)
