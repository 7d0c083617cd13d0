"""Folding MPBN into thresholds leaves every spike where it was."""

from __future__ import annotations

import copy
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn

import snn
from snn.errors import UnsupportedError
from snn.layers import MPBN, FoldedThreshold, fold_mpbn, integer_threshold
from snn.layers.norm_fold import ALWAYS
from snn.models import Stack

LEAK = {"tau": 4 / 3, "decay_input": False, "v_threshold": 0.5}


def trained(features: Any, zeros: int = 0, **arguments: Any) -> MPBN:
    norm = MPBN(features, **arguments)
    with torch.no_grad():
        norm.weight.uniform_(-1.5, 1.5)
        norm.weight.view(-1)[:zeros] = 0
        norm.bias.uniform_(-0.5, 1.0)
        norm.running_mean.uniform_(-0.5, 0.5)
        norm.running_var.uniform_(0.2, 2.0)
    return norm


def neuron(norm: MPBN, **arguments: Any) -> snn.LIF:
    return snn.LIF(**{**LEAK, **arguments}, step_mode="m", membrane_norm=norm)


def spikes_of(net: nn.Module, x: torch.Tensor) -> torch.Tensor:
    with torch.no_grad():
        return net.eval()(x)


@pytest.mark.parametrize("v_reset", [0.0, 0.1, None])
@pytest.mark.parametrize("dtype", [torch.float64, torch.float32], ids=str)
def test_no_spike_of_a_million_changes(v_reset: float | None, dtype: torch.dtype) -> None:
    net = nn.Sequential(neuron(trained(300, zeros=5), v_reset=v_reset)).to(dtype)
    folded, report = fold_mpbn(net)
    x = torch.randn(8, 420, 300, dtype=dtype)
    before, after = spikes_of(net, x), spikes_of(folded, x)
    assert x.numel() > 1_000_000
    assert 0.05 < before.mean() < 0.6
    assert int((before != after).sum()) == 0 or dtype == torch.float32
    assert int((before != after).sum()) <= 3
    (layer,) = report.layers
    assert layer.form == "signed threshold"
    assert layer.constant_count == 5
    assert layer.differences == 0
    assert layer.checked >= 100_000


def test_worked_example() -> None:
    norm = MPBN(2).double()
    with torch.no_grad():
        for name, values in {
            "weight": (1.5, -0.8), "bias": (0.2, 0.1), "running_mean": (0.3, 0.4), "running_var": (0.25, 0.16),
        }.items():  # fmt: skip
            getattr(norm, name).copy_(torch.tensor(values, dtype=torch.float64))
    _, report = fold_mpbn(nn.Sequential(neuron(norm)))
    (layer,) = report.layers
    assert layer.sign.tolist() == [1, -1]
    torch.testing.assert_close(
        layer.threshold, torch.tensor([0.40000200, 0.19999375], dtype=torch.float64), atol=5e-9, rtol=0
    )
    assert layer.fires_at_rest == (1,)


def test_constant_units_fire_always_or_never() -> None:
    norm = trained(4, zeros=4)
    with torch.no_grad():
        norm.bias.copy_(torch.tensor([0.5, 0.4, 0.6, 0.5 - 1e-6]))  # the threshold is 0.5
    folded, report = fold_mpbn(nn.Sequential(neuron(norm)))
    z = spikes_of(folded, 100 * torch.randn(5, 6, 4))
    assert z.mean((0, 1)).tolist() == [1, 0, 1, 0]
    assert report.layers[0].fires_at_rest == (0, 2)
    assert report.layers[0].threshold.tolist() == [-ALWAYS, ALWAYS, -ALWAYS, ALWAYS]


def conv_net(norm: Any, element: Any, v_reset: float | None) -> nn.Module:
    return Stack(
        {
            "conv": nn.Conv2d(3, 6, 3, padding=1),
            "neuron": neuron(norm, v_reset=v_reset),
            "pool": nn.AvgPool2d(2),
            "conv2": nn.Conv2d(6, 4, 3, padding=1, bias=False),
            "norm2": nn.BatchNorm2d(4),
            "neuron2": neuron(element, v_reset=v_reset),
            "flatten": nn.Flatten(),
            "linear3": nn.Linear(4 * 4 * 4, 8),
            "neuron3": neuron(trained(8), v_reset=v_reset),
        }
    )


