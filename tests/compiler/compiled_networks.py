"""Networks of every kind that compiles, with inputs that make them spike."""

from __future__ import annotations

from collections.abc import Callable

import torch
from spikingjelly.activation_based import layer as sj_layer
from spikingjelly.activation_based import neuron as sj_neuron
from torch import nn

import snn
from snn.models import SpikingConvNet, SpikingMLP


def scaled(network: nn.Module, gain: float = 6.0, seed: int = 0) -> nn.Module:
    """The network in evaluation mode with larger random weights, so that deep layers spike, and with used statistics."""
    generator = torch.Generator().manual_seed(seed)
    for module in network.modules():
        if isinstance(module, nn.Linear | nn.Conv1d | nn.Conv2d):
            with torch.no_grad():
                module.weight.copy_(torch.randn(module.weight.shape, generator=generator))
                module.weight.mul_(gain / module.weight[0].numel() ** 0.5)
                if module.bias is not None:
                    module.bias.copy_(0.1 * torch.randn(module.bias.shape, generator=generator))
        if isinstance(module, nn.BatchNorm1d | nn.BatchNorm2d):
            module.running_mean.copy_(0.2 * torch.randn(module.running_mean.shape, generator=generator))
            module.running_var.copy_(0.5 + torch.rand(module.running_var.shape, generator=generator))
            with torch.no_grad():
                module.weight.copy_(1.0 + 0.3 * torch.randn(module.weight.shape, generator=generator))
                module.bias.copy_(0.3 * torch.randn(module.bias.shape, generator=generator))
    return network.eval()


class Sequence(nn.Module):
    """Layers on steps [T * B, ...] with neurons on sequences, written the way users write it."""

    def __init__(self, *layers: nn.Module) -> None:
        super().__init__()
        self.layers = nn.ModuleList(layers)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        for layer in self.layers:
            if isinstance(layer, snn.Neuron | sj_layer.Delay):
                x = layer(x)
            else:
                x = layer(x.flatten(0, 1)).unflatten(0, (x.shape[0], x.shape[1]))
        return x


class Residual(nn.Module):
    """Spikes added to spikes, currents to currents, spikes to currents, and a sum over everything at the end."""

    def __init__(self) -> None:
        super().__init__()
        self.first = Sequence(nn.Conv2d(2, 4, 3, padding=1), snn.LIF(step_mode="m"))
        self.second = Sequence(nn.Conv2d(4, 4, 3, padding=1), snn.IF(step_mode="m"))
        self.left = nn.Conv2d(4, 3, 3, stride=2, padding=1)
        self.right = nn.Conv2d(4, 3, 1, stride=2)
        self.neuron = snn.LIF(step_mode="m")
        self.after = snn.IF(step_mode="m")
        self.head = nn.Linear(3 * 4 * 4, 5)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        a = self.first(x)
        b = self.second(a) + a  # spikes of 0, 1 or 2
        flat = b.flatten(0, 1)
        current = self.left(flat) + self.right(flat)
        z = self.neuron(current.view(x.shape[0], x.shape[1], *current.shape[1:]))
        z = self.after(z + 0.5 * z) + z
        return self.head(z.flatten(2))


class Concatenated(nn.Module):
    """Branches joined along channels, slices of channels, and scaled inputs."""

    def __init__(self) -> None:
        super().__init__()
        self.a = nn.Sequential(nn.Conv2d(2, 3, 3, padding=1), nn.BatchNorm2d(3))
        self.b = nn.Conv2d(2, 4, 5, padding=2)
        self.neuron = snn.LIF(step_mode="m")
        self.pool = nn.AvgPool2d(2)
        self.c = nn.Conv2d(6, 4, 3)
        self.last = snn.CubaLIF(step_mode="m")
        self.head = nn.Linear(4 * 2 * 2, 6)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        T, B = x.shape[:2]
        flat = x.flatten(0, 1) * 1.5
        z = self.neuron(torch.cat([self.a(flat), self.b(flat)], dim=1).unflatten(0, (T, B)))
        z = torch.cat([z[:, :, :2], z[:, :, 3:]], dim=2)
        c = self.c(self.pool(z.flatten(0, 1)))
        z = self.last(c.unflatten(0, (T, B)))
        return self.head(z.flatten(2)).mean(0)


