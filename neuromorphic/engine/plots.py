"""Raster and rate plots of recorded spikes."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np

from neuromorphic.engine.recording import SpikeRecorder

_COLOURS = ("#1f4e79", "#c0392b", "#2e7d32", "#b8860b", "#5e35b1", "#00838f", "#6d4c41", "#455a64")


def raster_and_rate(
    recorders: Mapping[str, SpikeRecorder], start_ms: float, stop_ms: float, title: str, path: str, shown: int = 1500
) -> None:
    """Write a PNG: spikes of up to ``shown`` neurons, shared out by population size, above the rate of each population.

    Args:
        recorders: by population name, drawn from bottom to top.
        start_ms, stop_ms: time range.
    """
    try:
        from matplotlib.backends.backend_agg import FigureCanvasAgg
        from matplotlib.figure import Figure
    except ImportError as error:
        raise ImportError("plots need matplotlib; pip install 'spikeloop[plots]'") from error
    figure = Figure(figsize=(8.0, 6.0), layout="constrained")
    FigureCanvasAgg(figure)
    raster, rate = figure.subplots(2, 1, sharex=True, height_ratios=(3, 1))
    total = sum(r.population.n for r in recorders.values())
    drawn = sum(len(r.ids) for r in recorders.values()) * min(shown, total) / total
    size = 2.0 if drawn < 20_000 else 0.5
    bottom, ticks = 0, []
    bin_ms = max(1.0, (stop_ms - start_ms) / 250)
    edges = np.arange(start_ms, stop_ms + bin_ms / 2, bin_ms)
    for k, (name, recorder) in enumerate(recorders.items()):
        n = recorder.population.n
        colour = _COLOURS[k % len(_COLOURS)]
        times, ids = recorder.times_ms, recorder.ids
        inside = (times > start_ms) & (times <= stop_ms)
        times, ids = times[inside], ids[inside]
        rows = max(1, round(min(shown, total) * n / total))
        seen = ids < rows
        raster.scatter(times[seen], bottom + ids[seen], s=size, c=colour, linewidths=0, rasterized=True)
        ticks.append((bottom + rows / 2, name))
        bottom += rows
        counts, _ = np.histogram(times, edges)
        rate.step(edges[:-1], counts / (n * bin_ms * 1e-3), where="post", color=colour, lw=1.0, label=name)
    raster.set(title=title, ylim=(0, bottom), yticks=[t for t, _ in ticks], yticklabels=[n for _, n in ticks])
    raster.set_ylabel(f"population ({bottom} of {total} neurons)")
    rate.set(xlabel="time (ms)", ylabel=f"rate (Hz), {bin_ms:g} ms bins", xlim=(start_ms, stop_ms))
    rate.set_ylim(0, 1.3 * max(rate.get_ylim()[1], 1.0))
    _legend(rate, len(recorders))
    figure.savefig(path, dpi=120)


def _legend(axes: Any, entries: int) -> None:
    axes.legend(loc="upper right", ncols=min(entries, 4), fontsize="small", frameon=False)
