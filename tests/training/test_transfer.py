"""Tensors that one network takes over from another."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from snn.models import SpikingMLP, SpikingVGG
from snn.training import transfer
from snn.training.transfer import adapted_channels, with_folded_norms

RELU = "torch.nn.ReLU"


def vgg(channels: int = 1, classes: int = 4, neuron: str = RELU, **options: object) -> SpikingVGG:
    return SpikingVGG((channels, 8, 8), classes, (4, 6), neuron, **options)  # type: ignore[arg-type]


def with_statistics(network: nn.Module) -> nn.Module:
    for module in network.modules():
        if isinstance(module, nn.BatchNorm1d | nn.BatchNorm2d):
            module.running_mean.normal_(0, 0.5)
            module.running_var.uniform_(0.01, 2.0)
            nn.init.normal_(module.weight, 1.0, 0.3)
            nn.init.normal_(module.bias, 0.0, 0.3)
    return network.eval()


def test_every_tensor_of_a_network_without_new_parameters_is_copied() -> None:
    torch.manual_seed(0)
    ann, spiking = with_statistics(vgg()), vgg(neuron="LIF")
    before = {name: value.clone() for name, value in ann.state_dict().items()}
    report = transfer(ann, spiking)
    assert set(report.copied) == set(before)
    for name, value in spiking.state_dict().items():
        assert torch.equal(value, before[name])
        assert torch.equal(ann.state_dict()[name], before[name])


def test_thresholds_and_leaks_are_missing_and_stay() -> None:
    report = transfer(SpikingMLP((4,), 3, (5, 6), RELU), SpikingMLP((4,), 3, (5, 6), {"class": "DIET", "leak": 0.5}))
    neurons = [f"stack.layers.neuron{n}.{name}" for n in (1, 2) for name in ("leak", "w")]
    assert sorted(report.missing) == neurons
    assert "missing" in report.table()
    assert "4  stack.layers.neuron1.leak" in report.table()


def test_skip_names_layers_or_tensors() -> None:
    torch.manual_seed(0)
    ann, spiking = vgg(classes=4), vgg(classes=7, neuron="LIF")
    fresh = spiking.state_dict()["stack.layers.readout.weight"].clone()
    report = transfer(ann, spiking, skip=["readout", "conv1a.weight"])
    assert set(report.skipped) == {
        "stack.layers.readout.weight",
        "stack.layers.readout.bias",
        "stack.layers.conv1a.weight",
    }
    assert torch.equal(spiking.state_dict()["stack.layers.readout.weight"], fresh)
    with pytest.raises(ValueError, match=r"skip names no tensor.*'readuot'; did you mean 'readout'"):
        transfer(ann, spiking, skip=["readuot"])
    with pytest.raises(ValueError, match="skip names no tensor"):
        transfer(ann, spiking, skip=["conv1"])  # whole parts of a name only


def test_other_shapes_are_an_error_that_says_what_to_do_or_kept_on_request() -> None:
    ann, spiking = vgg(classes=4), vgg(classes=7, neuron="LIF")
    with pytest.raises(ValueError, match=r"readout.weight has shape \(4, 6\).*\(7, 6\).*skip"):
        transfer(ann, spiking)
    report = transfer(ann, spiking, mismatched="keep")
    assert set(report.mismatched) == {"stack.layers.readout.weight", "stack.layers.readout.bias"}
    with pytest.raises(ValueError, match="no tensor of Linear fits"):
        transfer(nn.Linear(2, 3), spiking)


@pytest.mark.parametrize(("old", "new"), [(3, 2), (1, 2), (2, 3)])
def test_adapted_first_weights_answer_equal_channels_as_before(old: int, new: int) -> None:
    torch.manual_seed(0)
    ann, spiking = vgg(old), vgg(new)
    grey = torch.rand(5, 1, 8, 8)
    report = transfer(ann, spiking, adapt_input=True)
    assert report.adapted == ("stack.layers.conv1a.weight",)
    first, second = (network.stack.layers["conv1a"] for network in (ann, spiking))
    torch.testing.assert_close(
        second(grey.expand(5, new, 8, 8)), first(grey.expand(5, old, 8, 8)), rtol=1e-5, atol=1e-6
    )


def test_rgb_to_two_polarities_is_the_mean_times_one_and_a_half() -> None:
    weight = torch.randn(4, 3, 5, 5)
    adapted = adapted_channels(weight, 2)
    assert adapted.shape == (4, 2, 5, 5)
    for polarity in (0, 1):
        torch.testing.assert_close(adapted[:, polarity], weight.mean(1) * 1.5)
    with pytest.raises(ValueError, match="channels must be >= 1"):
        adapted_channels(weight, 0)


def test_only_the_first_weights_are_adapted() -> None:
    ann, spiking = SpikingVGG((3, 8, 8), 4, (4, 6), RELU), SpikingVGG((2, 8, 8), 4, (5, 6), RELU)
    with pytest.raises(ValueError, match=r"conv1a\.weight has shape"):
        transfer(ann, spiking, adapt_input=True)
    deep, wide = nn.Sequential(nn.Linear(3, 4), nn.Linear(4, 2)), nn.Sequential(nn.Linear(3, 4), nn.Linear(5, 2))
    with pytest.raises(ValueError, match=r"1\.weight has shape \(2, 4\) in the old network and \(2, 5\)"):
        transfer(deep, wide, adapt_input=True)


@pytest.mark.parametrize("kind", ["vgg", "mlp"])
def test_folded_network_equals_the_network(kind: str) -> None:
    torch.manual_seed(0)
    if kind == "vgg":
        network: nn.Module = vgg(weight_init="he")
        x = torch.rand(2, 6, 1, 8, 8, dtype=torch.float64)
    else:
        network, x = SpikingMLP((5,), 3, (7, 8), RELU, batch_norm=True), torch.rand(2, 6, 5, dtype=torch.float64)
    network = with_statistics(network).double()
    folded = with_folded_norms(network)
    assert not any(isinstance(module, nn.BatchNorm1d | nn.BatchNorm2d) for module in folded.modules())
    assert any(isinstance(module, nn.BatchNorm1d | nn.BatchNorm2d) for module in network.modules())
    wanted = network(x)
    assert ((folded(x) - wanted).abs().max() / wanted.abs().max()).item() < 1e-6
    with_eps = [m for m in network.modules() if isinstance(m, nn.BatchNorm2d | nn.BatchNorm1d)]
    for module in with_eps:
        module.eps = 0.1
    wanted = network(x)
    got = with_folded_norms(network)(x)
    assert ((got - wanted).abs().max() / wanted.abs().max()).item() < 1e-6


def test_folding_on_the_way_into_a_network_without_norms() -> None:
    torch.manual_seed(0)
    ann, bare = with_statistics(vgg()), vgg(batch_norm=False)
    with pytest.raises(ValueError, match="does not follow"):
        with_folded_norms(nn.Sequential(nn.ReLU(), nn.BatchNorm1d(3)))
    report = transfer(ann, bare, fold_norms=True)
    assert not report.missing
    assert not report.unused
    x = torch.rand(1, 6, 1, 8, 8)
    torch.testing.assert_close(bare.eval()(x), ann(x), rtol=1e-4, atol=1e-5)
