"""The activation that is annealed into a step, and the LIF network that takes its place."""

from __future__ import annotations

import pytest
import torch

from snn.layers import AnnealedStep, anneal_steps, annealed_bounds
from snn.models import SpikingVGG
from snn.training import transfer

LIF = {
    "class": "LIF",
    "tau": 4 / 3,
    "decay_input": False,
    "v_threshold": 0.5,
    "detach_reset": True,
    "surrogate_function": {"class": "Rect", "alpha": 1.0},
}


@pytest.mark.parametrize(
    ("epoch", "bounds", "values"),
    [
        (50, (0.25, 0.75), {0.3: 0.1, 0.6: 0.7, 0.9: 1.0, 0.2: 0.0}),
        (98, (0.49, 0.51), {0.495: 0.25, 0.5: 0.5}),
        (100, (0.49, 0.5), {0.495: 0.5, 0.5: 1.0}),
    ],
)
def test_ramp_of_an_epoch(epoch: int, bounds: tuple[float, float], values: dict[float, float]) -> None:
    assert annealed_bounds(epoch - 1, 100) == pytest.approx(bounds)
    layer = AnnealedStep()
    anneal_steps(torch.nn.Sequential(layer), epoch - 1, 100)
    x = torch.tensor(list(values), dtype=torch.float64)
    assert layer(x).tolist() == pytest.approx(list(values.values()))


@pytest.mark.parametrize("epoch", [0, 30, 97, 99])
@pytest.mark.parametrize("threshold", [0.5, 1.0])
def test_gradient_is_the_window_at_every_epoch(epoch: int, threshold: float) -> None:
    layer = AnnealedStep(threshold)
    anneal_steps(layer, epoch, 100)
    x = 2 * threshold * torch.tensor([-0.1, 0.0, 0.01, 0.495, 0.5, 0.99, 1.0, 1.2], dtype=torch.float64)
    x.requires_grad_()
    (gradient,) = torch.autograd.grad(layer(x).sum(), x)
    assert gradient.tolist() == [0, 0, 1, 1, 1, 1, 0, 0]


def test_evaluation_is_the_step() -> None:
    x = torch.tensor([0.2, 0.4999, 0.5, 3.0])
    assert AnnealedStep().eval()(x).tolist() == [0, 0, 1, 1]


def test_lif_network_of_one_step_equals_the_annealed_network() -> None:
    torch.manual_seed(0)
    ann = SpikingVGG((1, 8, 8), 10, (6, 8), {"class": "snn.layers.AnnealedStep"}, norm_scale=0.5)
    for module in ann.modules():
        if isinstance(module, torch.nn.BatchNorm2d):
            assert module.weight.eq(0.5).all()
            module.running_mean.normal_(0, 0.1)
            module.running_var.uniform_(0.5, 1.5)
            torch.nn.init.normal_(module.bias, 0.3, 0.3)
    spiking = SpikingVGG((1, 8, 8), 10, (6, 8), LIF, norm_scale=0.5)
    report = transfer(ann, spiking)
    assert not report.missing
    assert not report.unused
    assert {name for name, _ in ann.named_parameters()} == {name for name, _ in spiking.named_parameters()}
    x = torch.rand(1, 20, 1, 8, 8)
    inner = []
    spiking.stack.layers["neuron2b"].register_forward_hook(lambda module, inputs, z: inner.append(z))
    assert torch.equal(spiking.eval()(x), ann.eval()(x))
    assert 0 < inner[0].mean() < 1


def test_wrong_arguments() -> None:
    with pytest.raises(ValueError, match="v_threshold must be > 0, got 0"):
        AnnealedStep(0.0)
    with pytest.raises(ValueError, match=r"epoch must lie in \[0, epochs\) = \[0, 5\), got 5"):
        annealed_bounds(5, 5)
