"""Stacks of layers: one pass for a repeated input, carried state, layers of other libraries."""

from __future__ import annotations

import pytest
import torch
from spikingjelly.activation_based import neuron as sj_neuron
from torch import nn

import snn
from snn.models import Stack


def conv_stack(bias: bool = False) -> Stack:
    torch.manual_seed(3)
    layers = {
        "conv": nn.Conv2d(2, 4, 3, padding=1, bias=bias),
        "norm": nn.BatchNorm2d(4),
        "pool": nn.AvgPool2d(2),
        "neuron": snn.LIF(v_threshold=0.3, step_mode="m"),
        "flatten": nn.Flatten(),
        "readout": nn.Linear(16, 3),
    }
    return Stack(layers).double()


def results(stack: Stack, x: torch.Tensor, image: torch.Tensor) -> tuple[torch.Tensor, list[torch.Tensor]]:
    y = stack(x)
    weight = torch.linspace(-1, 1, y.numel(), dtype=y.dtype).view_as(y)
    leaves = [*stack.parameters(), image]
    return y, list(torch.autograd.grad((y * weight).sum(), leaves))


@pytest.mark.parametrize("training", [True, False])
@pytest.mark.parametrize("T", [1, 2, 5])
def test_a_repeated_image_passes_once_with_equal_values_and_gradients(T: int, training: bool) -> None:
    image = (torch.randn(6, 2, 4, 4, dtype=torch.float64) * 2).requires_grad_()
    calls = []
    outcome = []
    for repeat in (lambda: image.expand(T, *image.shape), lambda: torch.stack([image] * T)):
        stack = conv_stack().train(training)
        stack.layers["conv"].register_forward_hook(lambda module, inputs, output: calls.append(len(output)))
        outcome.append((*results(stack, repeat(), image), stack.layers["norm"]))
    assert calls == [6, 6 * T]
    (y, gradients, norm), (y_full, gradients_full, norm_full) = outcome
    torch.testing.assert_close(y, y_full)
    assert float((y != y[0]).double().mean()) > 0 or T == 1
    for a, b in zip(gradients, gradients_full, strict=True):
        torch.testing.assert_close(a, b)
    torch.testing.assert_close(norm.running_mean, norm_full.running_mean)
    if training:
        # The factor n / (n - 1) of the sample variance, with n the number of different values.
        n = 6 * 16
        factor = (n / (n - 1)) / (T * n / (T * n - 1))
        torch.testing.assert_close(norm.running_var - 0.9, (norm_full.running_var - 0.9) * factor)


def test_dropout_sees_every_step_of_a_repeated_image() -> None:
    stack = Stack({"dropout": nn.Dropout(0.5), "linear": nn.Linear(50, 50)})
    with torch.no_grad():
        y = stack(torch.ones(4, 50).expand(3, 4, 50))
    assert not torch.equal(y[0], y[1])


def test_a_stack_without_neurons_repeats_its_output() -> None:
    stack = Stack({"linear": nn.Linear(3, 2)})
    x = torch.randn(5, 3)
    assert torch.equal(stack(x.expand(4, 5, 3)), stack.layers["linear"](x).expand(4, 5, 2))


NEURONS = {
    "ours": lambda: snn.LIF(tau=3.0, step_mode="m"),
    "spikingjelly": lambda: sj_neuron.LIFNode(tau=3.0, step_mode="m"),
    "recurrent": lambda: snn.RecurrentLIF(5, tau=3.0, v_threshold=0.5, step_mode="m"),
}


@pytest.mark.parametrize("kind", NEURONS)
def test_a_sequence_in_parts_with_carried_state_equals_the_whole(kind: str) -> None:
    stack = Stack({"linear": nn.Linear(4, 5), "neuron": NEURONS[kind](), "readout": nn.Linear(5, 2)})
    x = torch.randn(7, 30, 4) * 3
    whole = stack(x)
    first, state = stack(x[:3], state=None)
    second, _ = stack(x[3:], state=state)
    torch.testing.assert_close(torch.cat([first, second]), whole)
    assert not torch.equal(second, stack(x[3:]))  # the state mattered
    assert all(not value.requires_grad for value in state["neuron"].values() if isinstance(value, torch.Tensor))


@pytest.mark.parametrize("kind", NEURONS)
def test_every_plain_call_starts_fresh(kind: str) -> None:
    stack = Stack({"linear": nn.Linear(4, 5), "neuron": NEURONS[kind]()})
    x = torch.randn(3, 2, 4) * 3
    first = stack(x)
    stack(torch.randn(3, 6, 4))  # another batch size in between
    assert torch.equal(stack(x), first)
