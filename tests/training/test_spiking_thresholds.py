"""Thresholds found inside the spiking network, and layers that do not fire."""

from __future__ import annotations

import math

import pytest
import torch
from torch import nn

from snn.models import SpikingMLP
from snn.neurons.diet import DIET
from snn.training import transfer
from snn.training.loss import SequenceLoss
from snn.training.stage_options import CalibrationOptions
from snn.training.thresholds import (
    diet_layers,
    firing_rates,
    initialise_thresholds,
    percentile,
    revive,
    silent_gradients,
)


def network(depth: int = 4, threshold: float = 1.0) -> SpikingMLP:
    torch.manual_seed(0)
    neuron = {"class": "DIET", "v_threshold": threshold, "leak": 0.5}
    return SpikingMLP((20,), 5, [30] * depth, neuron, bias=False, weight_init="he")


def images(T: int) -> torch.Tensor:
    return torch.rand(40, 20, generator=torch.Generator().manual_seed(1)).expand(T, 40, 20)


def test_rank_of_the_percentile() -> None:
    assert percentile(torch.arange(1.0, 11.0), 90) == 9
    assert percentile(torch.arange(10.0, 0.0, -1.0).view(2, 5), 100) == 10
    assert percentile(torch.tensor([-5.0, -1.0, 3.0]), 0) == -5
    assert percentile(torch.arange(1.0, 11.0), 95) == 10  # 8.55 is nearer to 9 than to 8
    assert percentile(torch.arange(1.0, 11.0), 94) == 9
    with pytest.raises(ValueError, match="p must lie in"):
        percentile(torch.ones(3), 101)


def plain_calibration(net: SpikingMLP, x: torch.Tensor, p: float) -> list[float]:
    """Layer after layer, the whole network anew for each, as in the published code."""
    thresholds: list[float] = []
    weights = [layer.weight for layer in net.stack.layers.values() if isinstance(layer, nn.Linear)]
    for target in range(len(weights) - 1):
        membranes = [torch.zeros(x.shape[1], len(w)) for w in weights]
        largest = 0.0
        for image in x:
            z = image
            for k, weight in enumerate(weights[: target + 1]):
                current = z @ weight.T
                if k == target:
                    ordered = current.flatten().sort().values
                    largest = max(largest, ordered[round(0.01 * p * (ordered.numel() - 1))].item())
                    break
                h = membranes[k] + current
                z = (h / thresholds[k] - 1 > 0).float()
                membranes[k] = h - thresholds[k] * z
        thresholds.append(largest if largest > 0 else 0.1)
    return thresholds


def test_thresholds_are_those_of_the_layer_by_layer_calibration() -> None:
    net, x = network(), images(12)
    with torch.no_grad():
        wanted = plain_calibration(net, x, 90)
    found = initialise_thresholds(net, x, CalibrationOptions(percentile=90))
    assert list(found.values()) == pytest.approx(wanted, rel=1e-4)
    assert len(set(wanted)) == len(wanted)
    for name, layer in diet_layers(net).items():
        assert layer.threshold.item() == pytest.approx(found[name], rel=1e-5)
        assert layer.leak.item() == 1
    assert net.training
    again = initialise_thresholds(net, x, CalibrationOptions(percentile=90, scale=0.5))
    assert next(iter(again.values())) == pytest.approx(0.5 * wanted[0], rel=1e-5)


def test_no_positive_current_gives_a_tenth() -> None:
    net = network(2)
    with torch.no_grad():
        net.stack.layers["linear2"].weight.abs_().neg_()
    found = list(initialise_thresholds(net, images(5), CalibrationOptions()).values())
    assert found[0] > 0.1
    assert found[1] == 0.1


