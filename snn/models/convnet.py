"""Small convolutional spiking network for images such as MNIST."""

from collections.abc import Sequence
from typing import Any

import torch
from torch import nn

from snn.models.neuron_choice import NeuronChoice, make_neuron
from snn.models.readout import Readout, readout_layers
from snn.models.sizes import positive_sizes
from snn.models.stack import NOT_CARRIED, NotCarried, Stack, StackState


class SpikingConvNet(nn.Module):
    """Blocks of convolution, batch normalisation, average pooling and neurons; then one hidden layer and the readout.

    Everything between two layers of neurons is linear at inference, so each block folds into one weighted sum of
    spikes, which event-driven hardware computes; pooling before the neurons also leaves a quarter of them to update.

    Args:
        input_shape: (C, H, W).
        classes: number of logits.
        channels: output channels of each block; each block halves height and width.
        hidden: neurons of the fully connected layer.
        neuron: name in `snn`, {"class": name, **arguments}, or a function that makes a layer of neurons.
        kernel_size: of the convolutions, odd, in pixels.
        readout: "linear", or "LI" for a leaky integrator after it.
    Input: [T, B, C, H, W].
    Returns: logits [T, B, classes]; with `state=` also the neurons' states, see `Stack`.
    Raises: ValueError for a wrong shape, size, neuron or readout.

    >>> SpikingConvNet(input_shape=(1, 28, 28), classes=10)(torch.zeros(4, 2, 1, 28, 28)).shape
    torch.Size([4, 2, 10])
    """

    def __init__(
        self,
        input_shape: Sequence[int],
        classes: int,
        channels: Sequence[int] = (16, 32),
        hidden: int = 128,
        neuron: NeuronChoice = "LIF",
        kernel_size: int = 3,
        readout: Readout = "linear",
    ) -> None:
        super().__init__()
        if len(input_shape) != 3:
            raise ValueError(f"input_shape must be (C, H, W), got {tuple(input_shape)}")
        positive_sizes("hidden", [hidden])
        if kernel_size < 1 or kernel_size % 2 == 0:
            raise ValueError(f"kernel_size must be odd and positive, got {kernel_size}")
        C, H, W = input_shape
        layers: dict[str, nn.Module] = {}
        for number, out in enumerate(positive_sizes("channels", channels), start=1):
            if min(H, W) < 2:
                raise ValueError(f"channels: {len(channels)} blocks halve {tuple(input_shape[1:])} below one pixel")
            layers[f"conv{number}"] = nn.Conv2d(C, out, kernel_size, padding=kernel_size // 2, bias=False)
            layers[f"norm{number}"] = nn.BatchNorm2d(out)
            layers[f"pool{number}"] = nn.AvgPool2d(2)
            layers[f"neuron{number}"] = make_neuron(neuron)
            C, H, W = out, H // 2, W // 2
        layers["flatten"] = nn.Flatten()
        layers["linear"] = nn.Linear(C * H * W, hidden, bias=False)
        layers["norm"] = nn.BatchNorm1d(hidden)
        layers["neuron"] = make_neuron(neuron, hidden)
        self.stack = Stack({**layers, **readout_layers(hidden, classes, readout)})

    def forward(self, x: torch.Tensor, state: StackState | NotCarried | None = NOT_CARRIED) -> Any:
        return self.stack(x, state)
