"""VGG-like network of ordinary, non-spiking neurons for small colour images."""

from collections.abc import Sequence
from typing import Literal

import torch
from torch import nn

from snn.models.analog_mlp import AnalogNeuron, analog_neuron
from snn.models.sizes import positive_sizes
from snn.models.stack import Stack


class AnalogVGG(nn.Module):
    """Stages of 3x3 convolutions, each followed by an activation and each stage by 2x2 pooling; then dense layers.

    Weights have variance 2 / inputs (He et al.), biases are zero.

    Args:
        input_shape: (C, H, W).
        classes: number of logits.
        stages: output channels of each convolution, a list for each stage.
        hidden: neurons of each fully connected layer.
        pool: "max" or "average".
        neuron: ReLU, Tanh, Sigmoid, LeakyReLU, Identity, QCFS or QuantAct, or {"class": name, **arguments}.
        batch_norm: normalise after each convolution and each fully connected layer but the last; they then have no bias.
    Input: [T, B, C, H, W]; nothing is carried from step to step.
    Returns: logits [T, B, classes].
    Raises: ValueError for a wrong shape, size, pool or neuron.
    Source: K. Simonyan and A. Zisserman, ICLR 2015.

    >>> AnalogVGG(input_shape=(3, 32, 32), classes=10, stages=[[8], [8, 8]], hidden=[16])(torch.zeros(1, 2, 3, 32, 32)).shape
    torch.Size([1, 2, 10])
    """

    def __init__(
        self,
        input_shape: Sequence[int],
        classes: int,
        stages: Sequence[Sequence[int]] = ((32, 32), (64, 64), (128, 128)),
        hidden: Sequence[int] = (256,),
        pool: Literal["max", "average"] = "max",
        neuron: AnalogNeuron = "ReLU",
        batch_norm: bool = False,
    ) -> None:
        super().__init__()
        if len(input_shape) != 3:
            raise ValueError(f"input_shape must be (C, H, W), got {tuple(input_shape)}")
        if pool not in ("max", "average"):
            raise ValueError(f"pool must be 'max' or 'average', got {pool!r}")
        C, H, W = input_shape
        if min(H, W) < 2 ** len(stages):
            raise ValueError(f"stages: {len(stages)} stages halve {(H, W)} below one pixel")
        layers: dict[str, nn.Module] = {}
        for stage, sizes in enumerate(stages, start=1):
            for number, out in enumerate(positive_sizes("stages", sizes), start=1):
                layers[f"conv{stage}_{number}"] = nn.Conv2d(C, out, 3, padding=1, bias=not batch_norm)
                if batch_norm:
                    layers[f"norm{stage}_{number}"] = nn.BatchNorm2d(out)
                layers[f"neuron{stage}_{number}"] = analog_neuron(neuron)
                C = out
            layers[f"pool{stage}"] = nn.MaxPool2d(2) if pool == "max" else nn.AvgPool2d(2)
            H, W = H // 2, W // 2
        layers["flatten"] = nn.Flatten()
        features = C * H * W
        for number, size in enumerate(positive_sizes("hidden", hidden), start=1):
            layers[f"linear{number}"] = nn.Linear(features, size, bias=not batch_norm)
            if batch_norm:
                layers[f"norm{number}"] = nn.BatchNorm1d(size)
            layers[f"neuron{number}"] = analog_neuron(neuron)
            features = size
        layers["readout"] = nn.Linear(features, classes)
        for layer in layers.values():
            if isinstance(layer, nn.Linear | nn.Conv2d):
                nn.init.kaiming_normal_(layer.weight, nonlinearity="linear" if layer is layers["readout"] else "relu")
                if layer.bias is not None:
                    nn.init.zeros_(layer.bias)
        self.stack = Stack(layers)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        logits: torch.Tensor = self.stack(x)
        return logits
