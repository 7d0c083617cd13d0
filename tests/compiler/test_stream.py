"""A stream gives what a run over all steps gives, and says how long each event took."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from compiled_networks import made, spikes

import neuromorphic
from snn.errors import ShapeError

NAMES = ["conv net", "recurrent", "delay", "mlp with leaky readout"]


def network_and_spikes(name: str) -> tuple[neuromorphic.EventNetwork, torch.Tensor]:
    x = spikes(name, B=1)
    return neuromorphic.compile(made(name), x, "float64", verify=False), x


@pytest.mark.parametrize("name", NAMES)
def test_windows_continue_each_other(name: str) -> None:
    network, x = network_and_spikes(name)
    stream = network.stream()
    parts = [stream.window(x[a:b, 0]) for a, b in ((0, 1), (1, 5), (5, 12))]
    assert torch.equal(torch.cat(parts), network.run(x)[:, 0])
    assert stream.now == 12
    stream.reset()
    assert torch.equal(stream.window(x[:, 0]), network.run(x)[:, 0])


@pytest.mark.parametrize("name", NAMES)
def test_single_events_give_the_same(name: str) -> None:
    network, x = network_and_spikes(name)
    stream = network.stream()
    done = []
    for step, place in zip(*np.nonzero(x.numpy().reshape(len(x), -1)), strict=True):
        done += stream.push(int(step), int(place))
    done += stream.advance_to(len(x))
    assert [item.step for item in done] == list(range(len(x)))
    found = np.stack([item.output for item in done])
    assert np.array_equal(found, network.run(x)[:, 0].numpy())
    assert len(stream.latencies_us) == int(x.sum())
    latency = stream.latency()
    assert 0 < latency["median_us"] <= latency["p99_us"] <= latency["max_us"]


def test_two_streams_and_runs_do_not_disturb_each_other() -> None:
    network, x = network_and_spikes("recurrent")
    first, second = network.stream(), network.stream()
    a = first.window(x[:4, 0])
    second.window(torch.ones_like(x[:4, 0]))
    whole = network.run(x)[:, 0]
    assert torch.equal(torch.cat([a, first.window(x[4:, 0])]), whole)


def test_mistakes_are_named() -> None:
    network, x = network_and_spikes("recurrent")
    stream = network.stream()
    with pytest.raises(ValueError, match="no event has been used yet"):
        stream.latency()
    stream.push(3, 1)
    assert stream.now == 3
    with pytest.raises(ValueError, match="step 2 is over; the stream is at step 3"):
        stream.push(2, 1)
    with pytest.raises(ValueError, match=r"place must lie in \[0, 12\), got 12"):
        stream.push(3, 12)
    with pytest.raises(ValueError, match="1 events of step 3 wait"):
        stream.window(x[:, 0])
    stream.advance_to(4)
    with pytest.raises(ShapeError, match=r"input must be \[T, 12\], got shape \(12, 1, 12\)"):
        stream.window(x)
