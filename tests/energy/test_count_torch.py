"""Counts of torch networks against brute force, and the rules by which tensors are declared spikes."""

from __future__ import annotations

import copy
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from spikingjelly.activation_based import functional
from spikingjelly.activation_based import layer as sj_layer
from spikingjelly.activation_based import neuron as sj_neuron
from torch import nn

import snn
from neuromorphic.energy import ANALOG, SPIKES, Counts, Signal, count
from neuromorphic.energy.fanout import conv_fanout, events, events_reference, linear_fanout
from snn.layers import SpikeConv2d, SpikeLinear
from snn.models import SpikingConvNet, SpikingMLP


def sparse(*shape: int, seed: int = 0, rate: float = 0.3) -> torch.Tensor:
    generator = torch.Generator().manual_seed(seed)
    return torch.randn(shape, generator=generator) * (torch.rand(shape, generator=generator) < rate)


def spikes(*shape: int, seed: int = 0, rate: float = 0.3) -> torch.Tensor:
    return (torch.rand(shape, generator=torch.Generator().manual_seed(seed)) < rate).float()


def brute_force(layer: nn.Module, x: torch.Tensor, keep_zero_weights: bool) -> list[int]:
    """Products of each sample by running the layer on ones."""
    ones = copy.deepcopy(layer).double()
    present = torch.ones_like(ones.weight) if keep_zero_weights else ones.weight.ne(0).double()
    ones.weight.data = present
    if ones.bias is not None:
        ones.bias.data.zero_()
    with torch.no_grad():
        return ones(x.ne(0).double()).flatten(1).sum(1).round().long().tolist()


@st.composite
def convolutions(draw: Any) -> tuple[nn.Module, torch.Tensor]:
    axes = draw(st.integers(1, 3))
    groups = draw(st.integers(1, 3))
    kernel = [draw(st.integers(1, 4)) for _ in range(axes)]
    mode = draw(st.sampled_from(["zeros", "zeros", "circular", "replicate", "reflect"]))
    dilation = [draw(st.integers(1, 2)) for _ in range(axes)]
    stride = [draw(st.integers(1, 3)) for _ in range(axes)]
    padding = [draw(st.integers(0, 2)) for _ in range(axes)]
    size = [(k - 1) * d + 1 + draw(st.integers(2, 5)) for k, d in zip(kernel, dilation, strict=True)]
    channels, out = groups * draw(st.integers(1, 2)), groups * draw(st.integers(1, 3))
    transposed = mode == "zeros" and draw(st.booleans())
    if transposed:
        kind = (nn.ConvTranspose1d, nn.ConvTranspose2d, nn.ConvTranspose3d)[axes - 1]
        padding = [min(p, (k - 1) * d) for p, k, d in zip(padding, kernel, dilation, strict=True)]
        layer = kind(channels, out, kernel, stride, padding, groups=groups, dilation=dilation)
    else:
        kind = (nn.Conv1d, nn.Conv2d, nn.Conv3d)[axes - 1]
        same = mode == "zeros" and draw(st.booleans()) and all(s == 1 for s in stride)
        layer = kind(channels, out, kernel, stride, "same" if same else padding, dilation, groups, padding_mode=mode)
    seed = draw(st.integers(0, 1000))
    layer.weight.data *= sparse(*layer.weight.shape, seed=seed, rate=0.6).ne(0)
    return layer, sparse(2, channels, *size, seed=seed + 1)


@settings(max_examples=60, deadline=None)
@given(convolutions())
def test_convolutions_equal_brute_force(case: tuple[nn.Module, torch.Tensor]) -> None:
    layer, x = case
    found = count(nn.Sequential(layer), x).layers[0]
    assert found.synops[0].tolist() == brute_force(layer, x, True)
    assert found.synops_nonzero[0].tolist() == brute_force(layer, x, False)
    assert found.dense_synops == brute_force(layer, torch.ones_like(x), True)[0]
    assert found.input_events[0].tolist() == x.ne(0).flatten(1).sum(1).tolist()


@settings(max_examples=20, deadline=None)
@given(convolutions())
def test_the_compiled_count_equals_torch_operations(case: tuple[Any, torch.Tensor]) -> None:
    layer, x = case
    out = layer(x).shape[2:]
    fanout = conv_fanout(layer, layer.weight, x.shape[2:], out)
    for ours, reference in zip(events(x, fanout), events_reference(x, fanout), strict=True):
        assert ours.tolist() == reference.tolist()


