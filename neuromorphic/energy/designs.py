"""Trained comparisons of ways to spend bits: on weights, on spikes, on time steps."""

from __future__ import annotations

import json
import statistics
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

from neuromorphic.energy.counts import Counts
from neuromorphic.energy.estimating import estimate
from neuromorphic.energy.models.bits import bit_budget, levels
from neuromorphic.energy.pictures import pareto
from snn.training.recipe import Recipe

NETWORK = "neuromorphic.energy.quantised.QuantisedNet"


@dataclass(frozen=True)
class Design:
    """One way to spend bits.

    Attributes:
        name: for tables.
        weight_bits: of all weights.
        spike_bits: of spikes or activations; None for float rectifiers, charged with 32 bits.
        steps: T.
    """

    name: str
    weight_bits: int
    spike_bits: int | None
    steps: int

    @property
    def budget(self) -> int:
        """Bit Budget."""
        return bit_budget(self.weight_bits, self.spike_bits or 32, self.steps)

    @property
    def activation_levels(self) -> int | None:
        """Values that the mean output of a neuron can take; None for float."""
        return None if self.spike_bits is None else levels(self.steps, self.spike_bits)


@dataclass(frozen=True)
class Outcome:
    """A trained design.

    Attributes:
        design: what was trained.
        accuracies: test accuracy of each seed.
        s_ace, ns_ace: bit operations per inference, mean over seeds.
        rate: share of non-zero inputs of the layers behind neurons, mean over seeds.
        energies_pj: typical energy by model, mean over seeds; models that refuse are left out.
        seconds: training time of all seeds.
    """

    design: Design
    accuracies: tuple[float, ...]
    s_ace: float
    ns_ace: float
    rate: float
    energies_pj: dict[str, float]
    seconds: float

    @property
    def accuracy(self) -> float:
        """Mean over the seeds."""
        return statistics.fmean(self.accuracies)

    @property
    def spread(self) -> float:
        """Standard deviation over the seeds; 0 for one seed."""
        return statistics.stdev(self.accuracies) if len(self.accuracies) > 1 else 0.0


