"""The report on recurrent layers against direct computation, and runs of networks with layers behind a recurrent one."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from exact_networks import dyadic_images, round_weights
from torch import nn

import snn
from snn.conversion import measure
from snn.conversion import recurrent_report as module
from snn.conversion.activations import QuantAct
from snn.conversion.network import ConvertedNetwork
from snn.conversion.quantised_recurrent import QuantCell, QuantGRU, QuantLSTM, QuantRNN
from snn.conversion.recurrent import WIRINGS, run_sequence
from snn.conversion.verification import exactness

CELLS = {"rnn": QuantRNN, "gru": QuantGRU, "lstm": QuantLSTM}


class Mixed(nn.Module):
    """A quantised convolution over time, a recurrent layer, and a quantised layer behind it."""

    def __init__(self, cell: str) -> None:
        super().__init__()
        self.conv, self.q = nn.Conv1d(2, 4, 4, stride=4), QuantAct(8, step=0.25)
        self.cell: QuantCell = CELLS[cell](4, 6)
        self.last, self.q2, self.readout = nn.Linear(6, 6), QuantAct(8, step=0.125), nn.Linear(6, 3)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        h = self.cell(self.q(self.conv(x)).transpose(1, 2))[:, -1]
        y: torch.Tensor = self.readout(self.q2(self.last(h)))
        return y


def mixed(cell: str = "gru", seed: int = 0) -> Mixed:
    torch.manual_seed(seed)
    net = Mixed(cell).double().eval()
    round_weights(net, 32)
    return net


def converted(net: nn.Module, T: int = 40, **options: Any) -> ConvertedNetwork:
    return snn.convert(net, "rnn-morph", T=T, **options).snn


IMAGES = dyadic_images(12, 2, 24)


@pytest.mark.parametrize("cell", CELLS)
def test_a_run_of_the_guaranteed_length_is_exact_behind_a_recurrent_layer(cell: str) -> None:
    net = mixed(cell)
    network = converted(net)
    T = exactness(network).T
    assert T is not None
    for steps in (T, T + 7):
        assert torch.equal(network(IMAGES, steps), net(IMAGES))


def test_a_change_goes_on_in_the_last_step_with_input() -> None:
    layer = converted(mixed("rnn")).recurrent()["cell"]
    signal = torch.zeros(5, 2, 6, 4, dtype=torch.float64)
    signal[1, :, 2], signal[3, 0, 0] = 0.5, -0.25
    sent = layer.sequence(signal)
    assert [bool(step.any()) for step in sent] == [False, False, False, True, False]
    assert torch.equal(sent[3], layer.cell(signal.sum(0)))
    assert layer.received is not None
    assert torch.equal(layer.received, signal.sum(0))
    layer.reset()
    assert layer.received is None
    first = layer.sequence(torch.zeros_like(signal))  # biases alone
    assert torch.equal(first[0], layer.cell(torch.zeros_like(signal[0])))
    assert not first[1:].any()


@pytest.mark.parametrize("wiring", WIRINGS)
def test_figures_equal_a_direct_computation(wiring: str) -> None:
    net = mixed("gru", seed=3)
    network = converted(net, wiring=wiring, inner_steps=4)
    report = measure(network, IMAGES, batch_size=5)
    network(IMAGES)
    layer = network.recurrent()["cell"]
    assert layer.received is not None
    received, wanted = layer.received, net.cell(net.q(net.conv(IMAGES)).transpose(1, 2))
    runs = [run_sequence(net.cell, part, wiring, 4) for part in received.split(5)]  # type: ignore[arg-type]
    output = torch.cat([run.output for run in runs])
    own = net.cell(received)
    (found,) = report.recurrent
    terms = {"unsettled": output - own, "propagated": own - wanted, "total": output - wanted}
    for name, term in terms.items():
        assert found.errors[name].mean == pytest.approx(term.mean().item(), abs=1e-12)
        assert found.errors[name].mean_absolute == pytest.approx(term.abs().mean().item())
        assert found.errors[name].root_mean_square == pytest.approx(term.square().mean().sqrt().item())
    assert found.errors["unsettled"].mean_absolute > 0
    assert (found.name, found.kind, found.wiring) == ("cell", "QuantGRU", wiring)
    assert (found.units, found.neurons, found.elements) == (6, 24, 6)
    assert found.threshold_least == found.threshold_greatest == 1 / 16
    assert found.source_mean == pytest.approx(wanted.mean().item())
    assert found.source_size == pytest.approx(wanted.abs().mean().item())
    assert found.spiking_mean == pytest.approx(output.mean().item())
    pairs = torch.stack([wanted.flatten(), output.flatten()])
    assert found.correlation == pytest.approx(torch.corrcoef(pairs)[0, 1].item())
    assert found.equal == pytest.approx((output == wanted).double().mean().item())
    assert found.silent == pytest.approx((output == 0).flatten(0, 1).all(0).double().mean().item())
    assert found.silent_in_source == pytest.approx((wanted == 0).flatten(0, 1).all(0).double().mean().item())
    assert found.saturated == pytest.approx((output >= 1.0).double().mean().item())
    assert found.settled == all(run.settled for run in runs) is False
    assert found.inner_steps == max(max(run.steps) for run in runs) == 4
    assert found.events == pytest.approx(sum(run.spikes for run in runs) / 12)
    assert found.negative == pytest.approx(
        sum(sum(run.negative.values()) for run in runs) / sum(run.spikes for run in runs)
    )
    assert set(found.populations) == {"r", "z", "c", "h"}
    assert sum(found.populations.values()) == pytest.approx(found.events)
    assert found.recurrent_events == pytest.approx(sum(run.recurrent for run in runs) / 12)
    assert found.counted_images == 12
    image, element, unit, before, after = found.first_difference or (0, 0, 0, 0.0, 0.0)
    assert [image, element, unit] == (output != wanted).nonzero()[0].tolist()
    assert (before, after) == (wanted[image, element, unit].item(), output[image, element, unit].item())
    assert report.spikes_per_inference == pytest.approx(sum(layer.events for layer in report.layers) + found.events)


def test_the_first_difference_is_the_networks_not_the_tables() -> None:
    report = measure(converted(mixed("gru"), inner_steps=2), IMAGES)
    assert any(layer.first_difference is not None for layer in report.layers)
    assert report.first_difference is not None
    assert report.first_difference.startswith("cell: element ")
    assert list(report.points) == ["q", "cell", "q2"]


def test_an_exact_network_has_no_error_in_any_row() -> None:
    report = measure(converted(mixed("lstm")), IMAGES, mixed("lstm")(IMAGES).argmax(1))
    assert report.first_difference is None
    (found,) = report.recurrent
    assert found.settled
    assert found.equal == report.agreement[-1] == 1.0
    assert found.errors["total"].mean_absolute == 0.0
    assert found.first_difference is None
    assert found.difference_in_words() is None
    assert found.correlation == pytest.approx(1.0)


def test_membranes_that_are_left_are_those_of_the_settled_neurons() -> None:
    """For a simple cell v = u / step + 1/2 - S at the end of each element."""
    net = mixed("rnn")
    (found,) = measure(converted(net, stepwise=True), IMAGES).recurrent
    x = net.q(net.conv(IMAGES)).transpose(1, 2)
    h = net.cell(x)
    before = torch.cat([torch.zeros_like(h[:, :1]), h[:, :-1]], 1)
    u = net.cell.projection(x) + before @ net.cell.weights["h"].T
    step = net.cell.quantisers["h"].step
    count = h / step  # type: ignore[operator]
    v = u / step + 0.5 - count  # type: ignore[operator]
    inside = (count > 0) & (count < 15)
    assert found.residual == pytest.approx((v - 0.5).abs()[inside].mean().item())
    assert found.residual is not None
    assert found.residual <= 0.5


def test_spikes_are_those_of_the_wiring_though_values_come_in_closed_form() -> None:
    net = mixed("rnn")
    x = net.q(net.conv(IMAGES)).transpose(1, 2)
    for wiring in WIRINGS:
        (found,) = measure(converted(net, wiring=wiring), IMAGES).recurrent
        run = run_sequence(net.cell, x, wiring)
        assert found.events == pytest.approx(run.spikes / 12)
        assert found.recurrent_events == pytest.approx(run.recurrent / 12)
        assert found.inner_steps == max(run.steps)
        assert (found.residual is None) == (wiring == "count")  # there the closed form gives the spikes too


def test_steps_are_run_for_some_images_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "COUNTED_IMAGES", 5)
    net = mixed("gru")
    (found,) = measure(converted(net), IMAGES, batch_size=4).recurrent
    assert found.counted_images == 5
    run = run_sequence(net.cell, net.q(net.conv(IMAGES[:5])).transpose(1, 2))
    assert found.events == pytest.approx(run.spikes / 5)
    assert found.source_mean == pytest.approx(net.cell(net.q(net.conv(IMAGES)).transpose(1, 2)).mean().item())
    (stepped,) = measure(converted(net, stepwise=True), IMAGES, batch_size=4).recurrent
    assert stepped.counted_images == 12


def test_silent_units_add_up_over_batches() -> None:
    net = mixed("rnn")
    with torch.no_grad():
        net.cell.projection.bias.copy_(torch.tensor([-9.0, -9.0, 1.0, 1.0, 1.0, -9.0]))
        net.cell.weights["h"].zero_()
    (found,) = measure(converted(net), IMAGES, batch_size=5).recurrent
    assert found.silent == found.silent_in_source == 0.5
    assert found.saturated == 0.0


def test_recurrent_layers_alone_have_a_table_json_and_pictures(tmp_path: Path) -> None:
    torch.manual_seed(0)

    class Alone(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.cell, self.readout = QuantGRU(3, 5), nn.Linear(5, 2)

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            y: torch.Tensor = self.readout(self.cell(x)[:, -1])
            return y

    x = torch.rand(6, 4, 3)
    conversion = snn.convert(Alone().eval(), "rnn-morph", (x, torch.zeros(6, dtype=torch.int64)), T=4, inner_steps=3)
    report = conversion.report
    text = report.table()
    for wanted in (
        "| recurrent layer |",
        "| QuantGRU |",
        "unsettled",
        "not exact",
        "are of 6 images",
        "spikes per image",
    ):
        assert wanted in text
    assert "clipping |" not in text
    rows = [line for line in text.splitlines() if line.startswith(("| recurrent", "| cell"))]
    assert len(rows) == 2
    assert rows[0].count("|") == rows[1].count("|") == 18
    values = json.loads(report.to_json(tmp_path / "report.json"))
    assert values["layers"] == []
    assert values["recurrent"][0]["populations"].keys() == {"r", "z", "c", "h"}
    assert values["spikes_per_inference"] == pytest.approx(report.recurrent[0].events)
    names = [path.name for path in report.plot(tmp_path)]
    assert names == ["accuracy.png", "errors.png", "rates.png"]
