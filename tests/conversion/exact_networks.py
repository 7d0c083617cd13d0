"""Quantised networks with dyadic numbers that the tests of exact conversion share."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import nn

from snn.conversion.activations import QuantAct


class Branched(nn.Module):
    """Two branches with unsigned and signed quantisers, concatenation, average pooling, identity sum, maximum pooling."""

    def __init__(self) -> None:
        super().__init__()
        self.stem = nn.Conv2d(2, 8, 3, padding=1)
        self.q1 = QuantAct(16, step=0.25)
        self.wide = nn.Conv2d(8, 6, 3, padding=1)
        self.q2 = QuantAct(16, step=0.5)
        self.narrow = nn.Conv2d(8, 6, 1)
        self.q3 = QuantAct(16, signed=True, step=0.25)
        self.mixed = nn.Conv2d(12, 12, 3, padding=1)
        self.q4 = QuantAct(16, signed=True, per_channel=True)
        self.q4.set_step(2.0 ** -torch.arange(12).remainder(3).view(12, 1, 1))
        self.pool = nn.MaxPool2d(2)
        self.readout = nn.Linear(48, 5)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x = self.q1(F.relu(self.stem(x)))
        x = torch.cat([F.relu(self.q2(self.wide(x))), self.q3(self.narrow(x))], 1)
        x = F.avg_pool2d(x, 2)
        x = self.q4(self.mixed(x) + x)
        return self.readout(self.pool(x).flatten(1))


def round_weights(network: nn.Module, denominator: int) -> nn.Module:
    """Every weight becomes a multiple of 1 / denominator; steps stay."""
    with torch.no_grad():
        for name, parameter in network.named_parameters():
            if not name.endswith("step"):
                parameter.copy_((parameter * denominator).round() / denominator)
    return network


def branched(seed: int = 0) -> nn.Module:
    torch.manual_seed(seed)
    net = Branched().double().eval().requires_grad_(False)
    for name, parameter in net.named_parameters():
        if name.endswith("weight"):
            parameter.mul_(2.5)  # so that neurons reach their bounds
    return round_weights(net, 32)


def dyadic_images(count: int, *shape: int, seed: int = 0) -> torch.Tensor:
    """Multiples of 1/16 in [-2, 2]."""
    return torch.randint(-32, 33, (count, *shape), generator=torch.Generator().manual_seed(seed)).double() / 16