def designs_of_budget(
    budget: int, weight_bits: Sequence[int], most_steps: int = 16, most_spike_bits: int = 8
) -> list[Design]:
    """All designs whose Bit Budget b_w b_s T is `budget`.

    Args:
        budget: to spend.
        weight_bits: widths of weights to try.
        most_steps, most_spike_bits: limits.
    Raises: ValueError if there is none.
    """
    found = [
        Design(f"{w}-bit weights, {s}-bit spikes, {budget // (w * s)} steps", w, s, budget // (w * s))
        for w in weight_bits
        for s in range(1, most_spike_bits + 1)
        if budget % (w * s) == 0 and budget // (w * s) <= most_steps
    ]
    if not found:
        raise ValueError(
            f"designs_of_budget: no b_w b_s T = {budget} with weight bits {list(weight_bits)}, at most "
            f"{most_spike_bits} spike bits and {most_steps} steps"
        )
    return found


def train_designs(
    recipe: Recipe,
    designs: Sequence[Design],
    folder: str | Path,
    seeds: Sequence[int] = (0,),
    samples: int = 360,
    models: Sequence[str] = ("45nm", "lemaire"),
    report: Callable[[str], None] = print,
) -> list[Outcome]:
    """Train every design with the same recipe and seeds, count each on test data and price it.

    Runs are kept in `folder`, one per design and seed; finished ones are not repeated.

    Args:
        recipe: everything but network widths, steps and seed; `network` holds further arguments of `QuantisedNet`.
        designs: to train.
        folder: of the runs.
        seeds: of each design.
        samples: test inputs to count.
        models: names for `estimate`, besides "bit-budget".
        report: receives one line per run.
    """
    return [_train(recipe, design, Path(folder), seeds, samples, models, report) for design in designs]


def sweep(
    recipe: Recipe,
    budget: int,
    folder: str | Path,
    weight_bits: Sequence[int] = (1, 2, 4, 8),
    seeds: Sequence[int] = (0,),
    samples: int = 360,
    report: Callable[[str], None] = print,
) -> list[Outcome]:
    """Train every split of one Bit Budget; see `designs_of_budget` and `train_designs`."""
    designs = designs_of_budget(budget, weight_bits)
    return train_designs(recipe, designs, folder, seeds, samples, report=report)


def _train(
    recipe: Recipe,
    design: Design,
    folder: Path,
    seeds: Sequence[int],
    samples: int,
    models: Sequence[str],
    report: Callable[[str], None],
) -> Outcome:
    from neuromorphic.energy.counting import count
    from neuromorphic.energy.runs import from_run
    from snn.training.run import train

    accuracies, seconds, found = [], 0.0, []
    for seed in seeds:
        spike = "float" if design.spike_bits is None else design.spike_bits
        run = folder / f"w{design.weight_bits}-s{spike}-T{design.steps}-seed{seed}"
        if not (run / "metrics.json").is_file():
            # What the recipe's own network has in common with QuantisedNet is its shape.
            shape = {key: value for key, value in recipe.network.items() if key in ("channels", "hidden", "decay")}
            network = {"class": NETWORK, **shape, "weight_bits": design.weight_bits, "spike_bits": design.spike_bits}
            encoding = replace(recipe.encoding, steps=design.steps)
            train(
                replace(recipe, network=network, encoding=encoding, seed=seed), run, resume=True, report=lambda _: None
            )
        metrics = json.loads((run / "metrics.json").read_text(encoding="utf-8"))
        accuracies.append(metrics["test_accuracy"])
        seconds += metrics["train_seconds"]
        case = from_run(run, samples)
        found.append(count(case.network, case.x, input_signal=case.input_signal, call=case.call))
        report(f"{design.name}, seed {seed}: {metrics['test_accuracy']:.2%}, {metrics['train_seconds']:.1f} s")
    effort = [estimate(counts, "bit-budget") for counts in found]
    return Outcome(
        design,
        tuple(accuracies),
        s_ace=statistics.fmean(e.total.high for e in effort),
        ns_ace=statistics.fmean(e.total.typical for e in effort),
        rate=statistics.fmean(_rate(counts) for counts in found),
        energies_pj={model: statistics.fmean(_energy(counts, design, model) for counts in found) for model in models},
        seconds=seconds,
    )


def _energy(counts: Counts, design: Design, model: str) -> float:
    """Typical energy with arithmetic as wide as the design: float for float, int8 where all widths are at most 8."""
    options: dict[str, Any] = {}
    is_float = design.spike_bits is None
    if model == "45nm":
        options = {"precision": "fp32" if is_float else "int8"}
    elif model == "lemaire":
        options = {"bits": 32, "precision": "fp32"} if is_float else {"bits": 8, "analog_once": counts.steps == 1}
    return estimate(counts, model, **options).total.typical


def _rate(counts: Counts) -> float:
    inner = [layer for layer in counts.connections if layer.inputs != ("input",)]
    events = sum(layer.total("input_events") for layer in inner)
    entries = sum(layer.samples * layer.steps * _size(layer.input_shape) for layer in inner)
    return events / entries if entries else 0.0


def _size(shape: tuple[int, ...]) -> int:
    size = 1
    for axis in shape:
        size *= axis
    return size


def table(outcomes: Sequence[Outcome]) -> str:
    """A Markdown table; a star marks designs on the Pareto front of accuracy over NS-ACE."""
    front = set(pareto([(o.ns_ace, o.accuracy) for o in outcomes]))
    models = list(dict.fromkeys(model for o in outcomes for model in o.energies_pj))
    head = ["design", "b_w", "b_s", "T", "budget", "levels", "accuracy %", "rate", "S-ACE k", "NS-ACE k"]
    head += [f"{model} nJ" for model in models]
    lines = [f"| {' | '.join(head)} | Pareto |", "|---" * (len(head) + 1) + "|"]
    for o in outcomes:
        d = o.design
        accuracy = f"{100 * o.accuracy:.2f}" + (f" ± {100 * o.spread:.2f}" if len(o.accuracies) > 1 else "")
        cells = [d.name, str(d.weight_bits), "float" if d.spike_bits is None else str(d.spike_bits), str(d.steps)]
        cells += [str(d.budget), "-" if d.activation_levels is None else str(d.activation_levels), accuracy]
        cells += [f"{o.rate:.3f}", f"{o.s_ace / 1e3:,.0f}", f"{o.ns_ace / 1e3:,.0f}"]
        cells += [f"{o.energies_pj[model] / 1e3:,.1f}" for model in models]
        lines.append(f"| {' | '.join(cells)} | {'*' if (o.ns_ace, o.accuracy) in front else ''} |")
    return "\n".join(lines)


def picture(outcomes: Sequence[Outcome], title: str, path: str | Path) -> None:
    """Accuracy over NS-ACE with the Pareto front, as a PNG file."""
    from neuromorphic.energy.pictures import figure_and_axes, png_of
    from snn.training.atomic_write import replacing

    figure, (axis,) = figure_and_axes((7.5, 4.8))
    for w in sorted({o.design.weight_bits for o in outcomes}):
        group = [o for o in outcomes if o.design.weight_bits == w]
        axis.errorbar(
            [o.ns_ace / 1e3 for o in group],
            [100 * o.accuracy for o in group],
            yerr=[100 * o.spread for o in group],
            fmt="o",
            capsize=2,
            label=f"{w}-bit weights",
        )
    for o in outcomes:
        spike = "float" if o.design.spike_bits is None else f"{o.design.spike_bits} bit"
        axis.annotate(
            f"{spike} x {o.design.steps}",
            (o.ns_ace / 1e3, 100 * o.accuracy),
            fontsize=7,
            xytext=(5, 4),
            textcoords="offset points",
        )
    front = pareto([(o.ns_ace / 1e3, 100 * o.accuracy) for o in outcomes])
    axis.plot([x for x, _ in front], [y for _, y in front], color="black", lw=0.9, ls="--", label="Pareto front")
    if max(o.ns_ace for o in outcomes) > 5 * min(o.ns_ace for o in outcomes):
        axis.set_xscale("log")
    axis.margins(x=0.12)
    axis.set_xlabel("NS-ACE per inference (thousand bit operations)")
    axis.set_ylabel("test accuracy in %")
    axis.set_title(title)
    axis.grid(alpha=0.3)
    axis.legend(fontsize=8, loc="best")
    with replacing(Path(path)) as temporary:
        temporary.write_bytes(png_of(figure))


def to_dict(outcomes: Sequence[Outcome]) -> list[dict[str, Any]]:
    """Plain values."""
    return [asdict(o) | {"accuracy": o.accuracy, "spread": o.spread, "budget": o.design.budget} for o in outcomes]
