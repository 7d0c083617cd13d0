"""A small convolutional network and the digits of scikit-learn, trained in seconds."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import nn


def digits() -> tuple[torch.Tensor, torch.Tensor, torch.Tensor, torch.Tensor]:
    """Training images [1297, 1, 8, 8] in 0..1 and labels, test images and labels."""
    from sklearn.datasets import load_digits

    data = load_digits()
    x = torch.tensor(data.images, dtype=torch.float32).unsqueeze(1) / 16.0
    y = torch.tensor(data.target)
    order = torch.randperm(len(x), generator=torch.Generator().manual_seed(0))
    x, y = x[order], y[order]
    return x[:1297], y[:1297], x[1297:], y[1297:]


def digits_network(activation: Callable[[], nn.Module]) -> nn.Sequential:
    layers: list[nn.Module] = []
    for before, after, pool in ((1, 16, False), (16, 32, True), (32, 32, True)):
        layers += [nn.Conv2d(before, after, 3, padding=1), nn.BatchNorm2d(after), activation()]
        layers += [nn.AvgPool2d(2)] if pool else []
    return nn.Sequential(*layers, nn.Flatten(), nn.Linear(128, 64), activation(), nn.Linear(64, 10))


def trained_on_digits(activation: Callable[[], nn.Module], epochs: int = 12, seed: int = 0) -> nn.Sequential:
    """The network after training with Adam and a one-cycle rate."""
    torch.manual_seed(seed)
    x, y, _, _ = digits()
    network = digits_network(activation)
    optimizer = torch.optim.Adam(network.parameters(), lr=5e-3)
    steps = epochs * (len(x) // 64)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, 1e-2, total_steps=steps)
    for _ in range(epochs):
        order = torch.randperm(len(x))
        for part in order[: len(x) // 64 * 64].split(64):
            optimizer.zero_grad()
            nn.functional.cross_entropy(network(x[part]), y[part]).backward()
            optimizer.step()
            schedule.step()
    return network.eval()
