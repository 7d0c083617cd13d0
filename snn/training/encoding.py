"""From a batch of images to a sequence, by the recipe's encoder."""

import torch

from snn.training.recipe import EncodingOptions


def encoded(images: torch.Tensor, options: EncodingOptions, seed: int) -> torch.Tensor:
    """Return the sequence [T, B, ...] of a batch [B, ...]; only the rate code draws from `seed`."""
    from spikedata import encode

    if options.name == "rate":
        return encode.rate(images, options.steps, seed=seed)
    if options.name == "latency":
        return encode.latency(images, options.steps)
    return encode.direct(images, options.steps)
