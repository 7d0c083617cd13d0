"""A converted network as an ordinary one over single steps, and spike by spike in the event engine."""

from __future__ import annotations

import pytest
import torch
from conversion_networks import functional_network, images
from torch import nn

import neuromorphic
import snn

DOUBLE = torch.float64
RECIPES = [
    ("rate", {"channelwise": True}),
    *(
        pytest.param(recipe, options, marks=pytest.mark.slow)  # each set of neurons compiles for some seconds
        for recipe, options in (
            ("burst", {}),
            ("signed", {}),
            ("calibration-light", {"samples": 4}),
            ("calibration-advanced", {"samples": 4}),
        )
    ),
]


@pytest.mark.parametrize(("recipe", "options"), RECIPES, ids=str)
def test_single_steps_and_events_give_the_same_spikes(recipe: str, options: dict[str, object]) -> None:
    net = functional_network(dtype=DOUBLE)
    x = images(4, 2, 8, 8, dtype=DOUBLE)
    network = snn.convert(net, recipe, x, T=10, **options).snn
    outputs = torch.cat([chunk for _, chunk in network.run(x, 10)])
    step = network.single_step()
    stepped = torch.stack([step(x) for _ in range(10)])
    torch.testing.assert_close(stepped, outputs, rtol=0, atol=1e-12)
    step.reset()
    events = neuromorphic.compile(step, x[:1], dtype="float64")
    sequence = x.expand(10, *x.shape)
    torch.testing.assert_close(torch.as_tensor(events.run(sequence)), outputs, rtol=0, atol=1e-12)
    report = events.check(step, sequence)
    assert report.equal
    assert {f"body.{name}.neuron" for name in network.layers()} <= {layer.name for layer in report.layers}


def test_the_view_keeps_its_state_until_reset() -> None:
    net = functional_network(dtype=DOUBLE)
    x = images(2, 2, 8, 8, dtype=DOUBLE)
    step = snn.convert(net, "rate", x, T=4).snn.single_step()
    first = [step(x) for _ in range(3)]
    step.reset()
    again = [step(x) for _ in range(3)]
    assert all(torch.equal(a, b) for a, b in zip(first, again, strict=True))
    assert not torch.equal(first[0], first[1])


def test_networks_whose_steps_differ_have_no_view() -> None:
    net = nn.Sequential(nn.Linear(3, 3), nn.ReLU(), nn.Linear(3, 2))
    with pytest.raises(ValueError, match="this one has coding 'rate' and a preparation"):
        snn.convert(net, "srp", images(8, 3), T=4).snn.single_step()
