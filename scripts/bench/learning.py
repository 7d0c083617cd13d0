"""Times training steps of each learning rule, optimiser included, beside backpropagation in the same run.

python scripts/bench/learning.py [--json FILE] [--repeats N] [--threads N] [--network mlp|cnn|all]
python scripts/bench/learning.py --events [--json FILE]

The networks and batches are those of the recipes mnist_dual_mlp and cifar10_dual_cnn, with random images. Rules take turns,
so a change in the machine's speed meets all of them. Before anything is timed, dual propagation with a small nudge is
compared in float64 with the gradient of every layer.
"""

from __future__ import annotations

import argparse
import copy
import json
import statistics
import sys
import time
from pathlib import Path

import torch
from torch import nn

from snn.learning import CreditRule, EventDualPropagation, gradient_alignment, make_rule
from snn.models import AnalogMLP, AnalogVGG
from snn.training.loss import SequenceLoss

RULES: dict[str, tuple[str, dict[str, object]]] = {
    "bp": ("bp", {}),
    "dual_propagation": ("dual_propagation", {}),
    "dual_propagation, mean presynaptic": ("dual_propagation", {"presynaptic": "mean"}),
    "fa": ("fa", {}),
    "sign_symmetric": ("sign_symmetric", {}),
    "dfa": ("dfa", {}),
    "eqprop, 20 + 20 sweeps": ("eqprop", {}),
    "flexible_phase, 10 sweeps": ("flexible_phase", {}),
}
SLOW = ("eqprop", "flexible_phase")


def problem(name: str) -> tuple[nn.Module, torch.Tensor, torch.Tensor, str]:
    """The network of a recipe, a batch, and the name of its loss."""
    torch.manual_seed(0)
    labels = torch.randint(10, (100,))
    if name == "mlp":
        return AnalogMLP((1, 28, 28), 10, [1000] * 4), torch.rand(1, 100, 1, 28, 28), labels, "squared_error"
    net = AnalogVGG((3, 32, 32), 10, [[32], [48, 48], [96, 96]], [256])
    return net, torch.randn(1, 100, 3, 32, 32), labels, "cross_entropy"


def check(net: nn.Module, x: torch.Tensor, labels: torch.Tensor, loss: SequenceLoss) -> float:
    """Smallest cosine of any layer between dual propagation at beta = 1e-6 and the gradient; ends the run below 0.9999."""
    exact = make_rule("dual_propagation", loss, {"beta": 1e-6})
    found = gradient_alignment(copy.deepcopy(net).double(), exact, x[:, :10].double(), labels[:10])
    least = min(alignment.cosine for alignment in found.values())
    if least < 0.9999:
        sys.exit(f"dual propagation at beta = 1e-6 has cosine {least} with the gradient: nothing is timed")
    return least


def seconds(
    rule: CreditRule, net: nn.Module, optimizer: torch.optim.Optimizer, x: torch.Tensor, y: torch.Tensor
) -> float:
    start = time.perf_counter()
    optimizer.zero_grad()
    rule(net, x, y, lambda loss: loss.backward())
    optimizer.step()
    return time.perf_counter() - start


def measure(name: str, repeats: int) -> list[dict[str, object]]:
    net, x, labels, loss_name = problem(name)
    loss = SequenceLoss(loss_name)  # type: ignore[arg-type]
    cosine = check(net, x, labels, loss)
    work = {title: make_rule(rule_name, loss, options) for title, (rule_name, options) in RULES.items()}
    # A learning rate of zero keeps the weights, so that all steps are the same work; one network for all rules, since
    # several would push each other out of the cache.
    optimizer = torch.optim.Adam(net.parameters(), lr=0.0)
    times: dict[str, list[float]] = {title: [] for title in work}
    for turn in range(-2, repeats):
        for title, rule in work.items():
            if RULES[title][0] in SLOW and turn > max(1, repeats // 10):
                continue
            taken = seconds(rule, net, optimizer, x, labels)
            if turn >= 0:
                times[title].append(taken)
    base = statistics.median(times["bp"])
    return [
        {
            "network": name,
            "rule": title,
            "milliseconds": round(1e3 * statistics.median(taken), 2),
            "ratio": round(statistics.median(taken) / base, 3),
            "turns": len(taken),
            "threads": torch.get_num_threads(),
            "least_cosine_at_small_beta": cosine,
        }
        for title, taken in times.items()
    ]


def events() -> list[dict[str, object]]:
    """Dual propagation by events beside its graded form: network 20-32-32-5, 64 samples, float64, beta 0.5."""
    torch.manual_seed(0)
    net = nn.Sequential(*(nn.Linear(20, 32), nn.ReLU(), nn.Linear(32, 32), nn.ReLU(), nn.Linear(32, 5))).double()
    for layer in net:
        if isinstance(layer, nn.Linear):
            nn.init.kaiming_normal_(layer.weight)
            nn.init.zeros_(layer.bias)
    x, labels = torch.randn(64, 20, dtype=torch.float64), torch.randint(5, (64,))

    def update(rule: CreditRule) -> torch.Tensor:
        net.zero_grad()
        rule(net, x, labels, lambda loss: loss.backward())
        return torch.cat([parameter.grad.flatten() for parameter in net.parameters() if parameter.grad is not None])

    graded = update(make_rule("dual_propagation", options={"beta": 0.5}))
    rows: list[dict[str, object]] = []
    for steps in (2, 4, 8, 16, 32):
        rule = EventDualPropagation(None, EventDualPropagation.Options(steps=steps))
        cosine = float(torch.cosine_similarity(update(rule), graded, 0))
        assert rule.counts is not None
        per_sample = {key: round(getattr(rule.counts, key) / len(labels), 1) for key in ("activity", "difference")}
        rows.append({"steps": steps, "cosine": round(cosine, 4), **per_sample})
    return rows


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--json", type=Path, help="write the results to this file")
    parser.add_argument("--repeats", type=int, default=30, help="turns of each rule")
    parser.add_argument("--threads", type=int, default=1, help="threads of torch")
    parser.add_argument("--network", choices=("mlp", "cnn", "all"), default="all")
    parser.add_argument("--events", action="store_true", help="count the events of the spiking form; times nothing")
    arguments = parser.parse_args()
    if arguments.repeats < 1 or arguments.threads < 1:
        parser.error("--repeats and --threads must be >= 1")
    torch.set_num_threads(arguments.threads)
    rows: list[dict[str, object]] = []
    if arguments.events:
        rows = events()
        print("steps   cosine with the graded update   events per sample, up   down")
        for row in rows:
            print(f"{row['steps']:>5}   {row['cosine']:>30}   {row['activity']:>21}   {row['difference']:>4}")
        _save(arguments.json, rows)
        return
    for name in ("mlp", "cnn") if arguments.network == "all" else (arguments.network,):
        found = measure(name, arguments.repeats)
        print(f"\n{name}: cosine of dual propagation at beta = 1e-6 with the gradient, least of all layers: ", end="")
        print(f"{found[0]['least_cosine_at_small_beta']:.9f}")
        for row in found:
            print(f"{row['rule']!s:<36} {row['milliseconds']:>9} ms per step   {row['ratio']:>7} of bp")
        rows += found
    _save(arguments.json, rows)


def _save(path: Path | None, rows: list[dict[str, object]]) -> None:
    if path is not None:
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(json.dumps(rows, indent=2) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
