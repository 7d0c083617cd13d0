#!/usr/bin/env python
"""Cost of a synaptic event from a million to hundreds of millions of synapses, each with its own weight and delay.

Every size is Brunel's network with an in-degree of 800 + 200 and more or fewer neurons, so that only the size differs
between rows. Each runs in a fresh process for about the same number of synaptic events.

    python scripts/bench/scaling.py --threads 1 --json runs/bench-scaling.json
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
from pathlib import Path

SIZES = (1_000, 10_000, 100_000, 300_000)  # neurons; a thousand synapses each
EVENTS = 1e9
EXPECTED_RATE_HZ = 33.0
WARMUP_MS = 100.0


def measure(neurons: int, threads: int, seed: int) -> dict[str, float]:
    """Figures of one size, in this process."""
    from neuromorphic import Network
    from neuromorphic.engine import FixedInDegree, Normal, Uniform
    from neuromorphic.engine.report import peak_bytes

    net = Network(dt_ms=0.1, seed=seed, threads=threads)
    cell = {"tau_m": 20.0, "E_L": 0.0, "V_th": 20.0, "V_reset": 0.0, "t_ref": 2.0}
    excitatory = net.population("iaf_psc_delta", neurons * 4 // 5, **cell)
    inhibitory = net.population("iaf_psc_delta", neurons // 5, **cell)
    delay_ms = Uniform(1.0, 2.0)
    for post in (excitatory, inhibitory):
        net.connect(excitatory, post, FixedInDegree(800), weight=Normal(0.1, 0.01, low=0.0), delay_ms=delay_ms)
        net.connect(inhibitory, post, FixedInDegree(200), weight=Normal(-0.5, 0.05, high=0.0), delay_ms=delay_ms)
        net.drive_poisson(post, 20_000.0, 0.1)
    net.run(WARMUP_MS)
    report = net.run(round(EVENTS / (neurons * 1_000 * EXPECTED_RATE_HZ * 1e-3), 1))
    return {
        "neurons": neurons,
        "synapses": report.synapses,
        "rate_hz": sum(report.spikes.values()) / neurons / (report.duration_ms * 1e-3),
        "duration_ms": report.duration_ms,
        "build_s": report.build_s,
        "run_s": report.run_s,
        "synaptic_events": report.synaptic_events,
        "ns_per_event": report.ns_per_event,
        "bytes_per_synapse": report.bytes_per_synapse,
        "peak_bytes": peak_bytes(),
    }


def main() -> None:
    """Measures every size and prints the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--sizes", type=int, nargs="+", default=SIZES, help="neurons, multiples of 5")
    parser.add_argument("--json", type=Path, help="also write the rows to this file")
    parser.add_argument("--one", type=int, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.one:
        print(json.dumps(measure(options.one, options.threads, options.seed)))
        return
    rows = []
    print(
        f"{'synapses':>12} {'rate Hz':>8} {'build s':>8} {'run s':>8} {'ns/event':>9} {'B/synapse':>10} {'peak GB':>8}"
    )
    for neurons in options.sizes:
        command = [sys.executable, __file__, "--one", str(neurons), "--threads", str(options.threads)]
        done = subprocess.run([*command, "--seed", str(options.seed)], check=True, capture_output=True, text=True)
        row = json.loads(done.stdout)
        rows.append(row)
        print(
            f"{row['synapses']:12.3g} {row['rate_hz']:8.2f} {row['build_s']:8.2f} {row['run_s']:8.2f} "
            f"{row['ns_per_event']:9.2f} {row['bytes_per_synapse']:10.2f} {row['peak_bytes'] / 1e9:8.2f}",
            flush=True,
        )
    costs = [row["ns_per_event"] for row in rows]
    print(f"dearest / cheapest event: {max(costs) / min(costs):.2f}")
    if options.json:
        options.json.parent.mkdir(parents=True, exist_ok=True)
        options.json.write_text(json.dumps(rows, indent=1) + "\n")


if __name__ == "__main__":
    main()
