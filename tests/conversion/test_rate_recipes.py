"""The recipes around rate coding: what each changes, by known answers on single layers and on small networks."""

from __future__ import annotations

import doctest
import sys
from typing import Any

import pytest
import torch
from conversion_networks import functional_network, images
from torch import nn

import snn
from snn.conversion import RECIPES
from snn.conversion.activations import QCFS, QuantAct
from snn.conversion.layers import SpikingLayer
from snn.conversion.neurons import soft_reset_if
from snn.conversion.pooling import GatedMaxPool
from snn.conversion.recipes.residual import shifted_start
from snn.conversion.temporal_difference import TemporalDifference

DOUBLE = torch.float64
OPTIONS: dict[str, dict[str, Any]] = {
    "rate": {},
    "burst": {},
    "signed": {},
    "srp": {"tau": 3},
    "cos": {"rho": 3},
    "ltb": {},
    "calibration-light": {"samples": 8},
    "calibration-advanced": {"samples": 8},
}


def qcfs_network(levels: int = 4) -> nn.Sequential:
    torch.manual_seed(2)
    return nn.Sequential(
        nn.Conv2d(1, 4, 3), QCFS(levels, 1.5), nn.AvgPool2d(2), nn.Flatten(), nn.Linear(16, 8), QCFS(levels, 0.8), nn.Linear(8, 3)
    ).eval()  # fmt: skip


def column(*values: float) -> torch.Tensor:
    return torch.tensor(values, dtype=DOUBLE).view(-1, 1, 1)


@pytest.mark.parametrize("recipe", OPTIONS)
def test_every_recipe_runs_and_is_repeatable(recipe: str) -> None:
    net = functional_network()
    x = images(12, 2, 8, 8)
    conversions = [snn.convert(net, recipe, x, T=6, **OPTIONS[recipe]) for _ in range(2)]
    first, second = (conversion.snn(x, return_all_steps=True) for conversion in conversions)
    assert first.shape == (6, 12, 5)
    assert torch.equal(first, second)
    assert torch.equal(first, conversions[0].snn(x, return_all_steps=True))
    torch.testing.assert_close(conversions[0].snn(x), first[-1])
    assert conversions[0].recipe == recipe
    wanted = net(x)
    errors = (first - wanted).square().mean((1, 2))
    assert errors[-1] < errors[0]
    assert errors[-1] < wanted.var()


@pytest.mark.parametrize("recipe", ["rate", "burst", "signed", "ltb", "srp", "cos"])
def test_charge_is_kept_under_every_recipe(recipe: str) -> None:
    net = functional_network(dtype=DOUBLE)
    x = images(6, 2, 8, 8, dtype=DOUBLE)
    network = snn.convert(net, recipe, x, T=9, **OPTIONS[recipe]).snn
    with network.record() as records:
        network(x)
    if recipe == "srp":
        assert 0 < network.layers()["relu_2"].mask.mean() < 1  # type: ignore[union-attr]
    for name, record in records.items():
        silenced = network.layers()[name].mask
        balance = record.output_sum + record.membrane - record.initial - record.input_sum
        if silenced is not None:
            balance = balance * silenced
        assert record.steps == 9
        assert balance.abs().max() < 1e-12


def test_qcfs_keeps_the_learned_thresholds() -> None:
    net = qcfs_network()
    conversion = snn.convert(net, "qcfs", T=4)
    layers = conversion.snn.layers()
    assert [layer.threshold.item() for layer in layers.values()] == pytest.approx([1.5, 0.8])
    assert [layer.initial.item() for layer in layers.values()] == pytest.approx([0.75, 0.4])
    assert snn.convert(net, "qcfs", T=4, start=0.0).snn.layers()["1"].initial.item() == 0.0
    x = images(64, 1, 6, 6)
    for recipe in ("burst", "signed", "srp", "cos"):  # their neurons, the same thresholds, no data needed
        layers = snn.convert(net, recipe, T=4).snn.layers()
        assert [layer.threshold.item() for layer in layers.values()] == pytest.approx([1.5, 0.8])
        limit = qcfs_network(64)(x)
        assert snn.convert(net, recipe, T=256).snn(x).sub(limit).abs().mean() < 0.15 * limit.std()