def single_step() -> nn.Module:
    """SpikingJelly's layers in single-step mode."""
    return nn.Sequential(
        sj_layer.Conv2d(2, 6, 3, padding=1, bias=False),
        sj_layer.BatchNorm2d(6),
        sj_neuron.IFNode(),
        sj_layer.MaxPool2d(2),
        sj_layer.Flatten(),
        sj_layer.Dropout(0.5),
        sj_layer.Linear(6 * 4 * 4, 20),
        sj_neuron.LIFNode(tau=3.0, v_reset=None),
        sj_layer.Linear(20, 10),
        sj_neuron.ParametricLIFNode(),
    )


def multi_step() -> nn.Module:
    """SpikingJelly's layers over sequences, with its containers."""
    return nn.Sequential(
        sj_layer.SeqToANNContainer(nn.Conv2d(2, 6, 3, padding=1, bias=False), nn.BatchNorm2d(6)),
        sj_neuron.LIFNode(step_mode="m", decay_input=False),
        sj_layer.MaxPool2d(2, step_mode="m"),
        sj_layer.Flatten(step_mode="m"),
        sj_layer.Linear(6 * 4 * 4, 20, step_mode="m"),
        sj_neuron.CUBALIFNode(),
        sj_layer.Linear(20, 10, step_mode="m"),
    )


def _cuba_in_multi_step() -> nn.Module:
    network = multi_step()
    network[5].step_mode = "m"
    return network


def conv_net(*layers: nn.Module, **arguments: object) -> nn.Module:
    return Sequence(*layers, snn.LIF(step_mode="m"))


