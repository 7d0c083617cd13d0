"""Save and restore the dynamic state of a built network; the file does not depend on the number of threads."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from neuromorphic.engine import layout
from neuromorphic.engine.recording import RateRecorder

if TYPE_CHECKING:
    from neuromorphic.engine.simulation import NumbaSimulation

_FORMAT = 1
_PER_SOURCE = ("last", "done", "trace")  # equal in every block: block 0 is stored


def fingerprint(simulation: NumbaSimulation) -> dict[str, Any]:
    """What must agree between the saved and the restored description."""
    network = simulation.network
    return {
        "format": _FORMAT,
        "dt_ms": network.dt_ms,
        "seed": network.seed,
        "dtype": network.dtype,
        "populations": [[p.name, p.model.name if p.model else p.source, p.n] for p in network.populations],
        "projections": [
            [p.pre.name, p.post.name, type(p.rule).__name__, type(p.plasticity).__name__] for p in network.projections
        ],
        "synapses": int(simulation.tables.offsets.shape[0]),
        "recorders": [[type(r).__name__, r.population.name] for r in network.recorders],
    }


def save(simulation: NumbaSimulation, path: str) -> None:
    """Write to a temporary name, then rename."""
    import h5py

    simulation.learning.flush(simulation.step)
    temporary = f"{path}.part"
    with h5py.File(temporary, "w") as file:
        file.attrs["description"] = json.dumps(fingerprint(simulation))
        file.attrs["step"] = simulation.step
        for p in simulation.network.populations:
            group = file.create_group(f"populations/{p.index}")
            if p.model is not None:
                rows = simulation.rows[p.index]
                states = [simulation.state_array[rows + k * layout.TILE] for k in range(len(p.model.states))]
                group["states"] = np.stack(states)
                group["ring"] = layout.ring_view(simulation.layout, simulation.ring, p.index)
        file["short_term"] = simulation.tables.stp_state[0]
        for k, r in enumerate(simulation.network.recorders):
            if isinstance(r, RateRecorder):
                file.attrs[f"window_{k}"] = r.open_count
        if simulation.learning.active:
            _save_learning(simulation, file.create_group("learning"))
    os.replace(temporary, path)


def restore(simulation: NumbaSimulation, path: str) -> None:
    """Overwrite the state of a network built from the same description."""
    import h5py

    if not Path(path).is_file():
        raise FileNotFoundError(f"restore: no file {path!r}")
    with h5py.File(path, "r") as file:
        saved, here = json.loads(file.attrs["description"]), fingerprint(simulation)
        for name in here:
            if saved.get(name) != here[name]:
                raise ValueError(f"restore: {name} is {here[name]!r} here, {saved.get(name)!r} in {path!r}")
        simulation.step = int(file.attrs["step"])
        for p in simulation.network.populations:
            if p.model is not None:
                group, rows = file[f"populations/{p.index}"], simulation.rows[p.index]
                for k in range(len(p.model.states)):
                    simulation.state_array[rows + k * layout.TILE] = group["states"][k]
                layout.write_ring(simulation.layout, simulation.ring, p.index, group["ring"][:])
                simulation.write_constants(p)
        simulation.tables.stp_state[:] = file["short_term"][:]
        for k, r in enumerate(simulation.network.recorders):
            if isinstance(r, RateRecorder):
                r.resume(simulation.step, int(file.attrs[f"window_{k}"]))
        if simulation.learning.active:
            _restore_learning(simulation, file["learning"])
    _rewind_lists(simulation)


def _save_learning(simulation: NumbaSimulation, group: Any) -> None:
    learning, arrays = simulation.learning, simulation.learning.arrays
    for name in _PER_SOURCE:
        group[name] = getattr(arrays, name)[0]
    group["fill"] = arrays.fill[0]
    for name in ("spikes", "step", "mark", "second"):
        group[name] = getattr(arrays, name)
    group["spike_counts"] = learning.spike_counts
    for m in range(len(learning.chosen)):
        order, weights, eligibility = _canonical(simulation, m)
        group[f"weights_{m}"] = weights[order]
        if eligibility is not None:
            group[f"eligibility_{m}"] = eligibility[order]


def _restore_learning(simulation: NumbaSimulation, group: Any) -> None:
    learning, arrays = simulation.learning, simulation.learning.arrays
    for name in (*_PER_SOURCE, "fill"):
        getattr(arrays, name)[:] = group[name][:][None]
    for name in ("spikes", "step", "mark", "second"):
        getattr(arrays, name)[:] = group[name][:]
    learning.spike_counts[:] = group["spike_counts"][:]
    for m in range(len(learning.chosen)):
        order, weights, eligibility = _canonical(simulation, m)
        weights[order] = group[f"weights_{m}"][:]
        if eligibility is not None:
            eligibility[order] = group[f"eligibility_{m}"][:]


def _canonical(simulation: NumbaSimulation, m: int) -> tuple[np.ndarray, np.ndarray, np.ndarray | None]:
    """(order by source, delay and target, weights, eligibility) of plastic projection m; the last two are views."""
    learning, arrays = simulation.learning, simulation.learning.arrays
    weights, targets = learning.synapses(m)
    entry = int(arrays.first_entry[m])
    delays = arrays.delay[entry : entry + len(weights)]
    pointers = simulation.tables.pointers[arrays.table[m]][:: simulation.blocks]
    sources = np.repeat(np.arange(len(pointers) - 1), np.diff(pointers))
    eligibility = arrays.eligibility[entry : entry + len(weights)] if len(arrays.eligibility) else None
    return np.lexsort((targets, delays, sources)), weights, eligibility


def _rewind_lists(simulation: NumbaSimulation) -> None:
    """Point the cursors of spike lists behind the current step."""
    lists = simulation.inputs.lists
    for p in range(lists.cursor.shape[0]):
        for b in range(lists.cursor.shape[1]):
            low, high = lists.start[p, b], lists.start[p, b + 1]
            lists.cursor[p, b] = low + np.searchsorted(lists.step[low:high], simulation.step, side="right")
