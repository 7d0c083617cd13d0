"""Ready networks: shapes, arguments, gradients, mistakes."""

from __future__ import annotations

import doctest
import importlib
import pkgutil
from typing import Any

import pytest
import torch
from torch import nn

import snn
import snn.models
from snn.models import MODELS, SpikingConvNet, SpikingMLP, SpikingVGG
from snn.models.neuron_choice import make_neuron

SMALL: dict[str, tuple[dict[str, Any], tuple[int, ...]]] = {
    "SpikingMLP": ({"hidden": [9, 8]}, (1, 4, 4)),
    "SpikingConvNet": ({"channels": [3, 4], "hidden": 6}, (1, 8, 8)),
    "SpikingVGG": ({"channels": [3, 4]}, (3, 8, 8)),
}


def small(name: str, **arguments: Any) -> tuple[nn.Module, torch.Tensor]:
    given, shape = SMALL[name]
    return MODELS[name](input_shape=shape, classes=5, **{**given, **arguments}), torch.randn(3, 4, *shape) * 3


def test_every_network_of_the_folder_is_listed() -> None:
    found = set()
    for module in pkgutil.iter_modules(snn.models.__path__):
        names = vars(importlib.import_module(f"snn.models.{module.name}"))
        found |= {name for name, value in names.items() if name.startswith("Spiking") and isinstance(value, type)}
    assert found == set(MODELS) == set(SMALL)


@pytest.mark.parametrize("neuron", ["LIF", "PLIF", "IF", "ALIF"])
@pytest.mark.parametrize("readout", ["linear", "LI"])
@pytest.mark.parametrize("name", MODELS)
def test_logits_at_every_step_and_gradients_everywhere(name: str, readout: str, neuron: str) -> None:
    torch.manual_seed(0)
    net, x = small(name, readout=readout, neuron={"class": neuron, "v_threshold": 0.1})
    y = net(x)
    assert y.shape == (3, 4, 5)
    y.square().sum().backward()
    assert all(p.grad is not None and bool(p.grad.isfinite().all()) for p in net.parameters())
    assert all(bool((p.grad != 0).any()) for key, p in net.named_parameters() if key.endswith("weight"))


@pytest.mark.parametrize("name", MODELS)
def test_state_can_be_carried(name: str) -> None:
    net, x = small(name)
    net.eval()
    first, state = net(x[:1], state=None)
    rest, _ = net(x[1:], state=state)
    torch.testing.assert_close(torch.cat([first, rest]), net(x))


def test_recurrent_neurons_take_the_size_of_their_layer() -> None:
    net, x = small("SpikingMLP", neuron="RecurrentLIF")
    assert net.stack.layers["neuron2"].recurrent.weight.shape == (8, 8)
    assert net(x).shape == (3, 4, 5)
    with pytest.raises(ValueError, match=r"neuron: .*recurrent"):
        small("SpikingConvNet", neuron="RecurrentLIF")


def test_a_neuron_can_be_a_function_or_of_another_library() -> None:
    made = []
    small("SpikingMLP", neuron=lambda: made.append(1) or snn.IF(step_mode="m"))
    assert len(made) == 2
    theirs = make_neuron("spikingjelly.activation_based.neuron.LIFNode")
    assert theirs.step_mode == "m"


def test_surrogates_are_chosen_by_name() -> None:
    atan = make_neuron({"class": "LIF", "surrogate_function": {"class": "ATan", "alpha": 3.0}}).surrogate_function
    assert type(atan).__name__ == "ATan"
    assert atan.alpha == 3.0
    assert (
        type(make_neuron({"class": "IF", "surrogate_function": "Triangle"}).surrogate_function).__name__ == "Triangle"
    )


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: make_neuron("LIFF"), "did you mean 'LIF'"),
        (lambda: make_neuron({"tau": 2.0}), "needs the key 'class'"),
        (lambda: make_neuron({"class": "LIF", "thau": 2.0}), "LIF has no argument 'thau'; did you mean 'tau'"),
        (lambda: make_neuron("no.such.Neuron"), "cannot be imported"),
        (lambda: make_neuron({"class": "LIF", "surrogate_function": "ATann"}), "did you mean 'ATan'"),
        (lambda: SpikingMLP((4,), 2, hidden=(0,)), r"hidden must be a list of positive numbers, got \(0,\)"),
        (lambda: SpikingMLP((4,), 2, readout="LIF"), "readout must be 'linear' or 'LI', got 'LIF'"),
        (lambda: SpikingConvNet((4,), 2), r"input_shape must be \(C, H, W\)"),
        (lambda: SpikingConvNet((1, 4, 4), 2, channels=(2, 2, 2)), "below one pixel"),
        (lambda: SpikingConvNet((1, 4, 4), 2, kernel_size=2), "kernel_size must be odd"),
        (lambda: SpikingVGG((3, 4, 4), 2), "below one pixel"),
    ],
)
def test_mistakes_are_named(make: Any, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        make()


@pytest.mark.parametrize("module", ["mlp", "convnet", "vgg", "neuron_choice"])
def test_examples(module: str) -> None:
    found = doctest.testmod(importlib.import_module(f"snn.models.{module}"), extraglobs={"torch": torch})
    assert found.attempted > 0
    assert found.failed == 0
