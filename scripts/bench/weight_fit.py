"""What the fit of weights brings to calibration-advanced on the digits: python scripts/bench/weight_fit.py --json FILE

A small ReLU network is trained per seed, then converted with and without the fit for several T; accuracy and the relative
error of the logits are those of the 500 test images (training uses the other 1,297).
"""

import argparse
import json
import platform
import sys
import time
from pathlib import Path
from typing import Any

import torch
from torch import nn

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))
sys.path.insert(0, str(Path(__file__).resolve().parents[2] / "tests" / "conversion"))

from digits_network import digits, trained_on_digits

import snn


def measured(net: nn.Module, T: int, iterations: int, rate: float) -> dict[str, Any]:
    """Accuracy in percent, relative error of the logits in percent, and the seconds of the conversion."""
    x, _, test, labels = digits()
    start = time.perf_counter()
    network = snn.convert(
        net, "calibration-advanced", x[:1000], T=T, weights=iterations, learning_rate=rate, samples=250
    ).snn
    seconds = time.perf_counter() - start
    with torch.no_grad():
        logits, wanted = network(test), net(test)
    return {
        "T": T,
        "weights": iterations,
        "learning_rate": rate,
        "accuracy": (logits.argmax(1) == labels).double().mean().item() * 100,
        "logit_error": ((logits - wanted).norm() / wanted.norm()).item() * 100,
        "seconds": round(seconds, 2),
        "note": network.notes[-1] if network.notes else "",
    }


def main() -> None:
    options = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    options.add_argument("--iterations", type=int, default=1000)
    options.add_argument("--rates", type=float, nargs="+", default=[1e-5, 1e-3])
    options.add_argument("--steps", type=int, nargs="+", default=[2, 4, 8])
    options.add_argument("--seeds", type=int, default=2)
    options.add_argument("--json", metavar="FILE")
    given = options.parse_args()
    rows = []
    for seed in range(given.seeds):
        net = trained_on_digits(nn.ReLU, seed=seed)
        for T in given.steps:
            for iterations, rate in [(0, given.rates[0]), *((given.iterations, rate) for rate in given.rates)]:
                rows.append({"seed": seed, **measured(net, T, iterations, rate)})
                shown = {key: value for key, value in rows[-1].items() if key != "note"}
                print(" ".join(f"{key}={value:.4g}" for key, value in shown.items()), flush=True)
    if given.json:
        machine = {"machine": platform.processor() or platform.machine(), "torch": torch.__version__}
        Path(given.json).write_text(json.dumps({**machine, "rows": rows}, indent=2) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
