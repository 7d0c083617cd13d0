"""Small networks that the conversion tests share."""

from __future__ import annotations

from typing import Any

import torch
import torch.nn.functional as F
from torch import nn


class Functional(nn.Module):
    """Convolutions, batch norm and residual sum in the words of torch.nn.functional and tensor methods."""

    def __init__(self, classes: int = 5) -> None:
        super().__init__()
        self.first = nn.Conv2d(2, 6, 3, padding=1)
        self.norm = nn.BatchNorm2d(6)
        self.second = nn.Conv2d(6, 6, 3, padding=1, groups=2, bias=False)
        self.norm2 = nn.BatchNorm2d(6)
        self.deep = nn.Conv2d(6, 6, 3, stride=2, padding=1, groups=6)
        self.linear = nn.Linear(2 * 6 * 4, classes)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        B = x.shape[0]
        x = F.relu(self.norm(self.first(x)))
        x = torch.relu(x + self.norm2(self.second(x)).relu())
        x = torch.cat([x, self.norm2(x)], dim=1)
        x = x[:, :6] + 0.1
        x = F.dropout(self.deep(x).clamp(min=0), 0.5, self.training)
        x = F.avg_pool2d(x, 2)
        return self.linear(torch.cat([x, x * 0.5], 1).view(B, -1))


def random_norms(network: nn.Module, seed: int = 0) -> nn.Module:
    """Gives every batch normalisation statistics and weights that matter; evaluation mode."""
    generator = torch.Generator().manual_seed(seed)
    for module in network.modules():
        if isinstance(module, nn.modules.batchnorm._BatchNorm):
            values: Any = module
            values.running_mean.copy_(torch.randn(values.num_features, generator=generator) * 0.3)
            values.running_var.copy_(torch.rand(values.num_features, generator=generator) + 0.5)
            if values.weight is None:
                continue
            values.weight.data.copy_(torch.rand(values.num_features, generator=generator) + 0.5)
            values.bias.data.copy_(torch.randn(values.num_features, generator=generator) * 0.3)
    return network.eval()


def functional_network(seed: int = 0, dtype: torch.dtype = torch.float32) -> nn.Module:
    torch.manual_seed(seed)
    return random_norms(Functional(), seed).to(dtype)


def images(count: int, *shape: int, seed: int = 0, dtype: torch.dtype = torch.float32) -> torch.Tensor:
    return torch.randn(count, *shape, generator=torch.Generator().manual_seed(seed), dtype=dtype)
