"""From a batch of images to a sequence, by the recipe's encoder."""

import torch

from snn.training.recipe import EncodingOptions


def encoded(images: torch.Tensor, options: EncodingOptions, seed: int) -> torch.Tensor:
    """Return the sequence [T, B, ...] of a batch [B, ...]; only the rate code draws from `seed`.

    Inputs with a time axis [B, steps, ...] are turned time first; up to T, silent steps follow.

    Raises: ValueError for inputs without a time axis or with one longer than T.
    """
    from spikedata import encode

    if options.name == "sequence":
        if images.dim() < 3 or images.shape[1] > options.steps:
            raise ValueError(
                f"encoding.steps must be at least the {images.shape[1] if images.dim() > 2 else 'missing'} steps of the "
                f"sequences [B, T, ...], got {options.steps} for inputs of shape {tuple(images.shape)}"
            )
        sequence = images.transpose(0, 1)
        silent = options.steps - len(sequence)
        return torch.cat([sequence, sequence.new_zeros(silent, *sequence.shape[1:])]) if silent else sequence
    if options.name == "rate":
        return encode.rate(images, options.steps, seed=seed)
    if options.name == "latency":
        return encode.latency(images, options.steps)
    return encode.direct(images, options.steps)
