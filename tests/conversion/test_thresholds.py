"""Thresholds from data and weights, against plain computations on all activations."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from conversion_networks import functional_network, images, random_norms
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn

import snn
from snn.conversion.thresholds import CANDIDATES, LeastSquares, Percentile

DOUBLE = torch.float64


def activations(net: nn.Sequential, x: torch.Tensor, last: int) -> torch.Tensor:
    return net[: last + 1](x)


def small() -> tuple[nn.Sequential, torch.Tensor]:
    torch.manual_seed(1)
    net = nn.Sequential(
        nn.Conv2d(1, 3, 3), nn.BatchNorm2d(3), nn.ReLU(), nn.Flatten(), nn.Linear(48, 5), nn.ReLU(), nn.Linear(5, 2)
    )
    random_norms(net).requires_grad_(False).double()
    net[1].bias.fill_(0.4)  # all channels speak
    return net, images(150, 1, 6, 6, dtype=DOUBLE)


def found(rule: str, **options: object) -> dict[str, torch.Tensor]:
    net, x = small()
    layers = snn.convert(net, "rate", x, T=6, threshold=rule, **options).snn.layers()
    return {name: layer.threshold for name, layer in layers.items()}


def rows(a: torch.Tensor, channelwise: bool) -> torch.Tensor:
    return a.transpose(0, 1).flatten(1) if channelwise else a.reshape(1, -1)


@pytest.mark.parametrize("channelwise", [False, True])
@pytest.mark.parametrize("rule", ["max", "percentile 99.9", "percentile 90", "nonzero 90", "percentile 100"])
def test_statistics_see_every_activation(rule: str, channelwise: bool) -> None:
    kind, _, percent = rule.partition(" ")
    options = {"percentile": float(percent), "count_zeros": kind != "nonzero"} if percent else {}
    thresholds = found("max" if kind == "max" else "percentile", channelwise=channelwise, **options)
    net, x = small()
    for name, last in (("2", 2), ("5", 5)):
        wanted = []
        for row in rows(activations(net, x, last), channelwise).numpy():
            values = row[row > 0] if kind == "nonzero" else row
            wanted.append(values.max() if kind == "max" else np.percentile(values, float(percent)))
        np.testing.assert_allclose(thresholds[name].flatten().numpy(), wanted, rtol=1e-9)
    assert thresholds["2"].shape == ((3, 1, 1) if channelwise else ())
    assert thresholds["5"].shape == ((5,) if channelwise else ())


@settings(max_examples=40)
@given(
    st.lists(st.floats(0, 100, width=32), min_size=4, max_size=60),
    st.floats(1, 100),
    st.integers(1, 3),
)
def test_percentile_equals_numpy(values: list[float], percent: float, parts: int) -> None:
    row = torch.tensor(values, dtype=DOUBLE)
    row = row[: len(row) // parts * parts]
    statistic = Percentile(percent, len(row))
    for part in row.chunk(parts):
        statistic.add(part.view(1, -1), len(part))
    assert statistic.value().item() == pytest.approx(np.percentile(row.numpy(), percent), rel=1e-9, abs=1e-12)


@pytest.mark.parametrize("channelwise", [False, True])
@pytest.mark.parametrize("start", [0.0, 0.5])
def test_least_squares_equals_a_search_over_all_activations(channelwise: bool, start: float) -> None:
    net, x = small()
    thresholds = found("mse", channelwise=channelwise, start=start)

    def error(row: torch.Tensor, theta: float) -> float:
        spikes = (row * 6 / theta + start).floor().clamp(0, 6)
        return (row - spikes * theta / 6).square().mean().item()

    for name, last in (("2", 2), ("5", 5)):
        for row, theta in zip(rows(activations(net, x, last), channelwise), thresholds[name].flatten(), strict=True):
            errors = [error(row, float(row.max() * part)) for part in CANDIDATES]
            assert error(row, theta.item()) <= 1.01 * min(errors) + 1e-7 * row.max() ** 2
            assert theta <= row.max() * (1 + 1e-12)


def test_least_squares_of_bursts_prefers_smaller_spikes() -> None:
    rows_ = torch.rand(1, 5000, generator=torch.Generator().manual_seed(0), dtype=DOUBLE)
    one, five = (LeastSquares(rows_.amax(1), 4, 0.5, highest) for highest in (1, 5))
    one.add(rows_, len(rows_[0]))
    five.add(rows_, len(rows_[0]))
    assert five.value().item() < 0.5 * one.value().item()


def test_silent_channels_and_layers_get_a_usable_threshold() -> None:
    net = nn.Sequential(nn.Linear(2, 3), nn.ReLU(), nn.Linear(3, 2), nn.ReLU())
    with torch.no_grad():
        net[0].weight.copy_(torch.tensor([[1.0, 0.0], [0.0, 3.0], [0.0, 0.0]]))
        net[0].bias.copy_(torch.tensor([0.0, 0.0, -1.0]))
        net[2].weight.zero_()
        net[2].bias.fill_(-1.0)
    x = torch.ones(4, 2)
    layers = snn.convert(net, "rate", x, T=4, threshold="max", channelwise=True).snn.layers()
    assert layers["1"].threshold.tolist() == [1.0, 3.0, 3.0]
    assert layers["3"].threshold.tolist() == [1.0, 1.0]
    sparse = torch.cat([torch.zeros(999, 2), torch.ones(1, 2)])
    layers = snn.convert(net, "rate", sparse, T=4, percentile=50.0).snn.layers()
    assert layers["1"].threshold.item() == 3.0  # the percentile itself would be 0


def test_an_activation_with_a_greatest_value_caps_the_threshold() -> None:
    net = nn.Sequential(nn.Linear(1, 1, bias=False), nn.ReLU6(), nn.Linear(1, 1, bias=False))
    net[0].weight.data.fill_(1.0)
    net[2].weight.data.fill_(1.0)
    x = torch.tensor([[20.0], [3.0]])
    for recipe, options, theta in (("rate", {}, 6.0), ("burst", {"gamma": 4}, 1.5), ("ltb", {}, 6.0)):
        converted = snn.convert(net, recipe, x.repeat(200, 1), T=64, **options).snn
        assert converted.layers()["1"].threshold.max().item() <= theta
        assert (converted(x) - torch.tensor([[6.0], [3.0]])).abs().max() <= 6.0 / 64


def test_thresholds_by_weights_bound_every_activation() -> None:
    net = functional_network(dtype=DOUBLE)
    for channelwise in (False, True):
        converted = snn.convert(net, "rate", T=4, threshold="model", channelwise=channelwise, input_range=(-1, 1)).snn
        generator = torch.Generator().manual_seed(0)
        x = torch.rand(64, 2, 8, 8, generator=generator, dtype=DOUBLE) * 2 - 1
        seen: dict[str, torch.Tensor] = {}
        for name in converted.layers():
            module = converted.source.get_submodule(name)
            module.register_forward_hook(lambda m, i, o, name=name, seen=seen: seen.update({name: o}))
        converted.source(x.sign())
        for name, layer in converted.layers().items():
            assert (seen[name] <= layer.threshold * (1 + 1e-12)).all()
            assert layer.threshold.dim() == (3 if channelwise else 0)


def test_thresholds_by_weights_known_answer() -> None:
    net = nn.Sequential(nn.Linear(2, 2), nn.ReLU(), nn.Linear(2, 1), nn.ReLU())
    with torch.no_grad():
        net[0].weight.copy_(torch.tensor([[1.0, 2.0], [-1.0, 0.5]]))
        net[0].bias.copy_(torch.tensor([0.5, 0.25]))
        net[2].weight.copy_(torch.tensor([[1.0, -4.0]]))
        net[2].bias.fill_(0.0)
    layers = snn.conversion.convert(net, "rate", T=4, threshold="model", channelwise=True).snn.layers()
    assert layers["1"].threshold.tolist() == [3.5, 0.75]
    assert layers["3"].threshold.tolist() == [3.5]


def test_local_threshold_balancing_known_answer() -> None:
    """theta <- theta + 2 mean(max(a - theta, 0)) once per batch; the second layer sees clipped activations."""
    net = nn.Sequential(nn.Linear(1, 1, bias=False), nn.ReLU(), nn.Linear(1, 1, bias=False), nn.ReLU())
    net[0].weight.data.fill_(1.0)
    net[2].weight.data.fill_(1.0)
    batches = [torch.tensor([[1.0], [3.0]]), torch.tensor([[2.0], [8.0]])]
    layers = snn.convert(net, "ltb", batches, T=4, passes=1).snn.layers()
    first = 2 * 2.0  # mean of 1 and 3
    first += 2 * ((8 - first) / 2)
    second = 2 * 2.0  # clipped at 4: 1 and 3 pass
    second += 2 * (max(8 - second, 0) / 2)  # clipped at 8
    assert layers["1"].threshold.item() == first
    assert layers["3"].threshold.item() == second


@pytest.mark.parametrize(
    ("options", "match"),
    [
        ({"percentile": 0.0}, r"percentile must lie in \(0, 100\], got 0.0"),
        ({"percentile": 101}, "percentile must lie"),
        ({"start": 1.0}, r"start must lie in \[0, 1\), got 1.0"),
        ({"threshold": "mean"}, "threshold must be one of"),
        ({"max_pool": "min"}, "max_pool must be one of"),
        ({"delay": -1}, "delay must be a whole number of at least 0"),
        ({"delay": math.nan}, "delay must be"),
        ({"input_range": (1.0, 0.0)}, "input_range must be"),
    ],
)
def test_bad_options_are_refused(options: dict[str, object], match: str) -> None:
    with pytest.raises(ValueError, match=match):
        snn.convert(small()[0], "rate", small()[1], **options)
