"""ST-BIF, temporal differences and CNN-Morph: the settled network is the quantised one, in every bit."""

from __future__ import annotations

import copy
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from exact_networks import branched, dyadic_images, round_weights
from sklearn.datasets import load_digits
from torch import nn

import snn
from snn.conversion.activations import QCFS, QuantAct
from snn.conversion.dyadic_rounding import make_dyadic, power_of_two, rounded_to_bits
from snn.conversion.verification import exactness, owed_steps, quantised_form, settle, verify_exact


@pytest.mark.parametrize("seed", range(4))
def test_branched_network_settles_without_error(seed: int) -> None:
    net, x = branched(seed), dyadic_images(6, 2, 8, 8, seed=seed)
    network = snn.convert(net, "stbif", T=64).snn
    errors = (network(x, return_all_steps=True) - net(x)).abs().amax((1, 2))
    check = verify_exact(net, network, x)
    assert errors[0] > 0.05
    assert check.exact
    assert check.settled
    assert check.wrong_counts == 0
    assert check.offender is None
    with network.record() as records:
        network(x)
    assert check.spikes == sum(int(record.events.sum()) for record in records.values()) > 1000
    assert 1 < check.last_event < 20 < exactness(network).T < 64  # type: ignore[operator]
    assert not errors[check.last_event - 1 :].any()


def test_too_few_steps_name_the_first_neuron_that_differs() -> None:
    net, x = branched(), dyadic_images(6, 2, 8, 8)
    network = snn.convert(net, "stbif", T=64).snn
    check = verify_exact(net, network, x, T=2)
    assert not check.exact
    assert not check.settled
    assert check.offender is not None
    assert check.offender.layer == "q1"
    assert check.offender.got == 0.5  # two spikes of a quarter in two steps
    index = check.offender.index
    counts = F.conv2d(x, *net.stem.parameters(), padding=1) / 0.25  # type: ignore[union-attr, operator]
    assert check.offender.wanted == (counts + 0.5).floor().clamp(0, 15)[index] * 0.25
    assert check.wrong_counts > 100
    assert "'q1'[" in str(check)


def test_the_guaranteed_steps_are_enough_and_not_twice_what_is_needed() -> None:
    """One neuron after another, each driven to its bound: a chain whose last spike comes as late as the bound says."""
    net = nn.Sequential(
        nn.Linear(1, 1), QuantAct(8, step=1.0), nn.Linear(1, 2), QuantAct(8, step=1.0), nn.Linear(2, 1)
    ).double()
    with torch.no_grad():
        for index, weight, bias in ((0, [[1.0]], [0.0]), (2, [[1.0], [-1.0]], [0.0, 7.0]), (4, [[1.0, 1.0]], [0.0])):
            net[index].weight.copy_(torch.tensor(weight))
            net[index].bias.copy_(torch.tensor(bias))
    network = snn.convert(net, "stbif", T=40).snn
    guarantee = exactness(network)
    assert dict(guarantee.settled) == {"1": 7, "3": 13}
    check = verify_exact(net, network, torch.tensor([[9.0], [3.0]]).double())
    assert check.exact
    assert 7 <= check.last_event <= 13
    assert str(check).startswith("settled after step")


def test_input_spread_over_steps_settles_at_the_same_numbers() -> None:
    """x / T in each of T steps is not exact at step T; some silent steps later it is."""
    net, x = branched(), dyadic_images(6, 2, 8, 8)
    network = snn.convert(net, "stbif", T=64).snn
    plan = network._execution
    network.reset()
    total = plan.chunk({}, x.unsqueeze(0) / 8, 1)[0]
    total = total + plan.chunk({}, (x / 8).expand(7, *x.shape), 7, driven=False).sum(0)
    assert (total - net(x)).abs().max() > 0
    for _ in range(20):
        total = total + plan.chunk({}, torch.zeros_like(x).unsqueeze(0), 1, driven=False)[0]
    assert owed_steps(network) == 0
    assert torch.equal(total, net(x))