def test_a_layer_of_qcfs_is_exact_after_its_levels() -> None:
    torch.manual_seed(3)
    net = nn.Sequential(nn.Linear(6, 40), QCFS(8, 1.0), nn.Linear(40, 3)).double().eval()
    x = images(50, 6, dtype=DOUBLE)
    torch.testing.assert_close(snn.convert(net, "qcfs", T=8).snn(x), net(x), rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize(
    ("recipe", "activation", "match"),
    [
        ("qcfs", nn.ReLU(), r"'1'.*train with snn.conversion.QCFS\(levels\) in its place, or use recipe='rate'"),
        ("rate", QCFS(4), "'1'.*recipe='qcfs'"),
        ("rate", QuantAct(4, step=0.1), "'1'.*recipe='stbif'"),
        ("ltb", QCFS(4), "'1'"),
    ],
)
def test_the_wrong_recipe_names_the_right_one(recipe: str, activation: nn.Module, match: str) -> None:
    with pytest.raises(snn.UnsupportedError, match=match):
        snn.convert(nn.Sequential(nn.Linear(3, 3), activation), recipe, images(4, 3))


def test_light_calibration_takes_out_the_mean_error() -> None:
    net = functional_network(dtype=DOUBLE)
    x = images(32, 2, 8, 8, dtype=DOUBLE)

    def mean_errors(recipe: str, **options: Any) -> list[float]:
        network = snn.convert(net, recipe, x, T=4, threshold="mse", **options).snn
        seen: dict[str, torch.Tensor] = {}
        for name in network.layers():
            module = network.source.get_submodule(name)
            module.register_forward_hook(lambda m, i, o, name=name: seen.update({name: o}))
        network.source(x)
        with network.record() as records:
            network(x)
        found = {name: (records[name].output_sum / 4 - seen[name]).mean(0) for name in records}
        return [found[name].flatten(1).mean(1).abs().mean().item() for name in ("relu", "relu_2", "clamp")]

    # "relu_3" is left out: two of its channels lie above their threshold, which no bias can help.
    before, after = mean_errors("rate"), mean_errors("calibration-light", samples=32, rounds=3)
    assert all(late < 0.5 * early for early, late in zip(before, after, strict=True))


def test_advanced_calibration_shifts_starts_by_the_error_times_steps() -> None:
    net = nn.Sequential(nn.Linear(1, 2, bias=False), nn.ReLU(), nn.Linear(2, 1))
    net[0].weight.data.copy_(torch.tensor([[0.3], [0.6]]))
    x = torch.ones(4, 1)
    layer = snn.convert(net, "calibration-advanced", x, T=4, threshold="max").snn.layers()["1"]
    theta = layer.threshold.item()
    given = [theta * min(4, int((a * 4 + theta / 2) / theta)) / 4 for a in (0.3, 0.6)]
    wanted = [theta / 2 + 4 * (a - b) for a, b in zip((0.3, 0.6), given, strict=True)]
    assert layer.initial.flatten().tolist() == pytest.approx(wanted)


def test_srp_silences_what_a_first_run_ended_below_zero() -> None:
    net = nn.Sequential(nn.Linear(1, 1, bias=False), nn.ReLU(), nn.Linear(1, 2), nn.ReLU(), nn.Linear(2, 1))
    with torch.no_grad():
        net[0].weight.fill_(1.0)
        net[2].weight.copy_(torch.tensor([[1.0], [-1.0]]))
        net[2].bias.copy_(torch.tensor([-0.4, 0.5]))
    network = snn.convert(net, "srp", torch.tensor([[1.0]]), T=5, tau=2, threshold="max").snn
    network(torch.tensor([[0.5], [1.0]]))
    mask = network.layers()["3"].mask
    assert mask is not None
    # Thresholds 1 and 0.6. Input 0.5 fires the first layer in step 1 alone, input 1 in both. From 0.3 the second layer's
    # membranes end at 0.3 + 0.6 - 0.6 - 0.4 and 0.3 - 0.5 + 0.5, and at 0.3 (two spikes) and 0.3 - 1.
    assert mask.tolist() == [[0.0, 1.0], [1.0, 0.0]]


def shifted(current: torch.Tensor) -> float:
    layer = SpikingLayer("relu", soft_reset_if)
    layer.set_threshold(torch.tensor(1.0, dtype=DOUBLE), 0.5)
    return shifted_start(layer, current).item()


def test_cos_shifts_the_start_by_one_spike() -> None:
    assert shifted(column(2, 2, 2, -2, -2)) == pytest.approx(-0.5)  # h at the spikes: 2.5, 3.5, 4.5, 1.5
    assert shifted(column(4, -9)) == pytest.approx(0.5 - (4.5 - 0.999))
    assert shifted(column(0.75, -0.5)) == pytest.approx(0.5 - 1.0)  # v = -0.25 after one spike at h = 1.25
    assert shifted(column(-2, -2, 2, 2, 2)) == pytest.approx(0.5 + 1.0)  # v = 1.5 after one spike, h = 0.5 before it
    assert shifted(column(-4, 5.5)) == pytest.approx(0.5 + (1.001 + 3.5))  # v = 1 after one spike, h = -3.5 before it
    assert shifted(column(0.5, 0.25)) == 0.5  # ends between 0 and the threshold
    assert shifted(column(-3.0, -1.0)) == 0.5  # below 0 without any spike


def test_cos_brings_late_neurons_to_the_right_count() -> None:
    """Arrival 11100/00011 and 00111/11000 with weights 2 and -2: two spikes are right, 4 and 1 come without COS."""
    for current, before, after in ((column(2, 2, 2, -2, -2), 4, 2), (column(-2, -2, 2, 2, 2), 1, 2)):
        layer = SpikingLayer("relu", soft_reset_if)
        layer.set_threshold(torch.tensor(1.0, dtype=DOUBLE), 0.5)
        assert layer.sequence(current).sum() == before
        start = shifted_start(layer, current)
        layer.start_from(start)
        assert abs(layer.sequence(current).sum().item() - 2) < abs(before - 2)
        assert after == 2


def test_max_pool_known_answer() -> None:
    streams = torch.tensor([[1.0, 0.0, 0.0, 1.0], [0.0, 1.0, 1.0, 0.0]]).t().reshape(4, 1, 1, 2)
    pool = TemporalDifference(nn.MaxPool1d(2))
    assert pool.sequence(streams).flatten().tolist() == [1, 0, 1, 0]
    pool.reset()
    assert [pool.sequence(step.unsqueeze(0)).item() for step in streams] == [1, 0, 1, 0]
    gate = GatedMaxPool(nn.MaxPool1d(2))
    assert gate.sequence(streams).flatten().tolist() == [1, 0, 1, 1]  # the first of two equals leads: too many


def test_gated_pooling_passes_the_leader() -> None:
    streams = torch.tensor([[1.0, 1.0, 0.0], [0.0, 0.0, 1.0]]).t().reshape(3, 1, 1, 2)
    assert GatedMaxPool(nn.MaxPool1d(2)).sequence(streams).flatten().tolist() == [1, 1, 0]
    pair = images(5, 2, 3, 7, 6)
    gate = GatedMaxPool(nn.MaxPool2d(3, 2, 1))
    first = gate.sequence(pair)
    assert torch.equal(first[0], nn.functional.max_pool2d(pair[0], 3, 2, 1))
    gate.reset()
    assert torch.equal(torch.cat([gate.sequence(step.unsqueeze(0)) for step in pair]), first)


@pytest.mark.parametrize("pool", [nn.MaxPool2d(2), nn.MaxPool2d(3, 2, 1), nn.AdaptiveMaxPool2d(2)])
def test_sums_of_exact_pooling_are_maxima_of_sums(pool: nn.Module) -> None:
    x = images(6, 2, 3, 6, 6, dtype=DOUBLE)
    sent = TemporalDifference(pool).sequence(x)
    for step in range(6):
        torch.testing.assert_close(sent[: step + 1].sum(0), pool(x[: step + 1].sum(0)))


def test_average_pooling_replaces_maximum_pooling_only_when_asked() -> None:
    net = nn.Sequential(nn.Conv2d(1, 2, 3), nn.ReLU(), nn.MaxPool2d(2), nn.Flatten(), nn.Linear(8, 2)).eval()
    x = images(16, 1, 6, 6)
    average = nn.Sequential(*net[:2], nn.AvgPool2d(2), *net[3:])
    wanted = {"exact": net(x), "gate": net(x), "average": average(x)}
    for option, logits in wanted.items():
        got = snn.convert(net, "rate", x, T=256, max_pool=option).snn(x)
        assert (got - logits).abs().mean() < 0.05 * logits.std()
    assert (wanted["exact"] - wanted["average"]).abs().mean() > 0.2 * wanted["exact"].std()
    with pytest.raises(ValueError, match="dilated"):
        snn.convert(nn.Sequential(nn.ReLU(), nn.MaxPool2d(2, dilation=2)), "rate", x, max_pool="average")


def test_the_example_of_convert_runs() -> None:

    module = sys.modules["snn.conversion.convert"]
    assert doctest.testmod(module) == (0, 3)


def test_unknown_recipes_and_options_name_what_there_is() -> None:
    net = functional_network()
    with pytest.raises(ValueError, match="no recipe 'rated'; did you mean 'rate'"):
        snn.convert(net, "rated", images(2, 2, 8, 8))
    with pytest.raises(TypeError, match="recipe 'rate' has no option 'percentil'; did you mean 'percentile'"):
        snn.convert(net, "rate", images(2, 2, 8, 8), percentil=99.0)
    for name in RECIPES:
        assert RECIPES[name].__doc__


@pytest.mark.parametrize(
    ("calibration", "error", "match"),
    [
        (None, ValueError, "recipe 'rate' needs calibration data"),
        (3, TypeError, "calibration must be a tensor.*got a int"),
        ([], snn.ShapeError, "there are no samples"),
        (torch.zeros(4, 2, 8, 8, dtype=torch.uint8), TypeError, "got a torch.uint8 tensor"),
        ((torch.zeros(4, 2, 8, 8), torch.zeros(3)), snn.ShapeError, "4 inputs and labels of shape"),
        (torch.full((4, 2, 8, 8), torch.nan), ValueError, "not finite"),
        ([(torch.zeros(2, 2, 8, 8), torch.zeros(2)), torch.zeros(2, 2, 8, 8)], snn.ShapeError, "some have none"),
    ],
)
def test_bad_calibration_data_is_refused(calibration: Any, error: type[Exception], match: str) -> None:
    with pytest.raises(error, match=match):
        snn.convert(functional_network(), "rate", calibration)


def test_calibration_data_in_all_forms_give_the_same() -> None:
    net, x, y = functional_network(), images(10, 2, 8, 8), torch.arange(10)
    forms: list[Any] = [x, (x, y), [x[:4], x[4:]], [(x[:4], y[:4]), (x[4:], y[4:])], iter([[x[:7]], [x[7:]]])]
    forms.append(torch.utils.data.DataLoader(torch.utils.data.TensorDataset(x, y), batch_size=3))
    outputs = [snn.convert(net, "rate", form, T=5).snn(x) for form in forms]
    assert all(torch.equal(output, outputs[0]) for output in outputs)


def test_steps_must_be_a_positive_whole_number() -> None:
    for T in (0, -1, 2.5, True):
        with pytest.raises(ValueError, match="T must be a positive whole number"):
            snn.convert(functional_network(), "rate", images(2, 2, 8, 8), T=T)  # type: ignore[arg-type]
