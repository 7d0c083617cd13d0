"""Learned delays and folded membrane norms in event networks and in NIR: the spikes of torch."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import nn

import snn
from neuromorphic.compiler import compile as compile_network
from neuromorphic.compiler import from_nir, to_nir
from snn.errors import UnsupportedError
from snn.layers import MPBN, DelayedLinear, fold_mpbn, round_delays
from snn.models import SpikingDelayNet, SpikingResNet, Stack

EASY = {"class": "LIF", "v_threshold": 0.3}  # fires often, so that the comparison sees many spikes


def trained(net: nn.Module) -> nn.Module:
    """Statistics and weights away from their start, float64, in evaluation."""
    for module in net.modules():
        if isinstance(module, nn.BatchNorm1d | nn.BatchNorm2d | MPBN):
            module.running_mean.normal_(0.0, 0.2)
            module.running_var.uniform_(0.5, 1.5)
        if isinstance(module, MPBN):
            with torch.no_grad():
                module.weight.uniform_(-1.0, 1.5)
                module.bias.uniform_(-0.3, 0.6)
    return net.double().eval()


def spikes(T: int, B: int, *shape: int, density: float = 0.1) -> torch.Tensor:
    return (torch.rand(T, B, *shape) < density).double()


def same_spikes(net: nn.Module, x: torch.Tensor) -> int:
    """Asserts equal spikes of every layer of neurons and close outputs; returns the number of spikes."""
    event = compile_network(net, x, dtype="float64")
    y, by_layer = event.spikes(x)
    found: dict[str, torch.Tensor] = {}
    neurons = {name: module for name, module in net.named_modules() if isinstance(module, snn.Neuron)}
    handles = [
        module.register_forward_hook(lambda _, __, out, name=name: found.__setitem__(name, out))
        for name, module in neurons.items()
    ]
    with torch.no_grad():
        expected = net(x)
    for handle in handles:
        handle.remove()
    torch.testing.assert_close(y, expected, rtol=1e-8, atol=1e-9)
    total = 0
    for name, sent in by_layer.items():
        z = found[name].flatten(2).numpy()
        if name.endswith("integrator"):
            continue
        assert sent.reshape(z.shape).tolist() == z.tolist()
        total += int(z.sum())
    return total


@pytest.mark.parametrize("kind", ["synaptic", "axonal", "dendritic"])
def test_a_delay_network(kind: Any) -> None:
    net = SpikingDelayNet((40, 30), 5, hidden=(20, 16), max_delay=9, kind=kind, neuron=EASY)
    assert same_spikes(trained(net), spikes(40, 3, 30)) > 100


def test_a_whole_number_of_delays_after_rounding() -> None:
    net = trained(SpikingDelayNet((40, 12), 4, hidden=(10,), max_delay=6, neuron=EASY))
    x = spikes(40, 2, 12)
    before = compile_network(net, x, dtype="float64").run(x)
    round_delays(net)
    assert torch.equal(compile_network(net, x, dtype="float64").run(x), before)


def test_graded_events_and_a_bias() -> None:
    net = nn.Sequential(DelayedLinear(6, 5, 4, bias=True), snn.LIF(step_mode="m"))
    nn.init.uniform_(net[0].bias, 0.0, 0.4)
    assert same_spikes(net.double().eval(), torch.randn(30, 2, 6, dtype=torch.float64)) > 20


@pytest.mark.parametrize("v_reset", [0.0, None])
def test_membrane_norms_before_and_after_folding(v_reset: float | None) -> None:
    net = Stack(
        {
            "conv": nn.Conv2d(2, 6, 3, padding=1),
            "neuron": snn.LIF(v_threshold=0.3, v_reset=v_reset, step_mode="m", membrane_norm=MPBN(6)),
            "flatten": nn.Flatten(),
            "delayed": DelayedLinear(6 * 25, 8, 5),
            "neuron2": snn.IF(v_threshold=0.3, v_reset=v_reset, step_mode="m", membrane_norm=MPBN((8,))),
        }
    )
    net = trained(net)
    x = torch.rand(12, 4, 2, 5, 5, dtype=torch.float64)
    assert same_spikes(net, x) > 100
    folded, report = fold_mpbn(net, x)
    assert report.differences == 0
    assert same_spikes(folded, x) > 100


def test_resnet_with_membrane_norms() -> None:
    net = trained(SpikingResNet((3, 8, 8), 4, channels=(6, 8), membrane_norm="channel", neuron=EASY))
    x = torch.rand(3, 2, 3, 8, 8, dtype=torch.float64)
    folded, report = fold_mpbn(net, x)
    assert report.differences == 0
    assert same_spikes(folded, x) > 50


def test_units_that_fire_at_rest_fire_in_silence() -> None:
    norm = MPBN(3)
    with torch.no_grad():
        norm.bias.copy_(torch.tensor([2.0, 0.0, 0.0]))
        norm.weight.copy_(torch.tensor([1.0, 1.0, -1.0]))
        norm.running_mean.copy_(torch.tensor([0.0, 0.0, 2.0]))
    net = nn.Sequential(nn.Linear(2, 3, bias=False), snn.LIF(step_mode="m", membrane_norm=norm)).double().eval()
    folded, report = fold_mpbn(net)
    assert report.layers[0].fires_at_rest == (0, 2)
    x = torch.zeros(5, 1, 2, dtype=torch.float64)
    y = compile_network(folded, x, dtype="float64").run(x)
    assert y[:, 0].tolist() == [[1.0, 0.0, 1.0]] * 5


def test_delays_in_nir() -> None:
    pytest.importorskip("nir")
    net = Stack(
        {
            "delayed": DelayedLinear(8, 6, 3),
            "neuron": snn.LIF(v_threshold=0.4, step_mode="m"),
            "readout": DelayedLinear(6, 4, 2),
            "last": snn.LIF(v_threshold=0.2, step_mode="m"),
        }
    )
    net = net.double().eval()
    x = spikes(40, 4, 8, density=0.4)
    graph = to_nir(net, 1.0)
    kinds = sorted(type(node).__name__ for node in graph.nodes.values())
    assert kinds.count("Delay") == 3 + 2
    assert kinds.count("Linear") == 4 + 3
    again = from_nir(graph, 1.0).double()
    with torch.no_grad():
        z = net(x)
        assert z.sum() > 10
        assert torch.equal(again(x), z)


def test_folded_norms_in_nir() -> None:
    pytest.importorskip("nir")
    net = trained(
        Stack({"linear": nn.Linear(8, 6), "neuron": snn.LIF(v_threshold=0.3, step_mode="m", membrane_norm=MPBN(6))})
    )
    x = torch.randn(20, 3, 8, dtype=torch.float64)
    folded, report = fold_mpbn(net, x)
    assert report.layers[0].form == "threshold"
    with torch.no_grad():
        z = net(x)
        assert z.sum() > 10
        assert torch.equal(from_nir(to_nir(folded, 1.0), 1.0).double()(x), z)
    with pytest.raises(UnsupportedError, match="neuron'"):
        to_nir(net, 1.0)


def test_norms_per_step_are_refused() -> None:
    net = nn.Sequential(nn.Linear(3, 3), snn.LIF(step_mode="m", membrane_norm=MPBN(3, steps=4))).eval()
    with pytest.raises((UnsupportedError, ValueError), match="per step"):
        compile_network(net, torch.zeros(4, 2, 3))
