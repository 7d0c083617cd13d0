"""The command ``simulate``: run a ready network, print its figures, write JSON and a plot."""

from __future__ import annotations

import argparse
import importlib.util
import json
import os
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from neuromorphic.engine import networks
from neuromorphic.engine.networks import Options, ReadyNetwork
from neuromorphic.engine.plots import raster_and_rate
from neuromorphic.engine.recording import SpikeRecorder
from neuromorphic.engine.report import RunReport, cv_isi, peak_bytes, synchrony

_WARMUP_MS = {"microcircuit": 500.0}


def parser() -> argparse.ArgumentParser:
    """Arguments of the command."""
    out = argparse.ArgumentParser(prog="simulate", description="Run a ready network of spiking neurons.")
    out.add_argument("network", choices=("cuba", "coba", "brunel", "brunel-stdp", "microcircuit"))
    out.add_argument("--scale", type=float, default=1.0, help="size relative to the published network")
    out.add_argument("--duration-ms", type=float, default=1000.0, help="biological time that is measured")
    out.add_argument("--warmup-ms", type=float, help="time before it (default: 500 for microcircuit, else 100)")
    out.add_argument("--seed", type=int, default=1)
    out.add_argument("--threads", type=int, help="worker threads (default: all cores from 20,000 neurons on, else 1)")
    out.add_argument("--backend", choices=("numba", "nest"), default="numba")
    out.add_argument("--dt-ms", type=float, default=0.1)
    out.add_argument("--synapses", choices=("delta", "exp"), default="delta", help="brunel only")
    out.add_argument("--v-reset-mv", type=float, default=0.0, help="brunel only; the paper has 10")
    out.add_argument("--g", type=float, default=5.0, help="brunel only: relative inhibition")
    out.add_argument("--eta", type=float, default=2.0, help="brunel only: relative drive")
    out.add_argument("--drive", choices=("poisson", "dc"), default="poisson", help="microcircuit only")
    out.add_argument("--json", metavar="FILE", help="write the figures here")
    out.add_argument("--plot", metavar="FILE", help="raster and rate plot (default: runs/simulate-NETWORK.png)")
    out.add_argument("--no-plot", action="store_true")
    out.add_argument("--progress", action="store_true", help="show a progress bar")
    return out


def ready(arguments: argparse.Namespace) -> ReadyNetwork:
    """The network that the arguments ask for."""
    options = Options(arguments.scale, arguments.seed, arguments.threads, arguments.backend, arguments.dt_ms)
    makers: dict[str, Callable[[], ReadyNetwork]] = {
        "cuba": lambda: networks.cuba(options),
        "coba": lambda: networks.coba(options),
        "brunel": lambda: networks.brunel(
            options, arguments.synapses, arguments.v_reset_mv, arguments.g, arguments.eta
        ),
        "brunel-stdp": lambda: networks.brunel_stdp(options),
        "microcircuit": lambda: networks.microcircuit(options, arguments.drive),
    }
    return makers[arguments.network]()