def test_settled_network_stays_silent_and_membranes_lie_within_a_step() -> None:
    net, x = branched(), dyadic_images(3, 2, 8, 8)
    network = snn.convert(net, "stbif", T=64).snn
    with network.record() as records:
        _, last, settled = settle(network, x, 64)
    assert settled
    outputs = network._execution.chunk({}, torch.zeros_like(x).expand(5, *x.shape), 5, driven=False)
    assert not outputs.any()
    for name, layer in network.layers().items():
        counts = records[name].output_sum / layer.threshold
        lo, hi = layer.run_bounds or (0, 0)
        inside = (counts > lo) & (counts < hi)
        membrane = (records[name].membrane / layer.threshold)[inside]
        assert bool(((membrane >= 0) & (membrane < 1)).all())
        balance = records[name].input_sum + records[name].initial - records[name].output_sum - records[name].membrane
        assert not balance.any()
    assert last < 20


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_trained_qcfs_network_is_exact_at_any_depth(dtype: torch.dtype) -> None:
    torch.manual_seed(0)
    net = nn.Sequential(
        nn.Conv2d(2, 6, 3, padding=1), QCFS(8, 2.0), nn.AvgPool2d(2), nn.Conv2d(6, 8, 3), QCFS(4, 1.0), nn.Flatten(),
        nn.Linear(32, 16), QCFS(8, 2.0), nn.Linear(16, 5),
    )  # fmt: skip
    make_dyadic(net, 8)
    net = net.to(dtype)
    x = dyadic_images(16, 2, 8, 8).to(dtype)
    check = verify_exact(net, snn.convert(net, "stbif", T=32).snn, x)
    assert check.exact, check
    assert check.same_predictions == 1.0


class Block(nn.Module):
    """A transformer block with a gate, both forms of attention, and a softmax at the end."""

    def __init__(self) -> None:
        super().__init__()
        self.embed = nn.Linear(6, 12)
        self.norm1, self.norm2 = nn.LayerNorm(12), nn.LayerNorm(12)
        self.attention = nn.MultiheadAttention(12, 3, batch_first=True)
        self.up, self.down, self.gate = nn.Linear(12, 24), nn.Linear(24, 12), nn.Linear(12, 12)
        self.readout = nn.Linear(12, 4)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x = self.embed(x)
        y = self.norm1(x)
        x = x + self.attention(y, y, y, need_weights=False)[0]
        x = x + self.down(F.gelu(self.up(self.norm2(x)))) * torch.sigmoid(self.gate(x))
        q, k, v = x.chunk(3, -1)
        x = x + F.scaled_dot_product_attention(q, k, v, is_causal=True).repeat(1, 1, 3)
        scores = torch.softmax(q @ k.transpose(1, 2), -1) @ v
        return self.readout((x + F.silu(scores).repeat(1, 1, 3)).mean(1)).softmax(-1)


def test_transformer_block_by_temporal_differences() -> None:
    torch.manual_seed(0)
    block = Block().double().eval()
    x = torch.randn(5, 7, 6, dtype=torch.float64)
    conversion = snn.convert(block, "td", x, T=4)
    assert torch.allclose(conversion.snn(x).softmax(-1), block(x), atol=1e-14)
    assert "softmax" in conversion.snn.notes[0]
    network = conversion.snn
    plan = network._execution
    network.reset()
    weights = torch.tensor([0.5, 0.75, -0.25]).double().view(3, 1, 1, 1)
    total = plan.chunk({}, x.unsqueeze(0) * weights[:1], 1)[0]
    total = total + plan.chunk({}, x.unsqueeze(0) * weights[1:], 2, driven=False).sum(0)
    assert torch.allclose(total.softmax(-1), block(x), atol=1e-12)


class Unpacking(nn.Module):
    def __init__(self, use_weights: bool) -> None:
        super().__init__()
        self.attention = nn.MultiheadAttention(8, 2, batch_first=True)
        self.readout = nn.Linear(8, 3)
        self.use_weights = use_weights

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        y, weights = self.attention(x, x, x)
        return self.readout(y.mean(1)) + (weights.mean() if self.use_weights else 0.0)


def test_attention_may_be_unpacked_but_its_weights_not_used() -> None:
    net, x = Unpacking(False).double().eval(), torch.randn(3, 5, 8, dtype=torch.float64)
    assert torch.allclose(snn.convert(net, "td", x, T=4).snn(x), net(x), atol=1e-14)
    with pytest.raises(snn.UnsupportedError) as caught:
        snn.convert(Unpacking(True).double(), "td", x, T=4)
    assert str(caught.value).count("'attention'") == 1
    assert "only the output of MultiheadAttention can be converted" in str(caught.value)


@pytest.mark.parametrize("activation", ["relu", "gelu", nn.SiLU()])
@pytest.mark.parametrize("norm_first", [False, True])
def test_torchs_transformer_encoder_by_temporal_differences(norm_first: bool, activation: Any) -> None:
    torch.manual_seed(0)
    layer = nn.TransformerEncoderLayer(12, 3, 20, 0.1, activation, batch_first=True, norm_first=norm_first)
    norm = nn.LayerNorm(12) if norm_first else None
    encoder = nn.TransformerEncoder(layer, 2, norm, enable_nested_tensor=False)
    net = nn.Sequential(nn.Linear(6, 12), encoder, nn.Flatten(), nn.Linear(84, 4)).double()
    x = torch.randn(5, 7, 6, dtype=torch.float64)
    converted = snn.convert(net, "td", x, T=4).snn
    assert torch.allclose(converted(x), net.eval()(x), atol=1e-13)
    assert "1.layers.0.self_attn" in dict(converted.body.named_modules())
    single = snn.convert(layer.double(), "td", x.repeat(1, 1, 2), T=2).snn
    assert torch.allclose(single(x.repeat(1, 1, 2)), layer.eval()(x.repeat(1, 1, 2)), atol=1e-13)