IMAGE = (2, 8, 8)
NETWORKS: dict[str, tuple[Callable[[], nn.Module], tuple[int, ...]]] = {
    "mlp": (lambda: SpikingMLP((1, 6, 6), 10, hidden=(30, 20), batch_norm=True, dropout=0.3), (1, 6, 6)),
    "mlp with leaky readout": (lambda: SpikingMLP((1, 6, 6), 10, hidden=(30,), readout="LI"), (1, 6, 6)),
    "conv net": (lambda: SpikingConvNet((1, 12, 12), 10, channels=(4, 6), hidden=20), (1, 12, 12)),
    "residual": (Residual, IMAGE),
    "concatenated": (Concatenated, IMAGE),
    "single-step spikingjelly": (single_step, IMAGE),
    "multi-step spikingjelly": (_cuba_in_multi_step, IMAGE),
    "stride": (lambda: conv_net(nn.Conv2d(2, 5, 3, stride=2, padding=1)), IMAGE),
    "stride 3 kernel 2": (lambda: conv_net(nn.Conv2d(2, 5, 2, stride=3)), IMAGE),
    "dilation": (lambda: conv_net(nn.Conv2d(2, 5, 3, dilation=2, padding=2)), IMAGE),
    "groups": (lambda: conv_net(nn.Conv2d(2, 6, 3, groups=2, padding=1)), IMAGE),
    "same": (lambda: conv_net(nn.Conv2d(2, 6, (3, 5), padding="same")), IMAGE),
    "uneven": (lambda: conv_net(nn.Conv2d(2, 3, (3, 1), stride=(1, 2), padding=(1, 0))), IMAGE),
    "conv1d": (lambda: conv_net(nn.Conv1d(3, 5, 4, stride=2, padding=1), nn.AvgPool1d(2)), (3, 14)),
    "conv1d dilated": (lambda: conv_net(nn.Conv1d(4, 4, 3, dilation=3, groups=2), nn.MaxPool1d(2)), (4, 14)),
    "pool overlapping": (lambda: conv_net(nn.Conv2d(2, 3, 3), nn.AvgPool2d(3, 1, 1)), IMAGE),
    "max pool of currents": (lambda: conv_net(nn.Conv2d(2, 3, 3), nn.BatchNorm2d(3), nn.MaxPool2d(3, 2, 1)), IMAGE),
    "max pool of spikes": (
        lambda: conv_net(nn.Conv2d(2, 3, 3), snn.IF(step_mode="m"), nn.MaxPool2d(3, 2, 1), nn.Conv2d(3, 2, 2)),
        IMAGE,
    ),
    "pool of spikes": (
        lambda: conv_net(nn.Conv2d(2, 3, 3), snn.IF(step_mode="m"), nn.AvgPool2d(2), nn.Conv2d(3, 2, 2)),
        IMAGE,
    ),
    "global pool": (
        lambda: conv_net(nn.Conv2d(2, 8, 3), snn.IF(step_mode="m"), nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(8, 9)),
        IMAGE,
    ),
    "norm first": (lambda: conv_net(nn.BatchNorm2d(2), nn.Conv2d(2, 3, 3, padding=1)), IMAGE),
    "neuron first": (lambda: conv_net(snn.LIF(decay_input=False, step_mode="m"), nn.Flatten(), nn.Linear(128, 20)), IMAGE),
    "linear linear": (lambda: conv_net(nn.Flatten(), nn.Linear(128, 9), nn.Linear(9, 20)), IMAGE),
    "recurrent": (
        lambda: nn.Sequential(nn.Linear(12, 20), snn.RecurrentLIF(20, step_mode="m"), nn.Linear(20, 4)),
        (12,),
    ),
    "recurrent conv": (
        lambda: Sequence(
            nn.Conv2d(2, 4, 3, padding=1),
            snn.RecurrentLIF(nn.Conv2d(4, 4, 3, padding=1, bias=False), step_mode="m"),
            nn.Flatten(),
            nn.Linear(256, 5),
        ),
        IMAGE,
    ),
    "delay": (
        lambda: nn.Sequential(
            nn.Linear(12, 20), snn.IF(step_mode="m"), sj_layer.Delay(3, step_mode="m"), nn.Linear(20, 9), snn.IF(step_mode="m")
        ),
        (12,),
    ),
    "graded spikes": (
        lambda: nn.Sequential(
            nn.Linear(12, 20), snn.MultiSpikeLIF(step_mode="m"), nn.Linear(20, 9), snn.BipolarIF(step_mode="m"), nn.Linear(9, 3)
        ),
        (12,),
    ),
    "tracer": (
        lambda: nn.Sequential(
            nn.Linear(12, 20), snn.STBIF(0.5, -3, 4, step_mode="m"), nn.Linear(20, 9), snn.STBIF(0.25, 0, 5, step_mode="m")
        ),
        (12,),
    ),
    "adaptive": (lambda: nn.Sequential(nn.Linear(12, 20), snn.ALIF(step_mode="m"), nn.Linear(20, 3)), (12,)),
    "permuted": (
        lambda: conv_net(
            nn.Conv2d(2, 4, 3), snn.IF(step_mode="m"), Permute(), nn.Conv2d(6, 3, 2), nn.Flatten(), nn.Linear(45, 7)
        ),
        IMAGE,
    ),
}  # fmt: skip
"""Name -> how to make it, and the shape of one step of its input."""


class Permute(nn.Module):
    """(C, H, W) to (H, C, W)."""

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return x.permute(0, 2, 1, 3)


def made(name: str, dtype: torch.dtype = torch.float64) -> nn.Module:
    make, _ = NETWORKS[name]
    return scaled(make()).to(dtype)


def spikes(name: str, T: int = 12, B: int = 3, rate: float = 0.3, dtype: torch.dtype = torch.float64) -> torch.Tensor:
    _, shape = NETWORKS[name]
    generator = torch.Generator().manual_seed(1)
    return (torch.rand(T, B, *shape, generator=generator) < rate).to(dtype)


def frames(name: str, T: int = 6, B: int = 2, dtype: torch.dtype = torch.float64) -> torch.Tensor:
    """One image per sample, repeated over time without copies."""
    _, shape = NETWORKS[name]
    return torch.randn(B, *shape, generator=torch.Generator().manual_seed(2), dtype=dtype).expand(T, B, *shape)
