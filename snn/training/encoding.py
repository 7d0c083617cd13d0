"""From a batch of images to a sequence, by the recipe's encoder."""

import torch

from snn.training.recipe import EncodingOptions


def encoded(images: torch.Tensor, options: EncodingOptions, seed: int) -> torch.Tensor:
    """Return the sequence [T, B, ...] of a batch [B, ...]; only the rate code draws from `seed`."""
    from spikedata import encode

    if options.name == "sequence":
        if images.dim() < 3 or images.shape[1] != options.steps:
            raise ValueError(
                f"encoding.steps must be the {images.shape[1] if images.dim() > 2 else 'missing'} steps of the sequences "
                f"[B, T, ...], got {options.steps} for inputs of shape {tuple(images.shape)}"
            )
        return images.transpose(0, 1)
    if options.name == "rate":
        return encode.rate(images, options.steps, seed=seed)
    if options.name == "latency":
        return encode.latency(images, options.steps)
    return encode.direct(images, options.steps)
