"""Synapses of a description in their final layout: tables of sorted rows (see `layout` and `kernels.delivery`)."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

import numpy as np

from neuromorphic.engine import connectivity as rules
from neuromorphic.engine.distributions import LOG_NORMAL, NORMAL, Distribution, encode
from neuromorphic.engine.kernels import build_rows, finish_rows
from neuromorphic.engine.kernels.counter_rng import stream_reference
from neuromorphic.engine.kernels.delivery import INDIVIDUAL, LONG_TERM, PER_SOURCE, SHORT_TERM, Tables
from neuromorphic.engine.layout import Layout, aligned_zeros, global_cells, with_slots
from neuromorphic.engine.network import Projection
from neuromorphic.engine.plasticity import ShortTermPlasticity
from neuromorphic.engine.threads import on_parts

PARTS = 16  # pieces of parallel generation; fixed, so that the order of synapses never depends on the threads
_NO_POSITIONS = np.zeros((1, 3))
_SYNAPSES, _DEGREES = 1, 2


@dataclass
class TablePlan:
    """Projections that share rows."""

    kind: int
    projections: list[Projection] = field(default_factory=list)
    weights: dict[int, float] = field(default_factory=dict)  # PER_SOURCE: weight by source population


@dataclass
class Generated:
    """Synapse counts of one projection before they are written."""

    counts: np.ndarray  # [n_pre] synapses of each source
    by_part: np.ndarray | None = None  # [PARTS, n_pre] for a fixed in-degree
    order: np.ndarray | None = None  # explicit list sorted by source


def sub_seed(seed: int, domain: int, number: int) -> np.uint64:
    """Key of an independent random stream."""
    return np.uint64(stream_reference(stream_reference(seed % 2**64, domain), number))


def plan_tables(projections: list[Projection]) -> list[TablePlan]:
    """Group projections; tables with a weight per synapse come first."""
    individual = TablePlan(INDIVIDUAL)
    shared: list[TablePlan] = []
    dynamic: list[TablePlan] = []
    for projection in projections:
        if isinstance(projection.plasticity, ShortTermPlasticity):
            dynamic.append(TablePlan(SHORT_TERM, [projection]))
        elif projection.plasticity is not None:
            dynamic.append(TablePlan(LONG_TERM, [projection]))
        elif isinstance(projection.weight, Distribution) or np.ndim(projection.weight):
            individual.projections.append(projection)
        else:
            source, weight = projection.pre.index, float(projection.weight)
            stored = abs(weight) if _absolute(projection) else weight
            for plan in shared:
                if plan.weights.get(source, stored) == stored:
                    break
            else:
                plan = TablePlan(PER_SOURCE)
                shared.append(plan)
            plan.projections.append(projection)
            plan.weights[source] = stored
    return [*([individual] if individual.projections else []), *dynamic, *shared]


@dataclass
class Rows:
    """Lengths of all rows, known before the synapses are written. K tables of N sources."""

    generated: dict[int, Generated]  # by projection
    starts: np.ndarray  # [K, N + 1] first synapse of each row
    weighted: int  # synapses that carry a weight

    @property
    def mean(self) -> float:
        """Mean synapses of the rows that have any."""
        lengths = np.diff(self.starts, axis=1)
        return float(lengths.sum() / max(np.count_nonzero(lengths), 1))


def count_rows(plans: list[TablePlan], sizes: list[int], seed: int, workers: int) -> Rows:
    """Count the synapses of every source; ``sizes`` are the neurons of each population."""
    first_id = np.concatenate([[0], np.cumsum(sizes)])
    generated = {p.index: _count(p, seed, workers) for plan in plans for p in plan.projections}
    starts = np.zeros((len(plans), int(first_id[-1]) + 1), dtype=np.int64)
    total = weighted = 0
    for k, plan in enumerate(plans):
        lengths = np.zeros(int(first_id[-1]), dtype=np.int64)
        for p in plan.projections:
            first = first_id[p.pre.index]
            lengths[first : first + p.pre.n] += generated[p.index].counts
        starts[k, 0] = total
        starts[k, 1:] = total + np.cumsum(lengths)
        total = int(starts[k, -1])
        if plan.kind != PER_SOURCE:
            weighted = total
    return Rows(generated, starts, weighted)


def build_tables(
    plans: list[TablePlan], rows: Rows, layout: Layout, seed: int, h: float, dtype: type, workers: int
) -> tuple[Layout, Tables, int]:
    """Generate all synapses on ``workers`` threads.

    Returns: the layout with its ring, the tables, and the shortest delay in steps (a large number without synapses).
    """
    sources, blocks = int(layout.first_id[-1]), len(layout.block_cells)
    starts, generated = rows.starts, rows.generated
    offsets = aligned_zeros(int(starts[-1, -1]) if len(plans) else 0, np.uint32)
    weights = aligned_zeros(rows.weighted, dtype)

    edges = np.concatenate([[0], np.cumsum(layout.block_cells)])
    longest, shortest, too_far = 1, 2**62, 0
    for k, plan in enumerate(plans):
        position = starts[k, :-1].copy()
        for p in plan.projections:
            first = int(layout.first_id[p.pre.index])
            at = position[first : first + p.pre.n]
            found = _write(
                p, generated[p.index], layout, seed, h, at, offsets, weights, plan.kind != PER_SOURCE, workers
            )
            longest, shortest, too_far = max(longest, found[0]), min(shortest, found[1]), too_far + found[2]
            at += generated[p.index].counts
    if too_far:
        raise ValueError(
            f"Network: {too_far} synapses have delay steps x input cells ({edges[-1]}) above 2^32; shorten the delays"
        )
    layout = with_slots(layout, longest)
    pointers = np.empty((len(plans), sources * blocks + 1), dtype=np.int64)
    for k, plan in enumerate(plans):
        pointers[k, :-1] = np.repeat(starts[k, :-1], blocks)
        pointers[k, -1] = starts[k, -1]
        used = np.flatnonzero(np.diff(starts[k]))
        if len(used):
            on_parts(
                finish_rows.finish_rows, PARTS, workers,
                starts[k, used], starts[k, used + 1], used, blocks, pointers[k], offsets, weights,
                plan.kind != PER_SOURCE, edges, layout.block_cells, layout.block_base, int(layout.slots[0]), PARTS,
            )  # fmt: skip
    return layout, _tables(plans, pointers, offsets, weights, layout, h, dtype, workers), shortest


def _tables(
    plans: list[TablePlan],
    pointers: np.ndarray,
    offsets: np.ndarray,
    weights: np.ndarray,
    layout: Layout,
    h: float,
    dtype: type,
    workers: int,
) -> Tables:
    sources = int(layout.first_id[-1])
    row_weight: np.ndarray = np.zeros(
        (len(plans), sources if any(p.kind == PER_SOURCE for p in plans) else 0), dtype=dtype
    )
    stp = np.zeros((len(plans), 3))
    stp_index = np.zeros(len(plans), dtype=np.int64)
    dynamic = 0
    for k, plan in enumerate(plans):
        for population, weight in plan.weights.items():
            row_weight[k, layout.first_id[population] : layout.first_id[population + 1]] = weight
        rule = plan.projections[0].plasticity
        if isinstance(rule, ShortTermPlasticity):
            stp[k] = rule.U, rule.tau_rec_ms / h, rule.tau_fac_ms / h
            stp_index[k] = dynamic
            dynamic += 1
    state = np.zeros((workers, dynamic, sources, 3))
    for k in range(len(plans)):
        if plans[k].kind == SHORT_TERM:
            state[:, stp_index[k]] = stp[k, 0], 1.0, -1.0
    kinds = np.array([plan.kind for plan in plans], dtype=np.int64)
    return Tables(kinds, pointers, offsets, weights, row_weight, stp, state, stp_index)


def _absolute(projection: Projection) -> bool:
    assert projection.post.model is not None
    return projection.post.model.conductance


def _skip_self(projection: Projection) -> bool:
    return projection.pre is projection.post and not getattr(projection.rule, "autapses", True)


def _row_arguments(p: Projection) -> tuple[int, float, np.ndarray, np.ndarray, np.ndarray]:
    """(kind, number, positions of pre and post, shape of the distance profile) for the row generators."""
    pre_xyz = post_xyz = _NO_POSITIONS
    shape = np.zeros(3)
    match p.rule:
        case rules.AllToAll():
            return build_rows.ALL_TO_ALL, 0.0, pre_xyz, post_xyz, shape
        case rules.OneToOne():
            return build_rows.ONE_TO_ONE, 0.0, pre_xyz, post_xyz, shape
        case rules.FixedProbability(probability):
            return build_rows.PROBABILITY, float(probability), pre_xyz, post_xyz, shape
        case rules.FixedOutDegree(k, _, multapses):
            kind = build_rows.OUT_DEGREE if multapses else build_rows.OUT_DEGREE_DISTINCT
            return kind, float(k), pre_xyz, post_xyz, shape
        case rules.FixedTotalNumber(_):
            return build_rows.OUT_DEGREE, 0.0, pre_xyz, post_xyz, shape
        case rules.DistanceDependent(p_max, length, profile, cutoff):
            kind = build_rows.GAUSSIAN if profile == "gaussian" else build_rows.EXPONENTIAL
            assert p.pre.positions_um is not None
            assert p.post.positions_um is not None
            return kind, 0.0, p.pre.positions_um, p.post.positions_um, np.array([p_max, length, cutoff])
        case _:
            return build_rows.LISTED, 0.0, pre_xyz, post_xyz, shape


def _count(p: Projection, seed: int, workers: int) -> Generated:
    key = sub_seed(seed, _SYNAPSES, p.index)
    skip = _skip_self(p)
    match p.rule:
        case rules.FixedInDegree(k, _, multapses):
            by_part = np.zeros((PARTS, p.pre.n), dtype=np.int32)
            on_parts(build_rows.count_indegree, PARTS, workers, by_part, p.post.n, k, skip, not multapses, key)
            return Generated(by_part.sum(axis=0, dtype=np.int64), by_part)
        case rules.AllToAll():
            return Generated(np.full(p.pre.n, p.post.n - int(skip), dtype=np.int64))
        case rules.OneToOne():
            return Generated(np.ones(p.pre.n, dtype=np.int64))
        case rules.FixedOutDegree(k):
            return Generated(np.full(p.pre.n, k, dtype=np.int64))
        case rules.FixedTotalNumber(k):
            generator = np.random.Generator(np.random.Philox(int(sub_seed(seed, _DEGREES, p.index))))
            return Generated(generator.multinomial(k, np.full(p.pre.n, 1.0 / p.pre.n)).astype(np.int64))
        case rules.Explicit():
            order = np.argsort(p.rule._pre, kind="stable")
            return Generated(np.bincount(p.rule._pre, minlength=p.pre.n).astype(np.int64), order=order)
        case _:
            kind, number, pre_xyz, post_xyz, shape = _row_arguments(p)
            counts = np.zeros(p.pre.n, dtype=np.int64)
            shapes = (p.post.n, number, skip, key, pre_xyz, post_xyz, shape, PARTS)
            on_parts(build_rows.count_rows, PARTS, workers, counts, kind, *shapes)
            return Generated(counts)


def _write(
    p: Projection,
    generated: Generated,
    layout: Layout,
    seed: int,
    h: float,
    at: np.ndarray,
    offsets: np.ndarray,
    weights: np.ndarray,
    store: bool,
    workers: int,
) -> tuple[int, int, int]:
    key = sub_seed(seed, _SYNAPSES, p.index)
    cells, signed = receiving_cells(p, layout)
    total_cells = int(layout.block_cells.sum())
    weight = encode(0.0 if np.ndim(p.weight) else p.weight)
    delay = encode(h if np.ndim(p.delay_ms) else p.delay_ms)
    if delay[0] in (NORMAL, LOG_NORMAL):
        delay[3] = max(delay[3], h / 2)
    absolute, skip = _absolute(p), _skip_self(p)
    found = np.tile(np.array([0, 2**62, 0], dtype=np.int64), (PARTS, 1))
    if isinstance(p.rule, rules.FixedInDegree):
        assert generated.by_part is not None
        before = np.cumsum(generated.by_part, axis=0, dtype=np.int64) - generated.by_part
        on_parts(
            build_rows.fill_indegree, PARTS, workers, found,
            p.pre.n, p.post.n, p.rule.k, skip, not p.rule.multapses, key, weight, delay, store, signed, absolute,
            cells, total_cells, h, at[None, :] + before, offsets, weights,
        )  # fmt: skip
        return _summary(found)
    kind, number, pre_xyz, post_xyz, shape = _row_arguments(p)
    listed = p.rule._post if isinstance(p.rule, rules.Explicit) else np.zeros(0, dtype=np.int64)
    order = np.zeros(0, dtype=np.int64) if generated.order is None else generated.order
    weight_list, delay_list = (
        np.asarray(q, dtype=np.float64) if np.ndim(q) else np.zeros(0) for q in (p.weight, p.delay_ms)
    )
    first = np.cumsum(generated.counts) - generated.counts
    on_parts(
        build_rows.fill_rows, PARTS, workers, found, first,
        kind, generated.counts, p.post.n, number, skip, key, pre_xyz, post_xyz, shape, listed, order, weight, delay,
        weight_list, delay_list, store, signed, absolute, cells, total_cells, h, at, offsets, weights, PARTS,
    )  # fmt: skip
    return _summary(found)


def _summary(found: np.ndarray) -> tuple[int, int, int]:
    """Longest and shortest delay over all parts, and the synapses that do not fit."""
    return int(found[:, 0].max()), int(found[:, 1].min()), int(found[:, 2].sum())


def receiving_cells(p: Projection, layout: Layout) -> tuple[np.ndarray, bool]:
    """Cells [1 or 2, n] of the target population, and whether the sign of a weight picks the row."""
    assert p.post.model is not None
    cells = global_cells(layout, p.post.index)
    if p.receptor is not None:
        r = p.post.model.receptors.index(p.receptor)
        return cells[r : r + 1], False
    return cells, cells.shape[0] == 2


def describe_size(tables: Tables) -> dict[str, Any]:
    """Synapse count and bytes per synapse, pointers included."""
    count = tables.offsets.shape[0]
    size = sum(a.nbytes for a in (tables.pointers, tables.offsets, tables.weights, tables.row_weight))
    return {"synapses": count, "bytes_per_synapse": size / count if count else 0.0}


def synapse_list(
    plans: list[TablePlan], p: Projection, layout: Layout, tables: Tables, h: float
) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
    """(pre, post, weight, delay_ms) of every synapse of a projection, sorted by pre, then post.

    Projections that share both populations, table and receptor cannot be told apart once built and are refused.
    """
    k = next(k for k, plan in enumerate(plans) if p in plan.projections)
    twins = [q for q in plans[k].projections if q.pre is p.pre and q.post is p.post]
    if len(twins) > 1:
        raise ValueError(f"synapses: {len(twins)} projections from {p.pre.name!r} to {p.post.name!r} share their rows")
    blocks = len(layout.block_cells)
    first = int(layout.first_id[p.pre.index])
    pointers = tables.pointers[k]
    edges = pointers[first * blocks : (first + p.pre.n) * blocks + 1]
    index = np.arange(edges[0], edges[-1])
    pre = np.repeat(np.arange(p.pre.n), np.diff(edges[::blocks]))
    offset = tables.offsets[edges[0] : edges[-1]].astype(np.int64)
    block = np.searchsorted(layout.block_base, offset, side="right") - 1
    local = offset - layout.block_base[block]
    delay = local // layout.block_cells[block]
    before = np.cumsum(layout.block_cells) - layout.block_cells
    cell = before[block] + local % layout.block_cells[block]
    owner = np.full(int(layout.block_cells.sum()), -1, dtype=np.int64)
    sign = np.ones(len(owner))
    for r, cells in enumerate(global_cells(layout, p.post.index)):
        owner[cells] = np.arange(p.post.n)
        if r == 1 and p.receptor is None and _absolute(p):
            sign[cells] = -1.0
    mine = owner[cell] >= 0
    weight = tables.row_weight[k, first + pre] if plans[k].kind == PER_SOURCE else tables.weights[index]
    pre, post = pre[mine], owner[cell[mine]]
    order = np.lexsort((post, pre))
    return pre[order], post[order], (weight.astype(float) * sign[cell])[mine][order], (delay * h)[mine][order]
