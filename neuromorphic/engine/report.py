"""What a run cost, and statistics of spike trains."""

from __future__ import annotations

import sys
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np


@dataclass(frozen=True)
class RunReport:
    """Cost of one call of ``Network.run``.

    Attributes:
        duration_ms: biological time covered (less than asked for when interrupted).
        run_s, build_s, compile_s: wall time of this run, of the build, and of loading or compiling the run loop.
        spikes: emitted spikes by population.
        synaptic_events: spikes times their out-degree, external Poisson events left out.
        neurons, synapses: sizes; bytes_per_synapse: connectivity only.
        interrupted: Ctrl-C ended the run.
    """

    duration_ms: float
    run_s: float
    build_s: float
    compile_s: float
    neurons: int
    synapses: int
    bytes_per_synapse: float
    spikes: dict[str, int]
    synaptic_events: int
    interrupted: bool = False

    @property
    def realtime_factor(self) -> float:
        """Wall time per biological time."""
        return self.run_s / (self.duration_ms * 1e-3) if self.duration_ms else 0.0

    @property
    def ns_per_event(self) -> float:
        """Whole wall time divided by synaptic events."""
        return self.run_s * 1e9 / self.synaptic_events if self.synaptic_events else 0.0

    def as_dict(self) -> dict[str, Any]:
        """All fields and the derived figures."""
        return asdict(self) | {"realtime_factor": self.realtime_factor, "ns_per_event": self.ns_per_event}


def peak_bytes() -> int:
    """Largest resident memory of this process so far, in bytes."""
    status = Path("/proc/self/status")
    if status.exists():  # getrusage would include the parent's memory before exec
        for line in status.read_text().splitlines():
            if line.startswith("VmHWM:"):
                return int(line.split()[1]) * 1024
    import resource

    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak if sys.platform == "darwin" else peak * 1024


def mean_rate_hz(spike_count: int, neurons: int, duration_ms: float) -> float:
    """Spikes per neuron and second."""
    return spike_count / neurons / (duration_ms * 1e-3)


def cv_isi(times_ms: np.ndarray, ids: np.ndarray, minimum_spikes: int = 3) -> float:
    """Mean over neurons of the coefficient of variation of inter-spike intervals; NaN when no neuron qualifies.

    Args:
        times_ms, ids: [S] spikes in any order.
        minimum_spikes: neurons with fewer are left out.
    """
    order = np.lexsort((times_ms, ids))
    t, i = times_ms[order], ids[order]
    same = i[1:] == i[:-1]
    gaps, owner = np.diff(t)[same], i[1:][same]
    if not len(gaps):
        return float("nan")
    count = np.bincount(owner)
    mean = np.bincount(owner, gaps) / np.maximum(count, 1)
    square = np.bincount(owner, (gaps - mean[owner]) ** 2)
    chosen = count >= minimum_spikes - 1
    if not chosen.any():
        return float("nan")
    return float(np.mean(np.sqrt(square[chosen] / count[chosen]) / mean[chosen]))


def synchrony(times_ms: np.ndarray, neurons: int, start_ms: float, stop_ms: float, bin_ms: float = 3.0) -> float:
    """Variance over mean of the population's spike count in bins: 1 for independent Poisson trains, larger in synchrony."""
    bins = int((stop_ms - start_ms) / bin_ms)
    if bins < 2 or neurons < 1:
        return float("nan")
    counts, _ = np.histogram(times_ms, bins=bins, range=(start_ms, start_ms + bins * bin_ms))
    return float(counts.var() / counts.mean()) if counts.sum() else float("nan")
