"""Random changes of images."""

from __future__ import annotations

import torch
from torch.nn import functional as F

from snn.training.augment import flipped, shifted


def draw(seed: int) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def test_each_image_is_one_whole_pixel_shift_of_itself() -> None:
    images = torch.rand(40, 2, 5, 6)
    moved = shifted(images, 2, draw(0))
    assert moved.shape == images.shape
    seen = set()
    for before, after in zip(images, moved, strict=True):
        padded = F.pad(before, (2, 2, 2, 2))
        places = [(r, c) for r in range(5) for c in range(5) if torch.equal(after, padded[:, r : r + 5, c : c + 6])]
        assert len(places) == 1
        seen |= set(places)
    assert len(seen) > 10


def test_shift_of_zero_changes_nothing() -> None:
    images = torch.rand(3, 1, 4, 4)
    assert shifted(images, 0, draw(0)) is images


def test_about_half_of_the_images_are_mirrored() -> None:
    images = torch.rand(400, 1, 3, 4)
    turned = flipped(images, draw(1))
    mirrored = torch.tensor([torch.equal(a, b.flip(2)) for a, b in zip(turned, images, strict=True)])
    kept = torch.tensor([torch.equal(a, b) for a, b in zip(turned, images, strict=True)])
    assert bool((mirrored ^ kept).all())
    assert 160 < int(mirrored.sum()) < 240


def test_same_generator_state_gives_the_same_images() -> None:
    images = torch.rand(20, 1, 6, 6)
    assert torch.equal(shifted(images, 1, draw(3)), shifted(images, 1, draw(3)))
    assert not torch.equal(shifted(images, 1, draw(3)), shifted(images, 1, draw(4)))
