"""A network of SpikingJelly behaves the same with our neurons and layers in it."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from spikingjelly.activation_based import functional, layer, neuron, surrogate
from torch import nn

import snn
from snn.layers import SpikeConv2d, SpikeLinear

ATAN = surrogate.ATan()


def network(step_mode: str = "m") -> nn.Sequential:
    torch.manual_seed(0)
    net = nn.Sequential(
        layer.Conv2d(2, 4, 3, padding=1, bias=False),
        layer.BatchNorm2d(4),
        neuron.LIFNode(surrogate_function=ATAN, detach_reset=True),
        layer.SeqToANNContainer(nn.Conv2d(4, 4, 3, padding=1, groups=2), nn.AvgPool2d(2))
        if step_mode == "m"
        else nn.Sequential(nn.Conv2d(4, 4, 3, padding=1, groups=2), nn.AvgPool2d(2)),
        neuron.ParametricLIFNode(v_threshold=0.2, v_reset=None, surrogate_function=ATAN),
        layer.Flatten(),
        layer.Linear(36, 16),
        neuron.IFNode(v_threshold=0.5, surrogate_function=ATAN),
        nn.Linear(16, 5),
        neuron.CUBALIFNode(v_threshold=0.4),
    )
    functional.set_step_mode(net, step_mode)
    return net


def outputs_and_gradients(net: nn.Module, x: torch.Tensor, calls: int = 1) -> tuple[torch.Tensor, list[torch.Tensor]]:
    """Of several calls one after the other without a reset between them."""
    functional.reset_net(net)
    current = x.clone().requires_grad_()
    y = torch.cat([net(current) for _ in range(calls)])
    weights = torch.linspace(-1.0, 1.0, y.numel()).view(y.shape)
    return y, list(torch.autograd.grad((y * weights).sum(), [current, *net.parameters()]))


@pytest.mark.parametrize("layers", [False, True], ids=["neurons", "neurons and layers"])
@pytest.mark.parametrize("calls", [1, 2], ids=["one call", "continued"])
@pytest.mark.parametrize("step_mode", ["m", "s"])
def test_outputs_and_gradients_are_equal(step_mode: str, calls: int, layers: bool) -> None:
    net = network(step_mode).double()
    ours, report = snn.accelerate(net, layers=layers)
    assert len(report.kept) == 0
    x = 2.0 * torch.rand(6, 3, 2, 6, 6, dtype=torch.float64) if step_mode == "m" else torch.rand(3, 2, 6, 6).double()
    (y, gradients), (expected, wanted) = outputs_and_gradients(ours, x, calls), outputs_and_gradients(net, x, calls)
    assert torch.equal(y, expected)
    assert step_mode == "s" or 0.02 < y.mean() < 0.98
    for p, q in zip(gradients, wanted, strict=True):
        torch.testing.assert_close(p, q, rtol=1e-9, atol=1e-12)


def test_a_copy_leaves_the_network_alone_and_loads_its_state() -> None:
    net = network()
    ours, _ = snn.accelerate(net, layers=True)
    assert isinstance(net[2], neuron.LIFNode)
    assert list(ours.state_dict()) == list(net.state_dict())
    ours.load_state_dict(net.state_dict())
    assert all(p is not q for p, q in zip(ours.parameters(), net.parameters(), strict=True))


def test_in_place_keeps_the_parameters_an_optimizer_holds() -> None:
    net = network()
    before = list(net.parameters())
    ours, report = snn.accelerate(net, layers=True, inplace=True)
    assert ours is net
    assert all(p is q for p, q in zip(net.parameters(), before, strict=True))
    assert [row.by for row in report.rows] == [
        "SpikeConv2d", "LIF", "SpikeConv2d", "PLIF", "SpikeLinear", "IF", "SpikeLinear", "CubaLIF",
    ]  # fmt: skip
    assert report.rows[2].name == "3.0"


def test_layers_stay_unless_asked_for() -> None:
    net, report = snn.accelerate(network())
    assert not any(isinstance(module, SpikeLinear | SpikeConv2d) for module in net.modules())
    assert len(report.rows) == len(report.replaced) == 4


class Louder(neuron.LIFNode):
    """A user's own neuron."""


def test_what_stays_is_reported_with_its_reason() -> None:
    recording = neuron.LIFNode(store_v_seq=True)
    net = nn.Sequential(neuron.KLIFNode(), Louder(), recording, nn.Conv1d(1, 1, 1), snn.LIF())
    ours, report = snn.accelerate(net, layers=True)
    assert report.replaced == ()
    assert [row.module for row in report.kept] == ["KLIFNode", "Louder", "LIFNode", "Conv1d"]
    assert "has no equal here" in report.kept[1].reason
    assert "store_v_seq" in report.kept[2].reason
    assert "Louder has no equal" in str(report)
    assert isinstance(ours[1], Louder)


def test_hooks_modes_states_and_shared_layers_move_over() -> None:
    shared = neuron.LIFNode(tau=3.0, step_mode="m", store_v_seq=True)
    seen: list[Any] = []
    shared.register_forward_hook(lambda module, inputs, output: seen.append(type(module).__name__))
    net = nn.Sequential(shared, nn.Identity(), shared).eval()
    x = torch.rand(4, 2, 3)
    shared(x)
    ours, _ = snn.accelerate(net, inplace=True)
    assert ours[0] is ours[2]
    assert not ours[0].training
    assert torch.equal(ours[0].v, shared.v)
    y = ours[0](x)
    assert seen == ["LIFNode", "LIF"]
    assert torch.equal(y, shared(x))
    assert torch.equal(ours[0].v_seq, shared.v_seq)


def test_the_network_itself_may_be_a_neuron() -> None:
    ours, report = snn.accelerate(neuron.ILIFNode(step_mode="m"))
    assert isinstance(ours, snn.MultiSpikeLIF)
    assert report.rows[0].name == ""
    x = 3.0 * torch.rand(5, 4)
    assert torch.equal(ours(x), neuron.ILIFNode(step_mode="m")(x))
    with pytest.raises(TypeError, match=r"net must be a torch\.nn\.Module, got list"):
        snn.accelerate([ours])  # type: ignore[arg-type]
