"""Purely event-driven simulation with exact spike times: LIF with delta or exponential synapses, no grid.

For small networks and as an oracle for the clocked engine. Between events the potential of a neuron is a sum of
exponentials, v(t) = a0 + sum_k a_k exp(-t/tau_k); its first crossing of the threshold is found by isolating the zeros of
its derivatives, so that no crossing is missed, and refined by bisection to the last digits.
"""

from __future__ import annotations

import heapq
import itertools
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

_NEVER = float("inf")


@dataclass(frozen=True)
class ExactLIF:
    """Parameters of all neurons.

    Args:
        tau_m_ms, c_m_pf, e_l_mv, v_th_mv, v_reset_mv, t_ref_ms, i_e_pa: as the models of the clocked engine.
        tau_syn_ms: time constants of exponential currents, one per receptor, each different from tau_m; empty: delta
            synapses (weights in mV, dropped while refractory).
    """

    tau_m_ms: float = 20.0
    c_m_pf: float = 250.0
    e_l_mv: float = 0.0
    v_th_mv: float = 20.0
    v_reset_mv: float = 0.0
    t_ref_ms: float = 2.0
    i_e_pa: float = 0.0
    tau_syn_ms: tuple[float, ...] = ()

    def __post_init__(self) -> None:
        for name in ("tau_m_ms", "c_m_pf"):
            if not getattr(self, name) > 0:
                raise ValueError(f"ExactLIF: {name} must be > 0, got {getattr(self, name)!r}")
        if self.t_ref_ms < 0 or self.v_reset_mv >= self.v_th_mv:
            raise ValueError(f"ExactLIF: t_ref_ms must be >= 0 and v_reset_mv below v_th_mv, got {self}")
        for tau in self.tau_syn_ms:
            if not tau > 0 or abs(tau - self.tau_m_ms) < 1e-6 * self.tau_m_ms:
                raise ValueError(f"ExactLIF: tau_syn_ms must be > 0 and differ from tau_m_ms, got {tau!r}")


def _value(a0: float, terms: Sequence[tuple[float, float]], t: float) -> float:
    return a0 + sum(a * np.exp(-r * t) for a, r in terms)


def sum_zeros(a0: float, terms: Sequence[tuple[float, float]], stop: float) -> list[float]:
    """Sign changes in (0, stop) of a0 + sum a_k exp(-r_k t), increasing.

    The derivative, multiplied by exp(r t) for one of its rates, has one exponential less: its sign changes, found by
    recursion, cut (0, stop) into stretches on which the function is monotonic.
    """
    terms = [(a, r) for a, r in terms if a != 0.0]
    if not terms:
        return []
    slope = [(-a * r, r) for a, r in terms]
    last = slope[-1][1]
    edges = [0.0, *sum_zeros(slope[-1][0], [(a, r - last) for a, r in slope[:-1]], stop), stop]
    zeros = []
    for low, high in itertools.pairwise(edges):
        f_low, f_high = _value(a0, terms, low), _value(a0, terms, high)
        if f_low == 0.0 and low > 0.0:
            continue  # a touching point found as the end of the stretch before
        if f_low * f_high < 0.0 or (f_high == 0.0 and f_low != 0.0):
            zeros.append(_bisect(a0, terms, low, high, f_low))
    return zeros


def _bisect(a0: float, terms: Sequence[tuple[float, float]], low: float, high: float, f_low: float) -> float:
    while True:
        middle = 0.5 * (low + high)
        if middle in (low, high):
            return high
        if _value(a0, terms, middle) * f_low > 0.0:
            low = middle
        else:
            high = middle


class _Neuron:
    """State at ``time``: potential relative to E_L and one current per receptor."""

    def __init__(self, p: ExactLIF, v0: float) -> None:
        self.p, self.time, self.v, self.free_from = p, 0.0, v0 - p.e_l_mv, 0.0
        self.currents = np.zeros(len(p.tau_syn_ms))
        self.rest = p.i_e_pa * p.tau_m_ms / p.c_m_pf
        taus = np.array(p.tau_syn_ms)
        self.gain = taus * p.tau_m_ms / (p.c_m_pf * (taus - p.tau_m_ms))
        self.rates = [1.0 / tau for tau in p.tau_syn_ms]
        self.version = 0

    def _terms(self) -> list[tuple[float, float]]:
        """Potential minus rest as exponentials of the time since ``time`` (free neurons)."""
        parts = self.gain * self.currents
        return [
            *zip(parts.tolist(), self.rates, strict=True),
            (self.v - self.rest - parts.sum(), 1.0 / self.p.tau_m_ms),
        ]

    def advance(self, t: float) -> None:
        """Move to time t; the potential is held until ``free_from``."""
        if self.time < self.free_from:
            stop = min(t, self.free_from)
            self.currents = self.currents * np.exp(-(stop - self.time) * np.array(self.rates))
            self.time = stop
        if t > self.time:
            gap = t - self.time
            self.v = _value(self.rest, self._terms(), gap)
            self.currents = self.currents * np.exp(-gap * np.array(self.rates))
            self.time = t

    def next_spike(self) -> float:
        """Time of the next crossing without further input."""
        start = max(self.time, self.free_from)
        theta = self.p.v_th_mv - self.p.e_l_mv
        saved = self.time, self.v, self.currents
        self.advance(start)
        if self.v >= theta:
            found = start
        else:
            slowest = max(self.p.tau_m_ms, *self.p.tau_syn_ms, 0.0)
            zeros = sum_zeros(self.rest - theta, self._terms(), 60.0 * slowest)
            found = start + zeros[0] if zeros else _NEVER
        self.time, self.v, self.currents = saved
        return found


