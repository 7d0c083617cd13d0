"""From descriptions to arrays: neuron kinds, stimuli, spike lists and samplers."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np

from neuromorphic.engine.build import sub_seed
from neuromorphic.engine.codegen import Kind
from neuromorphic.engine.kernels.step import Drives, Samplers, SpikeLists
from neuromorphic.engine.kernels.stimuli import poisson_thresholds
from neuromorphic.engine.layout import Layout
from neuromorphic.engine.network import Network, Population
from neuromorphic.engine.recording import StateRecorder

NEVER = 2**62
_DRIVE, _SOURCE = 4, 5


def to_step(time_ms: float, h: float) -> int:
    """Grid step of a time, ties upward; NEVER for infinity."""
    return NEVER if np.isinf(time_ms) else int(np.floor(time_ms / h + 0.5 + 1e-9))


def values_at(network: Network, population: Population, step: int, h: float) -> dict[str, Any]:
    """Parameters with the step currents that act on the interval from ``step`` to the next."""
    values = dict(population.values)
    for current in network.currents:
        if current.post is not population:
            continue
        edges = np.array([to_step(t, h) for t in current.times_ms])
        k = int(np.searchsorted(edges, step, side="right")) - 1
        amplitude = current.amplitudes[k] if k >= 0 else 0.0
        if current.low == 0 and current.high == population.n and not np.ndim(values["I_e"]):
            values["I_e"] = values["I_e"] + amplitude
        else:
            total = np.array(np.broadcast_to(values["I_e"], (population.n,)), dtype=np.float64)
            total[current.low : current.high] += amplitude
            values["I_e"] = total
    return values


def fill_constants(network: Network, population: Population, kind: Kind, step: int, h: float) -> dict[str, Any]:
    """Constants of a population at a step, by name; float64."""
    constants = kind.model.constants(values_at(network, population, step, h), h)
    return {name: np.asarray(value, dtype=np.float64) for name, value in constants.items()}


def assemble_kinds(network: Network) -> tuple[list[Kind], list[int]]:
    """Distinct kinds of the network, and the kind of each population (-1 for spike sources)."""
    kinds: list[Kind] = []
    kind_of = []
    for population in network.populations:
        if population.model is None:
            kind_of.append(-1)
            continue
        constants = population.model.constants(values_at(network, population, 0, network.dt_ms), network.dt_ms)
        scalars = tuple(name for name, value in constants.items() if not np.ndim(value))
        vectors = tuple(name for name, value in constants.items() if np.ndim(value))
        kind = Kind(population.model, scalars, vectors)
        if kind not in kinds:
            kinds.append(kind)
        kind_of.append(kinds.index(kind))
    return kinds, kind_of


@dataclass
class Inputs:
    """Stimuli of a built network."""

    drives: Drives
    lists: SpikeLists
    changes: dict[int, list[Population]]  # step -> populations whose current changes there

    def next_change(self, step: int) -> int:
        """First step after ``step`` at which a current changes."""
        return min((s for s in self.changes if s > step), default=NEVER)

    def changed(self, step: int) -> list[Population]:
        """Populations whose constants must be written anew at this step."""
        return self.changes.get(step, [])


def assemble_inputs(network: Network, layout: Layout, dtype: type) -> Inputs:
    """Poisson drives, spike lists and the times of current steps."""
    h = network.dt_ms
    entries: list[tuple[int, ...]] = []
    floats, tables = [], []
    for population in network.populations:
        mine = [(k, d) for k, d in enumerate(network.drives) if d.post is population]
        for k, drive in mine:
            assert population.model is not None
            receptors = population.model.receptors
            row = (
                receptors.index(drive.receptor)
                if drive.receptor is not None
                else int(len(receptors) == 2 and drive.weight < 0)
            )
            first, stop = to_step(drive.start_ms, h), to_step(drive.stop_ms, h)
            entries.append((population.index, row, drive.low, drive.high, first, stop, k))
            floats.append(abs(drive.weight) if population.model.conductance else drive.weight)
            tables.append((poisson_thresholds(drive.rate_hz * h * 1e-3), sub_seed(network.seed, _DRIVE, k)))
        if population.source == "poisson":
            entries.append((population.index, 0, 0, population.n, 0, NEVER, 0))
            floats.append(0.0)
            key = sub_seed(network.seed, _SOURCE, population.index)
            tables.append((poisson_thresholds(population.values["rate_hz"] * h * 1e-3), key))
    columns = np.array(entries, dtype=np.int64).reshape(-1, 7)
    lengths = [len(t[0][1]) for t in tables]
    drives = Drives(
        first=np.searchsorted(columns[:, 0], np.arange(len(network.populations) + 1)).astype(np.int64),
        row=columns[:, 1].copy(),
        low=columns[:, 2].copy(),
        high=columns[:, 3].copy(),
        start=columns[:, 4].copy(),
        stop=columns[:, 5].copy(),
        weight=np.array(floats, dtype=dtype),
        key=np.array([t[1] for t in tables], dtype=np.uint64),
        base=np.array([t[0][0] for t in tables], dtype=np.int32),
        threshold_start=np.concatenate([[0], np.cumsum(lengths)]).astype(np.int64),
        thresholds=np.concatenate([t[0][1] for t in tables] or [np.zeros(0, np.uint32)]).astype(np.uint32),
    )
    changes: dict[int, list[Population]] = {}
    for current in network.currents:
        for time_ms in current.times_ms:
            changes.setdefault(to_step(float(time_ms), h), []).append(current.post)
    return Inputs(drives, _spike_lists(network, layout), changes)


def _spike_lists(network: Network, layout: Layout) -> SpikeLists:
    blocks = layout.bounds.shape[1] - 1
    start = np.zeros((len(network.populations), blocks + 1), dtype=np.int64)
    steps, neurons, total = [np.zeros(0, np.int64)], [np.zeros(0, np.int32)], 0
    for population in network.populations:
        start[population.index] = total
        if population.source != "spike_list":
            continue
        step = np.floor(population.values["times_ms"] / network.dt_ms + 0.5 + 1e-9).astype(np.int64)
        ids = population.values["ids"]
        pairs = np.unique(np.stack([step, ids], axis=1), axis=0) if len(ids) else np.zeros((0, 2), np.int64)
        if len(pairs) < len(ids):
            raise ValueError(f"spike_list: {len(ids) - len(pairs)} spikes of {population.name!r} share neuron and step")
        for b in range(blocks):
            low, high = layout.bounds[population.index, b], layout.bounds[population.index, b + 1]
            mine = pairs[(pairs[:, 1] >= low) & (pairs[:, 1] < high)]
            steps.append(mine[:, 0])
            neurons.append(mine[:, 1].astype(np.int32))
            total += len(mine)
            start[population.index, b + 1] = total
    return SpikeLists(start, np.concatenate(steps), np.concatenate(neurons), start[:, :-1].copy())


def assemble_samplers(
    recorders: list[StateRecorder], layout: Layout, rows: list[np.ndarray], step: int, steps: int, dtype: type
) -> Samplers:
    """State recorders for one call of the run loop."""
    blocks = layout.bounds.shape[1] - 1
    start = np.zeros((len(recorders), blocks + 1), dtype=np.int64)
    positions, columns = [np.zeros(0, np.int64)], [np.zeros(0, np.int64)]
    out_start, total, size = [], 0, 0
    for k, recorder in enumerate(recorders):
        assert recorder.neurons is not None
        block = np.searchsorted(layout.bounds[recorder.population.index], recorder.neurons, side="right") - 1
        order = np.argsort(block, kind="stable")
        positions.append(rows[recorder.population.index][recorder.neurons[order]])
        columns.append(order)
        start[k] = total + np.searchsorted(block[order], np.arange(blocks + 1))
        total += len(order)
        out_start.append(size)
        size += ((step + steps) // recorder.interval - step // recorder.interval) * len(order)
    models = [r.population.model for r in recorders]
    return Samplers(
        population=np.array([r.population.index for r in recorders], dtype=np.int64),
        row=np.array(
            [list(m.states).index(r.state) for r, m in zip(recorders, models, strict=True) if m], dtype=np.int64
        ),
        interval=np.array([r.interval for r in recorders], dtype=np.int64),
        width=np.array([0 if r.neurons is None else len(r.neurons) for r in recorders], dtype=np.int64),
        start=start,
        position=np.concatenate(positions).astype(np.int64),
        column=np.concatenate(columns).astype(np.int64),
        out_start=np.array(out_start, dtype=np.int64),
        out=np.zeros(size, dtype=dtype),
    )
