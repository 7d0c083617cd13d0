"""Quantisation: known integers, agreement with the float network, refusals, and training through the integers."""

from __future__ import annotations

import doctest
import json
from typing import Any

import pytest
import torch
from spikingjelly.activation_based import layer as sj_layer
from spikingjelly.activation_based import neuron as sj_neuron
from spikingjelly.activation_based.functional import reset_net
from torch import nn
from torch.nn import functional as F

import snn
import spikedata
from neuromorphic import targets
from neuromorphic.targets import IntegerFormat, QuantizationOptions, quantization_aware, quantize, scales
from neuromorphic.targets.chain import float_chain
from neuromorphic.targets.layers import IntegerLayer
from neuromorphic.targets.scales import clipping_point
from snn.errors import ShapeError, UnsupportedError
from snn.models import SpikingConvNet, SpikingMLP, SpikingVGG
from snn.models.stack import Stack

FINE = IntegerFormat(weight_bits=20, state_bits=40, input_bits=16, name="fine")


def spikes(*shape: int, rate: float = 0.3, seed: int = 0) -> torch.Tensor:
    return (torch.rand(shape, generator=torch.Generator().manual_seed(seed)) < rate).float()


def settled(net: nn.Module, x: torch.Tensor) -> nn.Module:
    """The network after some batches of training, so that normalisation has statistics, in evaluation mode."""
    net.train()
    with torch.no_grad():
        for _ in range(20):
            reset_net(net)
            net(x)
    reset_net(net)
    return net.eval()


LIVELY: Any = {"class": "LIF", "v_threshold": 0.3}


def networks() -> dict[str, tuple[nn.Module, torch.Tensor]]:
    x_flat, x_map = spikes(6, 9, 20), spikes(6, 5, 1, 12, 12)
    return {
        "mlp": (SpikingMLP((20,), 4, hidden=(30, 20), neuron=LIVELY, batch_norm=True, dropout=0.3), x_flat),
        "soft reset": (SpikingMLP((20,), 4, hidden=(30,), neuron={**LIVELY, "v_reset": None}), x_flat),
        "reset to a value": (
            SpikingMLP((20,), 4, hidden=(30,), neuron={**LIVELY, "v_threshold": 0.15, "v_reset": -0.1}),
            x_flat,
        ),
        "no decay of the input": (SpikingMLP((20,), 4, hidden=(30,), neuron={**LIVELY, "decay_input": False}), x_flat),
        "if": (SpikingMLP((20,), 4, hidden=(30,), neuron="IF"), x_flat),
        "plif": (SpikingMLP((20,), 4, hidden=(30,), neuron={"class": "PLIF", "v_threshold": 0.3}), x_flat),
        "cuba": (SpikingMLP((20,), 4, hidden=(30,), neuron={"class": "CubaLIF", "v_reset": 0.1}), x_flat),
        "recurrent": (SpikingMLP((20,), 4, hidden=(30,), neuron={"class": "RecurrentLIF", "v_threshold": 0.3}), x_flat),
        "integrator": (SpikingMLP((20,), 4, hidden=(30,), neuron=LIVELY, readout="LI"), x_flat),
        "convolutions": (SpikingConvNet((1, 12, 12), 4, neuron=LIVELY), x_map),
        "convolution as read-out": (
            Stack(
                {
                    "a": nn.Conv2d(1, 3, 3, padding=1),
                    "z": snn.LIF(v_threshold=0.2, step_mode="m"),
                    "b": nn.Conv2d(3, 4, 3, padding=1, groups=1),
                }
            ),
            x_map,
        ),
        "vgg": (SpikingVGG((1, 12, 12), 4, channels=(4, 6), neuron=LIVELY), x_map),
        "pooled spikes": (
            Stack(
                {
                    "conv": nn.Conv2d(1, 3, 3, stride=2, padding=1, groups=1),
                    "a": snn.LIF(v_threshold=0.2, step_mode="m"),
                    "pool": nn.AvgPool2d(2),
                    "flatten": nn.Flatten(),
                    "b": nn.Linear(27, 5),
                    "c": snn.LIF(v_threshold=0.2, step_mode="m"),
                }
            ),
            x_map,
        ),
        "spikingjelly": (
            nn.Sequential(
                sj_layer.Linear(20, 30, step_mode="m"),
                sj_neuron.LIFNode(tau=2.5, v_threshold=0.3, step_mode="m"),
                sj_layer.Dropout(0.2, step_mode="m"),
                sj_layer.Linear(30, 6, step_mode="m"),
                sj_neuron.IFNode(v_reset=None, step_mode="m"),
            ),
            x_flat,
        ),
    }


