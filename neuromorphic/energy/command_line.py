"""The command `spikeloop energy`: counts a trained run and prices it on models and chips."""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Sequence
from pathlib import Path

_MODELS = "45nm,bit-budget,lemaire,snn-or-qnn,neurobench"


def parser() -> argparse.ArgumentParser:
    """Arguments of the command."""
    out = argparse.ArgumentParser(
        prog="spikeloop energy",
        description="Count what a trained network does on test data, and price it with energy models and chips.",
    )
    out.add_argument("run", nargs="*", metavar="RUN", help="run folders of spikeloop train; several are compared")
    out.add_argument("--network", metavar="MODULE:FUNCTION", help="instead of a run: a function that returns a network")
    out.add_argument("--data", default="digits", help="with --network: data set of spikedata (default: digits)")
    out.add_argument("--steps", type=int, default=4, help="with --network: time steps T (default: 4)")
    out.add_argument("--targets", default="all", help="data sheets of chips, comma-separated; all or none")
    out.add_argument("--models", default=_MODELS, help=f"energy models, comma-separated (default: {_MODELS})")
    out.add_argument("--samples", type=int, default=100, help="test inputs to count (default: 100)")
    out.add_argument("--fps", type=float, help="wanted inferences per second, for duty cycle and static energy")
    out.add_argument("--pictured", default="45nm", help="model of the pictures per layer (default: 45nm)")
    out.add_argument("--json", metavar="FILE", help="write all counts and estimates here")
    out.add_argument("--html", metavar="FILE", help="write a report with pictures here, one self-contained file")
    return out


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command and return its exit code: 0, or 2 for a user's mistake."""
    given = parser().parse_args(arguments)
    try:
        return _run(given)
    except (ValueError, TypeError, OSError, NotImplementedError) as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    except ImportError as error:
        if "pip install" not in str(error):
            raise
        print(f"error: {error}", file=sys.stderr)
        return 2


def _run(given: argparse.Namespace) -> int:
    from neuromorphic.energy.estimating import MODELS
    from neuromorphic.energy.html import html_of
    from neuromorphic.energy.report import make_report, text_of
    from neuromorphic.energy.runs import from_function, from_run
    from neuromorphic.targets import load, names
    from snn.errors import closest
    from snn.training.atomic_write import write_text

    if bool(given.run) == bool(given.network):
        raise ValueError("give either run folders or --network package.module:function")
    models = [name for name in given.models.split(",") if name]
    for name in models:
        if name not in MODELS:
            raise ValueError(f"--models: unknown {name!r}{closest(name, MODELS)}")
    targets = names() if given.targets == "all" else [n for n in given.targets.split(",") if n and n != "none"]
    for target in targets:
        load(target)  # a wrong name is found before anything is counted
    for file in (given.json, given.html):
        if file and not Path(file).parent.is_dir():
            raise ValueError(f"{file}: the folder {Path(file).parent} does not exist")
    if given.network:
        cases = [from_function(given.network, given.data, given.steps, given.samples)]
    else:
        cases = [from_run(folder, given.samples) for folder in given.run]
    reports = [make_report(case, models, targets, given.fps) for case in cases]
    print("\n\n".join(text_of(report) for report in reports))
    if given.json:
        values = {"runs": [report.to_dict() for report in reports]}
        write_text(Path(given.json), json.dumps(values) + "\n")
        print(f"\nJSON: {given.json}")
    if given.html:
        write_text(Path(given.html), html_of(reports, given.pictured))
        print(f"report: {given.html}")
    return 0
