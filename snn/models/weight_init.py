"""Starting weights of a network."""

from collections.abc import Mapping
from typing import Literal

from torch import nn

WeightInit = Literal["torch", "he"]


def draw_weights(layers: Mapping[str, nn.Module], weight_init: WeightInit) -> None:
    """Draw the weights of linear and convolution layers anew, or leave them as torch has drawn them.

    Args:
        layers: in order; the last of them with weights is the readout.
        weight_init: "torch" leaves them; "he" draws from a normal distribution of variance 2 / inputs, 1 / inputs for the
            readout, and sets biases to zero. Deep networks of rectifiers without normalisation need it: under torch's
            1 / (3 inputs) the signal shrinks to 0.4 of its size from layer to layer.
    Raises: ValueError for another name.
    Source: He et al., Delving deep into rectifiers, ICCV 2015.
    """
    if weight_init not in ("torch", "he"):
        raise ValueError(f"weight_init must be 'torch' or 'he', got {weight_init!r}")
    if weight_init == "torch":
        return
    weighted = [layer for layer in layers.values() if isinstance(layer, nn.Linear | nn.modules.conv._ConvNd)]
    for layer in weighted:
        nn.init.kaiming_normal_(layer.weight, nonlinearity="linear" if layer is weighted[-1] else "relu")
        if layer.bias is not None:
            nn.init.zeros_(layer.bias)