def test_silent_layers_are_found_and_fire_again() -> None:
    net, x = network(threshold=0.3), images(1)
    for number in (2, 4):
        diet_layers(net)[f"stack.layers.neuron{number}"].set_threshold(1e4)
    labels, loss = torch.arange(40) % 5, SequenceLoss()
    rates = list(firing_rates(net, x).values())
    assert rates[0] > 0.1
    assert rates[1:] == [0, 0, 0]
    assert "stack.layers.linear1.weight" in silent_gradients(net, x, labels, loss)
    healthy = diet_layers(net)["stack.layers.neuron1"].threshold.item()
    changed = revive(net, x)
    assert {"stack.layers.neuron2", "stack.layers.neuron4"} <= set(changed)
    assert "stack.layers.neuron1" not in changed
    assert diet_layers(net)["stack.layers.neuron1"].threshold.item() == healthy
    for name, rate in firing_rates(net, x).items():
        assert rate >= 1e-3
        if name in changed:
            assert changed[name].new_threshold < changed[name].threshold
            assert rate == pytest.approx(changed[name].new_rate)
            assert rate >= 0.1
    assert not silent_gradients(net, x, labels, loss)
    assert revive(net, x) == {}


def test_a_layer_that_no_threshold_can_wake_is_reported_as_it_is() -> None:
    net = network(2)
    with torch.no_grad():
        net.stack.layers["linear2"].weight.abs_().neg_()
    before = diet_layers(net)["stack.layers.neuron2"].threshold.item()
    found = revive(net, images(2))["stack.layers.neuron2"]
    assert (found.rate, found.new_rate, found.new_threshold) == (0, 0, pytest.approx(before))


def test_a_layer_with_hardly_a_spike_is_judged_and_its_threshold_never_rises() -> None:
    """15 spikes of 20,000: below 0.001 per step. The only positive percentile, 2, lies above the threshold 1.9."""
    layer = DIET(v_threshold=1.9, leak=1.0, step_mode="m")
    current = torch.full((20, 100, 10), -1.0)
    current[0, :15, 0] = 2.0
    found = revive(nn.Sequential(layer), current)["0"]
    assert found.rate == pytest.approx(15 / 20000)
    assert found.new_threshold == pytest.approx(found.threshold) == pytest.approx(1.9)
    assert float(layer.threshold.detach().mean()) == pytest.approx(1.9)


def test_networks_without_diet_layers_are_refused() -> None:
    with pytest.raises(ValueError, match="SpikingMLP has no DIET layer"):
        initialise_thresholds(SpikingMLP((20,), 5, (8,)), images(1), CalibrationOptions())


def test_options_name_what_is_wrong() -> None:
    for key, value in {"percentile": 0.0, "steps": 0, "images": 0, "scale": -1.0}.items():
        with pytest.raises(ValueError, match=rf"calibrate\.{key} must be"):
            CalibrationOptions(**{key: value})  # type: ignore[arg-type]


def test_scaled_biases_keep_the_currents_of_the_ann_up_to_the_thresholds() -> None:
    torch.manual_seed(0)
    ann = SpikingMLP((20,), 5, (60, 60), "torch.nn.ReLU", weight_init="he")
    net = SpikingMLP((20,), 5, (60, 60), {"class": "DIET"}, weight_init="he")
    for layer in ann.stack.layers.values():
        if isinstance(layer, nn.Linear):
            nn.init.uniform_(layer.bias, 0.0, 0.4)
    transfer(ann, net)
    x, T = images(1), 400
    options = CalibrationOptions(percentile=100, scale_biases=True)
    product = math.prod(initialise_thresholds(net, x.expand(T, *x.shape[1:]), options).values())
    wanted, got = ann(x)[0], net.eval()(x.expand(T, *x.shape[1:])).mean(0) * product
    assert (wanted - got).abs().max() < 0.05 * wanted.abs().max()
    plain = SpikingMLP((20,), 5, (60, 60), {"class": "DIET"}, weight_init="he")
    transfer(ann, plain)
    initialise_thresholds(plain, x, CalibrationOptions(percentile=100))
    for name in ("linear1", "linear2", "readout"):
        assert torch.equal(plain.stack.layers[name].bias, ann.stack.layers[name].bias)
