"""The recipes of the delay networks on their stand-ins: activity at the start, and what learned delays are good for."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch

from snn.training.build import build_network, build_rule
from snn.training.command_line import parse
from snn.training.encoding import encoded
from snn.training.run import train
from snn.training.spike_rates import SpikeCounter
from spikedata import spoken

STAND_INS = {"shd_delays": "shd", "ssc_delays": "ssc", "speech_commands_delays": "speech_commands"}


def recipe(name: str, *arguments: str) -> Any:
    data = f"--data.name=spikedata.spoken:{STAND_INS[name]}_stand_in"
    return parse(["--config", name, "--run-dir", "unused", data, *arguments])[1]


@pytest.mark.parametrize("name", STAND_INS)
def test_all_layers_spike_and_learn_from_the_start(name: str) -> None:
    """At the first width and at the last; the answers are still to come when the silent steps begin."""
    chosen = recipe(name)
    words = getattr(spoken, f"{STAND_INS[name]}_stand_in")("test", None)  # the smaller part
    torch.manual_seed(0)
    network = build_network(chosen.network, words.shape, len(words.classes))
    sequences, labels = words.batch(torch.arange(8))
    x = encoded(sequences, chosen.encoding, 0)
    layers = len(chosen.network["hidden"]) + 1
    assert len(x) == words.shape[0] + layers * chosen.network["max_delay"] // 2
    rule = build_rule(chosen, network)
    for sigma in (chosen.network["max_delay"] / 2 + 0.27, 0.5):
        for module in network.modules():
            if hasattr(module, "sigma"):
                module.sigma = sigma
        counter = SpikeCounter(network)
        network.zero_grad()
        with counter.counting():
            rule(network, x, labels, lambda loss: loss.backward())
        rates = {layer: spikes / size for layer, (spikes, size) in counter.totals().items()}
        assert len(rates) == len(chosen.network["hidden"])
        assert all(0.02 < rate < 0.4 for rate in rates.values()), (sigma, rates)
        silent = [key for key, p in network.named_parameters() if p.grad is None or not bool(p.grad.abs().sum() > 0)]
        assert not silent


@pytest.mark.slow
def test_delays_learn_what_random_ones_miss_and_no_network_without_them_can(tmp_path: Path) -> None:
    shrunken = ("--epochs=8", "--data.batch_size=50", "--network.hidden=[32, 32]", "--threads=1")
    found = {
        delays: train(recipe("shd_delays", *shrunken, f"--network.delays={delays}"), tmp_path / delays)
        for delays in ("learned", "random", "none")
    }
    accuracy = {delays: metrics["test_accuracy"] for delays, metrics in found.items()}
    assert accuracy["learned"] >= 0.85, accuracy
    assert accuracy["none"] <= 0.15, accuracy
    assert accuracy["none"] + 0.1 < accuracy["random"] < accuracy["learned"] - 0.1, accuracy
    assert all(0.01 < rate < 0.4 for rate in found["learned"]["spike_rates"].values())