@pytest.mark.parametrize("dtype", [torch.float64, torch.float16, torch.bfloat16, torch.bool, torch.int64])
def test_every_dtype_is_counted(dtype: torch.dtype) -> None:
    x = spikes(5, 7).to(dtype)
    fanout = linear_fanout(torch.ones(3, 7))
    entries, products, _ = events(x.unsqueeze(1), fanout)
    assert entries.tolist() == x.ne(0).sum(1).tolist()
    assert (products == 3 * entries).all()


@pytest.mark.parametrize("shape", [(4, 3, 6), (12, 6), (4, 3, 5, 6), (12, 5, 6)])
def test_linear_layers_over_tokens(shape: tuple[int, ...]) -> None:
    net = Sequence(nn.Linear(6, 8))
    x = spikes(*shape)
    (found,) = count(net, x.view(4, 3, *shape[1:]) if shape[0] == 12 else x, call="sequence").layers
    expected = x.reshape(4, 3, -1).sum(2).long() * 8
    assert found.synops.tolist() == expected.tolist()
    assert found.dense_synops == 6 * 8 * (5 if 5 in shape else 1)


class Sequence(nn.Sequential):
    """Layers over [T * B, ...]."""

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        y = super().forward(x.flatten(0, 1))
        return y.unflatten(0, (len(x), -1))


def test_what_each_layer_is_fed_with() -> None:
    net = SpikingConvNet((1, 12, 12), 10, channels=(4, 6), hidden=16).eval()
    counts = count(net, sparse(1, 3, 1, 12, 12).expand(5, -1, -1, -1, -1))
    assert [layer.kind for layer in counts.layers] == [
        *("conv", "norm", "pool", "neuron") * 2,
        *("linear", "norm", "neuron", "linear"),
    ]
    by_name = {layer.name.removeprefix("stack.layers."): layer for layer in counts.layers}
    assert by_name["conv1"].inputs == ("input",)
    assert by_name["conv2"].inputs == ("stack.layers.neuron1",)
    assert by_name["readout"].inputs == ("stack.layers.neuron",)
    assert [by_name[name].input_signal for name in ("conv1", "conv2", "linear", "readout")] == [ANALOG] + [SPIKES] * 3
    assert counts.steps == 5
    assert by_name["conv1"].steps == 1  # a repeated image passes the first layers once
    assert by_name["conv2"].steps == 5
    assert by_name["neuron1"].neuron_count == 4 * 6 * 6
    assert by_name["neuron1"].leaky
    assert by_name["neuron1"].total("neuron_updates") == 5 * 3 * 144
    assert counts.neurons_behind(by_name["conv1"]) is by_name["neuron1"]
    assert counts.neurons_behind(by_name["readout"]) is None


def test_an_input_that_happens_to_be_binary_stays_analog() -> None:
    net, x = SpikingMLP((6,), 3, hidden=(4,)), spikes(4, 2, 6)
    assert count(net, x).layers[0].total("acs") == 0
    assert count(net, x).layers[0].total("macs") > 0
    assert count(net, x, input_signal=SPIKES).layers[0].total("acs") > 0
    silent = count(net, torch.zeros(4, 2, 6))
    assert silent.layers[0].input_signal == ANALOG


class Pooled(nn.Module):
    def __init__(self, pool: nn.Module) -> None:
        super().__init__()
        self.neuron, self.pool, self.conv = snn.IF(step_mode="m"), pool, nn.Conv2d(2, 3, 1)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.conv(self.pool(self.neuron(x).flatten(0, 1)))


@pytest.mark.parametrize(
    ("pool", "levels"),
    [(nn.AvgPool2d(2), 4), (nn.MaxPool2d(2), 1), (nn.AdaptiveAvgPool2d(1), 36), (nn.AvgPool2d((1, 3)), 3)],
)
def test_pooling_of_spikes(pool: nn.Module, levels: int) -> None:
    conv = count(Pooled(pool), 2 * sparse(3, 2, 2, 6, 6))["conv"]
    assert conv.input_signal == Signal("spikes", levels)
    assert (conv.total("acs") > 0) == (levels == 1)
    assert conv.input_signal.bits == {1: 1, 3: 2, 4: 3, 36: 6}[levels]


class Residual(nn.Module):
    def __init__(self, functional_add: Any) -> None:
        super().__init__()
        self.first, self.second = nn.Linear(6, 6), nn.Linear(6, 6)
        self.a, self.b = snn.IF(step_mode="m"), snn.IF(step_mode="m")
        self.add = functional_add

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        a = self.a(3 * self.first(x))
        return self.second(self.add(a, self.b(3 * self.second(a))))


