"""Counts of converted networks against the events that their layers record, and a plain product by product."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import nn

import snn
from neuromorphic.energy import count, estimate
from neuromorphic.energy.signals import ANALOG, Signal
from snn.conversion.activations import QuantAct
from snn.conversion.network import ConvertedNetwork
from snn.conversion.quantised_recurrent import QuantRNN
from snn.conversion.run_network import ConvertedRun

T = 7
TERNARY = Signal("spikes", 1, signed=True)
SPIKES = Signal("spikes", 1)


class MaxNet(nn.Module):
    """Convolutions, maximum pooling, a residual sum, and linear layers."""

    def __init__(self) -> None:
        super().__init__()
        self.first, self.second = nn.Conv2d(1, 3, 3), nn.Conv2d(3, 3, 3, padding=1)
        self.hidden, self.last = nn.Linear(12, 6), nn.Linear(6, 4)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x = torch.relu(self.first(x))
        x = torch.relu(self.second(x) + x)
        x = torch.max_pool2d(x, 2).flatten(1)
        y: torch.Tensor = self.last(torch.relu(self.hidden(x)))
        return y


def images(count: int = 5) -> torch.Tensor:
    return torch.rand(count, 1, 6, 6, generator=torch.Generator().manual_seed(1))


def converted(recipe: str, **options: Any) -> ConvertedNetwork:
    torch.manual_seed(0)
    return snn.convert(MaxNet().eval(), recipe, images(20), T=T, **options).snn


def products(network: ConvertedNetwork, x: torch.Tensor, steps: int, name: str) -> list[int]:
    """Products with a non-zero input in each step of the linear layer of this name, from the layer's recorded inputs."""
    seen: list[torch.Tensor] = []
    layer = network.body.get_submodule(name)
    handle = layer.register_forward_hook(lambda module, inputs, output: seen.append(inputs[0].clone()))
    network(x, steps)
    handle.remove()
    rows = torch.cat(seen).unflatten(0, (-1, len(x)))
    return [int((row != 0).sum()) * layer.weight.shape[0] for row in rows]  # type: ignore[union-attr,index]


@pytest.mark.parametrize(
    ("recipe", "options", "signal"),
    [
        ("rate", {}, SPIKES),
        ("rate", {"delay": 2}, SPIKES),
        ("signed", {}, TERNARY),
        ("burst", {"gamma": 3}, Signal("spikes", 3)),
        ("cnn-morph", {"levels": 6}, TERNARY),
        ("calibration-advanced", {"samples": 8}, SPIKES),
    ],
    ids=str,
)
def test_events_are_those_of_the_records(recipe: str, options: dict[str, Any], signal: Signal) -> None:
    network, x = converted(recipe, **options), images()
    counts = count(network, x)
    with network.record() as records:
        network(x)
    for name, record in records.items():
        found = counts[f"body.{name}.neuron"]
        assert found.total("output_events") == int(record.events.sum())
        assert found.output_signal == signal
        assert not found.leaky
        assert found.hard_reset is False
        assert found.steps == T
        assert found.total("neuron_updates") == T * record.events.numel()
    assert counts.steps == T
    assert counts.samples == 5
    assert counts["body.hidden"].input_signal == counts["body.last"].input_signal == signal
    assert counts["body.first"].input_signal == ANALOG
    for name in ("hidden", "last"):
        layer = counts[f"body.{name}"]
        found_products = layer.synops.sum(1).tolist()
        wanted = products(network, x, T, name)
        assert found_products[: len(wanted)] == wanted
        assert sum(found_products) == sum(wanted)
        assert layer.total("acs") == (sum(wanted) if signal.is_binary else 0)
        assert layer.total("macs") == (0 if signal.is_binary else sum(wanted))


def test_the_image_is_multiplied_in_the_first_step_alone() -> None:
    x = images()
    counts = count(converted("cnn-morph", levels=6), x)
    first = counts["body.first"]
    assert first.steps == T
    assert first.synops[1:].sum() == 0
    assert first.total("macs") == first.synops[0].sum() == 5 * 16 * 9 * 3
    assert first.bias_count == 3
    once = count(converted("rate"), x)["body.first"]
    assert (once.steps, once.total("macs")) == (1, 5 * 16 * 9 * 3)


def test_negative_spikes_are_events() -> None:
    network, x = converted("cnn-morph", levels=6), images(20)
    counts = count(network, x, steps=40)
    network(x, 40)
    with network.record() as records:
        network(x, 40)
    net_counts = {
        name: (record.output_sum / network.layers()[name].threshold).round() for name, record in records.items()
    }
    found = {name: counts[f"body.{name}.neuron"].total("output_events") for name in records}
    assert all(found[name] >= int(net.abs().sum()) for name, net in net_counts.items())
    assert any(found[name] > int(net.abs().sum()) for name, net in net_counts.items())


