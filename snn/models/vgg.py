"""VGG-like spiking network for small colour images such as CIFAR-10."""

from collections.abc import Sequence
from typing import Any

import torch
from torch import nn

from snn.models.neuron_choice import NeuronChoice, make_neuron
from snn.models.readout import Readout, readout_layers
from snn.models.sizes import positive_sizes
from snn.models.stack import NOT_CARRIED, NotCarried, Stack, StackState


class SpikingVGG(nn.Module):
    """Pairs of 3x3 convolutions with neurons after each, pooling by averages between the pairs.

    Stage n: (convolution, batch normalisation, neuron), (convolution, batch normalisation, average pooling, neuron).
    After the last stage the remaining pixels are averaged and a linear readout gives logits at every step.

    Args:
        input_shape: (C, H, W).
        classes: number of logits.
        channels: output channels of each stage; each stage halves height and width.
        neuron: name in `snn`, {"class": name, **arguments}, or a function that makes a layer of neurons.
        readout: "linear", or "LI" for a leaky integrator after it.
    Input: [T, B, C, H, W].
    Returns: logits [T, B, classes]; with `state=` also the neurons' states, see `Stack`.
    Raises: ValueError for a wrong shape, neuron or readout.
    Source: K. Simonyan and A. Zisserman, ICLR 2015, for the pairs of 3x3 convolutions; fewer channels, no hidden
        fully connected layers, pooling by averages.

    >>> SpikingVGG(input_shape=(3, 32, 32), classes=10, channels=(8, 16))(torch.zeros(2, 1, 3, 32, 32)).shape
    torch.Size([2, 1, 10])
    """

    def __init__(
        self,
        input_shape: Sequence[int],
        classes: int,
        channels: Sequence[int] = (64, 128, 256),
        neuron: NeuronChoice = "LIF",
        readout: Readout = "linear",
    ) -> None:
        super().__init__()
        if len(input_shape) != 3:
            raise ValueError(f"input_shape must be (C, H, W), got {tuple(input_shape)}")
        channels = positive_sizes("channels", channels)
        if min(input_shape[1:]) < 2 ** len(channels):
            raise ValueError(f"channels: {len(channels)} stages halve {tuple(input_shape[1:])} below one pixel")
        C = input_shape[0]
        layers: dict[str, nn.Module] = {}
        for stage, out in enumerate(channels, start=1):
            for half in "ab":
                layers[f"conv{stage}{half}"] = nn.Conv2d(C, out, 3, padding=1, bias=False)
                layers[f"norm{stage}{half}"] = nn.BatchNorm2d(out)
                if half == "b":
                    layers[f"pool{stage}"] = nn.AvgPool2d(2)
                layers[f"neuron{stage}{half}"] = make_neuron(neuron)
                C = out
        layers["average"] = nn.AdaptiveAvgPool2d(1)
        layers["flatten"] = nn.Flatten()
        self.stack = Stack({**layers, **readout_layers(C, classes, readout)})

    def forward(self, x: torch.Tensor, state: StackState | NotCarried | None = NOT_CARRIED) -> Any:
        return self.stack(x, state)
