"""Fully connected spiking network."""

from collections.abc import Sequence
from math import prod
from typing import Any

import torch
from torch import nn

from snn.models.dropout import DropoutMask, dropout_layer
from snn.models.neuron_choice import NeuronChoice, make_neuron
from snn.models.readout import Readout, readout_layers
from snn.models.sizes import positive_sizes
from snn.models.stack import NOT_CARRIED, NotCarried, Stack, StackState
from snn.models.weight_init import WeightInit, draw_weights


class SpikingMLP(nn.Module):
    """Linear layers with neurons between them and a linear readout at every step.

    Each hidden layer: i[t] = W z[t] + b (batch-normalised if asked), z'[t] = neuron(i)[t]. Logits: y[t] = W z[t] + b.

    Args:
        input_shape: shape of one input without time and batch, flattened by the network.
        classes: number of logits.
        hidden: neurons of each hidden layer.
        neuron: name in `snn`, {"class": name, **arguments}, or a function that makes a layer of neurons.
        batch_norm: normalise the input current of each hidden layer over time and batch.
        dropout: share of the spikes of each hidden layer set to zero in training.
        dropout_mask: "step" draws a new choice at every step, "sequence" one choice for all steps of a call.
        bias: False leaves out all biases, of the readout too.
        weight_init: "torch", or "he" for weights of variance 2 / inputs.
        readout: "linear", or "LI" for a leaky integrator after it.
    Input: [T, B, *input_shape].
    Returns: logits [T, B, classes]; with `state=` also the neurons' states, see `Stack`.
    Raises: ValueError for a wrong size, neuron or readout.

    >>> SpikingMLP(input_shape=(1, 8, 8), classes=10)(torch.zeros(4, 2, 1, 8, 8)).shape
    torch.Size([4, 2, 10])
    """

    def __init__(
        self,
        input_shape: Sequence[int],
        classes: int,
        hidden: Sequence[int] = (256,),
        neuron: NeuronChoice = "LIF",
        batch_norm: bool = False,
        dropout: float = 0.0,
        readout: Readout = "linear",
        dropout_mask: DropoutMask = "step",
        bias: bool = True,
        weight_init: WeightInit = "torch",
    ) -> None:
        super().__init__()
        sizes = positive_sizes("hidden", hidden)
        layers: dict[str, nn.Module] = {"flatten": nn.Flatten()}
        features = prod(input_shape)
        for number, size in enumerate(sizes, start=1):
            # The normalisation's shift takes the place of the bias.
            layers[f"linear{number}"] = nn.Linear(features, size, bias=bias and not batch_norm)
            if batch_norm:
                layers[f"norm{number}"] = nn.BatchNorm1d(size)
            layers[f"neuron{number}"] = make_neuron(neuron, size)
            if dropout:
                layers[f"dropout{number}"] = dropout_layer(dropout, dropout_mask)
            features = size
        layers |= readout_layers(features, classes, readout, bias)
        draw_weights(layers, weight_init)
        self.stack = Stack(layers)

    def forward(self, x: torch.Tensor, state: StackState | NotCarried | None = NOT_CARRIED) -> Any:
        return self.stack(x, state)
