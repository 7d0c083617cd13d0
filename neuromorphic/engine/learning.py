"""Plastic projections of a built network: their arrays, and what happens between stretches of the run."""

from __future__ import annotations

from typing import Any

import numpy as np

from neuromorphic.engine.build import TablePlan
from neuromorphic.engine.kernels import long_term as kernel
from neuromorphic.engine.kernels.delivery import LONG_TERM, Tables
from neuromorphic.engine.layout import Layout, global_cells
from neuromorphic.engine.network import Network, Projection
from neuromorphic.engine.plasticity import (
    PAIR,
    POWER_LAW,
    REWARD,
    TRIPLET,
    PairSTDP,
    Plasticity,
    PowerLawSTDP,
    RewardSTDP,
    SynapticScaling,
    TripletSTDP,
)

NEVER = 2**62


def encode_rule(rule: Plasticity) -> tuple[int, list[float], list[float]]:
    """(kind, numbers, time constants in ms) in the order of the kernel."""
    inf = float("inf")
    match rule:
        case PairSTDP():
            nearest = float(rule.pairing == "nearest")
            numbers = [rule.learning_rate, rule.alpha, rule.w_max, rule.mu_plus, rule.mu_minus, nearest]
            return PAIR, [*numbers, 0, 0, 0, 0], [rule.tau_plus_ms, rule.tau_minus_ms, inf, inf, inf]
        case PowerLawSTDP():
            numbers = [rule.learning_rate, rule.alpha, inf, rule.mu, 0, 0]
            return POWER_LAW, [*numbers, 0, 0, 0, 0], [rule.tau_plus_ms, rule.tau_minus_ms, inf, inf, inf]
        case TripletSTDP():
            numbers = [0, 0, rule.w_max, 0, 0, 0, rule.a2_plus, rule.a3_plus, rule.a2_minus, rule.a3_minus]
            return TRIPLET, numbers, [rule.tau_plus_ms, rule.tau_minus_ms, rule.tau_x_ms, rule.tau_y_ms, inf]
        case RewardSTDP():
            numbers = [rule.learning_rate, rule.alpha, rule.w_max, 0, 0, 0]
            return REWARD, [*numbers, 0, 0, 0, 0], [rule.tau_plus_ms, rule.tau_minus_ms, inf, inf, rule.tau_e_ms]


