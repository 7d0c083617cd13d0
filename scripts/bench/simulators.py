#!/usr/bin/env python
"""Compare the event engine with NEST and Brian2 on the same networks, in the same run.

Every simulator runs in its own process; runs are interleaved and the minimum of several is reported. Statistics are
checked before any ratio is printed. Brian2 gets its own environment (it needs numpy < 2.4), made on first use.

    python scripts/bench/simulators.py brunel cuba --repeats 3 --json runs/bench-simulators.json
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import subprocess
import sys
import tempfile
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
BRIAN2 = ("brian2==2.9.0", "numpy<2.4", "setuptools")
# name -> (network arguments, duration in ms, warm-up in ms, relative tolerance of rate and of CV, target ratio)
CASES = {
    "cuba": (["cuba"], 10000.0, 100.0, 0.08, 0.10, 3.0),
    "coba": (["coba", "--seed", "2"], 1000.0, 100.0, 0.10, 0.10, None),
    "brunel-small": (["brunel", "--scale", "0.4"], 1000.0, 200.0, 0.02, 0.03, None),
    "brunel": (["brunel"], 1000.0, 200.0, 0.02, 0.03, 15.0),
    "brunel-exp": (["brunel", "--synapses", "exp"], 1000.0, 200.0, 0.02, 0.03, None),
    "brunel-stdp": (["brunel-stdp"], 500.0, 200.0, 0.10, 0.10, None),
    "microcircuit-0.1": (["microcircuit", "--scale", "0.1"], 1000.0, 500.0, 0.05, 0.05, None),
}


def simulate(arguments: list[str], backend: str, threads: int, duration_ms: float, warmup_ms: float) -> dict:
    """Figures of one run of scripts/simulate.py in a fresh process."""
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "figures.json"
        command = [sys.executable, str(ROOT / "scripts" / "simulate.py"), *arguments, "--no-plot", "--json", str(path)]
        command += ["--backend", backend, "--threads", str(threads)]
        command += ["--duration-ms", str(duration_ms), "--warmup-ms", str(warmup_ms)]
        paths = [str(ROOT), str(ROOT / "datasets"), *os.environ.get("PYTHONPATH", "").split(os.pathsep)]
        environment = os.environ | {"PYTHONPATH": os.pathsep.join(p for p in paths if p)}
        done = subprocess.run(command, capture_output=True, text=True, env=environment, check=False)
        if done.returncode:
            raise RuntimeError(f"{' '.join(command)} failed:\n{done.stderr[-2000:]}")
        return json.loads(path.read_text())


def brian2_python(folder: Path) -> Path:
    """Python of the Brian2 environment, created on first use."""
    python = folder / "bin" / "python"
    if not (folder / "ready").exists():
        print(f"creating {folder} with {', '.join(BRIAN2)}", flush=True)
        subprocess.run([sys.executable, "-m", "venv", "--clear", str(folder)], check=True)
        subprocess.run([str(python), "-m", "pip", "install", "--quiet", *BRIAN2], check=True)
        (folder / "ready").touch()
    return python


def brian2_cuba(python: Path, duration_ms: float, warmup_ms: float, repeats: int) -> list[dict]:
    """Figures of CUBA in Brian2, C++ standalone, one thread: compiled once, run ``repeats`` times by the caller's loop."""
    environment = {k: v for k, v in os.environ.items() if k != "PYTHONPATH"}
    command = [str(python), __file__, "--inside-brian2", str(duration_ms), str(warmup_ms), str(repeats)]
    done = subprocess.run(command, capture_output=True, text=True, env=environment, check=False)
    if done.returncode:
        raise RuntimeError(f"Brian2 failed:\n{done.stderr[-2000:]}")
    return json.loads(done.stdout.splitlines()[-1])


def inside_brian2(duration_ms: float, warmup_ms: float, repeats: int) -> None:
    """The CUBA example of Brian2; runs in Brian2's environment and prints figures as JSON."""
    import brian2 as b
    import numpy as np

    folder = tempfile.mkdtemp()
    b.set_device("cpp_standalone", directory=folder, build_on_run=False)
    b.seed(1)
    b.defaultclock.dt = 0.1 * b.ms
    namespace = {"taum": 20 * b.ms, "taue": 5 * b.ms, "taui": 10 * b.ms, "El": -49 * b.mV}
    equations = """dv/dt = (ge + gi - (v - El))/taum : volt (unless refractory)
    dge/dt = -ge/taue : volt
    dgi/dt = -gi/taui : volt"""
    cells = b.NeuronGroup(
        4000,
        equations,
        threshold="v > -50*mV",
        reset="v = -60*mV",
        refractory=5 * b.ms,
        method="exact",
        namespace=namespace,
    )
    cells.v = "-60*mV + rand()*10*mV"
    excite = b.Synapses(cells, cells, on_pre="ge += 1.62*mV")
    inhibit = b.Synapses(cells, cells, on_pre="gi -= 9*mV")
    excite.connect("i < 3200", p=0.02)
    inhibit.connect("i >= 3200", p=0.02)
    spikes = b.SpikeMonitor(cells)
    net = b.Network(cells, excite, inhibit, spikes)
    net.run(warmup_ms * b.ms)
    net.run(duration_ms * b.ms)
    b.device.build(directory=folder, compile=True, run=False)
    out = []
    for _ in range(repeats):
        b.device.run(folder, with_output=False, run_args=[])
        seconds = b.device._last_run_time * duration_ms / (duration_ms + warmup_ms)
        t, i = np.asarray(spikes.t / b.ms), np.asarray(spikes.i)
        t, i = t[t > warmup_ms], i[t > warmup_ms]
        order = np.lexsort((t, i))
        gaps, same = np.diff(t[order]), np.diff(i[order]) == 0
        owner = i[order][1:][same]
        gaps = gaps[same]
        count = np.bincount(owner, minlength=4000)
        mean = np.bincount(owner, gaps, 4000) / np.maximum(count, 1)
        spread = np.sqrt(np.bincount(owner, (gaps - mean[owner]) ** 2, 4000) / np.maximum(count, 1))
        chosen = count >= 2
        cv = float((spread[chosen] / mean[chosen]).mean())
        out.append({"run_s": seconds, "rate_hz": len(t) / 4000 / (duration_ms * 1e-3), "cv_isi": cv})
    print(json.dumps(out))