@pytest.mark.parametrize(
    ("function", "signal"),
    [
        (lambda a, b: a + b, Signal("spikes", 2)),
        (lambda a, b: a - b, Signal("spikes", 2, signed=True)),
        (lambda a, b: a * b, SPIKES),
        (lambda a, b: (1 - a) * b, SPIKES),
        (lambda a, b: torch.maximum(a, b), SPIKES),
        (lambda a, b: torch.cat([a, b], 2)[..., 3:9], SPIKES),
        (lambda a, b: 0.5 * (a + a + b), Signal("spikes", 3)),
        (lambda a, b: a + 0.1, ANALOG),
        (lambda a, b: torch.sigmoid(a), ANALOG),
        (lambda a, b: a.logical_or(b).float(), SPIKES),
    ],
)
def test_operations_on_spikes(function: Any, signal: Signal) -> None:
    counts = count(Residual(function), 4 * sparse(5, 2, 6, rate=0.8))
    # The layer is used twice; with the same shape both calls are one layer, fed with the wider signal.
    assert counts["second"].steps == 10
    assert counts["second"].input_signal == signal


def test_a_residual_sum_adds_only_spikes() -> None:
    net = Residual(lambda a, b: a + b)
    seen: list[torch.Tensor] = []
    net.a.register_forward_hook(lambda *call: seen.append(call[2]))
    net.b.register_forward_hook(lambda *call: seen.append(call[2]))
    counts = count(net, 4 * sparse(5, 2, 6, rate=0.8))
    (add,) = [layer for layer in counts.layers if layer.kind == "elementwise"]
    assert add.total("adds") == int(sum(z.sum() for z in seen))
    assert set(add.inputs) == {"a", "b"}
    assert counts["second"].recurrent  # its second call is fed by what it fed before


class Attention(nn.Module):
    def __init__(self, fused: bool = False) -> None:
        super().__init__()
        self.q, self.k, self.v = (snn.IF(step_mode="m") for _ in range(3))
        self.fused = fused

    def forward(self, x: torch.Tensor) -> torch.Tensor:  # [T, B, heads, tokens, width]
        q, k, v = self.q(x), self.k(x.roll(1, -1)), self.v(x.roll(2, -1))
        if self.fused:
            return nn.functional.scaled_dot_product_attention(q, k, v)
        return (q @ k.transpose(-2, -1)) @ v * 0.125


def test_attention_products() -> None:
    x = 2 * sparse(3, 2, 2, 5, 4, rate=0.7)
    net = Attention()
    q, k, v = (layer(x) for layer in (net.q, net.k.__class__(step_mode="m"), net.v))
    k, v = net.k(x.roll(1, -1)), net.v(x.roll(2, -1))
    scores = q @ k.transpose(-2, -1)
    counts = count(net, x)
    first, second = [layer for layer in counts.layers if layer.kind == "matmul"]
    assert first.synops.tolist() == scores.sum((2, 3, 4)).long().tolist()
    assert second.synops.tolist() == (scores.ne(0).float() @ v).sum((2, 3, 4)).long().tolist()
    assert first.input_signal == second.input_signal == SPIKES
    assert first.dense_synops == 2 * 5 * 4 * 5
    assert second.dense_synops == 2 * 5 * 5 * 4
    assert set(first.inputs) == {"q", "k"}
    assert set(second.inputs) == {first.name, "v"}


def test_fused_attention_shows_its_products() -> None:
    counts = count(Attention(fused=True), 2 * sparse(3, 2, 2, 5, 4, rate=0.7))
    products = [layer for layer in counts.layers if layer.kind == "matmul"]
    assert [layer.dense_synops for layer in products] == [200, 200]


def test_recurrent_spikes_of_the_step_before() -> None:
    layer = snn.RecurrentLIF(7, tau=2.0, step_mode="m")
    net = nn.Sequential(layer)
    x = 3 * sparse(6, 2, 7, rate=0.8)
    z = layer(x)
    counts = count(net, x)
    feedback = counts["0.recurrent"]
    assert feedback.recurrent
    assert feedback.input_signal == SPIKES
    assert feedback.inputs == ("0",)
    before = torch.cat([torch.zeros(1, 2), z.sum(2)[:-1]]).long() * 7
    assert feedback.synops.tolist() == before.tolist()
    assert counts["0"].output_events.tolist() == z.sum(2).long().tolist()