@pytest.fixture(params=sorted(networks()))
def trained(request: pytest.FixtureRequest) -> tuple[nn.Module, torch.Tensor]:
    torch.manual_seed(1)
    net, x = networks()[request.param]
    return settled(net, x), x


def test_fine_integers_give_the_float_spikes(trained: tuple[nn.Module, torch.Tensor]) -> None:
    """With 20-bit weights and 40-bit states rounding moves next to no spike; folding and scales must be right."""
    net, x = trained
    integer, report = quantize(net, FINE, x, QuantizationOptions(method="max"))
    reset_net(net)
    expected = net(x)
    found = integer(x)
    assert found.shape == expected.shape
    assert float(((found - expected).abs() > 5e-3).double().mean()) < 0.01
    assert all(layer.spike_difference is None or layer.spike_difference < 0.003 for layer in report.layers)
    assert any((layer.float_rate or 0) > 0.01 for layer in report.layers)
    assert torch.equal(found, integer.run(x))


@pytest.mark.parametrize("per_channel", [False, True])
def test_eight_bits_in_torch_and_compiled(trained: tuple[nn.Module, torch.Tensor], per_channel: bool) -> None:
    net, x = trained
    integer, report = quantize(net, IntegerFormat(), x, QuantizationOptions(per_channel=per_channel))
    assert torch.equal(integer(x), integer.run(x))
    for stage in integer.stages:
        if isinstance(stage, IntegerLayer):
            assert stage.connection.stored().abs().max() <= 127
    assert all(layer.spike_difference is None or layer.spike_difference < 0.1 for layer in report.layers)
    assert all(layer.saturated_states < 0.05 for layer in report.layers)


def test_the_float_network_is_left_alone(trained: tuple[nn.Module, torch.Tensor]) -> None:
    net, x = trained
    before = {name: value.clone() for name, value in net.state_dict().items()}
    quantize(net, IntegerFormat(), x)
    assert all(torch.equal(before[name], value) for name, value in net.state_dict().items())
    assert not net.training


def test_analog_input_becomes_integers_of_the_input_width() -> None:
    torch.manual_seed(0)
    net = SpikingMLP((20,), 4, hidden=(30,), neuron=LIVELY).eval()
    x = torch.rand(4, 8, 20)
    integer, report = quantize(net, IntegerFormat(), x)
    assert integer.analog is not None
    assert (integer.analog.low, integer.analog.high) == (0, 255)
    assert integer.coded(x).max() == 255
    assert report.layers[0].spike_difference is not None
    assert report.layers[0].spike_difference < 0.05
    signed, _ = quantize(net, IntegerFormat(input_bits=4), x - 0.5)
    assert signed.analog is not None
    assert (signed.analog.low, signed.analog.high) == (-15, 15)
    with pytest.raises(UnsupportedError, match="loihi sends spikes without values and the calibration input is analog"):
        quantize(net, "loihi", x)


def single(weight: list[float], neuron: nn.Module, bias: float | None = None) -> nn.Sequential:
    linear = nn.Linear(len(weight), 1, bias=bias is not None)
    linear.weight.data = torch.tensor([weight])
    if bias is not None:
        linear.bias.data.fill_(bias)
    return nn.Sequential(linear, neuron)


