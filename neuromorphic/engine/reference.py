"""The engine in plain NumPy: slow, float64, one step after the other; the kernels are compared with it.

It runs the same scalar steps on arrays, draws the same random numbers, and takes the synapses of the built network, so
in float64 both must give the same spikes.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from neuromorphic.engine.assembly import assemble_inputs, fill_constants
from neuromorphic.engine.codegen import Kind
from neuromorphic.engine.kernels.counter_rng import GOLDEN, stream_reference
from neuromorphic.engine.layout import make_layout
from neuromorphic.engine.network import Network, Population


class _Fields(dict[str, Any]):
    """Names of a step: ``s.v`` and ``x["in"]``."""

    __getattr__ = dict.__getitem__


def poisson_counts_reference(key: int, step: int, n: int, base: int, thresholds: np.ndarray) -> np.ndarray:
    """[n] counts of one drive at one step, as ``kernels.stimuli.draw_counts``."""
    with np.errstate(over="ignore"):
        z = np.uint64(stream_reference(key, step)) + np.arange((n + 1) // 2, dtype=np.uint64) * GOLDEN
        z = (z ^ (z >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
        z = (z ^ (z >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
        z = z ^ (z >> np.uint64(31))
    words = np.stack([z & np.uint64(0xFFFFFFFF), z >> np.uint64(32)], axis=1).reshape(-1)[:n]
    return base + (words[:, None] >= thresholds[None, :]).sum(axis=1)


class ReferenceSimulation:
    """Static networks only. Build the network first: its synapses are read from it."""

    def __init__(self, network: Network) -> None:
        if any(p.plasticity is not None for p in network.projections):
            raise ValueError("ReferenceSimulation: plastic projections have their own tests")
        self.network, self.h, self.step = network, network.dt_ms, 0
        network.build()
        count = len(network.populations)
        sizes = [p.n for p in network.populations]
        one = make_layout(sizes, [0] * count, [0] * count, [0] * count, [0] * count, [0] * count, 1)
        self.inputs = assemble_inputs(network, one, np.float64)
        self.states = [
            _Fields({name: network.state(p, name) - self._shift(p, name) for name in p.model.states} if p.model else {})
            for p in network.populations
        ]
        self.synapses = [self._decoded(p) for p in network.projections]
        depth = 1 + max((int(s[3].max()) for s in self.synapses if len(s[3])), default=1)
        self.rings = [np.zeros((depth, len(p.model.receptors) if p.model else 0, p.n)) for p in network.populations]

    def _shift(self, population: Population, name: str) -> Any:
        assert population.model is not None
        relative = population.model.states[name].relative_to
        return population.values[relative] if relative else 0.0

    def _decoded(self, projection: Any) -> tuple[np.ndarray, ...]:
        pre, post, weight, delay_ms = self.network.synapses(projection)
        model = projection.post.model
        if projection.receptor is not None:
            receptor = np.full(len(pre), model.receptors.index(projection.receptor))
        else:
            receptor = ((weight < 0) & (len(model.receptors) == 2)).astype(int)
        steps = np.rint(delay_ms / self.h).astype(int)
        return pre, post, np.abs(weight) if model.conductance else weight, steps, receptor

    def run(self, steps: int) -> list[tuple[int, int, int]]:
        """Advance; returns (step, population, neuron) of each spike in order."""
        spikes: list[tuple[int, int, int]] = []
        for _ in range(steps):
            t = self.step + 1
            fired = [self._fire(p, t) for p in self.network.populations]
            for p, ids in zip(self.network.populations, fired, strict=True):
                spikes += [(t, p.index, int(i)) for i in ids]
            for projection, (pre, post, weight, delay, receptor) in zip(
                self.network.projections, self.synapses, strict=True
            ):
                active = np.isin(pre, fired[projection.pre.index])
                ring = self.rings[projection.post.index]
                slot = (t + delay[active]) % len(ring)
                np.add.at(ring, (slot, receptor[active], post[active]), weight[active])
            self.step = t
        return spikes

    def _fire(self, p: Population, t: int) -> np.ndarray:
        if p.source == "spike_list":
            lists = self.inputs.lists
            low, high = lists.start[p.index]
            return lists.neuron[low:high][lists.step[low:high] == t]
        drives = self.inputs.drives
        mine = range(drives.first[p.index], drives.first[p.index + 1])
        if p.source == "poisson":
            return np.flatnonzero(self._counts(mine[0], t, p.n))
        assert p.model is not None
        ring = self.rings[p.index]
        arriving = ring[t % len(ring)].copy()
        ring[t % len(ring)] = 0.0
        for q in mine:
            if drives.start[q] <= t < drives.stop[q]:
                low, high = drives.low[q], drives.high[q]
                arriving[drives.row[q], low:high] += drives.weight[q] * self._counts(q, t, p.n)[low:high]
        x = _Fields(zip(p.model.receptors, arriving, strict=True))
        c = _Fields(fill_constants(self.network, p, Kind(p.model, (), ()), t - 1, self.h))
        z, new = p.model.step(self.states[p.index], x, c)
        self.states[p.index] = _Fields(new)
        return np.flatnonzero(z)

    def _counts(self, q: int, t: int, n: int) -> np.ndarray:
        drives = self.inputs.drives
        thresholds = drives.thresholds[drives.threshold_start[q] : drives.threshold_start[q + 1]]
        return poisson_counts_reference(int(drives.key[q]), t, n, int(drives.base[q]), thresholds)
