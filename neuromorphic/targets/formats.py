"""What integers a target computes with: widths, ranges and the kind of neuron."""

from __future__ import annotations

from dataclasses import dataclass

from neuromorphic.targets.sheet import Target, load
from snn.errors import UnsupportedError


@dataclass(frozen=True)
class IntegerFormat:
    """Integers of a target, from its data sheet or chosen freely.

    `IntegerFormat(weight_bits=8, state_bits=16)` is plain fixed point of any widths.

    Attributes:
        name: shown in reports and messages.
        kind: neuron: "fixed-point", "cuba", "bit-shift" or "event-if".
        weight_bits: width of a stored weight with its sign.
        weight_low, weight_high: its range; None takes two's complement without the lowest number.
        weight_step: stored weights are multiples of it.
        state_bits, decay_bits: widths of the neuron's states and of a decay's fraction.
        threshold_max: largest threshold (mantissa); None is the state's largest number.
        resets: reset kinds that the neuron has.
        models: families of neurons that it can be ("if", "lif", "cuba", "any").
        graded: spikes may carry numbers, so an analog input can be sent as integers of `input_bits`.
        most_spikes: largest count of one neuron in one step.
        rounding: of decay products, for fixed point.
        input_bits: width of an analog input without its sign.
    """

    weight_bits: int = 8
    state_bits: int = 16
    decay_bits: int = 12
    name: str = "fixed point"
    kind: str = "fixed-point"
    weight_low: int | None = None
    weight_high: int | None = None
    weight_step: int = 1
    threshold_max: int | None = None
    resets: tuple[str, ...] = ("zero", "subtract")
    models: tuple[str, ...] = ("any",)
    graded: bool = True
    most_spikes: int = 1
    rounding: str = "toward_zero"
    input_bits: int = 8

    def __post_init__(self) -> None:
        for name, low, high in (
            ("weight_bits", 2, 24),
            ("state_bits", 4, 40),
            ("decay_bits", 1, 15),
            ("input_bits", 1, 16),
        ):
            value = getattr(self, name)
            if not isinstance(value, int) or not low <= value <= high:
                raise ValueError(f"IntegerFormat: {name} must be a whole number in {low}..{high}, got {value!r}")

    @property
    def weight_range(self) -> tuple[int, int]:
        """Lowest and highest stored weight."""
        top = 2 ** (self.weight_bits - 1) - 1
        low = -top if self.weight_low is None else self.weight_low
        return low, top if self.weight_high is None else self.weight_high

    @property
    def state_high(self) -> int:
        """Largest number of a state."""
        return 2 ** (self.state_bits - 1) - 1


def format_of(target: Target | IntegerFormat | str) -> IntegerFormat:
    """The integers of a target.

    Args:
        target: a data sheet, its name or path, or a format, which is returned as it is.
    Raises: UnsupportedError if the sheet names no integer neuron or does not state a width that is needed.
    """
    if isinstance(target, IntegerFormat):
        return target
    sheet = target if isinstance(target, Target) else load(target)
    kind = sheet.require("neuron.arithmetic", "integer execution").value
    if kind not in ("cuba", "bit-shift", "event-if", "fixed-point"):
        entry = sheet.entry("neuron.arithmetic")
        note = f" ({entry.note})" if entry is not None and entry.note else ""
        raise UnsupportedError(
            f"{sheet.name}: its data sheet gives neuron.arithmetic = {kind!r}{note}; networks are quantised for "
            "'cuba', 'bit-shift', 'event-if' and 'fixed-point'"
        )
    low, high = sheet.value("weights.low"), sheet.value("weights.high")
    return IntegerFormat(
        name=sheet.name,
        kind=kind,
        weight_bits=max(sheet.require("weights.bits", "integer execution").value),
        state_bits=sheet.require("neuron.state_bits", "integer execution").value,
        decay_bits=sheet.value("neuron.decay_bits", 12),
        weight_low=low if low is None or kind == "cuba" else -high,
        weight_high=high,
        weight_step=sheet.value("weights.step", 1),
        threshold_max=sheet.value("neuron.threshold_max"),
        resets=sheet.value("neuron.reset", ("zero", "subtract")),
        models=sheet.value("neuron.models", ("any",)),
        graded=sheet.value("spikes.graded", False),
        most_spikes=sheet.value("spikes.per_step", 1),
    )
