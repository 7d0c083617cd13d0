"""Events of the moving camera and the images rebuilt from them."""

from __future__ import annotations

import pytest
import torch

from spikedata import saccades


def plain_events(image: torch.Tensor, threshold: float) -> torch.Tensor:
    """One image, pixel by pixel."""
    H, W = image.shape
    frames = torch.zeros(8, H, W)
    for t, (x, y) in enumerate(zip(saccades.PATH_X, saccades.PATH_Y, strict=True)):
        for row in range(y, H):
            for column in range(x, W):
                frames[t, row, column] = image[row - y, column - x]
    events = torch.zeros(8, 2, H, W)
    for t in range(8):
        change = frames[t] - frames[t - 1]
        events[t, 0][change >= threshold] = 1
        events[t, 1][change <= -threshold] = 1
    return events


def test_events_are_those_of_a_camera_moved_pixel_by_pixel() -> None:
    images = torch.rand(3, 1, 7, 6, generator=torch.Generator().manual_seed(0))
    events = saccades.saccade_events(images, 0.3)
    assert torch.equal(events, torch.stack([plain_events(image[0], 0.3) for image in images]))
    assert 0 < events.mean() < 0.5


def test_colours_are_averaged_and_a_uniform_inside_is_silent() -> None:
    images = torch.rand(2, 3, 9, 9)
    assert torch.equal(saccades.saccade_events(images), saccades.saccade_events(images.mean(1, keepdim=True)))
    assert not saccades.saccade_events(torch.ones(1, 1, 9, 9))[..., 2:, 2:].any()


def test_a_rebuilt_point_stands_where_it_was() -> None:
    image = torch.zeros(1, 1, 9, 9)
    image[0, 0, 4, 5] = 1.0
    rebuilt = saccades.rebuilt_images(saccades.saccade_events(image))
    assert rebuilt.shape == (1, 1, 9, 9)
    assert rebuilt[0, 0, 4, 5] == 1.0  # bright against the place before at every step
    assert rebuilt.flatten().argmax() == 4 * 9 + 5
    assert torch.isclose(rebuilt.sum(), torch.tensor(0.0))


def test_sets_for_training() -> None:
    events, grey = saccades.digits("test", None), saccades.digits_rebuilt("test", None)
    assert (events.shape, grey.shape) == ((8, 2, 8, 8), (1, 8, 8))
    x, labels = events.batch(torch.tensor([3, 5]))
    assert x.shape == (2, 8, 2, 8, 8)
    assert torch.equal(labels, events.labels[[3, 5]])
    assert torch.equal(grey.batch(torch.tensor([3, 5]))[0], saccades.rebuilt_images(x))
    assert "camera" in events.source


def test_wrong_shapes_and_thresholds() -> None:
    with pytest.raises(ValueError, match=r"images must be \[B, C, H, W\], got \(3, 4\)"):
        saccades.saccade_events(torch.zeros(3, 4))
    with pytest.raises(ValueError, match="threshold must be > 0, got 0"):
        saccades.saccade_events(torch.zeros(1, 1, 4, 4), 0)
    with pytest.raises(ValueError, match=r"events must be \[B, 8, 2, H, W\]"):
        saccades.rebuilt_images(torch.zeros(1, 4, 2, 4, 4))