def test_steps_of_a_preparation_count() -> None:
    x = images()
    srp, rate = converted("srp", tau=3), converted("rate")
    counts = count(srp, x)
    assert counts.steps == T + 3
    for name in srp.layers():
        prepared, plain = counts[f"body.{name}.neuron"], count(rate, x)[f"body.{name}.neuron"]
        assert prepared.steps == T + 3
        # The preparation is the beginning of a plain run.
        assert prepared.output_events[:3].tolist() == plain.output_events[:3].tolist()
    assert counts["body.first"].steps == 2
    assert counts["body.last"].steps == T + 3
    assert counts["body.last"].input_signal == SPIKES
    cos = count(converted("cos", rho=2), x)
    assert cos.steps == T + 2
    assert cos["body.last"].steps == T + 2
    assert cos["body.relu.neuron"].steps == T + 2 * 2  # once to look, once to send on
    assert cos["body.last"].input_signal == SPIKES


def test_silenced_neurons_send_nothing_on() -> None:
    network, x = converted("srp", tau=3), images()
    wanted = products(network, x, T, "last")[-T:]
    assert count(network, x)["body.last"].synops.sum(1)[-T:].tolist() == wanted


def test_maximum_pooling_keeps_spikes_and_adds_events() -> None:
    network, x = converted("rate"), images()
    counts = count(network, x)
    (pool,) = [layer for layer in counts.layers if layer.kind == "pool"]
    with network.record() as records:
        network(x)
    sent = counts["body.hidden"].total("input_events")
    assert pool.total("adds") == int(records["relu_2"].events.sum()) + sent
    assert pool.input_signal == SPIKES
    assert pool.output_shape == (3, 2, 2)


def test_batches_join_though_one_falls_silent_earlier() -> None:
    network, x = converted("cnn-morph", levels=6), images(6)
    parts = count(network, [x[:2], x[2:]])
    whole = count(network, x)
    assert parts.total("synops") == whole.total("synops")
    assert parts["body.last"].synops.tolist() == whole["body.last"].synops.tolist()


def test_the_network_of_a_run_folder_counts_as_the_network_itself() -> None:
    ann = {"class": "AnalogMLP", "hidden": [7]}
    x = torch.rand(4, 5, generator=torch.Generator().manual_seed(2))
    from snn.conversion.run_network import plain_network
    from snn.training.build import build_network

    torch.manual_seed(0)
    for recipe in ("rate", "cnn-morph", "srp"):
        net = build_network(ann, (5,), 3)
        conversion = snn.convert(plain_network(net).eval(), recipe, torch.rand(30, 5), T=6)
        run = ConvertedRun((5,), 3, ann, recipe, 6)
        run.network.load_state_dict(conversion.snn.state_dict())
        of_run = count(run, x.expand(6, *x.shape))
        of_network = count(conversion.snn, x)
        assert [layer.name for layer in of_run.layers] == [f"network.{layer.name}" for layer in of_network.layers]
        assert [layer.synops.tolist() for layer in of_run.layers] == [
            layer.synops.tolist() for layer in of_network.layers
        ]
        assert of_run.parameter_count == of_network.parameter_count == sum(p.numel() for p in net.parameters())


def test_counting_leaves_no_trace() -> None:
    network, x = converted("srp", tau=2), images()
    before = network(x)
    count(network, x)
    assert torch.equal(network(x), before)
    assert not network.training


def test_energy_of_negative_spikes_and_of_silence() -> None:
    network = converted("cnn-morph", levels=6)
    counts = count(network, images())
    additions = sum(layer.total("acs") for layer in counts.connections)
    found = estimate(counts, "45nm")
    assert additions > 0
    assert found.typical_pj > 0
    # After the last spike nothing is added up any more.
    longer = count(network, images(), steps=40)
    longest = count(network, images(), steps=60)
    assert longer.total("synops") == longest.total("synops")
    additions = [sum(layer.total("acs") for layer in found.connections) for found in (longer, longest)]
    assert additions[0] == additions[1]


class Recurrent(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.cell, self.readout = QuantRNN(3, 4), nn.Linear(4, 2)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        y: torch.Tensor = self.readout(self.cell(x)[:, -1])
        return y


def test_values_and_inner_steps_are_refused_with_what_to_do_instead() -> None:
    values = snn.convert(nn.Sequential(nn.Linear(3, 3), nn.GELU(), nn.Linear(3, 2)), "td", torch.rand(8, 3), T=4).snn
    with pytest.raises(snn.UnsupportedError, match=r"TemporalDifference \(recipe td\) sends real values.*snn.source"):
        count(values, torch.rand(2, 3))
    inner = snn.convert(Recurrent().eval(), "rnn-morph", T=4).snn
    with pytest.raises(snn.UnsupportedError, match=r"'cell' \(recipe rnn-morph\) runs inner steps.*report.recurrent"):
        count(inner, torch.rand(2, 5, 3))


def test_quantised_activations_with_signs_count_too() -> None:
    torch.manual_seed(3)
    net = nn.Sequential(nn.Linear(4, 8), QuantAct(9, signed=True, step=0.25), nn.Linear(8, 3)).eval()
    x = torch.randn(6, 4)
    network = snn.convert(net, "stbif", T=8).snn
    counts = count(network, x)
    spikes = (net[:2](x) / 0.25).round().abs().sum()
    assert counts["body.1.neuron"].total("output_events") == int(spikes)
    assert counts["body.2"].total("acs") == 3 * int(spikes)
    assert counts["body.1.neuron"].output_signal == TERNARY