@pytest.mark.parametrize(
    ("threshold", "bias", "weights", "expected_bias", "expected_threshold"),
    [
        (1.0, None, [-64, 38, 127], 0, 127),
        (1.0, 0.02, [-64, 38, 127], 3, 127),
        (1.0, 2.0, [-32, 19, 64], 127, 64),
        (500.0, None, [-33, 20, 66], 0, 32767),
    ],
)
def test_one_common_factor_for_event_driven_neurons(
    threshold: float, bias: float | None, weights: list[int], expected_bias: int, expected_threshold: int
) -> None:
    neuron = snn.IF(v_threshold=threshold, v_reset=None, step_mode="m")
    net = single([-0.5, 0.3, 1.0], neuron, bias)
    integer, _ = quantize(net, "speck", spikes(3, 2, 3), QuantizationOptions(method="max"))
    layer = integer.stages[0]
    assert isinstance(layer, IntegerLayer)
    assert layer.neuron is not None
    assert layer.connection.stored().tolist() == [weights]
    assert layer.neuron.bias_integers(-(2**15), 2**15).item() == expected_bias
    assert layer.neuron.scalar_parameters()["threshold"].item() == expected_threshold


@pytest.mark.parametrize(("tau", "decay"), [(2.0, 2048), (5.0, 819), (10.0, 410), (20.0, 205)])
def test_decays_of_the_current_based_neuron(tau: float, decay: int) -> None:
    net = single([0.5, 0.3, 1.0], snn.LIF(tau=tau, step_mode="m"))
    integer, _ = quantize(net, "loihi", spikes(3, 2, 3))
    layer = integer.stages[0]
    assert isinstance(layer, IntegerLayer)
    assert layer.neuron is not None
    values = layer.neuron.scalar_parameters()
    assert values["voltage_decay"].item() == decay
    assert values["current_decay"].item() == 4096  # no current: it is gone after one step
    assert layer.connection.stored().abs().max() == 254
    assert bool((layer.connection.stored() % 2 == 0).all())


def test_loihi_and_float_agree() -> None:
    torch.manual_seed(0)
    x = spikes(12, 20, 40)
    for neuron in (LIVELY, "IF", {"class": "CubaLIF", "c_decay": 0.6}):
        net = SpikingMLP((40,), 6, hidden=(50, 30), neuron=neuron).eval()
        integer, report = quantize(net, "loihi", x)
        assert torch.equal(integer(x), integer.run(x))
        assert all(layer.spike_difference is None or layer.spike_difference < 0.02 for layer in report.layers)
        assert any((layer.integer_rate or 0) > 0.02 for layer in report.layers)


def test_bit_shift_target_follows_matching_decays() -> None:
    torch.manual_seed(0)
    neuron = {"class": "CubaLIF", "c_decay": 0.75, "v_decay": 0.875, "v_reset": None, "v_threshold": 1.5}
    net = SpikingMLP((16,), 6, hidden=(40,), neuron=neuron).eval()
    with torch.no_grad():
        net.stack.layers["linear1"].bias.zero_()  # the chip adds a bias behind the current, which is another network
    x = spikes(20, 20, 16, rate=0.1)
    integer, report = quantize(net, "xylo", x)
    assert torch.equal(integer(x), integer.run(x))
    (hidden, _) = report.layers
    assert hidden.float_rate is not None
    assert hidden.float_rate > 0.01
    assert hidden.spike_difference is not None
    assert hidden.spike_difference < 0.3 * hidden.float_rate
    with torch.no_grad():
        net.stack.layers["linear1"].bias.fill_(0.02)
    biased, _ = quantize(net, "xylo", x)
    layer = biased.stages[biased.names.index("stack.layers.linear1")]
    assert isinstance(layer, IntegerLayer)
    assert layer.neuron is not None
    values = layer.neuron.scalar_parameters()
    # Where the current settles: 0.02 / (1 - 0.75), in units in which the threshold is 1.5.
    assert torch.allclose(
        values["bias"] / values["threshold"], torch.tensor(0.08 / 1.5, dtype=torch.float64), rtol=0.05
    )
    with pytest.raises(UnsupportedError, match=r"keeps 0\.100 of its current in a step"):
        quantize(SpikingMLP((16,), 6, hidden=(40,), neuron={**neuron, "c_decay": 0.1}).eval(), "xylo", x)


def test_event_driven_target_gives_the_float_rates() -> None:
    torch.manual_seed(0)
    net = SpikingMLP((16,), 6, hidden=(40,), neuron={"class": "IF", "v_reset": None, "v_threshold": 1.5}).eval()
    x = spikes(30, 10, 16, rate=0.2)
    integer, report = quantize(net, "speck", x)
    assert torch.equal(integer(x), integer.run(x))
    assert report.layers[0].float_rate is not None
    assert report.layers[0].integer_rate == pytest.approx(report.layers[0].float_rate, rel=0.25)


