"""Sum coding and delayed read-outs in the event engine: spikes and read-outs against the converted network."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from conversion_networks import images
from exact_networks import dyadic_images, round_weights
from torch import nn

import neuromorphic
import snn
from snn.conversion.activations import QuantAct
from snn.conversion.event_form import event_form
from snn.conversion.network import ConvertedNetwork
from snn.conversion.quantised_recurrent import QuantRNN

T = 14


class Quantised(nn.Module):
    """Two branches, a residual sum, concatenation and average pooling, with biases everywhere."""

    def __init__(self) -> None:
        super().__init__()
        self.stem, self.q1 = nn.Conv2d(2, 4, 3, padding=1), QuantAct(8, step=0.25)
        self.deep, self.q2 = nn.Conv2d(4, 4, 3, padding=1), QuantAct(8, signed=True, step=0.25)
        self.last, self.q3, self.readout = nn.Linear(32, 6), QuantAct(8, step=0.5), nn.Linear(6, 3)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x = self.q1(self.stem(x))
        x = torch.cat([x, self.q2(self.deep(x) + x)], 1)
        x = nn.functional.avg_pool2d(x, 2).flatten(1)
        y: torch.Tensor = self.readout(self.q3(self.last(x)))
        return y


def quantised() -> nn.Module:
    torch.manual_seed(0)
    return round_weights(Quantised().double().eval(), 32).requires_grad_(False)


X = dyadic_images(6, 2, 4, 4)


def repeated(x: torch.Tensor, steps: int = T) -> torch.Tensor:
    return x.expand(steps, *x.shape)


def outputs_of(network: ConvertedNetwork, x: torch.Tensor, steps: int = T) -> torch.Tensor:
    found = torch.cat([chunk for _, chunk in network.run(x, steps)])
    return torch.cat([found, found.new_zeros(steps - len(found), *found.shape[1:])])


def test_biases_become_starts_and_all_spikes_stay_the_same() -> None:
    network = snn.convert(quantised(), "stbif", T=T).snn
    form = event_form(network, repeated(X))
    inputs = form.inputs(repeated(X))
    assert torch.equal(inputs[0], X)
    assert not inputs[1:].any()
    wanted = outputs_of(network, X)
    wanted[0] -= form.offset.squeeze(0)
    assert torch.equal(form.network(inputs), wanted)
    assert torch.equal(form.logits(form.network(inputs)).mean(0), network(X))
    assert torch.equal(form.network(inputs), wanted)  # every call begins anew
    assert all(getattr(layer, "bias", None) is None for layer in form.network.modules())
    assert network.body.get_submodule("stem").bias is not None


def test_the_event_engine_runs_sum_coding() -> None:
    network = snn.convert(quantised(), "stbif", T=T).snn
    form = event_form(network, repeated(X))
    inputs = form.inputs(repeated(X))
    events = neuromorphic.compile(form.network, inputs[:, :1], dtype="float64")
    got = torch.as_tensor(events.run(inputs))
    assert torch.equal(got, form.network(inputs))
    assert torch.equal(form.logits(got).mean(0), quantised()(X))
    report = events.check(form.network, inputs)
    assert report.equal


def test_a_delayed_read_out_leaves_its_steps_out() -> None:
    torch.manual_seed(1)
    net = nn.Sequential(nn.Linear(5, 8), nn.ReLU(), nn.Linear(8, 3)).double().eval()
    x = images(7, 5, dtype=torch.float64)
    network = snn.convert(net, "rate", x, T=9, delay=3).snn
    form = event_form(network, repeated(x, 9))
    assert form.skipped == 3
    assert form.inputs(repeated(x, 9)) is not None
    logits = form.logits(form.network(form.inputs(repeated(x, 9))))
    assert not logits[:3].any()
    torch.testing.assert_close(logits.mean(0), network(x), rtol=1e-12, atol=1e-12)


class Pooled(nn.Module):
    def __init__(self, constant: bool) -> None:
        super().__init__()
        self.conv, self.q, self.fc, self.constant = nn.Conv2d(1, 2, 3), QuantAct(4, step=0.5), nn.Linear(8, 2), constant

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x = self.q(self.conv(x))
        x = x + 0.25 if self.constant else nn.functional.max_pool2d(x, 2)
        y: torch.Tensor = self.fc((nn.functional.avg_pool2d(x, 2) if self.constant else x).flatten(1))
        return y


class Recurrent(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.cell = QuantRNN(3, 4)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        y: torch.Tensor = self.cell(x)[:, -1]
        return y


@pytest.mark.parametrize(
    ("net", "recipe", "x", "match"),
    [
        (
            nn.Sequential(nn.Linear(3, 3), nn.ReLU(), nn.Linear(3, 2)),
            "srp",
            images(8, 3),
            "a first run of 4 steps sets",
        ),
        (nn.Sequential(nn.Linear(3, 3), nn.ReLU(), nn.Linear(3, 2)), "cos", images(8, 3), "srp and cos"),
        (nn.Sequential(nn.Linear(3, 3), nn.GELU(), nn.Linear(3, 2)), "td", images(8, 3), "'1' .*recipe td. sends real"),
        (
            Pooled(False),
            "stbif",
            images(8, 1, 6, 6),
            "max_pool2d' is a maximum pooling of sums.*--engine torch, or train",
        ),
        (Pooled(True), "stbif", images(8, 1, 6, 6), "add' adds a constant; put it into a bias"),
        (Recurrent(), "rnn-morph", images(8, 5, 3), "'cell' .recipe rnn-morph. runs inner steps"),
    ],
)
def test_what_an_engine_cannot_run_is_refused_with_the_reason(
    net: nn.Module, recipe: str, x: torch.Tensor, match: str
) -> None:
    network: Any = snn.convert(net.eval(), recipe, x, T=4).snn
    with pytest.raises(snn.UnsupportedError, match=match):
        event_form(network, repeated(x, 4))