def spikingjelly_network(step_mode: str) -> nn.Module:
    torch.manual_seed(3)
    net = nn.Sequential(
        sj_layer.Conv2d(1, 4, 3, padding=1, bias=False),
        sj_layer.BatchNorm2d(4),
        sj_neuron.IFNode(),
        sj_layer.MaxPool2d(2),
        sj_layer.Flatten(),
        sj_layer.Linear(4 * 16, 10, bias=False),
        sj_neuron.LIFNode(tau=2.0),
    )
    functional.set_step_mode(net, step_mode)
    return net


def test_single_steps_equal_all_steps() -> None:
    x = 3 * sparse(4, 2, 1, 8, 8, rate=0.8)
    single = count(spikingjelly_network("s"), x)
    whole = count(spikingjelly_network("m"), x)
    for a, b in zip(single.layers, whole.layers, strict=True):
        for name in ("synops", "synops_nonzero", "input_events", "output_events", "neuron_updates", "adds"):
            assert getattr(a, name).tolist() == getattr(b, name).tolist(), (a.name, name)
    assert whole["0"].input_signal == ANALOG
    assert whole["5"].input_signal == SPIKES
    assert whole["6"].leaky
    assert not whole["2"].leaky


def test_a_sequence_container_of_spikingjelly() -> None:
    net = nn.Sequential(
        sj_layer.SeqToANNContainer(nn.Conv2d(1, 2, 3), nn.BatchNorm2d(2)), sj_neuron.IFNode(step_mode="m")
    )
    counts = count(net, 3 * sparse(4, 2, 1, 6, 6))
    assert [(layer.kind, layer.steps) for layer in counts.layers] == [("conv", 4), ("norm", 4), ("neuron", 4)]


def test_a_recurrent_container_of_spikingjelly() -> None:
    rc = sj_layer.LinearRecurrentContainer(sj_neuron.IFNode(), in_features=5, out_features=5, bias=True)
    counts = count(nn.Sequential(nn.Linear(5, 5), rc), 3 * sparse(4, 2, 5, rate=0.9))
    inner = counts["1.rc"]
    assert inner.recurrent
    assert inner.input_signal == ANALOG  # currents and spikes together
    assert set(inner.inputs) == {"0", "1.sub_module"}


def test_a_plain_network_has_only_multiplications() -> None:
    net = nn.Sequential(nn.Conv2d(1, 2, 3), nn.ReLU(), nn.Flatten(), nn.Linear(2 * 36, 4))
    counts = count(net, sparse(3, 1, 8, 8))
    assert counts.steps == 1
    assert counts.total("acs") == 0
    assert [layer.kind for layer in counts.layers] == ["conv", "activation", "linear"]
    assert counts["3"].total("synops") == 4 * counts["1"].total("output_events")