@pytest.mark.parametrize("v_reset", [0.0, None])
@pytest.mark.parametrize("shape", [4, (4, 4, 4)], ids=["channel", "element"])
def test_a_whole_network(v_reset: float | None, shape: Any) -> None:
    net = conv_net(trained(6, zeros=1), trained(shape), v_reset).double()
    x = torch.rand(4, 20, 3, 8, 8, dtype=torch.float64)
    untouched = copy.deepcopy(net.state_dict())
    folded, report = fold_mpbn(net, x)
    assert report.differences == 0
    assert report.checked == 4 * 20 * (6 * 64 + 4 * 16 + 8)
    torch.testing.assert_close(spikes_of(folded, x), spikes_of(net, x), rtol=0, atol=0)
    assert all(torch.equal(value, untouched[name]) for name, value in net.state_dict().items())
    forms = [layer.form for layer in report.layers]
    if v_reset is None:
        assert forms == ["signed threshold"] * 3
    else:
        assert forms == ["threshold", "threshold" if shape == 4 else "signed threshold", "threshold"]
        assert report.layers[0].moved_sign_count == report.layers[0].negative_count > 0
        plain = folded.layers["neuron"]
        assert plain.membrane_norm is None
        assert plain.v_threshold.shape == (6, 1, 1)
    assert "whole network" in str(report)


