"""Calibration by a fit of the weights: the loss, its gradient, one step of Adam, what it may touch, and what it brings."""

from __future__ import annotations

import copy
import json
import re
from pathlib import Path
from typing import Any

import pytest
import torch
from conversion_networks import functional_network, images
from digits_network import digits, trained_on_digits
from torch import nn

import snn
from snn.conversion.convert import structure
from snn.conversion.layers import SpikingLayer
from snn.conversion.network import ConvertedNetwork
from snn.conversion.neurons import soft_reset_if
from snn.conversion.weight_fit import (
    Fit,
    clip_floor,
    fit_weights,
    mean_inputs,
    segments,
    squared_error,
)

DOUBLE = torch.float64
ADVANCED = "calibration-advanced"


def spiking_layer(theta: float = 0.5, start: float = 0.5) -> SpikingLayer:
    layer = SpikingLayer("relu", soft_reset_if)
    layer.set_threshold(torch.tensor(theta, dtype=DOUBLE), start)
    return layer


def two_layers(seed: int = 0) -> nn.Sequential:
    torch.manual_seed(seed)
    return nn.Sequential(nn.Linear(5, 9), nn.ReLU(), nn.Linear(9, 8), nn.ReLU(), nn.Linear(8, 3)).double().eval()


def chain() -> nn.Sequential:
    torch.manual_seed(1)
    first = nn.Conv2d(2, 6, 3), nn.ReLU(), nn.AvgPool2d(2)
    return nn.Sequential(*first, nn.Conv2d(6, 5, 3), nn.ReLU(), nn.Flatten(), nn.Linear(5, 3)).double().eval()


def converted(net: nn.Module, x: torch.Tensor, T: int = 3) -> ConvertedNetwork:
    return snn.convert(net, "rate", x, T=T, threshold="mse").snn


def fitted_errors(network: ConvertedNetwork) -> list[tuple[float, float]]:
    (note,) = (note for note in network.notes if note.startswith("weights fitted"))
    return [(float(a), float(b)) for a, b in re.findall(r"'[\w.]+' ([\d.e-]+) -> ([\d.e-]+)", note)]


@pytest.mark.parametrize("start", [0.0, 0.25, 0.5])
def test_clip_floor_is_the_neuron_on_constant_input(start: float) -> None:
    layer = spiking_layer(start=start)
    current = torch.linspace(-0.61, 1.33, 97, dtype=DOUBLE).view(1, 97)
    run = layer.sequence(current.expand(7, 1, 97)).mean(0)
    torch.testing.assert_close(clip_floor(current, layer, 7), run, rtol=0, atol=1e-12)


def test_clip_floor_passes_the_gradient_inside_the_clip_alone() -> None:
    layer = spiking_layer(
        theta=0.5, start=0.5
    )  # T = 2: position = (2 x + 0.25) / 0.5 lies in 0 .. 2 for x in -0.125 .. 0.375
    current = torch.tensor([[-0.2, -0.125, -0.1, 0.0, 0.3, 0.375, 0.4]], dtype=DOUBLE, requires_grad=True)
    clip_floor(current, layer, 2).backward(torch.full((1, 7), 3.0, dtype=DOUBLE))
    assert current.grad is not None
    assert current.grad.tolist() == [[0.0, 0.0, 3.0, 3.0, 3.0, 0.0, 0.0]]


def test_squared_error_sums_channels_and_averages_the_rest() -> None:
    assert squared_error(torch.full((2, 3, 4), 2.0), torch.zeros(2, 3, 4)).item() == 12.0


def test_segments_reach_back_to_the_layers_before() -> None:
    found = segments(converted(two_layers(), images(8, 5, dtype=DOUBLE)))
    assert [(part.activation, part.weighted) for part in found] == [("1", ("0",)), ("3", ("2",))]
    # The third activation of this network is of a sum of two others.
    with pytest.raises(snn.UnsupportedError, match="before 'relu_3' "):
        segments(converted(functional_network(), images(8, 2, 8, 8)))


def test_segments_compute_the_current_of_their_activation() -> None:
    x = images(6, 2, 8, 8, dtype=DOUBLE)
    network = converted(conv_network(), x)
    with network.record() as records:
        network(x)
    for segment in segments(network):
        inputs = mean_inputs(network, segment, [x[:4], x[4:]], 3)
        current = torch.fx.GraphModule(network.body, segment.graph)(*inputs)
        torch.testing.assert_close(current, records[segment.activation].input_sum / 3, rtol=1e-9, atol=1e-12)


class Shared(nn.Module):
    """A convolution that feeds two activations, as before a residual sum, and maximum pooling in between."""

    def __init__(self) -> None:
        super().__init__()
        self.first, self.second, self.last = nn.Conv2d(2, 4, 3), nn.Conv2d(4, 4, 3, padding=1), nn.Linear(36, 3)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        stem = self.first(x)
        y = torch.relu(self.second(torch.relu(stem)) + stem)
        return self.last(torch.max_pool2d(y, 2).flatten(1))


def conv_network() -> nn.Module:
    torch.manual_seed(4)
    return Shared().double().eval()


