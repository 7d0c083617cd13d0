"""Fully connected network of ordinary, non-spiking neurons."""

from collections.abc import Sequence
from math import prod
from typing import Literal

import torch
from torch import nn

from snn.models.sizes import positive_sizes
from snn.models.stack import Stack

AnalogNeuron = Literal["ReLU", "Tanh", "Sigmoid", "LeakyReLU", "Identity"]


def analog_neuron(name: str) -> nn.Module:
    """Return a layer of ordinary neurons by its name in torch.nn.

    Raises: ValueError for a name that is not one of `AnalogNeuron`.
    """
    kinds: dict[str, type[nn.Module]] = {
        "ReLU": nn.ReLU,
        "Tanh": nn.Tanh,
        "Sigmoid": nn.Sigmoid,
        "LeakyReLU": nn.LeakyReLU,
        "Identity": nn.Identity,
    }
    if name not in kinds:
        raise ValueError(f"neuron must be one of {', '.join(kinds)}, got {name!r}")
    return kinds[name]()


class AnalogMLP(nn.Module):
    """Linear layers with an activation function after each but the last: z' = f(W z + b), logits W z + b.

    Weights are drawn as in Glorot and Bengio, uniform in +-sqrt(6 / (inputs + outputs)), biases are zero.

    Args:
        input_shape: shape of one input, flattened by the network.
        classes: number of logits.
        hidden: neurons of each hidden layer.
        neuron: ReLU, Tanh, Sigmoid, LeakyReLU or Identity.
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