def test_report_names_what_saturates_and_what_is_silent() -> None:
    torch.manual_seed(0)
    net = SpikingMLP((20,), 4, hidden=(30,), neuron=LIVELY).eval()
    with torch.no_grad():
        net.stack.layers["linear1"].weight[:6] = 0.0
        net.stack.layers["linear1"].bias[:6] = 0.0
    x = spikes(6, 20, 20)
    _, whole = quantize(net, IntegerFormat(), x)
    _, cut = quantize(net, IntegerFormat(), x, QuantizationOptions(state_percentile=20.0))
    assert whole.layers[0].saturated_states == 0
    assert cut.layers[0].saturated_states > 0.01
    assert whole.layers[0].silent_float is not None
    assert whole.layers[0].silent_float >= 0.2
    assert whole.layers[0].silent_integer == pytest.approx(whole.layers[0].silent_float, abs=0.1)
    _, clipped = quantize(net, IntegerFormat(), x, QuantizationOptions(method="percentile", percentile=80.0))
    assert clipped.layers[0].saturated_weights > 0.1
    assert whole.layers[1].output_error is not None
    assert 0 < whole.layers[1].output_error < 0.5
    assert "8-bit weights, 16-bit states" in str(whole)
    assert json.loads(whole.to_json())["layers"][0]["name"] == "stack.layers.linear1"


def test_ranges_of_the_weights() -> None:
    assert doctest.testmod(scales).failed == 0
    weight = torch.tensor([[1.0, -4.0, 2.0, 0.5], [0.0, 0.0, 0.0, 0.0]])
    assert clipping_point(weight, "max", 100, 127, False).item() == 4
    assert clipping_point(weight, "max", 100, 127, True).flatten().tolist() == [4, 1]
    assert clipping_point(weight, "percentile", 75, 127, True).flatten().tolist() == [2, 1]
    wide = torch.cat([torch.randn(5000, generator=torch.Generator().manual_seed(0)), torch.tensor([40.0])]).view(1, -1)

    def error(point: float) -> float:
        step = point / 7
        return float(((wide / step).round().clamp(-7, 7) * step - wide).square().sum())

    best = clipping_point(wide, "mse", 100, 7, False).item()
    assert error(best) < 0.9 * error(40.0)
    with pytest.raises(ValueError, match="method must be one of"):
        clipping_point(wide, "best", 100, 7, False)
    with pytest.raises(ValueError, match="percentile must lie in"):
        QuantizationOptions(percentile=0)


