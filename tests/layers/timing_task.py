"""A classification task that only relative spike times solve, and a network for it."""

from __future__ import annotations

import torch
from torch import nn
from torch.nn import functional

import snn
from snn.layers import DelayedLinear, anneal_sigma, clamp_delays, delay_parameter_groups, round_delays

CHANNELS, CLASSES, SPACING, LATEST_START, MAX_DELAY = 5, 8, 7, 8, 30
STEPS = SPACING * CHANNELS + LATEST_START + MAX_DELAY // 3


def sequences(count: int, seed: int) -> tuple[torch.Tensor, torch.Tensor]:
    """Spikes [T, count, CHANNELS] and labels: every channel fires once, SPACING steps apart, in the order of the class.

    The whole sequence starts at a random step, and every spike is off by -1, 0 or 1.
    """
    fixed = torch.Generator().manual_seed(7)
    times = SPACING * torch.stack([torch.randperm(CHANNELS, generator=fixed) for _ in range(CLASSES)])
    draw = torch.Generator().manual_seed(seed)
    labels = torch.arange(count) % CLASSES
    start = torch.randint(1, LATEST_START, (count, 1), generator=draw)
    at = times[labels] + start + torch.randint(-1, 2, (count, CHANNELS), generator=draw)
    x = torch.zeros(STEPS, count, CHANNELS)
    sample, channel = torch.meshgrid(torch.arange(count), torch.arange(CHANNELS), indexing="ij")
    x[at, sample, channel] = 1.0
    return x, labels


class Net(nn.Module):
    """One layer of delayed synapses, short-lived neurons, spike counts into a linear readout."""

    def __init__(self, hidden: int, delays: str) -> None:
        super().__init__()
        self.delayed = DelayedLinear(CHANNELS, hidden, MAX_DELAY)
        if delays == "none":
            nn.init.zeros_(self.delayed.positions.delay)
        if delays != "learned":
            round_delays(self.delayed)
        self.norm = nn.BatchNorm1d(hidden)
        self.neuron = snn.LIF(tau=1.25, decay_input=False, detach_reset=True, step_mode="m")
        self.readout = nn.Linear(hidden, CLASSES)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        current = self.norm(self.delayed(x).flatten(0, 1)).unflatten(0, (len(x), -1))
        logits: torch.Tensor = self.readout(self.neuron(current).sum(0))
        return logits


def accuracy(delays: str, hidden: int, epochs: int, samples: int, seed: int, factor: float = 20.0) -> float:
    """Share of new sequences that a network with "learned", "random" or "none" delays tells right.

    Learned delays are rounded after two thirds of the epochs; the weights go on learning with whole delays.
    """
    torch.manual_seed(seed)
    net = Net(hidden, delays)
    groups = delay_parameter_groups(net, 0.02, factor) if delays == "learned" else net.parameters()
    optimizer = torch.optim.Adam(groups, lr=0.02)
    schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, epochs)
    x, labels = sequences(samples, seed)
    for epoch in range(epochs):
        anneal_sigma(net, epoch, 2 * epochs)
        if epoch == 2 * epochs // 3:
            round_delays(net)
        for rows in torch.randperm(samples).split(40):
            optimizer.zero_grad()
            functional.cross_entropy(net(x[:, rows]), labels[rows]).backward()
            optimizer.step()
            clamp_delays(net)
        schedule.step()
    x, labels = sequences(800, seed + 100)
    with torch.no_grad():
        return float((net.eval()(x).argmax(1) == labels).float().mean())
