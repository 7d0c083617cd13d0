"""From the last layer's spikes to logits at every step."""

from collections.abc import Mapping
from typing import Literal

from torch import nn

from snn.models.neuron_choice import make_neuron

Readout = Literal["linear", "LI"]


def readout_layers(features: int, classes: int, readout: Readout, bias: bool = True) -> Mapping[str, nn.Module]:
    """Return the layers after the last neurons, by name.

    Args:
        features: inputs of the readout.
        classes: number of logits.
        readout: "linear", y[t] = W z[t] + b, or "LI", the same through a leaky integrator that never spikes.
        bias: False leaves b out.
    Raises: ValueError for another readout.
    """
    if readout == "linear":
        return {"readout": nn.Linear(features, classes, bias=bias)}
    if readout == "LI":
        return {"readout": nn.Linear(features, classes, bias=bias), "integrator": make_neuron("LI")}
    raise ValueError(f"readout must be 'linear' or 'LI', got {readout!r}")