def _residual() -> nn.Module:
    class Residual(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.a = nn.Linear(20, 20)
            self.b = snn.LIF(v_threshold=0.2, step_mode="m")

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return x + self.b(self.a(x))

    return Residual()


@pytest.mark.parametrize(
    ("net", "target", "text"),
    [
        (nn.Sequential(nn.Linear(20, 4), nn.ReLU()), "loihi", r"'1' \(ReLU\) has no integer form"),
        (nn.Sequential(nn.Linear(20, 4), nn.Linear(4, 4)), "loihi", r"'1' follows '0' without neurons"),
        (nn.Sequential(snn.LIF(step_mode="m")), "loihi", r"neurons '0' do not follow weights"),
        (nn.Sequential(nn.Linear(20, 4), snn.LIF()), "loihi", r"'1' are in step mode 's'"),
        (nn.Sequential(nn.Linear(20, 4), snn.ALIF(step_mode="m")), "loihi", r"'1' \(ALIF\) have no integer form"),
        (nn.Sequential(nn.Linear(20, 4), snn.LIF(v_reset=None, step_mode="m")), "loihi", r"resets by subtraction"),
        (nn.Sequential(nn.Linear(20, 4), snn.LIF(step_mode="m")), "speck", r"family 'lif'; speck has if"),
        (nn.Sequential(nn.Linear(20, 4), snn.LI(step_mode="m")), "loihi", r"integrates without spikes"),
        (nn.Sequential(nn.Linear(20, 4), snn.LIF(step_mode="m")), "akida", r"neuron\.arithmetic = 'none'"),
        (nn.Sequential(nn.Linear(20, 4), snn.LIF(step_mode="m")), "spinnaker", r"neuron\.state_bits"),
        (nn.Sequential(nn.Linear(20, 4), snn.LIF(step_mode="m")), "darwin3", r"neuron\.state_bits"),
        (nn.Sequential(nn.Identity()), "loihi", r"no weights"),
        (_residual(), "loihi", r"Residual is not the chain of its layers"),
    ],
)
def test_what_cannot_be_quantised_is_named(net: nn.Module, target: str, text: str) -> None:
    with pytest.raises(UnsupportedError, match=text):
        quantize(net, target, spikes(3, 2, 20))


def test_wrong_arguments() -> None:
    net = nn.Sequential(nn.Linear(20, 4), snn.LIF(step_mode="m"))
    with pytest.raises(ShapeError, match=r"calibration must be inputs \[T, B, \.\.\.\], got \(4, 20\)"):
        quantize(net, "loihi", torch.zeros(4, 20))
    with pytest.raises(ValueError, match="did you mean 'loihi'"):
        quantize(net, "loihy", spikes(3, 2, 20))
    with pytest.raises(ValueError, match=r"weight_bits must be a whole number in 2\.\.24, got 1"):
        IntegerFormat(weight_bits=1)


def test_chain_resolves_pooling_and_normalisation() -> None:
    torch.manual_seed(0)
    net = settled(SpikingVGG((1, 12, 12), 4, channels=(4, 6), neuron=LIVELY), spikes(4, 3, 1, 12, 12))
    layers = float_chain(net, spikes(4, 3, 1, 12, 12))
    assert [layer.name.rpartition(".")[2] for layer in layers] == ["conv1a", "conv1b", "conv2a", "conv2b", "readout"]
    assert [layer.pool_after for layer in layers] == [None, (2, 2), None, (2, 2), None]
    assert layers[-1].pool_before == [(3, 3)]
    assert layers[-1].flatten_before


def test_training_through_the_integers_lowers_the_loss() -> None:
    torch.manual_seed(0)
    net = SpikingMLP((20,), 4, hidden=(30,), neuron=LIVELY).eval()
    x, labels = spikes(4, 60, 20), torch.randint(0, 4, (60,))
    trained = quantization_aware(net, IntegerFormat(weight_bits=4), x)
    assert trained.training
    start = [parameter.clone() for parameter in trained.parameters()]
    optimizer = torch.optim.Adam([p for p in trained.parameters() if p.requires_grad], lr=0.03)
    losses = []
    for _ in range(40):
        loss = F.cross_entropy(trained(x).mean(0), labels)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        losses.append(loss.item())
    assert losses[-1] < 0.85 * losses[0]
    assert torch.equal(trained(x), trained.run(x))
    assert any(not torch.equal(a, b) for a, b in zip(start, trained.parameters(), strict=True))


def test_digits_keep_their_accuracy() -> None:
    """A network trained on the digits of scikit-learn loses less than a point at 8-bit weights and 16-bit states."""
    train, test = (spikedata.load("digits", split=split) for split in ("train", "test"))
    x, labels = train.batch(torch.arange(len(train.labels)))
    x_test, labels_test = test.batch(torch.arange(len(test.labels)))
    torch.manual_seed(0)
    net = SpikingMLP(tuple(x.shape[1:]), 10, hidden=(128,))
    optimizer = torch.optim.Adam(net.parameters(), lr=5e-3)
    for _ in range(120):
        rows = torch.randint(0, len(x), (200,))
        loss = F.cross_entropy(net(x[rows].expand(4, *x[rows].shape)).mean(0), labels[rows])
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    net.eval()

    def accuracy(call: Any) -> float:
        return float((call(x_test.expand(4, *x_test.shape)).mean(0).argmax(1) == labels_test).double().mean())

    exact = accuracy(net)
    assert exact > 0.9
    integer, _ = quantize(net, IntegerFormat(), x[:200].expand(4, *x[:200].shape))
    assert accuracy(integer.run) > exact - 0.01


def test_public_names_exist() -> None:
    assert targets.__all__ == sorted(targets.__all__)
    assert all(getattr(targets, name) is not None for name in targets.__all__)
    with pytest.raises(AttributeError, match="no attribute 'mapp'"):
        _ = targets.mapp