class Learning:
    """Arrays of all plastic projections, rewards and scaling."""

    def __init__(
        self, network: Network, plans: list[TablePlan], layout: Layout, tables: Tables, h: float, chunk: int
    ) -> None:
        self.network, self.plans, self.layout, self.tables = network, plans, layout, tables
        self.h, self.chunk = h, chunk
        self.chosen = [(k, plan.projections[0]) for k, plan in enumerate(plans) if plan.kind == LONG_TERM]
        self.active = bool(self.chosen)
        self.arrays: Any = self._arrays() if self.active else None
        self.scalings: list[tuple[int, Projection, SynapticScaling, int]] = []
        for m, (_, projection) in enumerate(self.chosen):
            scaling = getattr(projection.plasticity, "scaling", None)
            if scaling is not None:
                steps = max(1, round(scaling.interval_ms / h))
                self.scalings.append((m, projection, scaling, steps))
        self.spike_counts = np.zeros(int(layout.first_id[-1]) if self.scalings else 0, dtype=np.int64)

    def _arrays(self) -> kernel.Plastic:
        blocks, first = len(self.layout.block_cells), self.layout.first_id
        rules, numbers, taus, pre, post, starts, entries = [], [], [], [], [], [], [0]
        targets, delays, longest = [], [], []
        sources = receivers = 0
        for k, p in self.chosen:
            assert p.plasticity is not None
            kind, values, tau_ms = encode_rule(p.plasticity)  # type: ignore[arg-type]
            rules.append(kind)
            numbers.append(values)
            taus.append(np.array(tau_ms) / self.h)
            pre.append((first[p.pre.index], p.pre.n, sources))
            post.append((first[p.post.index], p.post.n, receivers))
            sources, receivers = sources + p.pre.n, receivers + p.post.n
            low, high = self.tables.pointers[k, 0], self.tables.pointers[k, -1]
            target, delay = self._decode(p, int(low), int(high))
            starts.append(low)
            entries.append(entries[-1] + high - low)
            targets.append(target)
            delays.append(delay)
            longest.append(int(delay.max()) if len(delay) else 1)
        tau = np.array(taus)
        history = 64
        while history < 4 * (max(longest) + self.chunk + 2):
            history *= 2
        rewarded = REWARD in rules
        return kernel.Plastic(
            table=np.array([k for k, _ in self.chosen], dtype=np.int64),
            rule=np.array(rules, dtype=np.int64),
            numbers=np.array(numbers, dtype=np.float64),
            tau=tau,
            decay=np.exp(-np.arange(kernel.TABLE) / tau[:, :, None]),
            first_synapse=np.array(starts, dtype=np.int64),
            first_entry=np.array(entries[:-1], dtype=np.int64),
            target=np.concatenate(targets),
            delay=np.concatenate(delays),
            eligibility=np.zeros(int(entries[-1]) if rewarded else 0),
            pre=np.array(pre, dtype=np.int64),
            post=np.array(post, dtype=np.int64),
            last=np.full((blocks, sources), -1, dtype=np.int64),
            done=np.zeros((blocks, sources), dtype=np.int64),
            trace=np.zeros((blocks, sources, 2)),
            fill=np.zeros((blocks, receivers), dtype=np.int64),
            spikes=np.zeros(receivers, dtype=np.int64),
            step=np.zeros((receivers, history), dtype=np.int64),
            mark=np.zeros((receivers, history)),
            second=np.zeros((receivers, history)),
            longest=np.array(longest, dtype=np.int64),
        )

    def _decode(self, p: Projection, low: int, high: int) -> tuple[np.ndarray, np.ndarray]:
        """(target neuron, delay in steps) [int32] of the synapses low..high-1."""
        layout = self.layout
        offset = self.tables.offsets[low:high].astype(np.int64)
        block = np.searchsorted(layout.block_base, offset, side="right") - 1
        local = offset - layout.block_base[block]
        delay, cell = np.divmod(local, layout.block_cells[block])
        owner = np.zeros(int(layout.block_cells.sum()), dtype=np.int32)
        for cells in global_cells(layout, p.post.index):
            owner[cells] = np.arange(p.post.n)
        before = np.cumsum(layout.block_cells) - layout.block_cells
        return owner[before[block] + cell], delay.astype(np.int32)

    def next_change(self, step: int) -> int:
        """First step after ``step`` at which weights are scaled."""
        return min(((step // every + 1) * every for _, _, _, every in self.scalings), default=NEVER)

    def after(self, step: int, ids: np.ndarray) -> None:
        """Count the spikes of a stretch that ended at ``step``; scale what is due."""
        if not self.scalings:
            return
        self.spike_counts += np.bincount(ids, minlength=len(self.spike_counts))
        for m, projection, scaling, every in self.scalings:
            if step and step % every == 0:
                self.flush(step)
                self._scale(m, projection, scaling, every)

    def synapses(self, m: int) -> tuple[np.ndarray, np.ndarray]:
        """Views of (weights, targets) of projection m."""
        low = int(self.arrays.first_synapse[m])
        entry = int(self.arrays.first_entry[m])
        high = int(self.tables.pointers[self.arrays.table[m], -1])
        return self.tables.weights[low:high], self.arrays.target[entry : entry + high - low]

    def _scale(self, m: int, projection: Projection, scaling: SynapticScaling, every: int) -> None:
        weights, targets = self.synapses(m)
        n = projection.post.n
        if scaling.target_rate_hz is not None:
            first = int(self.layout.first_id[projection.post.index])
            rate = self.spike_counts[first : first + n] / (every * self.h * 1e-3)
            self.spike_counts[first : first + n] = 0
            factor = 1.0 + scaling.strength * (1.0 - rate / scaling.target_rate_hz)
        else:
            assert scaling.target_sum is not None
            total = np.bincount(targets, weights, minlength=n)
            ratio = np.divide(scaling.target_sum, total, out=np.ones(n), where=total > 0)
            factor = ratio**scaling.strength
        limit = self.arrays.numbers[m, kernel.W_MAX]
        weights[:] = np.clip(weights * np.maximum(factor, 0.0)[targets], 0.0, limit)

    def flush(self, step: int) -> None:
        """Bring all plastic weights up to ``step``."""
        for m in range(len(self.chosen)):
            for b in range(len(self.layout.block_cells)):
                kernel.flush_block(b, m, step, self.chunk, self.layout, self.tables, self.arrays)

    def reward(self, projection: Projection, amount: float, step: int) -> None:
        """Turn the eligibility of a projection into weight."""
        m = next((m for m, (_, p) in enumerate(self.chosen) if p is projection), None)
        if m is None or not isinstance(projection.plasticity, RewardSTDP):
            raise ValueError(f"reward: the projection must have RewardSTDP, got {projection.plasticity!r}")
        self.flush(step)
        weights, _ = self.synapses(m)
        entry = int(self.arrays.first_entry[m])
        change = projection.plasticity.learning_rate * amount * self.arrays.eligibility[entry : entry + len(weights)]
        weights[:] = np.clip(weights + change, 0.0, projection.plasticity.w_max)
