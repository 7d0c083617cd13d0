"""The event engine and torch count the same network alike."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import pytest
import torch
from torch import nn

import neuromorphic
import snn
from neuromorphic.energy import SPIKES, EventNetwork, LayerActivity, count, estimate, with_geometry
from neuromorphic.engine import Network
from snn.neurons.lif import integrate_and_fire

T = 12


def torch_network(seed: int = 0) -> nn.Sequential:
    generator = torch.Generator().manual_seed(seed)
    net = nn.Sequential(
        nn.Linear(20, 16, bias=False), snn.IF(step_mode="m"), nn.Linear(16, 8, bias=False), snn.IF(step_mode="m")
    )
    for layer in (net[0], net[2]):
        # Multiples of 1/8 add up exactly in any order, so both forms cross the threshold in the same step.
        weight = torch.randint(-3, 6, layer.weight.shape, generator=generator) / 8
        layer.weight.data = weight
    return net


def input_spikes(seed: int = 1) -> torch.Tensor:
    return (torch.rand(T, 1, 20, generator=torch.Generator().manual_seed(seed)) < 0.3).float()


def engine_network(net: nn.Sequential, x: torch.Tensor) -> Network:
    """The torch network as populations with one step of delay between layers."""
    network = Network(dt_ms=1.0, dtype="float64")
    t, ids = np.nonzero(x[:, 0].numpy())
    source = network.population("spike_list", 20, name="input", times_ms=(t + 1).astype(float), ids=ids)
    for name, layer in (("0", net[0]), ("2", net[2])):
        n = layer.out_features
        after = network.population(integrate_and_fire, n, name=f"neurons of {name}", v_threshold=1.0, v_reset=0.0)
        network.connect(source, after, weight=layer.weight.detach().double().numpy().T, delay_ms=1.0)
        source = after
    return network


def test_engine_counts_equal_torch_counts() -> None:
    net, x = torch_network(), input_spikes()
    expected = count(net, x, input_signal=SPIKES)
    # Two layers later than the input, each with one step of delay; nothing is cut off at the end.
    found = count(engine_network(net, x), T + 2.0)
    assert found.source == "engine"
    assert found.dt_ms == 1.0
    for projection, layer, delay in (("input->neurons of 0", "0", 0), ("neurons of 0->neurons of 2", "2", 1)):
        ours = found[projection]
        for what in ("input_events", "synops", "synops_nonzero"):
            shifted = getattr(ours, what)[delay : delay + T]
            assert shifted.tolist() == getattr(expected[layer], what).tolist(), (projection, what)
    for population, neurons, delay in (("neurons of 0", "1", 1), ("neurons of 2", "3", 2)):
        emitted = found[population].output_events[delay : delay + T]
        assert emitted.tolist() == expected[neurons].output_events.tolist()
        assert found[population].neuron_updates[:T].tolist() == expected[neurons].neuron_updates.tolist()
    assert expected["2"].total("synops") > 100


def test_the_engine_total_is_the_engines_own() -> None:
    network = engine_network(torch_network(), input_spikes())
    reference = engine_network(torch_network(), input_spikes())
    assert count(network, float(T)).total("synops") == reference.run(float(T)).synaptic_events


class Compiled:
    """An event network as a compiler makes it: an activity per layer, by walking over the spikes."""

    def __init__(self, net: nn.Sequential) -> None:
        self.net = net

    def activity(self, x: Any) -> Sequence[LayerActivity]:
        found = []
        z = x
        for name in ("0", "2"):
            layer = self.net[int(name)]
            after = self.net[int(name) + 1](layer(z))
            arrived = z.sum(2).long().numpy()
            found.append(
                LayerActivity(
                    name,
                    input_spikes=arrived,
                    synaptic_events=arrived * layer.out_features,
                    neuron_updates=np.full(arrived.shape, layer.out_features, dtype=np.int64),
                    output_spikes=after.sum(2).long().numpy(),
                )
            )
            z = after.detach()
        return found


def test_a_compiled_network_counts_like_torch() -> None:
    net, x = torch_network(), input_spikes()
    compiled = Compiled(net)
    assert isinstance(compiled, EventNetwork)
    expected, found = count(net, x, input_signal=SPIKES), count(compiled, x)
    for name, neurons in (("0", "1"), ("2", "3")):
        assert found[name].synops.tolist() == expected[name].synops.tolist()
        assert found[name].input_events.tolist() == expected[name].input_events.tolist()
        assert found[name].output_events.tolist() == expected[neurons].output_events.tolist()
        assert found[name].neuron_updates.tolist() == expected[neurons].neuron_updates.tolist()


def test_geometry_of_the_torch_network_prices_the_event_network_alike() -> None:
    net, x = torch_network(), input_spikes()
    expected, found = count(net, x, input_signal=SPIKES), count(Compiled(net), x)
    with pytest.raises(snn.UnsupportedError, match="no weights in memory of known shape"):
        estimate(found, "lemaire")
    shaped = with_geometry(found, expected)
    assert estimate(shaped, "lemaire").total.typical == pytest.approx(estimate(expected, "lemaire").total.typical)
    assert estimate(shaped, "bit-budget").total.high == estimate(expected, "bit-budget").total.high
    with pytest.raises(ValueError, match="no layer '0'"):
        with_geometry(found, count(nn.Sequential(nn.Flatten(), nn.Linear(3, 3)), torch.zeros(1, 3)))


@pytest.mark.parametrize("duration", [0, -1.0, True, "long"])
def test_an_engine_network_needs_milliseconds(duration: Any) -> None:
    with pytest.raises(ValueError, match="milliseconds"):
        count(Network(), duration)


def test_a_built_engine_network_is_refused() -> None:
    network = engine_network(torch_network(), input_spikes())
    network.run(1.0)
    with pytest.raises(ValueError, match="already built"):
        count(network, 1.0)


class Convolutional(nn.Module):
    """Two convolutions and a linear layer with neurons behind each, over [T, B, ...]."""

    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.first, self.first_neurons = nn.Conv2d(2, 4, 3, padding=1, bias=False), snn.IF(step_mode="m")
        self.second, self.second_neurons = nn.Conv2d(4, 6, 3, 2, 1, bias=False), snn.LIF(tau=2.0, step_mode="m")
        self.last, self.last_neurons = nn.Linear(6 * 16, 10, bias=False), snn.IF(step_mode="m")
        for parameter in self.parameters():
            parameter.data = (parameter.data * 32).round() / 8

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        steps = x.shape[:2]
        y = self.first_neurons(self.first(x.flatten(0, 1)).unflatten(0, steps))
        y = self.second_neurons(2 * self.second(y.flatten(0, 1)).unflatten(0, steps))
        return self.last_neurons(2 * self.last(y.flatten(2)))


def test_the_compiler_s_event_network_counts_like_torch() -> None:
    net = Convolutional().eval()
    x = (torch.rand(6, 3, 2, 8, 8, generator=torch.Generator().manual_seed(4)) < 0.3).float()
    expected = count(net, x, input_signal=SPIKES)
    found = count(neuromorphic.compile(net, x), x)
    assert [layer.name for layer in found.layers] == ["first", "second", "last"]
    for layer in found.layers:
        connection = expected[layer.name]
        neurons = expected.neurons_behind(connection)
        assert neurons is not None
        assert layer.synops.tolist() == connection.synops.tolist()
        assert layer.input_events.tolist() == connection.input_events.tolist()
        assert layer.output_events.tolist() == neurons.output_events.tolist()
        assert layer.neuron_updates.tolist() == neurons.neuron_updates.tolist()
        assert layer.total("synops") > 0
