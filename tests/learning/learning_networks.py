"""Networks, batches and reference gradients that the tests of the learning rules share."""

from __future__ import annotations

from collections.abc import Callable
from itertools import pairwise

import torch
from torch import nn

from snn.learning.linear_maps import Gradients
from snn.models import Residual
from snn.training.loss import SequenceLoss


def mlp(neuron: Callable[[], nn.Module] = nn.ReLU, sizes: tuple[int, ...] = (8, 16, 16, 16, 4)) -> nn.Sequential:
    layers: list[nn.Module] = []
    for number, (fan_in, fan_out) in enumerate(pairwise(sizes)):
        layers += [nn.Linear(fan_in, fan_out)] + ([neuron()] if number < len(sizes) - 2 else [])
    return nn.Sequential(*layers)


def linear_network() -> nn.Sequential:
    return mlp(nn.Identity, (6, 7, 5, 7, 3))


def conv_then_pool() -> nn.Sequential:
    """Pooling before and after the activation, of both kinds, a stride, and two linear layers in a row."""
    return nn.Sequential(
        nn.Conv2d(2, 4, 3, padding=1),
        nn.ReLU(),
        nn.MaxPool2d(2),
        nn.Conv2d(4, 6, 3, stride=1, bias=False),
        nn.AvgPool2d(2, padding=1),
        nn.Tanh(),
        nn.Flatten(),
        nn.Linear(24, 5),
        nn.Linear(5, 4),
    )


def pool_before_activation() -> nn.Sequential:
    return nn.Sequential(
        nn.Conv2d(2, 4, (3, 5), padding="same", dilation=(2, 1)),
        nn.MaxPool2d(3, stride=2, padding=1),
        nn.ReLU(),
        nn.Conv2d(4, 6, 2, dilation=2, groups=2),
        nn.Sigmoid(),
        nn.AdaptiveAvgPool2d(1),
        nn.Flatten(),
        nn.Linear(6, 4),
    )


def residual_network() -> nn.Sequential:
    body = nn.Sequential(nn.Conv2d(4, 4, 3, padding=1), nn.ReLU(), nn.Conv2d(4, 4, 1))
    wide = nn.Sequential(nn.Conv2d(4, 6, 3, padding=1), nn.LeakyReLU(0.1))
    return nn.Sequential(
        nn.Conv2d(2, 4, 3, padding=1),
        nn.ReLU(),
        Residual(body),
        nn.ReLU(),
        nn.MaxPool2d(2),
        Residual(wide, nn.Conv2d(4, 6, 1)),
        nn.AdaptiveAvgPool2d(2),
        nn.Flatten(),
        nn.Linear(24, 4),
    )


def conv_in_one_dimension() -> nn.Sequential:
    return nn.Sequential(nn.Conv1d(2, 4, 3, stride=2, padding=1), nn.ReLU6(), nn.Flatten(), nn.Linear(16, 4))


NETWORKS: dict[str, tuple[Callable[[], nn.Module], tuple[int, ...]]] = {
    "relu_mlp": (mlp, (8,)),
    "tanh_mlp": (lambda: mlp(nn.Tanh), (8,)),
    "conv_then_pool": (conv_then_pool, (2, 8, 8)),
    "pool_before_activation": (pool_before_activation, (2, 8, 8)),
    "conv_in_one_dimension": (conv_in_one_dimension, (2, 8)),
    "residual": (residual_network, (2, 8, 8)),
}


def batch(shape: tuple[int, ...], B: int = 9, classes: int = 4) -> tuple[torch.Tensor, torch.Tensor]:
    draw = torch.Generator().manual_seed(3)
    x = torch.randn(B, *shape, generator=draw, dtype=torch.float64)
    return x, torch.randint(classes, (B,), generator=draw)


def true_gradients(net: nn.Module, loss: SequenceLoss, x: torch.Tensor, y: torch.Tensor) -> Gradients:
    parameters = list(net.parameters())
    return dict(zip(parameters, torch.autograd.grad(loss(net(x).unsqueeze(0), y), parameters), strict=True))


def rule_gradients(rule: Callable[..., object], net: nn.Module, x: torch.Tensor, y: torch.Tensor) -> Gradients:
    net.zero_grad()
    rule(net, x, y, lambda loss: loss.backward())
    found = {}
    for parameter in net.parameters():
        assert parameter.grad is not None
        found[parameter] = parameter.grad.clone()
    return found


def relative_errors(found: Gradients, expected: Gradients) -> list[float]:
    return [float((found[p] - g).norm() / g.norm()) for p, g in expected.items()]


def cosines(found: Gradients, expected: Gradients) -> list[float]:
    return [float(torch.cosine_similarity(found[p].flatten(), g.flatten(), 0)) for p, g in expected.items()]
