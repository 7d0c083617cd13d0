"""Quantised recurrent layers: hand-worked answers, exactness of every wiring, closed form, bounds, refusals."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import pytest
import torch
from exact_networks import dyadic_images, round_weights
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn

import snn
from snn.conversion.activations import QuantAct
from snn.conversion.quantised_recurrent import (
    HardSigmoid,
    QuantCell,
    QuantGRU,
    QuantLSTM,
    QuantRNN,
    from_float,
    hard_tanh,
    spike_unit,
)
from snn.conversion.recurrent import WIRINGS, inner_steps, run_sequence, settled_sequence
from snn.conversion.verification import exactness, verify_exact

every_wiring = pytest.mark.parametrize("wiring", WIRINGS)


def dyadic_cell(cell: QuantCell, seed: int = 0) -> QuantCell:
    """Weights and biases are multiples of 1/32 in [-1/2, 1/2]."""
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for parameter in [*cell.projection.parameters(), *cell.weights.values()]:
            parameter.copy_(torch.randint(-16, 17, parameter.shape, generator=generator) / 32)
    return cell.double().requires_grad_(False)


@every_wiring
def test_one_unit_by_hand(wiring: Any) -> None:
    """W_x 1, W_h 0.5, b 0.125, step 0.25, bounds 0..7: u = 0.625, 1.5, 0.125, 0.5 and counts 3, 6, 1, 2."""
    cell = QuantRNN(1, 1, levels=8, step=0.25).requires_grad_(False)
    cell.projection.weight.fill_(1.0)
    cell.projection.bias.fill_(0.125)
    cell.weights["h"].fill_(0.5)
    x = torch.tensor([0.5, 1.0, -0.75, 0.25]).view(1, 4, 1)
    assert cell(x).flatten().tolist() == [0.75, 1.5, 0.25, 0.5]
    run = run_sequence(cell, x, wiring, T=7)
    assert run.counts["h"].flatten().tolist() == [3.0, 6.0, 1.0, 2.0]
    assert run.settled
    assert torch.equal(run.output, cell(x))
    if wiring == "count":
        assert (run.steps, run.positive["h"], run.negative["h"], run.recurrent) == ([3, 6, 1, 2], 12, 0, 3)
    if wiring == "difference":
        assert (run.steps, run.positive["h"], run.negative["h"], run.recurrent) == ([3, 3, 5, 1], 7, 5, 3)


def test_states_last_at_the_start() -> None:
    for cell, gate in ((QuantGRU(2, 3), "z"), (QuantLSTM(2, 3), "f")):
        biases = cell.split(cell.projection.bias)
        assert [name for name, bias in biases.items() if bool((bias == 1).all())] == [gate]


@pytest.mark.parametrize(("signed", "last"), [(False, 15), (True, 8)])
def test_count_wiring_has_no_error_and_ends_with_the_larger_bound(signed: bool, last: int) -> None:
    cell = dyadic_cell(QuantRNN(6, 32, 16, signed, step=0.25))
    x = dyadic_images(8, 50, 6)
    run = run_sequence(cell, x, "count")
    assert torch.equal(run.output, cell(x))
    assert max(run.steps) == last == inner_steps(cell, "count")
    closed = settled_sequence(cell, x)
    assert torch.equal(closed.counts["h"], run.counts["h"])
    assert (closed.steps, closed.positive, closed.negative) == (run.steps, run.positive, run.negative)
    assert closed.recurrent == run.recurrent


@pytest.mark.parametrize("signed", [False, True])
def test_replayed_trains_outgrow_the_bounds_and_differences_need_the_span(signed: bool) -> None:
    cell = dyadic_cell(QuantRNN(6, 32, 16, signed, step=0.25))
    x = dyadic_images(4, 20, 6)
    replay = run_sequence(cell, x, "replay", T=64)
    assert torch.equal(replay.output, cell(x))
    assert max(replay.steps) > 16
    assert inner_steps(cell, "replay") is None
    difference = run_sequence(cell, x, "difference")
    assert torch.equal(difference.output, cell(x))
    assert max(difference.steps) <= 15 == inner_steps(cell, "difference")
    short = run_sequence(cell, dyadic_images(4, 50, 6), "replay", T=16)
    assert not short.settled
    assert (short.output != cell(dyadic_images(4, 50, 6))).double().mean() > 0.05


def test_differences_save_events_where_little_changes() -> None:
    cell = dyadic_cell(QuantRNN(6, 32, 16, True, step=0.25))
    cell.weights["h"].div_(8)
    slow = dyadic_images(4, 4, 6).repeat_interleave(5, 1)
    count, difference = run_sequence(cell, slow, "count"), run_sequence(cell, slow, "difference")
    assert torch.equal(count.output, difference.output)
    assert difference.spikes < 0.5 * count.spikes
    assert difference.recurrent < 0.5 * count.recurrent


def test_too_few_steps_spoil_the_whole_sequence_in_steps_and_in_closed_form() -> None:
    cell = dyadic_cell(QuantRNN(6, 32, 16, step=0.25))
    x = dyadic_images(8, 50, 6)
    wanted, wrong = cell(x), []
    for T in (4, 8, 12, 15):
        run = run_sequence(cell, x, "count", T)
        assert torch.equal(run.output, settled_sequence(cell, x, T).output)
        assert run.settled == settled_sequence(cell, x, T).settled == (T == 15)
        wrong.append((run.output != wanted).double().mean().item())
    assert wrong[0] > wrong[1] > wrong[2] > 0.3
    assert wrong[3] == 0.0


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_real_weights_give_the_same_counts_bit_for_bit(dtype: torch.dtype) -> None:
    """Everything an element receives comes in one step, so that not even rounding differs."""
    cell = QuantRNN(6, 64, 16).requires_grad_(False).to(dtype)
    for parameter in [*cell.projection.parameters(), *cell.weights.values()]:
        nn.init.normal_(parameter, std=0.35)
    x = torch.randn(32, 60, 6, dtype=dtype)
    assert torch.equal(run_sequence(cell, x, "count", T=15).output, cell(x))
    assert torch.equal(settled_sequence(cell, x).output, cell(x))


@every_wiring
@pytest.mark.parametrize("kind", [QuantGRU, QuantLSTM])
@pytest.mark.parametrize("seed", [0, 1])
def test_gated_cells_have_no_error(kind: Any, wiring: Any, seed: int) -> None:
    cell = dyadic_cell(kind(6, 16, 16), seed)
    x = dyadic_images(4, 12, 6, seed=seed)
    run = run_sequence(cell, x, wiring)
    assert torch.equal(run.output, cell(x))
    assert run.settled
    closed = settled_sequence(cell, x)
    assert set(closed.counts) == set(cell.quantisers)
    for name, counts in run.counts.items():
        assert torch.equal(counts, closed.counts[name]), name
    bound = inner_steps(cell, wiring)
    assert bound is None or max(run.steps) <= bound
    assert run.output.std() > 0.1


@settings(max_examples=25, deadline=None)
@given(
    st.sampled_from(["rnn", "gru", "lstm"]),
    st.sampled_from(WIRINGS),
    st.integers(0, 2**31 - 1),
    st.integers(1, 4),
    st.integers(1, 6),
)
def test_every_wiring_is_exact_for_any_sizes(kind: str, wiring: Any, seed: int, hidden: int, length: int) -> None:
    torch.manual_seed(seed)
    cells = {
        "rnn": lambda: QuantRNN(3, hidden, 8, True, 0.25),
        "gru": lambda: QuantGRU(3, hidden, 8),
        "lstm": lambda: QuantLSTM(3, hidden, 8),
    }
    cell = dyadic_cell(cells[kind](), seed)
    x = dyadic_images(2, length, 3, seed=seed)
    assert torch.equal(run_sequence(cell, x, wiring).output, cell(x))


def test_gates_are_quantised_piecewise_linear_functions() -> None:
    gate = HardSigmoid(4)
    u = torch.tensor([-3.0, -1.5, -0.5, 0.0, 0.25, 0.5, 1.9, 5.0])
    assert gate(u).tolist() == [0.0, 0.25, 0.5, 0.5, 0.5, 0.75, 1.0, 1.0]
    assert hard_tanh(4)(torch.tensor([-2.0, -0.3, 0.1, 0.9])).tolist() == [-1.0, -0.25, 0.0, 1.0]
    unit = spike_unit(gate)
    x = u.view(1, -1)
    layer = snn.STBIF(unit.theta, unit.lo, unit.hi, v_start=unit.start, step_mode="m")
    settled = layer(torch.cat([x, torch.zeros(4, 8)])).sum(0) * unit.value
    assert torch.equal(settled, gate(u))
    training = u.clone().requires_grad_()
    assert torch.equal(gate(training), gate(u))
    (slope,) = torch.autograd.grad(gate(training).sum(), training)
    assert slope.tolist() == [0.0, 0.25, 0.25, 0.25, 0.25, 0.25, 0.25, 0.0]


@pytest.mark.parametrize("kind", ["rnn", "gru", "lstm"])
def test_cells_equal_equations_written_out(kind: str) -> None:
    torch.manual_seed(0)
    x = torch.randn(3, 5, 4)
    cell: QuantCell = {"rnn": QuantRNN(4, 6, 16, True), "gru": QuantGRU(4, 6), "lstm": QuantLSTM(4, 6)}[kind]
    w = cell.weights

    def sigmoid(u: torch.Tensor) -> torch.Tensor:
        return torch.floor((u / 4 + 0.5) * 16 + 0.5).clamp(0, 16) / 16

    def tanh(u: torch.Tensor, step: float = 1 / 16) -> torch.Tensor:
        return torch.floor(u / step + 0.5).clamp(-16, 16) * step

    h = c = torch.zeros(3, 6)
    outputs = []
    for n in range(5):
        u = cell.projection(x[:, n]).chunk(len(cell.gates), 1)
        if kind == "rnn":
            h = torch.floor((u[0] + h @ w["h"].T) / 0.125 + 0.5).clamp(-8, 7) * 0.125
        elif kind == "gru":
            r, z = sigmoid(u[0] + h @ w["r"].T), sigmoid(u[1] + h @ w["z"].T)
            new = tanh(u[2] + (r * h) @ w["c"].T)
            h = tanh((1 - z) * new + z * h)
        else:
            i, f, o = (sigmoid(u[k] + h @ w[name].T) for k, name in enumerate("ifo"))
            c = tanh(f * c + i * tanh(u[3] + h @ w["a"].T), 0.25)
            h = tanh(o * tanh(c))
        outputs.append(h)
    torch.testing.assert_close(cell(x), torch.stack(outputs, 1), rtol=0, atol=1e-6)


@pytest.mark.parametrize("kind", [QuantRNN, QuantGRU, QuantLSTM])
def test_cells_learn_to_remember(kind: Any) -> None:
    """The sign of the first of six elements must come out at the end."""
    torch.manual_seed(1)
    cell, readout = kind(1, 16), nn.Linear(16, 1)
    parameters = [*cell.parameters(), *readout.parameters()]
    optimiser = torch.optim.Adam([p for p in parameters if p.requires_grad], 0.01)
    for _ in range(80):
        x = torch.randn(64, 6, 1) * 0.3
        x[:, 0] += torch.randint(0, 2, (64, 1)) * 2.0 - 1.0
        loss = nn.functional.softplus(-readout(cell(x)[:, -1]) * x[:, 0].sign()).mean()
        optimiser.zero_grad()
        loss.backward()
        optimiser.step()
    assert loss.item() < 0.35


@pytest.mark.parametrize("kind", ["relu", "tanh", "lstm"])
def test_weights_of_a_float_layer_are_taken_over(kind: str) -> None:
    torch.manual_seed(0)
    if kind == "lstm":
        rnn: Any = nn.LSTM(5, 12, batch_first=True)
    else:
        rnn = nn.RNN(5, 12, nonlinearity=kind, batch_first=True)
    x = torch.randn(16, 9, 5) * 0.5
    wanted = rnn(x)[0]
    errors = [(from_float(rnn, levels)(x) - wanted).abs().mean() / wanted.abs().mean() for levels in (8, 64)]
    assert errors[1] < errors[0]
    assert errors[1] < {"relu": 0.05, "tanh": 0.15, "lstm": 0.25}[kind]  # hard gates are not soft ones
    with pytest.raises(snn.UnsupportedError, match="num_layers=1"):
        from_float(nn.LSTM(5, 12, 2, batch_first=True))
    with pytest.raises(snn.UnsupportedError, match="a GRU has no quantised form"):
        from_float(nn.GRU(5, 12, batch_first=True))  # type: ignore[arg-type]


class Stacked(nn.Module):
    """Two strided convolutions with quantisers, two recurrent layers, a read-out of the last element."""

    def __init__(self, cell: QuantCell) -> None:
        super().__init__()
        self.conv = nn.Conv1d(1, 8, 5, stride=2)
        self.q = QuantAct(16, step=0.25)
        self.pool = nn.MaxPool1d(2)
        self.cell = cell
        self.second = QuantRNN(16, 12, 16, True)
        self.readout = nn.Linear(12, 5)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x = self.pool(self.q(torch.relu(self.conv(x)))).transpose(1, 2)
        return self.readout(self.second(self.cell(x))[:, -1])


def stacked(kind: Any) -> nn.Module:
    torch.manual_seed(0)
    return round_weights(Stacked(kind(8, 16)).double().requires_grad_(False), 32)


@every_wiring
@pytest.mark.parametrize("kind", [QuantRNN, QuantGRU, QuantLSTM])
def test_convolutions_before_recurrent_layers_convert_exactly(kind: Any, wiring: Any) -> None:
    net, x = stacked(kind), dyadic_images(4, 1, 40)
    conversion = snn.convert(net, "rnn-morph", T=32, wiring=wiring)
    check = verify_exact(net, conversion.snn, x)
    assert check.exact, check
    assert check.settled
    assert check.wrong_counts == 0
    assert torch.equal(conversion.snn(x), net(x))
    guarantee = exactness(conversion.snn)
    assert guarantee.exact
    assert set(guarantee.inner) == (set() if wiring == "replay" else {"cell", "second"})
    steps = conversion.snn(x, return_all_steps=True)
    assert steps.shape == (32, 4, 5)
    assert torch.equal(steps[-1], net(x))


def test_a_counter_example_names_element_and_unit() -> None:
    net, x = stacked(QuantRNN), dyadic_images(4, 1, 40)
    network = snn.convert(net, "rnn-morph", T=32, inner_steps=3).snn
    assert str(exactness(network)) == "not exact: layer 'cell' may need 15 inner steps, it has 3"
    check = verify_exact(net, network, x)
    assert not check.exact
    assert not check.settled
    assert check.offender is not None
    assert check.offender.layer == "cell"
    sample, element, unit = check.offender.index
    assert (sample, check.offender.got, check.offender.step) == (0, 0.375, 3)
    assert check.offender.wanted > 0.375
    assert 0 <= element < 9
    assert 0 <= unit < 16


def test_stepwise_option_runs_every_inner_step() -> None:
    net, x = stacked(QuantGRU), dyadic_images(3, 1, 40)
    closed = snn.convert(net, "rnn-morph").snn
    stepwise = snn.convert(net, "rnn-morph", stepwise=True).snn
    assert torch.equal(closed(x), stepwise(x))
    runs = [
        [layer.last_run for layer in network.timed() if hasattr(layer, "last_run")] for network in (closed, stepwise)
    ]
    assert runs[0][0].steps == []
    assert len(runs[1][0].steps) == 9


def test_refusals_and_bad_arguments() -> None:
    class Float(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.rnn = nn.GRU(4, 4, batch_first=True)

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return self.rnn(x)[0][:, -1]

    with pytest.raises(snn.UnsupportedError, match=r"'rnn'.*use snn\.conversion\.QuantGRU instead"):
        snn.convert(Float(), "rnn-morph")
    with pytest.raises(snn.UnsupportedError, match="rnn-morph"):
        snn.convert(stacked(QuantRNN), "stbif")
    with pytest.raises(ValueError, match="wiring must be one of 'count', 'replay', 'difference', got 'carry'"):
        snn.convert(stacked(QuantRNN), "rnn-morph", wiring="carry")
    with pytest.raises(ValueError, match="inner_steps must be None or a whole number >= 1, got 0"):
        snn.convert(stacked(QuantRNN), "rnn-morph", inner_steps=0)
    with pytest.raises(snn.ShapeError, match=r"QuantRNN: input must be \[B, N, 4\].*got \(2, 3, 5\)"):
        QuantRNN(4, 4)(torch.zeros(2, 3, 5))
    with pytest.raises(ValueError, match="hidden must be at least 1, got 0"):
        QuantRNN(4, 0)
    with pytest.raises(ValueError, match="resolution must be a whole number >= 1, got 0"):
        QuantLSTM(4, 4, 0)
    with pytest.raises(ValueError, match="levels must be at least 2, got 1"):
        QuantRNN(4, 4, 1)
    with pytest.raises(ValueError, match="T is for QuantRNN alone"):
        settled_sequence(QuantGRU(4, 4), torch.zeros(1, 2, 4), 3)
    with pytest.raises(ValueError, match="T must be at least 1 inner step"):
        run_sequence(QuantRNN(4, 4), torch.zeros(1, 2, 4), T=0)


def test_the_examples_of_the_page_run(capsys: pytest.CaptureFixture[str]) -> None:
    text = (Path(__file__).parents[2] / "docs" / "conversion_exact.md").read_text(encoding="utf8")
    names: dict[str, Any] = {"__name__": "documentation"}
    for block in re.findall(r"```python\n(.*?)```", text, re.DOTALL):
        exec(block, names)
    first, second, third = capsys.readouterr().out.splitlines()
    assert first.startswith("exact for T >= 15: every neuron settles")
    assert second.startswith("settled after step")
    assert third == "True"
