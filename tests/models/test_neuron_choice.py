"""Neurons chosen by name."""

from __future__ import annotations

import pytest
import torch

import snn
from snn.models import SpikingMLP
from snn.models.neuron_choice import make_neuron


def test_surrogates_are_chosen_by_name() -> None:
    atan = make_neuron({"class": "LIF", "surrogate_function": {"class": "ATan", "alpha": 3.0}}).surrogate_function
    assert type(atan).__name__ == "ATan"
    assert atan.alpha == 3.0
    ours = make_neuron({"class": "IF", "surrogate_function": "Triangle"}).surrogate_function
    assert isinstance(ours, snn.surrogate.Triangle)


def test_surrogate_objects_stay_as_they_are() -> None:
    surrogate = snn.surrogate.Triangle()
    assert make_neuron({"class": "LIF", "surrogate_function": surrogate}).surrogate_function is surrogate


def test_recurrent_neurons_take_the_size_of_their_layer() -> None:
    net = SpikingMLP((4,), 2, hidden=(9, 8), neuron="RecurrentLIF")
    assert [net.stack.layers[f"neuron{k}"].recurrent.weight.shape for k in (1, 2)] == [(9, 9), (8, 8)]
    assert net(torch.randn(3, 5, 4)).shape == (3, 5, 2)


@pytest.mark.parametrize("neuron", ["LIF", {"class": "PLIF"}, lambda: snn.IF(step_mode="m")])
def test_each_call_makes_a_new_layer_of_all_steps(neuron: object) -> None:
    first, second = make_neuron(neuron), make_neuron(neuron)  # type: ignore[arg-type]
    assert first is not second
    assert first.step_mode == "m"