def test_a_layer_belongs_to_the_first_activation_that_it_feeds() -> None:
    network = converted(conv_network(), images(8, 2, 8, 8, dtype=DOUBLE))
    assert [segment.weighted for segment in segments(network)] == [("first",), ("second",)]
    assert [len(segment.inputs) for segment in segments(network)] == [1, 2]


def test_activations_without_weights_of_their_own_are_refused_by_name() -> None:
    net = nn.Sequential(nn.ReLU(), nn.Linear(4, 4), nn.ReLU(), nn.ReLU6(), nn.Linear(4, 2))
    with pytest.raises(snn.UnsupportedError, match=r"'0', '3'.*use weights=0"):
        snn.convert(net, ADVANCED, images(8, 4), weights=3)
    tied = nn.Linear(4, 4)
    twice = nn.Sequential(tied, nn.ReLU(), tied, nn.ReLU(), nn.Linear(4, 2))
    assert [part.weighted for part in segments(converted(twice, images(8, 4)))] == [
        ("0",),
        ("0_2",),
    ]  # one for each call


def test_one_iteration_is_a_step_of_adam_down_the_gradient() -> None:
    net, x = two_layers(), images(64, 5, dtype=DOUBLE)
    network = converted(net, x)
    part = segments(network)[1]
    inputs, wanted = mean_inputs(network, part, [x], 3), net[:4](x)
    theta = network.layers()["3"].threshold
    z = inputs[0] @ net[2].weight.T + net[2].bias
    position = (3 * z + theta / 2) / theta
    output = position.floor().clamp(0, 3) * theta / 3
    inside = (position > 0) & (position < 3)
    slope = (2 * (output - wanted) * inside / 64).T @ inputs[0]
    fit_weights(network, part, inputs, wanted, 3, Fit(1, 1e-3, 64, 0))
    moved = network.body.get_submodule("2").weight - net[2].weight
    torch.testing.assert_close(moved, -1e-3 * slope / (slope.abs() + 1e-8), rtol=1e-6, atol=1e-12)


def test_the_fit_lowers_the_error_of_the_layer_it_fits() -> None:
    """Checked with the neurons themselves on a constant current, not with the loss of the fit."""
    net, x = two_layers(), images(64, 5, dtype=DOUBLE)
    network = converted(net, x)
    part = segments(network)[1]
    inputs, wanted = mean_inputs(network, part, [x], 3), net[:4](x)
    layer = network.layers()["3"]

    def error() -> float:
        current = network.body.get_submodule("2")(inputs[0]).detach()
        layer.reset()
        return (layer.sequence(current.expand(3, *current.shape)).mean(0) - wanted).square().sum(1).mean().item()

    before = error()
    fitted = fit_weights(network, part, inputs, wanted, 3, Fit(200, 1e-2, 32, 0))
    assert fitted.before == pytest.approx(before)
    assert fitted.after == pytest.approx(error())
    assert error() < 0.9 * before


def test_a_fit_that_raises_the_error_keeps_the_weights() -> None:
    net, x = two_layers(), images(32, 5, dtype=DOUBLE)
    network = snn.convert(net, ADVANCED, x, T=3, weights=4, learning_rate=1.0).snn
    assert all(after == before for before, after in fitted_errors(network))
    for name in ("0", "2"):
        assert torch.equal(network.body.get_submodule(name).weight, net[int(name)].weight)  # type: ignore[arg-type]


def test_the_source_keeps_its_weights_and_the_fit_is_repeatable() -> None:
    net, x = chain(), images(24, 2, 8, 8, dtype=DOUBLE)
    state = copy.deepcopy(net.state_dict())
    options: dict[str, Any] = {"T": 3, "weights": 40, "learning_rate": 1e-3, "batch": 8, "samples": 16}
    first, again, other = (snn.convert(net, ADVANCED, x, **options, seed=seed).snn for seed in (1, 1, 2))
    assert all(torch.equal(value, state[name]) for name, value in net.state_dict().items())
    torch.testing.assert_close(first.source(x), net(x))
    assert torch.equal(first(x), again(x))
    assert not torch.equal(first(x), other(x))
    body, source = first.body.get_submodule("3"), first.source.get_submodule("3")
    assert not torch.equal(body.weight, source.weight)  # type: ignore[arg-type]
    assert body.bias is source.bias
    assert body.weight.requires_grad == source.weight.requires_grad
    assert body.weight.grad is None


