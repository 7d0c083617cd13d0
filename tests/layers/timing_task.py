"""A classification task that only relative spike times solve, and a network for it."""

from __future__ import annotations

import torch
from torch import nn
from torch.nn import functional

import snn
from snn.layers import DelayedLinear, anneal_sigma, clamp_delays, delay_parameter_groups, round_delays

GAPS = (-25, -15, -5, 5, 15, 25)
CLASSES, LATEST_START, MAX_DELAY = len(GAPS), 10, 30
STEPS = LATEST_START + 55 + MAX_DELAY


def sequences(count: int, seed: int) -> tuple[torch.Tensor, torch.Tensor]:
    """Spikes [T, count, 2] and labels: each channel fires once, the second GAPS[label] steps after the first.

    The pair starts at a random step, and the gap is off by -1, 0 or 1.
    """
    draw = torch.Generator().manual_seed(seed)
    labels = torch.arange(count) % CLASSES
    first = 26 + torch.randint(0, LATEST_START, (count,), generator=draw)
    second = first + torch.tensor(GAPS)[labels] + torch.randint(-1, 2, (count,), generator=draw)
    x = torch.zeros(STEPS, count, 2)
    sample = torch.arange(count)
    x[first, sample, 0] = 1.0
    x[second, sample, 1] = 1.0
    return x, labels


class Net(nn.Module):
    """One layer of delayed synapses, short-lived neurons, spike counts into a linear readout."""

    def __init__(self, hidden: int, delays: str) -> None:
        super().__init__()
        self.delayed = DelayedLinear(2, hidden, MAX_DELAY)
        if delays == "none":
            nn.init.zeros_(self.delayed.positions.delay)
        if delays != "learned":
            round_delays(self.delayed)
        self.norm = nn.BatchNorm1d(hidden)
        self.neuron = snn.LIF(tau=2.0, decay_input=False, detach_reset=True, step_mode="m")
        self.readout = nn.Linear(hidden, CLASSES)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        current = self.norm(self.delayed(x).flatten(0, 1)).unflatten(0, (len(x), -1))
        logits: torch.Tensor = self.readout(self.neuron(current).sum(0))
        return logits


def accuracy(delays: str, hidden: int, epochs: int, samples: int, seed: int, factor: float = 20.0) -> float:
    """Share of new sequences that a network with "learned", "random" or "none" delays tells right."""
    torch.manual_seed(seed)
    net = Net(hidden, delays)
    groups = delay_parameter_groups(net, 0.01, factor) if delays == "learned" else net.parameters()
    optimizer = torch.optim.Adam(groups, lr=0.01)
    schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, epochs)
    x, labels = sequences(samples, seed)
    for epoch in range(epochs):
        anneal_sigma(net, epoch, 2 * epochs)
        for rows in torch.randperm(samples).split(60):
            optimizer.zero_grad()
            functional.cross_entropy(net(x[:, rows]), labels[rows]).backward()
            optimizer.step()
            clamp_delays(net)
        schedule.step()
    x, labels = sequences(600, seed + 100)
    with torch.no_grad():
        return float((net.eval()(x).argmax(1) == labels).float().mean())
