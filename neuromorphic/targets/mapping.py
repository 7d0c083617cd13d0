"""The outcome of a placement: what lies where, what it uses, and what it costs."""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass
from typing import Any

from neuromorphic.targets.placement import Refusal
from neuromorphic.targets.placement_energy import EnergyTerm
from snn.errors import UnsupportedError


class MappingError(UnsupportedError):
    """A network that does not fit; `refusals` are the broken limits, `suggestion` the smallest change that fits."""

    def __init__(self, target: str, refusals: tuple[Refusal, ...], suggestion: str) -> None:
        lines = "".join(f"\n- {refusal}" for refusal in refusals)
        super().__init__(
            f"{target}: the network does not fit{lines}" + (f"\nsuggestion: {suggestion}" if suggestion else "")
        )
        self.refusals = refusals
        self.suggestion = suggestion


@dataclass(frozen=True)
class LayerPlacement:
    """One layer on the chip.

    Attributes:
        name: of the connection.
        cores: indices of the cores that hold it, in the order of its blocks; empty where a chip has no cores to fill.
        neurons, synapses: of the layer; synapses as they act, shared or not.
        input_axons, output_axons, words: summed over its blocks.
    """

    name: str
    cores: tuple[int, ...]
    neurons: int
    synapses: int
    input_axons: int
    output_axons: int
    words: int


@dataclass(frozen=True)
class Mapping:
    """A network placed on a chip; rates and energies are per inference, means over the counted samples.

    Attributes:
        target, title: of the data sheet.
        weight_bits: bits of a stored weight.
        layers: see `LayerPlacement`.
        cores_used, cores_available: None where the sheet names no cores with limits.
        utilisation: share of each limit that the used cores fill.
        messages: spikes times receiving cores; between_cores: those that leave their core; hops_x, hops_y: tile borders.
        traffic: (from core, to core, messages), largest first.
        step_us: length of a time step, None where nothing states it; step_origin: where it comes from.
        latency_us: first input to last output.
        duty_cycle: share of the time that the chip computes at the wanted frame rate.
        energy: addends, None where the sheet prices no total; energy_note: why, or what to know.
        static_mw: static power, None where unknown.
        notes: warnings.
    """

    target: str
    title: str
    weight_bits: int
    layers: tuple[LayerPlacement, ...]
    cores_used: int | None
    cores_available: int | None
    utilisation: dict[str, float]
    messages: float
    between_cores: float
    hops_x: float
    hops_y: float
    traffic: tuple[tuple[int, int, float], ...]
    step_us: float | None
    step_origin: str
    latency_us: float | None
    duty_cycle: float | None
    energy: tuple[EnergyTerm, ...] | None
    energy_note: str
    static_mw: float | None
    notes: tuple[str, ...]

    @property
    def energy_pj(self) -> tuple[float, float, float] | None:
        """Low, typical and high sum of the addends, None where there is no total."""
        if self.energy is None:
            return None
        return (
            sum(term.low_pj for term in self.energy),
            sum(term.typical_pj for term in self.energy),
            sum(term.high_pj for term in self.energy),
        )

    @property
    def dynamic_pj(self) -> tuple[float, float, float] | None:
        """The same without static energy; None where there is no total."""
        if self.energy is None:
            return None
        terms = [term for term in self.energy if term.term != "static"]
        return (
            sum(term.low_pj for term in terms),
            sum(term.typical_pj for term in terms),
            sum(term.high_pj for term in terms),
        )

    def to_dict(self) -> dict[str, Any]:
        """Plain values, with `energy_pj`."""
        return {**asdict(self), "energy_pj": self.energy_pj}

    def to_json(self) -> str:
        """Everything as JSON text."""
        return json.dumps(self.to_dict())

    def __str__(self) -> str:
        cores = "" if self.cores_used is None else f", {self.cores_used} of {self.cores_available} cores"
        lines = [f"{self.title}: {self.weight_bits}-bit weights{cores}"]
        width = max([len(layer.name) for layer in self.layers], default=5)
        lines.append(f"{'layer':<{width}}  {'cores':>5}  {'neurons':>8}  {'synapses':>10}  {'axons':>8}  {'words':>8}")
        lines += [
            f"{layer.name:<{width}}  {len(set(layer.cores)):>5}  {layer.neurons:>8}  {layer.synapses:>10}  "
            f"{layer.input_axons:>8}  {layer.words:>8}"
            for layer in self.layers
        ]
        lines += [f"{name}: {100 * share:.1f} % of the used cores" for name, share in self.utilisation.items()]
        lines.append(
            f"messages: {self.messages:.0f}, between cores {self.between_cores:.0f}, "
            f"hops {self.hops_x:.0f} east-west and {self.hops_y:.0f} north-south"
        )
        if self.latency_us is not None:
            lines.append(f"step {self.step_us:.3g} us ({self.step_origin}), latency {self.latency_us:.4g} us")
        if self.duty_cycle is not None:
            lines.append(f"duty cycle {100 * self.duty_cycle:.3g} %")
        for term in self.energy or ():
            lines.append(
                f"{term.term}: {term.typical_pj / 1e3:.4g} nJ ({term.low_pj / 1e3:.4g} to {term.high_pj / 1e3:.4g})"
            )
        if self.energy_pj is not None:
            low, typical, high = (value / 1e3 for value in self.energy_pj)
            lines.append(f"energy per inference: {typical:.4g} nJ ({low:.4g} to {high:.4g})")
        if self.static_mw is not None:
            lines.append(f"static power: {self.static_mw:g} mW")
        lines += [text for text in (self.energy_note, *self.notes) if text]
        return "\n".join(lines)
