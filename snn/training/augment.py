"""Random changes of training images, a whole batch at a time."""

import torch
from torch.nn import functional as F


def shifted(images: torch.Tensor, largest: int, generator: torch.Generator) -> torch.Tensor:
    """Move each image by a random whole number of pixels along both axes; what enters is zero.

    Args:
        images: [B, C, H, W].
        largest: largest shift in pixels, >= 0.
        generator: on the device of the images.
    Returns: [B, C, H, W].
    """
    if largest == 0:
        return images
    B, _, H, W = images.shape
    padded = F.pad(images, (largest, largest, largest, largest))
    # Each image is one window of the padded image; the windows are a view, so only the chosen ones are copied.
    windows = padded.unfold(2, H, 1).unfold(3, W, 1)  # [B, C, 2 * largest + 1, 2 * largest + 1, H, W]
    down, right = torch.randint(2 * largest + 1, (2, B), generator=generator, device=images.device)
    rows = torch.arange(B, device=images.device)
    return windows[rows, :, down, right]  # [B, C, H, W]


def flipped(images: torch.Tensor, generator: torch.Generator) -> torch.Tensor:
    """Mirror each image left to right with probability 1/2; images [B, C, H, W]."""
    mirror = torch.rand(len(images), generator=generator, device=images.device) < 0.5
    return torch.where(mirror.view(-1, 1, 1, 1), images.flip(3), images)