def test_later_layers_are_fitted_on_what_earlier_ones_send_after_their_fit() -> None:
    net, x = two_layers(), images(48, 5, dtype=DOUBLE)
    options: dict[str, Any] = {"T": 3, "samples": 48, "weights": 40, "learning_rate": 1e-2, "batch": 48}
    network = snn.convert(net, ADVANCED, x, **options).snn
    by_hand = snn.convert(net, "rate", x, T=3, threshold="mse").snn
    fit = Fit(40, 1e-2, 48, 0)
    for index, name in ((1, "1"), (3, "3")):
        part = segments(by_hand)[index // 2]
        fit_weights(by_hand, part, mean_inputs(by_hand, part, [x], 3), net[: index + 1](x), 3, fit)
        with by_hand.record() as records:
            by_hand(x, 3)
        layer, mean = by_hand.layers()[name], records[name].output_sum.mean(0) / 3
        layer.set_initial(layer.initial - 3 * (mean - net[: index + 1](x).mean(0)))
    torch.testing.assert_close(network(x), by_hand(x), rtol=1e-10, atol=1e-12)


def test_fitted_weights_survive_saving() -> None:
    net, x = chain(), images(16, 2, 8, 8, dtype=DOUBLE)
    options: dict[str, Any] = {"weights": 40, "learning_rate": 1e-3}
    network = snn.convert(net, ADVANCED, x, T=3, **options).snn
    loaded = structure(net, ADVANCED, 3, **options)
    loaded.load_state_dict(network.state_dict())
    assert torch.equal(loaded(x), network(x))
    torch.testing.assert_close(loaded.source(x), net(x))
    assert not torch.equal(loaded.body.get_submodule("3").weight, net[3].weight)  # type: ignore[arg-type]
    plain = snn.convert(net, ADVANCED, x, T=3).snn
    unfitted = structure(net, ADVANCED, 3)
    unfitted.load_state_dict(plain.state_dict())
    shared = unfitted.source.get_submodule("3").weight
    assert unfitted.body.get_submodule("3").weight is shared
    assert unfitted.body.get_submodule("0").weight is unfitted.source.get_submodule("0").weight


def test_rounded_weights_of_an_exact_conversion_leave_its_loaded_source_alone() -> None:
    net, x = conv_network(), images(16, 2, 8, 8, dtype=DOUBLE)
    network = snn.convert(net, "cnn-morph", x, T=32, dyadic_bits=3).snn
    loaded = structure(net, "cnn-morph", 32, dyadic_bits=3)
    loaded.load_state_dict(network.state_dict())
    assert torch.equal(loaded(x), network(x))
    torch.testing.assert_close(loaded.source(x), net(x))


@pytest.mark.parametrize(
    ("options", "match"),
    [
        ({"weights": -1}, "weights must be a whole number of at least 0, got -1"),
        ({"weights": 2.5}, "weights must be a whole number"),
        ({"weights": 2, "learning_rate": 0.0}, r"learning_rate must lie in \(0, 1\], got 0.0"),
        ({"weights": 2, "batch": 0}, "batch must be a whole number of at least 1, got 0"),
        ({"weights": 2, "seed": -3}, "seed must be a whole number of at least 0, got -3"),
    ],
)
def test_bad_options_are_refused(options: dict[str, Any], match: str) -> None:
    with pytest.raises(ValueError, match=match):
        snn.convert(two_layers(), ADVANCED, images(8, 5, dtype=DOUBLE), **options)


def test_the_command_writes_a_folder_that_loads_with_the_fitted_weights(tmp_path: Path) -> None:
    from neuromorphic.compiler.checkpoint_cli import load_run
    from snn.conversion.command_line import main

    torch.manual_seed(0)
    net = digits_mlp()
    file, folder = tmp_path / "net.pt", tmp_path / "snn"
    torch.save(net.state_dict(), file)
    arguments = [str(file), "--model", "tests.conversion.test_weight_fit:digits_mlp", "--data", "digits", "--T", "4"]
    options = ["--option", "weights=15", "--option", "learning_rate=0.01", "--calibration-images", "64"]
    command = [*arguments, "--recipe", ADVANCED, *options, "--samples", "50", "--run-dir", str(folder)]
    assert main(command) == 0
    report = json.loads((folder / "report.json").read_text())
    assert any(note.startswith("weights fitted by 15 iterations") for note in report["notes"])
    loaded = load_run(folder, samples=40)
    body = loaded.network.network.body.get_submodule("3")  # type: ignore[union-attr,operator]
    source = loaded.network.network.source.get_submodule("3")  # type: ignore[union-attr,operator]
    assert torch.equal(source.weight, net[3].weight)  # type: ignore[index]
    assert not torch.equal(body.weight, source.weight)


def digits_mlp() -> nn.Module:
    return nn.Sequential(nn.Flatten(), nn.Linear(64, 12), nn.ReLU(), nn.Linear(12, 8), nn.ReLU(), nn.Linear(8, 10))


@pytest.mark.slow
def test_the_fit_brings_the_logits_of_few_steps_nearer_on_digits() -> None:
    x, _, test_x, labels = digits()
    net = trained_on_digits(nn.ReLU)
    found = {}
    for iterations in (0, 200):
        network = snn.convert(net, ADVANCED, x[:512], T=4, weights=iterations, learning_rate=1e-3).snn
        logits = network(test_x)
        found[iterations] = (
            (logits - net(test_x)).square().mean().item(),
            (logits.argmax(1) == labels).double().mean().item(),
        )
        if iterations:
            errors = fitted_errors(network)
            assert len(errors) == 4
            assert errors[1][1] < 0.97 * errors[1][0]
    assert found[200][0] < found[0][0]
    assert found[200][1] >= found[0][1] - 0.005