def agree(ours: dict, theirs: dict, rate_tolerance: float, cv_tolerance: float) -> bool:
    """Whether rate and CV are within the tolerances; prints both."""
    rate = abs(ours["rate_hz"] / theirs["rate_hz"] - 1)
    cv = abs(ours["cv_isi"] / theirs["cv_isi"] - 1)
    good = rate <= rate_tolerance and cv <= cv_tolerance
    print(
        f"  rate {ours['rate_hz']:.3f} / {theirs['rate_hz']:.3f} Hz ({rate:.1%}, accepted {rate_tolerance:.0%}), "
        f"CV {ours['cv_isi']:.4f} / {theirs['cv_isi']:.4f} ({cv:.1%}, accepted {cv_tolerance:.0%}): "
        f"{'agree' if good else 'DISAGREE'}"
    )
    return good


def label(simulator: str, threads: int) -> str:
    """Name of one column of a comparison."""
    return f"{simulator}, {threads} thread{'s' if threads > 1 else ''}"


def compare(name: str, repeats: int, threads: int, peers: list[str], folder: Path) -> dict:
    """Run one case in all simulators and print its lines."""
    arguments, duration, warmup, rate_tolerance, cv_tolerance, target = CASES[name]
    print(f"{name}: {duration:g} ms after {warmup:g} ms, minimum of {repeats}", flush=True)
    runs: dict[str, list[dict]] = {}
    counts = sorted({1, threads})
    keys = {label("ours", count): ("numba", count) for count in counts}
    if "nest" in peers:
        keys |= {label("NEST", count): ("nest", count) for count in counts}
    python = brian2_python(folder) if name == "cuba" and "brian2" in peers else None
    for repeat in range(repeats):
        for key, (backend, count) in keys.items():
            if repeat and backend == "nest" and runs[key][0]["run_s"] > 60.0:
                continue
            runs.setdefault(key, []).append(simulate(arguments, backend, count, duration, warmup))
        if python is not None:
            runs.setdefault(label("Brian2", 1), []).extend(brian2_cuba(python, duration, warmup, 1))
    best = {key: min(results, key=lambda r: r["run_s"]) for key, results in runs.items()}
    ours, result = best[label("ours", 1)], {"case": name, "best": best, "ratios": {}, "agree": True}
    for key, figures in best.items():
        extra = (
            f", build {figures['build_s']:.2f} s, {figures['ns_per_event']:.2f} ns/event"
            if "build_s" in figures
            else ""
        )
        print(f"  {key:18s} run {figures['run_s']:8.3f} s{extra}")
        if not key.startswith("ours"):
            result["agree"] &= agree(ours, figures, rate_tolerance, cv_tolerance)
    for key, figures in best.items():
        if key.startswith("ours"):
            continue
        if not result["agree"]:
            print("  no ratio: the statistics disagree")
            break
        for mine in (label("ours", count) for count in counts):
            ratio = figures["run_s"] / best[mine]["run_s"]
            result["ratios"][f"{key} / {mine}"] = ratio
            print(f"  {key} / {mine}: {ratio:.1f}" + (f" (target {target:g})" if target else ""))
    return result


def main() -> int:
    """Run the chosen cases; returns 1 when statistics disagree."""
    if len(sys.argv) == 5 and sys.argv[1] == "--inside-brian2":
        inside_brian2(float(sys.argv[2]), float(sys.argv[3]), int(sys.argv[4]))
        return 0
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("cases", nargs="*", default=["cuba", "brunel"], help=f"of {', '.join(CASES)}")
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--threads", type=int, default=min(2, os.cpu_count() or 1))
    parser.add_argument("--peers", nargs="*", default=["nest", "brian2"], choices=("nest", "brian2"))
    parser.add_argument("--environments", type=Path, default=Path("runs/bench-environments"), help="for Brian2")
    parser.add_argument("--json", type=Path)
    arguments = parser.parse_args()
    for case in arguments.cases:
        if case not in CASES:
            parser.error(f"unknown case {case!r}; accepted: {', '.join(CASES)}")
    folder = (arguments.environments / "brian2").absolute()
    results = [compare(c, arguments.repeats, arguments.threads, arguments.peers, folder) for c in arguments.cases]
    if arguments.json:
        machine = {"processor": platform.processor() or platform.machine(), "cores": os.cpu_count()}
        arguments.json.parent.mkdir(parents=True, exist_ok=True)
        arguments.json.write_text(json.dumps({"machine": machine, "results": results}, indent=2) + "\n")
    return 0 if all(r["agree"] for r in results) else 1


if __name__ == "__main__":
    sys.exit(main())
