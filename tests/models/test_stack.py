"""Networks over sequences: the short cut for a repeated input, carried state, neurons of all kinds, wrong arguments."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
from spikingjelly.activation_based import neuron as sj_neuron
from torch import nn

from snn.models import SpikingConvNet, SpikingMLP, SpikingVGG, Stack
from snn.training.spike_rates import SpikeCounter, memory_layers

T, B = 5, 6
NEURON = {"class": "LIF", "v_threshold": 0.05, "backend": "reference"}  # deep layers spike too
NETWORKS: dict[str, Callable[[], nn.Module]] = {
    "mlp": lambda: SpikingMLP((2, 8, 8), 3, hidden=(7, 9), neuron=NEURON),
    "mlp with batch norm": lambda: SpikingMLP((2, 8, 8), 3, hidden=(7,), neuron=NEURON, batch_norm=True),
    "mlp with LI": lambda: SpikingMLP((2, 8, 8), 3, hidden=(7,), neuron=NEURON, readout="LI"),
    "convnet": lambda: SpikingConvNet((2, 8, 8), 3, channels=(3, 4), hidden=9, neuron=NEURON),
    "vgg": lambda: SpikingVGG((2, 8, 8), 3, channels=(3, 4), neuron=NEURON),
    "SpikingJelly inside": lambda: SpikingMLP((2, 8, 8), 3, neuron=lambda: sj_neuron.LIFNode(step_mode="m")),
}


def made(name: str) -> nn.Module:
    torch.manual_seed(1)
    return NETWORKS[name]().double()


def trained(network: nn.Module, x: torch.Tensor) -> tuple[torch.Tensor, list[torch.Tensor]]:
    y = network(x)
    (y * torch.linspace(-1, 1, y.numel(), dtype=y.dtype).view_as(y)).sum().backward()
    return y.detach(), [parameter.grad.clone() for parameter in network.parameters() if parameter.grad is not None]


@pytest.mark.parametrize("name", NETWORKS)
def test_repeated_input_equals_copies_in_values_and_gradients(name: str) -> None:
    images = 3 * torch.rand(B, 2, 8, 8, dtype=torch.float64)
    short, whole = made(name), made(name)
    view = images.expand(T, *images.shape)
    y, gradients = trained(short, view)
    y_whole, gradients_whole = trained(whole, view.contiguous())
    torch.testing.assert_close(y, y_whole)
    assert len(gradients) == len(list(short.parameters()))
    for one, two in zip(gradients, gradients_whole, strict=True):
        torch.testing.assert_close(one, two)


def test_repeated_input_passes_the_first_layer_once() -> None:
    network = made("mlp")
    seen = []
    network.stack.layers["linear1"].register_forward_hook(lambda layer, inputs, output: seen.append(len(output)))
    network(torch.ones(1, B, 2, 8, 8, dtype=torch.float64).expand(T, -1, -1, -1, -1))
    network(torch.ones(T, B, 2, 8, 8, dtype=torch.float64))
    assert seen == [B, T * B]


def test_running_variance_counts_a_repeated_input_once() -> None:
    images = torch.rand(B, 128, dtype=torch.float64)
    short, whole = Stack({"norm": nn.BatchNorm1d(128).double()}), Stack({"norm": nn.BatchNorm1d(128).double()})
    short(images.expand(T, B, 128))
    whole(images.expand(T, B, 128).contiguous())
    one, two = short.layers["norm"], whole.layers["norm"]
    torch.testing.assert_close(one.running_mean, two.running_mean)
    biased = images.var(0, correction=0)
    torch.testing.assert_close(one.running_var, 0.9 + 0.1 * biased * B / (B - 1))
    torch.testing.assert_close(two.running_var, 0.9 + 0.1 * biased * T * B / (T * B - 1))


@pytest.mark.parametrize("layer", [nn.Dropout(0.5), type("Noisy", (nn.Linear,), {})(8, 8)], ids=["dropout", "subclass"])
def test_layers_that_may_draw_see_every_step(layer: nn.Module) -> None:
    seen = []
    layer.register_forward_hook(lambda module, inputs, output: seen.append(len(output)))
    Stack({"layer": layer})(torch.ones(B, 8).expand(T, B, 8))
    assert seen == [T * B]


@pytest.mark.parametrize("name", NETWORKS)
@pytest.mark.parametrize("cut", [1, 3])
def test_run_in_two_parts_with_state_equals_one(name: str, cut: int) -> None:
    network = made(name).eval()
    x = 3 * torch.randn(T, B, 2, 8, 8, dtype=torch.float64)
    first, state = network(x[:cut], state=None)
    network(x)  # another call in between does not matter
    second, _ = network(x[cut:], state=state)
    torch.testing.assert_close(torch.cat([first, second]), network(x))
    assert not torch.allclose(second, network(x[cut:])), "the state matters"


@pytest.mark.parametrize("name", NETWORKS)
def test_calls_start_fresh(name: str) -> None:
    network = made(name).eval()
    x = 3 * torch.randn(T, B, 2, 8, 8, dtype=torch.float64)
    assert torch.equal(network(x), network(x))


def test_wrong_state_is_named() -> None:
    network = made("mlp")
    x = torch.zeros(T, B, 2, 8, 8, dtype=torch.float64)
    with pytest.raises(ValueError, match="'neuron9'"):
        network(x, state={"neuron9": {}})
    with pytest.raises(TypeError, match="got a list"):
        network(x, state=[1])


WRONG: dict[str, tuple[Callable[[], Any], str]] = {
    "no channel": (lambda: SpikingConvNet((8, 8), 3), r"input_shape must be \(C, H, W\), got \(8, 8\)"),
    "vgg shape": (lambda: SpikingVGG((8,), 3), "input_shape"),
    "even kernel": (lambda: SpikingConvNet((1, 8, 8), 3, kernel_size=2), "kernel_size must be odd"),
    "too many blocks": (lambda: SpikingConvNet((1, 4, 4), 3, channels=(2, 2, 2)), "below one pixel"),
    "too many stages": (lambda: SpikingVGG((1, 4, 4), 3, channels=(2, 2, 2)), "below one pixel"),
    "no channels": (lambda: SpikingConvNet((1, 8, 8), 3, channels=(0,)), "channels must be a list of positive"),
    "vgg channels": (lambda: SpikingVGG((1, 8, 8), 3, channels="ab"), "channels must be a list of positive"),
    "hidden": (lambda: SpikingConvNet((1, 8, 8), 3, hidden=-1), "hidden must be a list of positive"),
    "function in single-step mode": (lambda: SpikingMLP((4,), 3, neuron=sj_neuron.LIFNode), "step_mode must be 'm'"),
    "function of nothing": (lambda: SpikingMLP((4,), 3, neuron=lambda: 3), "gives a int"),
    "module as neuron": (lambda: SpikingMLP((4,), 3, neuron="os.path"), "'os.path' is not a class"),
}


@pytest.mark.parametrize("case", WRONG)
def test_wrong_argument_is_named(case: str) -> None:
    make, message = WRONG[case]
    with pytest.raises(ValueError, match=message):
        make()


def test_spikes_are_counted_per_neuron_and_step() -> None:
    network = SpikingMLP((4,), 3, hidden=(7, 5), neuron=NEURON, readout="LI").eval()
    outputs = {}
    for name in ("neuron1", "neuron2"):
        network.stack.layers[name].register_forward_hook(
            lambda layer, inputs, z, name=name: outputs.setdefault(name, []).append(z)
        )
    counter = SpikeCounter(network)
    assert list(memory_layers(network)) == ["neuron1", "neuron2", "integrator"]
    with counter.counting():
        for count in (2, 3):
            network(5 * torch.rand(T, count, 4))
    network(torch.rand(T, 2, 4))  # outside the block
    found = counter.totals()
    assert list(found) == ["neuron1", "neuron2"]
    for name, size in (("neuron1", 7), ("neuron2", 5)):
        assert found[name] == (float(sum(z.sum() for z in outputs[name][:2])), T * 5 * size)
    assert found["neuron1"][0] > 0
    counter.reset()
    assert counter.totals() == {}


def test_a_layer_that_only_began_with_whole_numbers_is_not_counted() -> None:
    network = SpikingMLP((4,), 3, neuron=NEURON, readout="LI").eval()
    network.stack.layers["readout"].bias.data.zero_()
    counter = SpikeCounter(network)
    with counter.counting():
        network(torch.full((T, 2, 4), -9.0) * 0)  # nothing spikes, so the integrator stays at zero
        network(9 * torch.rand(T, 2, 4))
    assert list(counter.totals()) == ["neuron1"]
