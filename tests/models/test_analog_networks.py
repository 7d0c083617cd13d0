"""Ordinary networks under the time-first interface."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from snn.models import AnalogMLP, AnalogVGG, Residual


def test_mlp_equals_its_layers_at_every_step() -> None:
    net = AnalogMLP((2, 3), 4, hidden=(5, 7), neuron="Tanh")
    x = torch.randn(3, 6, 2, 3)
    layers = net.stack.layers
    h = torch.tanh(layers["linear1"](x.flatten(2)))
    expected = layers["readout"](torch.tanh(layers["linear2"](h)))
    torch.testing.assert_close(net(x), expected)


def test_mlp_starts_with_glorot_weights_and_no_bias() -> None:
    net = AnalogMLP((300,), 10, hidden=(200,))
    linear = net.stack.layers["linear1"]
    bound = (6 / 500) ** 0.5
    assert float(linear.weight.detach().abs().max()) == pytest.approx(bound, rel=0.01)
    assert float(linear.weight.detach().std()) == pytest.approx(bound / 3**0.5, rel=0.02)
    assert not any(module.bias.any() for module in net.modules() if isinstance(module, nn.Linear))


@pytest.mark.parametrize("pool", ["max", "average"])
def test_vgg_keeps_the_variance_of_its_input(pool: str) -> None:
    torch.manual_seed(0)
    net = AnalogVGG((3, 16, 16), 5, stages=[[32], [64, 64]], hidden=[128], pool=pool)  # type: ignore[arg-type]
    logits = net(torch.randn(1, 20, 3, 16, 16))
    assert logits.shape == (1, 20, 5)
    assert 0.05 < float(logits.std()) < 5
    kinds = [type(module) for module in net.modules()]
    assert (nn.MaxPool2d in kinds) == (pool == "max")


def test_residual_adds_its_shortcut() -> None:
    x = torch.randn(2, 4)
    body, shortcut = nn.Linear(4, 3), nn.Linear(4, 3)
    torch.testing.assert_close(Residual(body, shortcut)(x), body(x) + shortcut(x))


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: AnalogMLP((8,), 4, neuron="GELU"), "neuron must be one of ReLU"),  # type: ignore[arg-type]
        (lambda: AnalogMLP((8,), 4, hidden=(0,)), "hidden must be a list of positive numbers"),
        (lambda: AnalogVGG((8, 8), 4), r"input_shape must be \(C, H, W\), got \(8, 8\)"),
        (lambda: AnalogVGG((3, 4, 4), 4), "3 stages halve"),
        (lambda: AnalogVGG((3, 8, 8), 4, pool="mean"), "pool must be 'max' or 'average', got 'mean'"),  # type: ignore[arg-type]
        (lambda: AnalogVGG((3, 8, 8), 4, stages=[[0]]), "stages must be a list of positive numbers"),
    ],
)
def test_wrong_arguments_are_named(make: object, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        make()  # type: ignore[operator]
