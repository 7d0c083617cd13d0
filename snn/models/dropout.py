"""Dropout of spikes, with one mask per step or one per sequence."""

from typing import Literal

from spikingjelly.activation_based import layer as sj_layer
from torch import nn

DropoutMask = Literal["step", "sequence"]


def dropout_layer(share: float, mask: DropoutMask) -> nn.Module:
    """Return a layer that sets a share of its input to zero in training and scales the rest by 1 / (1 - share).

    Args:
        share: in [0, 1).
        mask: "step" draws anew at every step; "sequence" draws once per call of a `Stack` and keeps the choice over all
            steps, so that a neuron that is left out stays left out while its target integrates.
    Raises: ValueError for another share or mask.
    """
    if not 0 <= share < 1:
        raise ValueError(f"dropout must lie in [0, 1), got {share}")
    if mask == "step":
        return nn.Dropout(share)
    if mask == "sequence":
        return sj_layer.Dropout(share, step_mode="m")
    raise ValueError(f"dropout_mask must be 'step' or 'sequence', got {mask!r}")
