"""VGG-like spiking network for small colour images such as CIFAR-10."""

from collections.abc import Sequence
from typing import Any

import torch
from torch import nn

from snn.models.dropout import dropout_layer
from snn.models.neuron_choice import NeuronChoice, make_neuron
from snn.models.readout import Readout, readout_layers
from snn.models.sizes import positive_sizes
from snn.models.stack import NOT_CARRIED, NotCarried, Stack, StackState
from snn.models.weight_init import WeightInit, draw_weights


class SpikingVGG(nn.Module):
    """Pairs of 3x3 convolutions with neurons after each, pooling by averages between the pairs.

    Stage n: (convolution, batch normalisation, neuron), (convolution, batch normalisation, average pooling, neuron).
    After the last stage the remaining pixels are averaged, or fully connected layers (linear, batch normalisation, neuron)
    follow, and a linear readout gives logits at every step.

    Args:
        input_shape: (C, H, W), or (T, C, H, W) of sequences.
        classes: number of logits.
        channels: output channels of each stage; each stage halves height and width.
        neuron: name in `snn`, {"class": name, **arguments}, or a function that makes a layer of neurons.
        readout: "linear", or "LI" for a leaky integrator after it.
        hidden: neurons of each fully connected layer; empty averages the pixels instead.
        batch_norm: False leaves the normalisations out and gives the layers before them biases, the form of a network whose
            normalisations were folded into its weights.
        norm_scale: starting value of the normalisations' scale.
        dropout: share of each layer's spikes set to zero in training, one choice for all steps of a call.
        weight_init: "torch", or "he" for weights of variance 2 / inputs.
    Input: [T, B, C, H, W].
    Returns: logits [T, B, classes]; with `state=` also the neurons' states, see `Stack`.
    Raises: ValueError for a wrong shape, neuron or readout.
    Source: K. Simonyan and A. Zisserman, ICLR 2015, for the pairs of 3x3 convolutions; fewer channels, pooling by
        averages.

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
        hidden: Sequence[int] = (),
        batch_norm: bool = True,
        norm_scale: float = 1.0,
        dropout: float = 0.0,
        weight_init: WeightInit = "torch",
    ) -> None:
        super().__init__()
        if len(input_shape) not in (3, 4):
            raise ValueError(f"input_shape must be (C, H, W) or (T, C, H, W), got {tuple(input_shape)}")
        if not norm_scale > 0:
            raise ValueError(f"norm_scale must be > 0, got {norm_scale}")
        C, H, W = input_shape[-3:]
        channels = positive_sizes("channels", channels)
        if min(H, W) < 2 ** len(channels):
            raise ValueError(f"channels: {len(channels)} stages halve {(H, W)} below one pixel")
        layers: dict[str, nn.Module] = {}
        for stage, out in enumerate(channels, start=1):
            for half in "ab":
                layers[f"conv{stage}{half}"] = nn.Conv2d(C, out, 3, padding=1, bias=not batch_norm)
                if batch_norm:
                    norm = layers[f"norm{stage}{half}"] = nn.BatchNorm2d(out)
                    nn.init.constant_(norm.weight, norm_scale)
                if half == "b":
                    layers[f"pool{stage}"] = nn.AvgPool2d(2)
                layers[f"neuron{stage}{half}"] = make_neuron(neuron)
                if dropout:
                    layers[f"dropout{stage}{half}"] = dropout_layer(dropout, "sequence")
                C = out
        H, W = H >> len(channels), W >> len(channels)
        if not hidden:
            layers["average"] = nn.AdaptiveAvgPool2d(1)
        layers["flatten"] = nn.Flatten()
        features = C if not hidden else C * H * W
        for number, size in enumerate(positive_sizes("hidden", hidden), start=1):
            layers[f"linear{number}"] = nn.Linear(features, size, bias=not batch_norm)
            if batch_norm:
                layers[f"norm{number}"] = flat_norm = nn.BatchNorm1d(size)
                nn.init.constant_(flat_norm.weight, norm_scale)
            layers[f"neuron{number}"] = make_neuron(neuron, size)
            features = size
        layers |= readout_layers(features, classes, readout)
        draw_weights(layers, weight_init)
        self.stack = Stack(layers)

    def forward(self, x: torch.Tensor, state: StackState | NotCarried | None = NOT_CARRIED) -> Any:
        return self.stack(x, state)
