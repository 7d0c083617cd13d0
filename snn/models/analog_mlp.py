"""Fully connected network of ordinary, non-spiking neurons."""

import inspect
from collections.abc import Mapping, Sequence
from math import prod
from typing import Any

import torch
from torch import nn

from snn.errors import closest
from snn.models.sizes import positive_sizes
from snn.models.stack import Stack

# A name (ReLU, Tanh, Sigmoid, LeakyReLU, Identity, or the quantised QCFS and QuantAct of snn.conversion), or the same with
# arguments as {"class": name, **arguments}.
AnalogNeuron = str | Mapping[str, Any]

_QUANTISED = ("QCFS", "QuantAct")


def analog_neuron(choice: AnalogNeuron) -> nn.Module:
    """Return a new layer of ordinary neurons.

    Raises: ValueError for a name or argument that is not one of those of `AnalogNeuron`, or a value it does not take.

    >>> analog_neuron({"class": "LeakyReLU", "negative_slope": 0.1})
    LeakyReLU(negative_slope=0.1)
    """
    kinds: dict[str, type[nn.Module]] = {
        "ReLU": nn.ReLU,
        "Tanh": nn.Tanh,
        "Sigmoid": nn.Sigmoid,
        "LeakyReLU": nn.LeakyReLU,
        "Identity": nn.Identity,
    }
    arguments = {} if isinstance(choice, str) else dict(choice)
    name = choice if isinstance(choice, str) else arguments.pop("class", None)
    if name in _QUANTISED:
        # Not at the top: only a quantised network needs the package for conversion.
        from snn.conversion.activations import QCFS, QuantAct

        kinds |= {"QCFS": QCFS, "QuantAct": QuantAct}
    if name not in kinds:
        raise ValueError(f"neuron must be one of {', '.join([*kinds, *_QUANTISED])}, got {name!r}")
    accepted = [key for key in inspect.signature(kinds[name]).parameters if key != "inplace"]
    if name == "Identity":
        accepted = []
    for key in arguments:
        if key not in accepted:
            raise ValueError(f"neuron: {name} has no argument {key!r}{closest(str(key), accepted)}")
    try:
        return kinds[name](**arguments)
    except (ValueError, TypeError) as error:
        raise ValueError(f"neuron: {name}: {error}") from error


class AnalogMLP(nn.Module):
    """Linear layers with an activation function after each but the last: z' = f(W z + b), logits W z + b.

    Weights are drawn as in Glorot and Bengio, uniform in +-sqrt(6 / (inputs + outputs)), biases are zero.

    Args:
        input_shape: shape of one input, flattened by the network.
        classes: number of logits.
        hidden: neurons of each hidden layer.
        neuron: ReLU, Tanh, Sigmoid, LeakyReLU, Identity, QCFS or QuantAct, or {"class": name, **arguments}.
    Input: [T, B, *input_shape]; nothing is carried from step to step.
    Returns: logits [T, B, classes].
    Raises: ValueError for a wrong size or neuron.

    >>> AnalogMLP(input_shape=(1, 8, 8), classes=10)(torch.zeros(1, 2, 1, 8, 8)).shape
    torch.Size([1, 2, 10])
    """

    def __init__(
        self,
        input_shape: Sequence[int],
        classes: int,
        hidden: Sequence[int] = (256,),
        neuron: AnalogNeuron = "ReLU",
    ) -> None:
        super().__init__()
        layers: dict[str, nn.Module] = {"flatten": nn.Flatten()}
        features = prod(input_shape)
        for number, size in enumerate(positive_sizes("hidden", hidden), start=1):
            layers[f"linear{number}"] = nn.Linear(features, size)
            layers[f"neuron{number}"] = analog_neuron(neuron)
            features = size
        layers["readout"] = nn.Linear(features, classes)
        for layer in layers.values():
            if isinstance(layer, nn.Linear):
                nn.init.xavier_uniform_(layer.weight)
                nn.init.zeros_(layer.bias)
        self.stack = Stack(layers)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        logits: torch.Tensor = self.stack(x)
        return logits
