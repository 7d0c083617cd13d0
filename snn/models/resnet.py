"""Small residual network for colour images, with or without membrane normalisation."""

from collections.abc import Mapping, Sequence
from typing import Any, Literal

import torch
from torch import nn

from snn.layers.norm import MPBN
from snn.models.neuron_choice import make_neuron
from snn.models.sizes import positive_sizes


class _Block(nn.Module):
    """convolution, norm, neuron, convolution, norm, plus shortcut, neuron; the shortcut of a change of shape is pooled."""

    def __init__(self, inputs: int, outputs: int, stride: int, first: nn.Module, second: nn.Module) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(inputs, outputs, 3, stride, 1, bias=False)
        self.norm1 = nn.BatchNorm2d(outputs)
        self.neuron1 = first
        self.conv2 = nn.Conv2d(outputs, outputs, 3, 1, 1, bias=False)
        self.norm2 = nn.BatchNorm2d(outputs)
        changes = stride != 1 or inputs != outputs
        pooled = nn.AvgPool2d(stride) if stride != 1 else nn.Identity()
        projected = nn.Sequential(pooled, nn.Conv2d(inputs, outputs, 1, bias=False), nn.BatchNorm2d(outputs))
        self.shortcut = projected if changes else nn.Identity()
        self.neuron2 = second

    def forward(self, z: torch.Tensor) -> torch.Tensor:
        T = len(z)
        flat = z.flatten(0, 1)
        hidden = self.neuron1(self.norm1(self.conv1(flat)).unflatten(0, (T, -1)))
        current = self.norm2(self.conv2(hidden.flatten(0, 1))) + self.shortcut(flat)
        out: torch.Tensor = self.neuron2(current.unflatten(0, (T, -1)))
        return out


class SpikingResNet(nn.Module):
    """Residual spiking network: a stem, stages of residual blocks, pooling over pixels, a linear readout at every step.

    Args:
        input_shape: (C, H, W).
        classes: number of logits.
        channels: output channels of each stage; every stage after the first halves height and width.
        blocks: residual blocks of each stage.
        neuron: {"class": name in `snn`, **arguments} or a name.
        membrane_norm: None; "channel" or "element" for an MPBN in every layer of neurons.
        carry: of the MPBN, "raw" or "normalised".
    Input: [T, B, C, H, W].
    Returns: logits [T, B, classes].
    Raises: ValueError for a wrong shape, size, neuron or norm.
    Source: layout of Guo et al., Membrane Potential Batch Normalization for SNNs, ICCV 2023 (modified ResNet), with fewer
        channels and a single-convolution stem.

    >>> SpikingResNet(input_shape=(3, 32, 32), classes=10, channels=(8, 16))(torch.zeros(2, 3, 3, 32, 32)).shape
    torch.Size([2, 3, 10])
    """

    def __init__(
        self,
        input_shape: Sequence[int],
        classes: int,
        channels: Sequence[int] = (32, 64, 128),
        blocks: Sequence[int] | None = None,
        neuron: str | Mapping[str, Any] = "LIF",
        membrane_norm: Literal["channel", "element"] | None = None,
        carry: Literal["raw", "normalised"] = "raw",
    ) -> None:
        super().__init__()
        channels = positive_sizes("channels", channels)
        blocks = [1] * len(channels) if blocks is None else positive_sizes("blocks", blocks)
        if len(input_shape) != 3:
            raise ValueError(f"input_shape must be (C, H, W), got {tuple(input_shape)}")
        if len(blocks) != len(channels):
            raise ValueError(f"blocks must have one number per stage, {len(channels)}, got {blocks}")
        if membrane_norm not in (None, "channel", "element"):
            raise ValueError(f"membrane_norm must be 'channel', 'element' or None, got {membrane_norm!r}")
        if min(input_shape[1:]) % 2 ** (len(channels) - 1):
            raise ValueError(f"channels: {tuple(input_shape[1:])} cannot be halved {len(channels) - 1} times")
        C, H, W = input_shape

        def neurons(count: int, height: int, width: int) -> nn.Module:
            choice: dict[str, Any] = {"class": neuron} if isinstance(neuron, str) else dict(neuron)
            if membrane_norm is not None:
                features = count if membrane_norm == "channel" else (count, height, width)
                choice["membrane_norm"] = MPBN(features, carry=carry)
            return make_neuron(choice)

        self.conv = nn.Conv2d(C, channels[0], 3, padding=1, bias=False)
        self.norm = nn.BatchNorm2d(channels[0])
        self.neuron = neurons(channels[0], H, W)
        stages: list[nn.Module] = []
        inputs = channels[0]
        for stage, (outputs, count) in enumerate(zip(channels, blocks, strict=True)):
            for number in range(count):
                stride = 2 if stage > 0 and number == 0 else 1
                H, W = H // stride, W // stride
                stages.append(_Block(inputs, outputs, stride, neurons(outputs, H, W), neurons(outputs, H, W)))
                inputs = outputs
        self.stages = nn.ModuleList(stages)
        self.pool = nn.AdaptiveAvgPool2d(1)
        self.readout = nn.Linear(inputs, classes)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        T = len(x)
        once = T > 1 and x.stride(0) == 0  # a repeated image passes the stem's convolution once
        current = self.norm(self.conv(x[0] if once else x.flatten(0, 1)))
        z = self.neuron(current.expand(T, *current.shape) if once else current.unflatten(0, (T, -1)))
        for block in self.stages:
            z = block(z)
        logits: torch.Tensor = self.readout(self.pool(z.flatten(0, 1)).flatten(1))
        return logits.unflatten(0, (T, -1))