def figures(
    name: str, net: ReadyNetwork, recorders: dict[str, SpikeRecorder], report: RunReport, start_ms: float
) -> dict[str, Any]:
    """What the command prints and writes."""
    stop_ms = start_ms + report.duration_ms
    cvs, everything, neurons, total = [], [], 0, 0
    rates, spread, beat = {}, {}, {}
    for label, recorder in recorders.items():
        times, ids = recorder.times_ms, recorder.ids
        inside = times > start_ms + 1e-9
        times, ids = times[inside], ids[inside]
        n = recorder.population.n
        rates[label] = len(times) / n / (report.duration_ms * 1e-3)
        spread[label] = cv_isi(times, ids)
        beat[label] = synchrony(times, n, start_ms, stop_ms)
        cvs.append((times, ids + neurons))
        everything.append(times)
        neurons += n
        total += len(times)
    return {
        "network": name,
        "backend": net.network.backend,
        "neurons": report.neurons,
        "synapses": report.synapses,
        "build_s": report.build_s,
        "compile_s": report.compile_s,
        "run_s": report.run_s,
        "duration_ms": report.duration_ms,
        "realtime_factor": report.realtime_factor,
        "rate_hz": total / neurons / (report.duration_ms * 1e-3),
        "rates_hz": rates,
        "cv_isi": cv_isi(np.concatenate([c[0] for c in cvs]), np.concatenate([c[1] for c in cvs])),
        "cv_isi_by_population": spread,
        "synchrony": synchrony(np.concatenate(everything), neurons, start_ms, stop_ms),
        "synchrony_by_population": beat,
        "synaptic_events": report.synaptic_events,
        "synaptic_events_per_s": report.synaptic_events / report.run_s,
        "ns_per_event": report.ns_per_event,
        "bytes_per_synapse": report.bytes_per_synapse,
        "peak_bytes": peak_bytes(),
        "interrupted": report.interrupted,
    }


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command; returns the exit status (130 when Ctrl-C ended the run)."""
    arguments = parser().parse_args(argv)
    try:
        net = ready(arguments)
    except (ValueError, TypeError) as error:
        parser().error(str(error))
    recorders = {label: net.network.record(p, "spikes") for label, p in net.populations.items()}
    warmup_ms = arguments.warmup_ms if arguments.warmup_ms is not None else _WARMUP_MS.get(arguments.network, 100.0)
    try:
        first = net.network.run(warmup_ms, progress=arguments.progress)
        if first.interrupted:
            print(f"interrupted during warm-up after {first.duration_ms:g} ms")
            return 130
        report = net.network.run(arguments.duration_ms, progress=arguments.progress)
    except ValueError as error:
        parser().error(str(error))
    result = figures(arguments.network, net, recorders, report, first.duration_ms)
    _show(result)
    if arguments.json:
        _write_json(arguments.json, result | {"arguments": vars(arguments)})
    if not arguments.no_plot:
        _plot(arguments, recorders, first.duration_ms, report.duration_ms)
    return 130 if report.interrupted else 0


def _show(result: dict[str, Any]) -> None:
    print(
        f"{result['network']} on {result['backend']}: {result['neurons']} neurons, {result['synapses']} synapses, "
        f"{result['bytes_per_synapse']:.2f} B/synapse"
    )
    print(
        f"build {result['build_s']:.2f} s, run {result['run_s']:.3f} s for {result['duration_ms']:g} ms "
        f"(real-time factor {result['realtime_factor']:.3f}), peak memory {result['peak_bytes'] / 2**20:.0f} MiB"
    )
    print(
        f"rate {result['rate_hz']:.2f} Hz, CV of ISI {result['cv_isi']:.3f}, synchrony {result['synchrony']:.2f}, "
        f"{result['synaptic_events_per_s']:.3g} synaptic events/s ({result['ns_per_event']:.2f} ns each)"
    )
    for label, rate in result["rates_hz"].items():
        cv, beat = result["cv_isi_by_population"][label], result["synchrony_by_population"][label]
        print(f"  {label:6s} {rate:8.3f} Hz   CV {cv:.3f}   synchrony {beat:.2f}")
    if result["interrupted"]:
        print("interrupted by Ctrl-C: the figures cover what was run")


def _finite(value: Any) -> Any:
    """NaN has no place in JSON: it becomes null."""
    if isinstance(value, dict):
        return {k: _finite(v) for k, v in value.items()}
    return None if isinstance(value, float) and not np.isfinite(value) else value


def _write_json(path: str, result: dict[str, Any]) -> None:
    Path(path).parent.mkdir(parents=True, exist_ok=True)
    temporary = f"{path}.part"
    Path(temporary).write_text(json.dumps(_finite(result), indent=2) + "\n")
    os.replace(temporary, path)


def _plot(
    arguments: argparse.Namespace, recorders: dict[str, SpikeRecorder], start_ms: float, length_ms: float
) -> None:
    if importlib.util.find_spec("matplotlib") is None:
        print("no plot: matplotlib is not installed (pip install 'spikeloop[plots]')")
        return
    path = arguments.plot or f"runs/simulate-{arguments.network}.png"
    Path(path).parent.mkdir(parents=True, exist_ok=True)
    title = f"{arguments.network}, scale {arguments.scale:g}, seed {arguments.seed}, {arguments.backend}"
    raster_and_rate(recorders, start_ms, start_ms + min(length_ms, 1000.0), title, path)
    print(f"plot: {path}")