def test_encoded_operators_send_whole_numbers_and_come_closer_with_levels() -> None:
    torch.manual_seed(0)
    block = Block().double().eval()
    x = torch.randn(5, 7, 6, dtype=torch.float64)
    wanted = block(x)
    errors = []
    for levels in (16, 256, 4096):
        network = snn.convert(block, "td", x, T=4, levels=levels).snn
        assert "Encoded" in str(exactness(network))
        errors.append((network(x).softmax(-1) - wanted).abs().max().item())
        assert network(x, return_all_steps=True).shape == (4, 5, 4)
        events = network.body.norm1.encoder  # type: ignore[union-attr]
        sent = network.body.norm1.operator.function(network.body.embed(x)) - events.rest  # type: ignore
        assert torch.allclose(sent / events.step, (sent / events.step).round(), atol=1e-6)
    assert errors[2] < errors[1] < errors[0]
    assert errors[2] < 1e-3
    with pytest.raises(ValueError, match="needs calibration data"):
        snn.convert(block, "td", T=4, levels=16)
    with pytest.raises(ValueError, match="levels must be a whole number >= 0"):
        snn.convert(block, "td", x, T=4, levels=-1)


def test_neurons_between_temporal_differences() -> None:
    torch.manual_seed(0)
    net = nn.Sequential(
        nn.Linear(6, 12), nn.LayerNorm(12), QuantAct(16, signed=True, step=0.25), nn.Linear(12, 9), nn.GELU(),
        QuantAct(16, step=0.125), nn.Linear(9, 4),
    ).double()  # fmt: skip
    network = snn.convert(net, "td", T=64).snn
    check = verify_exact(net, network, torch.randn(20, 6, dtype=torch.float64))
    assert check.wrong_counts == 0
    assert check.max_error < 1e-14
    assert check.settled
    assert check.last_event > 2


@pytest.fixture(scope="module")
def digits() -> tuple[nn.Module, torch.Tensor, torch.Tensor, torch.Tensor]:
    """A small trained network, calibration images, test images and labels."""
    data = load_digits()
    images = torch.tensor(data.images, dtype=torch.float32).unsqueeze(1) / 16
    labels = torch.tensor(data.target)
    generator = torch.Generator().manual_seed(0)
    order = torch.randperm(len(images), generator=generator)
    images, labels = images[order], labels[order]
    torch.manual_seed(0)
    net = nn.Sequential(
        nn.Conv2d(1, 12, 3, padding=1), nn.BatchNorm2d(12), nn.ReLU(), nn.Conv2d(12, 24, 3, padding=1), nn.ReLU(),
        nn.AvgPool2d(2), nn.Conv2d(24, 24, 3, padding=1), nn.BatchNorm2d(24), nn.ReLU(), nn.MaxPool2d(2), nn.Flatten(),
        nn.Linear(96, 48), nn.ReLU(), nn.Linear(48, 10),
    )  # fmt: skip
    optimiser = torch.optim.Adam(net.parameters(), 3e-3)
    for _ in range(6):
        for rows in torch.randperm(1297, generator=generator).split(64):
            optimiser.zero_grad()
            F.cross_entropy(net(images[:1297][rows]), labels[:1297][rows]).backward()
            optimiser.step()
    return net.eval(), images[:512], images[1297:], labels[1297:]


def test_morphed_digits_network_has_no_error_on_the_test_set(digits: Any) -> None:
    net, calibration, images, labels = digits
    network = snn.convert(copy.deepcopy(net).double(), "cnn-morph", calibration.double(), T=64, dyadic_bits=12).snn
    check = verify_exact(quantised_form(network), network, images.double())
    assert check.max_error == 0.0, check
    assert check.settled
    assert check.wrong_counts == 0
    accuracy = (network(images.double()).argmax(1) == labels).double().mean()
    assert accuracy > 0.95
    in_float32 = network.float()
    again = verify_exact(quantised_form(in_float32), in_float32, images)
    assert again.same_predictions == 1.0


@pytest.mark.parametrize(
    "options",
    [{"levels": 8}, {"threshold": "max"}, {"threshold": "percentile", "percentile": 99.0}, {"channelwise": True}],
)
def test_morph_options_keep_accuracy_and_predictions(digits: Any, options: dict[str, Any]) -> None:
    net, calibration, images, labels = digits
    network = snn.convert(net, "cnn-morph", calibration, T=80, **options).snn
    check = verify_exact(quantised_form(network), network, images)
    assert check.same_predictions == 1.0
    assert check.wrong_counts <= 3  # float32 sums in another order may round a tie the other way
    assert (network(images).argmax(1) == labels).double().mean() > (
        net(images).argmax(1) == labels
    ).double().mean() - 0.02