def test_signs_stay_where_currents_have_another_source() -> None:
    class Residual(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.linear = nn.Linear(5, 5)
            self.neuron = neuron(trained(5))

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return self.neuron(self.linear(x) + x)

    x = torch.randn(4, 50, 5, dtype=torch.float64)
    folded, report = fold_mpbn(Residual().double(), x)
    assert report.differences == 0
    assert isinstance(folded.neuron.membrane_norm, FoldedThreshold)
    shared = nn.Linear(5, 5)
    net = nn.ModuleDict(
        {"a": nn.Sequential(shared, neuron(trained(5))), "b": nn.Sequential(shared, neuron(trained(5)))}
    )
    _, report = fold_mpbn(net)
    assert [layer.form for layer in report.layers] == ["signed threshold", "signed threshold"]
    assert [layer.differences for layer in report.layers] == [0, 0]


@pytest.mark.parametrize("name", ["if", "plif", "cuba_lif", "recurrent_lif"])
@pytest.mark.parametrize("v_reset", [0.0, None])
def test_other_neurons(name: str, v_reset: float | None) -> None:
    extra = {"recurrent": 7} if name == "recurrent_lif" else {}
    layer = snn.NEURONS[name](v_reset=v_reset, step_mode="m", membrane_norm=trained(7), **extra)
    net = nn.Sequential(nn.Linear(4, 7), layer).double()
    x = torch.randn(6, 80, 4, dtype=torch.float64)
    folded, report = fold_mpbn(net, x)
    assert report.differences == 0
    assert torch.equal(spikes_of(folded, x), spikes_of(net, x))
    assert report.layers[0].form == ("threshold" if v_reset == 0.0 and name != "recurrent_lif" else "signed threshold")


def test_thresholds_per_element_with_a_norm_per_channel() -> None:
    thresholds = 0.3 + torch.rand(6, 4, 4)
    net = nn.Sequential(neuron(trained(6), v_threshold=thresholds)).double()
    x = torch.randn(5, 30, 6, 4, 4, dtype=torch.float64)
    _, report = fold_mpbn(net, x)
    assert report.differences == 0
    assert report.layers[0].threshold.shape == (6, 4, 4)


def test_element_wise_with_constant_values_is_channel_wise() -> None:
    channel = trained(3)
    element = MPBN((3, 2, 2))
    for name, value in channel.state_dict().items():
        getattr(element, name).data.copy_(value.view(3, 1, 1).expand(3, 2, 2) if value.dim() else value)
    reports = [fold_mpbn(nn.Sequential(neuron(norm)))[1] for norm in (channel, element)]
    assert torch.equal(reports[1].layers[0].threshold, reports[0].layers[0].threshold.view(3, 1, 1).expand(3, 2, 2))


def test_thresholds_per_step() -> None:
    net = nn.Sequential(neuron(trained(5, steps=4))).double()
    x = torch.randn(4, 300, 5, dtype=torch.float64)
    folded, report = fold_mpbn(net, x)
    assert report.differences == 0
    assert report.layers[0].threshold.shape == (4, 5)
    with pytest.raises(ValueError, match="all 4 steps"):
        folded(x[:3])


def test_order_of_folding_with_batch_norm_does_not_matter() -> None:
    norm = nn.BatchNorm2d(4).double().eval()
    with torch.no_grad():
        norm.running_mean.normal_()
        norm.running_var.uniform_(0.5, 2.0)
        norm.weight.uniform_(0.5, 1.5)
    conv = nn.Conv2d(2, 4, 3).double().eval()
    fused = nn.utils.fusion.fuse_conv_bn_eval(conv, norm)
    mpbn = trained(4)
    x = torch.randn(3, 40, 2, 6, 6, dtype=torch.float64)
    first, _ = fold_mpbn(Stack({"conv": conv, "norm": norm, "neuron": neuron(mpbn).double()}), x)
    second, _ = fold_mpbn(Stack({"conv": fused, "neuron": neuron(mpbn).double()}), x)
    third = nn.utils.fusion.fuse_conv_bn_eval(first.layers["conv"], first.layers["norm"])
    z = spikes_of(first, x)
    assert int((z != spikes_of(second, x)).sum()) == 0
    assert int((z != spikes_of(Stack({"conv": third, "neuron": first.layers["neuron"]}), x)).sum()) == 0


def test_refusals_name_the_layer() -> None:
    with pytest.raises(ValueError, match="no neuron with an MPBN"):
        fold_mpbn(nn.Sequential(snn.LIF(step_mode="m")))
    with pytest.raises(UnsupportedError, match="'0' has an MPBN with carry='normalised'"):
        fold_mpbn(nn.Sequential(neuron(MPBN(3, carry="normalised"))))
    with pytest.raises(UnsupportedError, match=r"'0' \(ALIF\) moves"):
        fold_mpbn(nn.Sequential(snn.ALIF(step_mode="m", membrane_norm=MPBN(3))))


@settings(deadline=None, max_examples=60)
@given(
    threshold=st.floats(-1000, 1000, allow_nan=False) | st.integers(-1000, 1000).map(float),
    sign=st.sampled_from([1.0, -1.0]),
    unit=st.sampled_from([1.0, 0.25, 2.0**-6]),
    strict=st.booleans(),
)
def test_integer_thresholds_decide_as_real_ones(threshold: float, sign: float, unit: float, strict: bool) -> None:
    counts = torch.arange(-66_000, 66_000)
    h = counts.double() * unit
    n = integer_threshold(torch.tensor([threshold], dtype=torch.float64), torch.tensor([sign]), unit, strict)
    if sign > 0:
        real, whole = (h > threshold if strict else h >= threshold), counts >= n
    else:
        real, whole = (h < threshold if strict else h <= threshold), counts <= n
    assert torch.equal(real, whole)


def test_integer_threshold_checks_its_unit() -> None:
    with pytest.raises(ValueError, match="unit must be > 0"):
        integer_threshold(torch.zeros(1), torch.ones(1), 0.0)


def test_folded_network_in_integers() -> None:
    """Currents and leak that are whole multiples of a unit: the integer membrane fires as the folded float one."""
    unit = 2.0**-8
    net = nn.Sequential(snn.IF(v_threshold=0.5, step_mode="m", membrane_norm=trained(9, zeros=2))).double()
    folded, report = fold_mpbn(net)
    x = torch.randint(-200, 200, (10, 50, 9)).double() * unit
    expected = spikes_of(folded, x)
    layer = report.layers[0]
    n = layer.integer_threshold(unit)
    v = torch.zeros(50, 9, dtype=torch.long)
    for x_t, z_t in zip(x, expected, strict=True):
        v = v + (x_t / unit).long()
        fired = torch.where(layer.sign > 0, v >= n, v <= n)
        assert torch.equal(fired, z_t.bool())
        v = torch.where(fired, 0, v)
