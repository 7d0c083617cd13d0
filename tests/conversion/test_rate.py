"""Rate coding: structure, exact charge balance, and convergence."""

from __future__ import annotations

import itertools

import pytest
import torch
from conversion_networks import functional_network, images

import snn


def test_error_falls_as_one_over_steps() -> None:
    net = functional_network(dtype=torch.float64)
    x = images(24, 2, 8, 8, dtype=torch.float64)
    conversion = snn.convert(net, "rate", x, T=8, threshold="max")
    wanted = net(x)
    errors = [((conversion.snn(x, T) - wanted).abs().mean() / wanted.abs().mean()).item() for T in (16, 64, 256, 1024)]
    assert errors[3] < 0.01
    assert all(later < 0.45 * earlier for earlier, later in itertools.pairwise(errors))


def test_charge_balance_of_every_neuron() -> None:
    net = functional_network(dtype=torch.float64)
    x = images(5, 2, 8, 8, dtype=torch.float64)
    network = snn.convert(net, "rate", x, T=9, channelwise=True).snn
    with network.record() as records:
        network(x)
    assert set(records) == set(network.layers()) == {"relu", "relu_2", "relu_3", "clamp"}
    for record in records.values():
        balance = record.output_sum + record.membrane - record.initial - record.input_sum
        assert balance.abs().max() < 1e-12
        assert record.steps == 9
        assert record.events.max() <= 9
        assert record.events.sum() > 0


def test_steps_in_chunks_equal_one_run(monkeypatch: pytest.MonkeyPatch) -> None:
    from snn.conversion import network as module

    net = functional_network()
    x = images(3, 2, 8, 8)
    network = snn.convert(net, "rate", x, T=11).snn
    whole = network(x, return_all_steps=True)
    monkeypatch.setattr(module, "CHUNK_VALUES", 1)
    torch.testing.assert_close(network(x, return_all_steps=True), whole)
    torch.testing.assert_close(network(x), whole[-1])
