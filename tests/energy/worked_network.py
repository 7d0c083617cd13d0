"""The small network whose counts and energies are known under every convention: prescribed spikes, integer formulas."""

from __future__ import annotations

from math import prod

import torch
from torch import nn

T = 4


class Replay(nn.Module):
    """Puts out prescribed spikes [T, ...], one step per call or all steps at once; declared to be neurons."""

    def __init__(self, spikes: torch.Tensor, all_steps: bool = False) -> None:
        super().__init__()
        self.spikes = spikes
        self.all_steps = all_steps
        self.step = 0

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        if self.all_steps:
            return self.spikes.unsqueeze(1).expand(T, len(x) // T, *self.spikes.shape[1:]).flatten(0, 1).to(x)
        z = self.spikes[self.step % T]
        self.step += 1
        return z.expand(len(x), *z.shape).to(x)


def grid(*sizes: int) -> tuple[torch.Tensor, ...]:
    return torch.meshgrid(*(torch.arange(size) for size in sizes), indexing="ij")


def spikes() -> dict[str, torch.Tensor]:
    """Prescribed spikes of the four layers, each [T, ...]."""
    c, i, j = grid(4, 8, 8)
    d, k, m = grid(8, 4, 4)
    f, o = torch.arange(16), torch.arange(10)
    steps = range(T)
    return {
        "s1": torch.stack([(c + 2 * i + 3 * j + 5 * t) % 8 == 0 for t in steps]),
        "s2": torch.stack([(3 * d + k + 2 * m + t) % 5 == 0 for t in steps]),
        "s3": torch.stack([(f + t) % 4 == 0 for t in steps]),
        "s4": torch.stack([(o + 3 * t) % 10 == 0 for t in steps]),
    }


def image() -> torch.Tensor:
    """The image [1, 1, 8, 8]; 54 of 64 pixels are not zero."""
    i, j = grid(8, 8)
    return (((3 * i + 5 * j) % 7) / 8).view(1, 1, 8, 8)


def network(bias: bool = True, all_steps: bool = False) -> nn.Sequential:
    """c1, s1, c2, s2, f1, s3, f2, s4 with the prescribed weights."""
    z = spikes()
    net = nn.Sequential()
    layers = {
        "c1": nn.Conv2d(1, 4, 3, padding=1, bias=bias),
        "s1": Replay(z["s1"], all_steps),
        "c2": nn.Conv2d(4, 8, 3, stride=2, padding=1, bias=bias),
        "s2": Replay(z["s2"], all_steps),
        "flatten": nn.Flatten(),
        "f1": nn.Linear(128, 16, bias=bias),
        "s3": Replay(z["s3"], all_steps),
        "f2": nn.Linear(16, 10, bias=bias),
        "s4": Replay(z["s4"], all_steps),
    }
    for name, layer in layers.items():
        net.add_module(name, layer)
        if isinstance(layer, nn.Conv2d | nn.Linear):
            n = torch.arange(prod(layer.weight.shape))
            layer.weight.data = ((((7 * n) % 11) - 5) / 8).view(layer.weight.shape)
            if bias:
                layer.bias.data.fill_(0.125)
    return net


def sequence(samples: int = 1) -> torch.Tensor:
    """The image at every step, [T, B, 1, 8, 8]."""
    return image().expand(T, samples, 1, 8, 8).clone()