def test_fine_tuning_is_taken_over_and_the_ann_left_alone(digits: Any) -> None:
    net, calibration, images, _ = digits
    before = {name: value.clone() for name, value in net.state_dict().items()}
    trained: list[nn.Module] = []

    def fine_tune(quantised: nn.Module) -> None:
        trained.append(quantised)
        optimiser = torch.optim.SGD(quantised.parameters(), 0.01)
        F.cross_entropy(quantised(calibration[:64]), torch.zeros(64, dtype=torch.long)).backward()
        assert all(parameter.grad is not None for parameter in quantised.parameters())
        optimiser.step()

    network = snn.convert(net, "cnn-morph", calibration, T=64, levels=8, fine_tune=fine_tune).snn
    check = verify_exact(trained[0], network, images)
    assert check.same_predictions == 1.0
    assert check.max_error < 0.05
    plain = snn.convert(net, "cnn-morph", calibration, T=64, levels=8).snn
    assert (plain(images) - network(images)).abs().max() > 0.1
    assert all(torch.equal(before[name], value) for name, value in net.state_dict().items())


def test_a_trained_quantised_form_converts_again(digits: Any) -> None:
    net, calibration, images, _ = digits
    form = quantised_form(snn.convert(net, "cnn-morph", calibration, T=64).snn, trainable=True)
    network = snn.convert(form, "stbif", T=64).snn
    assert verify_exact(form, network, images).same_predictions == 1.0


def test_what_is_not_quantised_or_has_no_form_is_refused_by_name() -> None:
    net = nn.Sequential(nn.Linear(4, 4), nn.ReLU(), nn.Linear(4, 4), nn.GELU(), nn.Linear(4, 2))
    with pytest.raises(snn.UnsupportedError, match=r"2 layers.*\n.*'1'.*cnn-morph.*\n.*'3'.*recipe='td'"):
        snn.convert(net, "stbif")
    with pytest.raises(snn.UnsupportedError, match="step of this QuantAct is not set"):
        snn.convert(nn.Sequential(nn.Linear(4, 4), QuantAct(4)), "stbif")

    class Ratio(nn.Module):
        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return torch.tanh(x) / x.sigmoid()

    with pytest.raises(snn.UnsupportedError, match="quotient of two signals"):
        snn.convert(Ratio(), "td")


@pytest.mark.parametrize(
    ("options", "error", "message"),
    [
        ({"levels": 1}, ValueError, "levels must be a whole number >= 2"),
        ({"threshold": "median"}, ValueError, "threshold must be 'mse'"),
        ({"percentile": 0.0}, ValueError, "percentile must lie in"),
        ({"fine_tune": 3}, TypeError, "fine_tune must be a function"),
        ({"dyadic_bits": 40}, ValueError, "dyadic_bits must lie in 0 .. 23"),
        ({"level": 4}, TypeError, "did you mean 'levels'"),
    ],
)
def test_bad_options_are_named(options: dict[str, Any], error: type[Exception], message: str) -> None:
    with pytest.raises(error, match=message):
        snn.convert(nn.Sequential(nn.Linear(2, 2), nn.ReLU()), "cnn-morph", torch.rand(4, 2), **options)


def test_a_rate_coded_network_is_reported_as_not_exact() -> None:
    rate = snn.convert(nn.Sequential(nn.Linear(4, 4), nn.ReLU()), "rate", torch.rand(8, 4), T=4).snn
    assert not exactness(rate).exact
    with pytest.raises(ValueError, match="never exact"):
        verify_exact(nn.Linear(4, 4), rate, torch.rand(8, 4))
    assert str(exactness(rate)) == "not exact: coding 'rate' approximates values by rates"


def test_rounding_to_binary_places() -> None:
    assert rounded_to_bits(torch.tensor([0.3, -0.7, 0.01]), 4).tolist() == [0.3125, -0.6875, 0.0]
    assert power_of_two(torch.tensor([0.3, 0.7, 3.0])).tolist() == [0.25, 0.5, 4.0]
    with pytest.raises(ValueError, match="2\\^n levels"):
        make_dyadic(nn.Sequential(QCFS(6)))
    with pytest.raises(ValueError, match="bits must lie in"):
        make_dyadic(nn.Linear(2, 2), 0)
    net = make_dyadic(nn.Sequential(nn.Linear(5, 5), QuantAct(4, step=0.3)), 6)
    assert net[1].step.item() == 0.25  # type: ignore[index, union-attr]
    again = copy.deepcopy(net)
    assert all(torch.equal(a, b) for a, b in zip(make_dyadic(again, 6).parameters(), net.parameters(), strict=True))
    assert round_weights(again, 64) is again
