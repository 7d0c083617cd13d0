"""Counts of spikes."""

from __future__ import annotations

import torch
from torch import nn

import snn
from snn.models import SpikingMLP
from snn.training.spike_rates import SpikeCounter, memory_layers


def test_counts_equal_the_sums_of_the_outputs() -> None:
    net = SpikingMLP((4,), 2, hidden=(6, 5), readout="LI")
    x = torch.randn(3, 7, 4) * 4
    seen: dict[str, list[torch.Tensor]] = {"neuron1": [], "neuron2": []}
    for name, kept in seen.items():
        net.stack.layers[name].register_forward_hook(lambda module, inputs, z, kept=kept: kept.append(z.detach()))
    counter = SpikeCounter(net)
    with counter.counting():
        net(x)
        net(x[:, :2])
    net(x)  # not counted
    expected = {name: float(z[0].sum() + z[1].sum()) for name, z in seen.items()}
    assert min(expected.values()) > 0
    assert {name: spikes for name, (spikes, _) in counter.totals().items()} == expected  # the LI readout is left out
    assert {name: size for name, (_, size) in counter.totals().items()} == {"neuron1": 3 * 9 * 6, "neuron2": 3 * 9 * 5}
    counter.reset()
    assert counter.totals() == {}


def test_bipolar_spikes_count_by_magnitude() -> None:
    net = nn.Sequential(snn.BipolarIF(step_mode="m"))
    counter = SpikeCounter(net)
    with counter.counting():
        z = net(torch.tensor([[2.0, -2.0]]))
    assert z.sum() == 0
    assert counter.totals() == {"0": (2.0, 2)}


def test_names_leave_out_what_all_layers_share() -> None:
    assert list(memory_layers(SpikingMLP((4,), 2, hidden=(3, 3)))) == ["neuron1", "neuron2"]
    assert list(memory_layers(snn.LIF(step_mode="m"))) == [""]