_Event = tuple[float, int, int, int, float, int]  # time, kind, sequence, neuron, weight, receptor or version


def simulate_exact(
    parameters: ExactLIF,
    n: int,
    synapses: tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray],
    inputs: tuple[np.ndarray, np.ndarray, np.ndarray],
    duration_ms: float,
    v0_mv: float | np.ndarray | None = None,
    receptors: np.ndarray | None = None,
) -> tuple[np.ndarray, np.ndarray]:
    """Spikes of n neurons.

    Args:
        synapses: (pre, post, weight, delay_ms), as ``Network.synapses`` returns them; delays > 0.
        inputs: (times_ms, neuron, weight) of external spikes, at their arrival.
        duration_ms: end of the simulation.
        v0_mv: first potential, default E_L.
        receptors: [S] receptor of each synapse; default: the sign picks 0 or 1 where there are two. External spikes use
            the sign.
    Returns:
        (times_ms, ids), sorted by time.
    """
    pre, post, weight, delay = (np.asarray(a) for a in synapses)
    if len(delay) and not delay.min() > 0.0:
        raise ValueError(f"simulate_exact: delays must be > 0 ms, got {delay.min()}")
    two = len(parameters.tau_syn_ms) == 2
    receptors = (weight < 0).astype(int) * int(two) if receptors is None else receptors
    order = np.argsort(pre, kind="stable")
    edges = np.searchsorted(pre[order], np.arange(n + 1))
    start = np.broadcast_to(parameters.e_l_mv if v0_mv is None else v0_mv, (n,))
    neurons = [_Neuron(parameters, float(v)) for v in start]
    queue: list[_Event] = []
    sequence = 0
    for t, i, w in zip(*(np.asarray(a).tolist() for a in inputs), strict=True):
        queue.append((t, 0, sequence, int(i), w, int(two and w < 0)))
        sequence += 1
    heapq.heapify(queue)
    times, ids = [], []

    def plan(i: int) -> None:
        nonlocal sequence
        neurons[i].version += 1
        at = neurons[i].next_spike()
        if at <= duration_ms:
            heapq.heappush(queue, (at, 1, sequence, i, 0.0, neurons[i].version))
            sequence += 1

    for i in range(n):
        plan(i)
    while queue and queue[0][0] <= duration_ms:
        t, kind, _, i, w, tag = heapq.heappop(queue)
        cell = neurons[i]
        if kind == 0:
            cell.advance(t)
            if parameters.tau_syn_ms:
                cell.currents = cell.currents.copy()
                cell.currents[tag] += w
            elif t >= cell.free_from:
                cell.v += w
            plan(i)
        elif tag == cell.version:
            cell.advance(t)
            times.append(t)
            ids.append(i)
            cell.v, cell.free_from = parameters.v_reset_mv - parameters.e_l_mv, t + parameters.t_ref_ms
            for k in order[edges[i] : edges[i + 1]]:
                heapq.heappush(queue, (t + delay[k], 0, sequence, int(post[k]), float(weight[k]), int(receptors[k])))
                sequence += 1
            plan(i)
    return np.array(times), np.array(ids, dtype=np.int64)


def lazy_delta_spikes(
    tau_m_ms: float,
    v_th_mv: float,
    hold_steps: int,
    synapses: tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray],
    inputs: tuple[np.ndarray, np.ndarray, np.ndarray],
    n: int,
    steps: int,
    dt_ms: float,
) -> list[tuple[int, int]]:
    """Delta-synapse LIF without bias on the grid, touched at arrivals only; rest and reset 0 mV.

    Between arrivals the potential decays towards rest, so that a crossing can only happen at an arrival: this loop gives
    the spikes of the clocked one. Returns (step, neuron) in order. ``inputs``: (step, neuron, weight) arrays.
    """
    pre, post, weight, delay_ms = synapses
    delays = np.rint(delay_ms / dt_ms).astype(int)
    arriving: dict[int, dict[int, float]] = {}
    for t, i, w in zip(*(np.asarray(a).tolist() for a in inputs), strict=True):
        cell = arriving.setdefault(t, {})
        cell[i] = cell.get(i, 0.0) + w
    v, touched, held = np.zeros(n), np.zeros(n, dtype=int), np.zeros(n, dtype=int)
    spikes = []
    for t in range(1, steps + 1):
        for i, w in sorted(arriving.pop(t, {}).items()):
            if t <= held[i]:
                continue
            v[i] = v[i] * np.exp(-(t - touched[i]) * dt_ms / tau_m_ms) + w
            touched[i] = t
            if v[i] >= v_th_mv:
                spikes.append((t, i))
                v[i], held[i] = 0.0, t + hold_steps
                touched[i] = held[i]
                for k in np.flatnonzero(pre == i):
                    cell = arriving.setdefault(t + int(delays[k]), {})
                    cell[int(post[k])] = cell.get(int(post[k]), 0.0) + float(weight[k])
    return spikes
