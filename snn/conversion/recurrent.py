"""The spiking form of quantised recurrent layers: bipolar neurons with a tracer, run in inner steps per element."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Final, Literal, get_args

import torch
from torch.nn import functional as F

from snn.conversion.layers import Timed
from snn.conversion.quantised_recurrent import Algebra, QuantCell, QuantRNN, SpikeUnit, spike_unit
from snn.conversion.temporal_difference import DeltaProduct
from snn.neurons.tracer import STBIF, settled_after

Wiring = Literal["count", "replay", "difference"]
WIRINGS: Final = get_args(Wiring)


@dataclass
class SequenceRun:
    """What the spiking form of a recurrent layer did with a batch of sequences.

    Attributes:
        output: h [B, N, hidden].
        counts: net spikes of each population after each element [B, N, hidden], by name.
        steps: for each element the last inner step in which anything was sent; empty where no steps were run.
        settled: nothing was left to send when each element ended.
        positive, negative: spikes of either sign by population.
        recurrent: events that carried states from element to element: whole numbers with wiring "count" and
            "difference" (one event for each unit whose number is not 0), single spikes with "replay".
        residual: mean distance of the membranes from 1/2 when the elements ended, in thresholds, of neurons between their
            bounds; None without steps, or where all were at a bound.
        stepped: inner steps were run.
    """

    output: torch.Tensor
    counts: dict[str, torch.Tensor]
    steps: list[int] = field(default_factory=list)
    settled: bool = True
    positive: dict[str, int] = field(default_factory=dict)
    negative: dict[str, int] = field(default_factory=dict)
    recurrent: int = 0
    residual: float | None = None
    stepped: bool = False

    @property
    def spikes(self) -> int:
        """All spikes of all populations."""
        return sum(self.positive.values()) + sum(self.negative.values())


class _Streams(Algebra[torch.Tensor]):
    """Increments of one inner step; the sums are in the neurons and the products."""

    def __init__(self, cell: QuantCell, like: torch.Tensor) -> None:
        self.cell = cell
        self.units: dict[str, SpikeUnit] = {name: spike_unit(part) for name, part in cell.quantisers.items()}
        self.neurons = {
            name: STBIF(unit.theta, unit.lo, unit.hi, v_start=unit.start) for name, unit in self.units.items()
        }
        self.products: dict[str, DeltaProduct] = {}
        self.spikes: dict[str, torch.Tensor] = {}
        self.positive = dict.fromkeys(self.units, 0)
        self.negative = dict.fromkeys(self.units, 0)
        self.distances, self.between = 0.0, 0

    def linear(self, name: str, a: torch.Tensor) -> torch.Tensor:
        return F.linear(a, self.cell.weights[name])

    def product(self, name: str, a: torch.Tensor, b: torch.Tensor) -> torch.Tensor:
        return self.products.setdefault(name, DeltaProduct()).sequence(a.unsqueeze(0), b.unsqueeze(0)).squeeze(0)

    def quantise(self, name: str, a: torch.Tensor) -> torch.Tensor:
        spikes = self.neurons[name](a)
        self.spikes[name] = spikes
        self.positive[name] += int((spikes > 0).sum())
        self.negative[name] += int((spikes < 0).sum())
        value: torch.Tensor = spikes * self.units[name].value
        return value

    def add(self, a: torch.Tensor, b: torch.Tensor) -> torch.Tensor:
        return a + b

    def subtract(self, a: torch.Tensor, b: torch.Tensor) -> torch.Tensor:
        return a - b

    def reset(self) -> None:
        """All sums and counts to 0, for the next element."""
        for neuron in self.neurons.values():
            neuron.reset()
        for product in self.products.values():
            product.reset()

    def silent(self) -> bool:
        """Whether nothing was sent in the last inner step."""
        return not any(bool(spikes.any()) for spikes in self.spikes.values())

    def end_element(self) -> None:
        """Adds the distances of the membranes from 1/2, where a neuron is between its bounds."""
        for neuron in self.neurons.values():
            between = (neuron.count > neuron.lo) & (neuron.count < neuron.hi)
            self.distances += float((neuron.v - 0.5).abs()[between].sum())
            self.between += int(between.sum())

    def count(self, name: str) -> torch.Tensor:
        """Net spikes of a population [B, hidden]."""
        count: torch.Tensor = self.neurons[name].count
        return count


class _Arrivals(Algebra[int]):
    """The inner step in which a signal changes for the last time, at the latest."""

    def __init__(self, cell: QuantCell, carried: bool) -> None:
        self.cell, self.carried = cell, carried
        self.latest: dict[str, int] = {}

    def linear(self, name: str, a: int) -> int:
        return a

    def product(self, name: str, a: int, b: int) -> int:
        return max(a, b)

    def quantise(self, name: str, a: int) -> int:
        unit = spike_unit(self.cell.quantisers[name])
        span = a - 1 + unit.hi - unit.lo
        self.latest[name] = span if self.carried else int(settled_after(unit.lo, unit.hi, a))
        return self.latest[name]

    def add(self, a: int, b: int) -> int:
        return max(a, b)

    subtract = add


def inner_steps(cell: QuantCell, wiring: Wiring) -> int | None:
    """Inner steps per element after which every neuron has settled, whatever the input; None if there is no such bound.

    With "count" all input of an element is there in step 1 and the neurons start at 0; with "difference" they start
    anywhere between their bounds; with "replay" a train may be longer than the one before it, without end.
    """
    require_wiring(wiring)
    if wiring == "replay":
        return None
    ops = _Arrivals(cell, carried=wiring == "difference")
    cell.equations(ops, dict.fromkeys(cell.gates, 1), dict.fromkeys(cell.states, 1))
    return max(ops.latest.values())


def require_wiring(wiring: str) -> None:
    """Raises ValueError for an unknown wiring."""
    if wiring not in WIRINGS:
        raise ValueError(f"wiring must be one of {', '.join(map(repr, WIRINGS))}, got {wiring!r}")


@torch.no_grad()
def run_sequence(cell: QuantCell, x: torch.Tensor, wiring: Wiring = "count", T: int | None = None) -> SequenceRun:
    """Runs the spiking form step by step: for each element inner steps until nothing is sent any more.

    Every quantiser of the cell is a population of ST-BIF neurons, every product of two signals a delta product. The
    input of an element comes once, in inner step 1, biases with it. How states come from the element before:

    - "count": neurons begin at 0 for each element; the counts come as whole numbers in inner step 1.
    - "replay": neurons begin at 0; the spike train of the element before is fed step by step.
    - "difference": neurons keep what they have; the change of the counts comes in inner step 1, and of the input only
      the difference to the element before.

    Args:
        cell: a quantised recurrent layer.
        x: [B, N, inputs].
        T: most inner steps per element; None runs until all is silent. Too few steps make all later elements wrong.
    Source: Su et al., arXiv 2408.09403 (RBIF); the wirings are variants with the same settled values.
    """
    cell.check(x)
    require_wiring(wiring)
    if T is not None and T < 1:
        raise ValueError(f"T must be at least 1 inner step or None, got {T}")
    ops = _Streams(cell, x)
    carried = wiring == "difference"
    inputs = cell.projection(x)
    if carried:
        inputs = torch.cat([inputs[:, :1], F.linear(x.diff(dim=1), cell.projection.weight)], 1)
    zero = cell.start(x)
    run = SequenceRun(x.new_empty(0), {})
    counts: dict[str, list[torch.Tensor]] = {name: [] for name in ops.units}
    arriving = _Arriving([zero])
    for element in inputs.unbind(1):
        if not carried:
            ops.reset()
        trains, steps, settled = _run_element(cell, ops, element, arriving, T)
        run.steps.append(steps)
        run.settled &= settled
        ops.end_element()
        before = {name: counts[name][-1] if counts[name] else torch.zeros_like(zero[name]) for name in cell.states}
        for name, kept in counts.items():
            kept.append(ops.count(name).clone())
        arriving = _next(cell, ops, wiring, trains, before)
        run.recurrent += arriving.events
    run.recurrent -= arriving.events  # nothing comes after the last element
    run.counts = {name: torch.stack(kept, 1) for name, kept in counts.items()}
    run.output = run.counts[cell.states[0]] * ops.units[cell.states[0]].value
    run.positive, run.negative = ops.positive, ops.negative
    run.residual = ops.distances / ops.between if ops.between else None
    run.stepped = True
    return run


@dataclass
class _Arriving:
    """States of the element before, by inner step; zeros after the last. `events` counts what carries them."""

    by_step: list[dict[str, torch.Tensor]]
    events: int = 0


def _run_element(
    cell: QuantCell, ops: _Streams, projected: torch.Tensor, arriving: _Arriving, T: int | None
) -> tuple[list[dict[str, torch.Tensor]], int, bool]:
    """Inner steps of one element: (what the states sent in each, last step in which anything was sent, settled)."""
    nothing = {name: torch.zeros_like(value) for name, value in arriving.by_step[0].items()}
    no_input = cell.split(torch.zeros_like(projected))
    trains: list[dict[str, torch.Tensor]] = []
    last, step = 0, 0
    while T is None or step < T:
        state = arriving.by_step[step] if step < len(arriving.by_step) else nothing
        trains.append(cell.equations(ops, cell.split(projected) if step == 0 else no_input, state))
        step += 1
        if not ops.silent():
            last = step
        elif step >= len(arriving.by_step):
            return trains[: max(last, 1)], last, True
    owed = any(neuron.steps_to_settle() for neuron in ops.neurons.values())
    return trains, last, not owed and step >= len(arriving.by_step)


def _next(
    cell: QuantCell,
    ops: _Streams,
    wiring: Wiring,
    trains: list[dict[str, torch.Tensor]],
    before: Mapping[str, torch.Tensor],
) -> _Arriving:
    """How the states of this element come to the next one."""
    if wiring == "replay":
        events = sum(int((value != 0).sum()) for state in trains for value in state.values())
        return _Arriving(trains, events)
    numbers = {name: ops.count(name) for name in cell.states}
    if wiring == "difference":
        numbers = {name: count - before[name] for name, count in numbers.items()}
    events = sum(int((count != 0).sum()) for count in numbers.values())
    return _Arriving([{name: count * ops.units[name].value for name, count in numbers.items()}], events)


@torch.no_grad()
def settled_sequence(cell: QuantCell, x: torch.Tensor, T: int | None = None) -> SequenceRun:
    """The same without steps: what the neurons have sent when each element has settled, in closed form.

    Args:
        cell: a quantised recurrent layer.
        x: [B, N, inputs].
        T: most inner steps per element with wiring "count", for `QuantRNN` alone: after T of them a neuron that is to
            send S spikes has sent clip(S, -T, T).
    Returns: without steps. For `QuantRNN` the spikes are those of wiring "count": each neuron sends |S|, all of one sign.
    """
    cell.check(x)
    if T is not None and not isinstance(cell, QuantRNN):
        raise ValueError(f"settled_sequence: T is for QuantRNN alone, a {type(cell).__name__} must be run step by step")
    recorder = _Counts(cell, T)
    state, outputs = cell.start(x), []
    for element in cell.projection(x).unbind(1):
        state = cell.equations(recorder, cell.split(element), state)
        outputs.append(state[cell.states[0]])
    counts = {name: torch.stack(kept, 1) for name, kept in recorder.counts.items()}
    run = SequenceRun(torch.stack(outputs, 1), counts)
    if isinstance(cell, QuantRNN):
        run.positive = {name: int(count.clamp(min=0).sum()) for name, count in counts.items()}
        run.negative = {name: int(-count.clamp(max=0).sum()) for name, count in counts.items()}
        run.recurrent = int((counts["h"][:, :-1] != 0).sum())
        run.steps = counts["h"].abs().amax((0, 2)).int().tolist()
        run.settled = not recorder.cut
    return run


class _Counts(Algebra[torch.Tensor]):
    """Values, with the count of every quantiser kept and at most T spikes sent."""

    def __init__(self, cell: QuantCell, T: int | None) -> None:
        self.cell, self.T = cell, T
        self.units = {name: spike_unit(part) for name, part in cell.quantisers.items()}
        self.counts: dict[str, list[torch.Tensor]] = {name: [] for name in self.units}
        self.cut = False

    def linear(self, name: str, a: torch.Tensor) -> torch.Tensor:
        return F.linear(a, self.cell.weights[name])

    def product(self, name: str, a: torch.Tensor, b: torch.Tensor) -> torch.Tensor:
        return a * b

    def quantise(self, name: str, a: torch.Tensor) -> torch.Tensor:
        theta, value, lo, hi, start = self.units[name]
        count = torch.floor(a / theta + start).clamp_(lo, hi)
        if self.T is not None:
            self.cut |= bool((count.abs() > self.T).any())
            count = count.clamp(-self.T, self.T)
        self.counts[name].append(count)
        sent: torch.Tensor = count * value
        return sent

    def add(self, a: torch.Tensor, b: torch.Tensor) -> torch.Tensor:
        return a + b

    def subtract(self, a: torch.Tensor, b: torch.Tensor) -> torch.Tensor:
        return a - b


class SpikingRecurrent(Timed):
    """A quantised recurrent layer in a converted network: waits for its input, then runs element after element.

    Within a run of the network its inner steps have a time of their own. It takes the sum of its input so far, settles
    every element of the sequence, and sends by how much its output has changed, in the last step in which input came.

    Args:
        name: of the layer in the source network.
        cell: its quantised layer.
        wiring: see `run_sequence`.
        most_steps: most inner steps per element; None runs until all is silent.
        stepwise: False takes the closed form where it gives the same (wiring "count", or without `most_steps`).

    Attributes:
        last_run: what the last call did.
        received: sum of the input since the last reset [B, N, inputs]; None before any.
    """

    def __init__(
        self,
        name: str,
        cell: QuantCell,
        wiring: Wiring = "count",
        most_steps: int | None = None,
        stepwise: bool = False,
    ) -> None:
        super().__init__()
        require_wiring(wiring)
        self.name, self.cell, self.wiring = name, cell, wiring
        self.most_steps, self.stepwise = most_steps, stepwise
        self.last_run: SequenceRun | None = None
        self.reset()

    def reset(self) -> None:
        self._input: torch.Tensor | None = None
        self._sent: torch.Tensor | None = None

    @property
    def received(self) -> torch.Tensor | None:
        return self._input

    def sequence(self, *x: torch.Tensor) -> torch.Tensor:
        (signal,) = x
        arrived = signal.sum(0)
        if self._sent is not None and not bool(arrived.any()):
            return torch.zeros_like(self._sent).expand(len(signal), *self._sent.shape)
        self._input = arrived if self._input is None else self._input + arrived
        self.last_run = self._run(self._input)
        output = self.last_run.output
        sent = torch.zeros((len(signal), *output.shape), dtype=output.dtype, device=output.device)
        # Layers behind have the rest of the steps to settle, however many are run at once.
        with_input = signal.flatten(1).any(1).nonzero()
        sent[int(with_input[-1]) if len(with_input) else 0] = output if self._sent is None else output - self._sent
        self._sent = output
        return sent

    def _run(self, x: torch.Tensor) -> SequenceRun:
        if not self.stepwise:
            bound = inner_steps(self.cell, self.wiring)
            if self.most_steps is None or (bound is not None and bound <= self.most_steps):
                return settled_sequence(self.cell, x)
            if self.wiring == "count" and isinstance(self.cell, QuantRNN):
                return settled_sequence(self.cell, x, self.most_steps)
        return run_sequence(self.cell, x, self.wiring, self.most_steps)

    def extra_repr(self) -> str:
        return f"{self.name!r}, wiring={self.wiring!r}, most_steps={self.most_steps}, stepwise={self.stepwise}"