class Functional(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.w, self.b = nn.Parameter(sparse(4, 2, 3, 3, rate=0.8)), nn.Parameter(torch.zeros(4))
        self.v = nn.Parameter(sparse(5, 4 * 16, rate=0.5))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x = nn.functional.relu(nn.functional.conv2d(x, self.w, self.b, padding=1, stride=2))
        return nn.functional.linear(x.flatten(1), self.v)


def test_functions_equal_layers() -> None:
    net = Functional()
    conv = nn.Conv2d(2, 4, 3, stride=2, padding=1)
    conv.weight, conv.bias = net.w, net.b
    linear = nn.Linear(64, 5, bias=False)
    linear.weight = net.v
    x = sparse(3, 2, 8, 8)
    ours = count(net, x).connections
    layers = count(nn.Sequential(conv, nn.ReLU(), nn.Flatten(), linear), x).connections
    for a, b in zip(ours, layers, strict=True):
        assert (a.kind, a.dense_synops, a.weight_nonzero_count) == (b.kind, b.dense_synops, b.weight_nonzero_count)
        assert a.synops.tolist() == b.synops.tolist()
        assert a.synops_nonzero.tolist() == b.synops_nonzero.tolist()


def test_spike_sparse_layers_count_like_dense_ones() -> None:
    sparse_layers = nn.Sequential(SpikeConv2d(2, 4, 3, padding=1), nn.Flatten(), SpikeLinear(4 * 36, 5))
    dense_layers = nn.Sequential(nn.Conv2d(2, 4, 3, padding=1), nn.Flatten(), nn.Linear(4 * 36, 5))
    dense_layers.load_state_dict(sparse_layers.state_dict())
    x = spikes(3, 2, 6, 6, rate=0.05)
    ours, theirs = count(sparse_layers, x, input_signal=SPIKES), count(dense_layers, x, input_signal=SPIKES)
    assert ours["0"] == theirs["0"]
    assert ours["2"].dense_synops == theirs["2"].dense_synops


class OwnNeuron(nn.Module):
    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return (x > 0.5).to(x)


@pytest.mark.parametrize("declared", [(OwnNeuron,), ("1",)])
def test_declared_neurons(declared: tuple[Any, ...]) -> None:
    net = nn.Sequential(nn.Linear(6, 5), OwnNeuron(), nn.Linear(5, 2))
    x = 3 * sparse(4, 6)
    counts = count(net, x, spiking=declared)
    assert counts["1"].neuron_model == "OwnNeuron"
    assert counts["1"].neuron_count == 5
    assert counts["2"].total("acs") == 2 * int((net[0](x) > 0.5).sum())


def test_a_neuron_that_hides_weights_is_refused() -> None:
    net = nn.Sequential(nn.Linear(6, 5))
    with pytest.raises(snn.UnsupportedError, match="holds the weights"):
        count(net, torch.zeros(2, 6), spiking=(nn.Linear,))


def test_batches_are_put_together() -> None:
    net, x = SpikingMLP((6,), 3, hidden=(5,)).eval(), sparse(4, 6, 6)
    whole = count(net, x)
    parts = count(net, [x[:, :2], x[:, 2:]])
    assert parts == whole
    assert Counts.from_json(whole.to_json()) == whole


def test_counting_leaves_the_network_as_it_was() -> None:
    net = spikingjelly_network("s").train()
    x = 3 * sparse(2, 2, 1, 8, 8)
    before = {name: value.clone() for name, value in net.state_dict().items()}
    count(net, x)
    assert net.training
    assert all(torch.equal(value, before[name]) for name, value in net.state_dict().items())
    assert not any(module._forward_hooks or module._forward_pre_hooks for module in net.modules())


def test_state_of_an_earlier_call_does_not_count() -> None:
    net, x = spikingjelly_network("s").eval(), 3 * sparse(2, 2, 1, 8, 8)
    fresh = count(net, x)
    net(x[0])
    assert count(net, x) == fresh


class Raises(nn.Module):
    def forward(self, x: torch.Tensor) -> torch.Tensor:
        raise RuntimeError("from inside")


def test_hooks_are_gone_after_an_error() -> None:
    net = nn.Sequential(nn.Linear(3, 3), Raises())
    with pytest.raises(RuntimeError, match="from inside"):
        count(net, torch.zeros(2, 3))
    assert not any(module._forward_hooks or module._forward_pre_hooks for module in net.modules())


@pytest.mark.parametrize(
    ("network", "data", "options", "error", "text"),
    [
        (3, torch.zeros(2, 2), {}, TypeError, "network must be"),
        (nn.Linear(2, 2), "images", {}, TypeError, "data must be"),
        (nn.Linear(2, 2), [], {}, ValueError, "no batch"),
        (nn.Linear(2, 2), torch.zeros(2, 2), {"call": "often"}, ValueError, "call must be one of"),
        (nn.Linear(2, 2), torch.zeros(2, 2), {"steps": 0}, ValueError, "steps must be >= 1"),
        (nn.Linear(2, 2), torch.zeros(2, 2), {"call": "sequence", "steps": 3}, ValueError, "steps belongs to"),
        (nn.Linear(2, 2), torch.zeros(2), {"call": "sequence"}, ValueError, r"data must be \[T, B"),
        (nn.LSTM(2, 2), torch.zeros(2, 2, 2), {}, snn.UnsupportedError, "nn.LSTMCell"),
        (nn.TransformerEncoderLayer(4, 2), torch.zeros(2, 2, 4), {}, snn.UnsupportedError, "self_attn"),
        (nn.Linear(2, 2), torch.zeros(2, 2), {"spiking": ("relu",)}, ValueError, "names no module 'relu'"),
        (nn.Sequential(nn.Flatten(0), nn.Linear(6, 2)), torch.zeros(3, 2), {}, snn.ShapeError, "leading axes"),
    ],
)
def test_wrong_calls(network: Any, data: Any, options: dict[str, Any], error: type[Exception], text: str) -> None:
    with pytest.raises(error, match=text):
        count(network, data, **options)


def test_mixed_step_modes_ask_for_a_call() -> None:
    net = nn.Sequential(snn.IF(step_mode="m"), snn.IF(step_mode="s"))
    with pytest.raises(ValueError, match="say call"):
        count(net, torch.zeros(2, 2, 3))


def test_steps_and_tokens_that_cannot_be_told_apart_are_refused() -> None:
    with pytest.raises(snn.ShapeError, match="batch of another size"):
        count(nn.Sequential(nn.Linear(5, 2)), torch.zeros(3, 3, 5), call="sequence")
