"""Which integer neuron stands for a float neuron, and the ranges it leaves for the scale of its layer."""

from __future__ import annotations

from math import floor, log2
from typing import Any

import torch

from neuromorphic.targets.arithmetic import CUBA_SHIFT, CUBA_VOLTAGE_LIMIT
from neuromorphic.targets.chain import FloatNeuron
from neuromorphic.targets.formats import IntegerFormat
from neuromorphic.targets.neurons import BitShiftNeuron, CubaNeuron, EventIFNeuron, FixedPointNeuron, IntegerNeuron
from snn.errors import UnsupportedError

_CUBA_WEIGHT_LIMIT = 2**21 - 64
"""Largest synaptic weight of the current-based neuron after exponent and shift."""


def membrane_limit(form: IntegerFormat, neuron: FloatNeuron, bias: torch.Tensor, reach: float) -> float:
    """Integers per unit of current at which state, threshold and bias just fit.

    Args:
        reach: largest magnitude of membrane and current in the calibration, in units of current.
    """
    threshold = float(neuron.threshold.abs().max()) if neuron.family != "li" else 0.0
    state, top = form.state_high, form.threshold_max
    shift = 1
    if form.kind == "cuba":
        state, shift = CUBA_VOLTAGE_LIMIT, 2**CUBA_SHIFT
    limits = [state / shift / max(reach, threshold, 1e-12)]
    if top is not None and threshold:
        limits.append(top / threshold)
    largest_bias = float(bias.abs().max())
    if form.kind == "event-if" and largest_bias:
        limits.append((2 ** (form.weight_bits - 1) - 1) / largest_bias)
    if form.kind == "cuba" and largest_bias:
        limits.append(4095 * 2**7 / 2**CUBA_SHIFT / largest_bias)
    return min(limits)


def largest_exponent(form: IntegerFormat, high: int) -> int:
    """Left shifts that the synapses of a kind of neuron have."""
    if form.kind == "cuba":
        return floor(log2(_CUBA_WEIGHT_LIMIT / (high << CUBA_SHIFT)))
    # Arriving weights are 32-bit integers.
    return min(form.state_bits - 2, floor(log2((2**31 - 1) / high))) if form.kind == "fixed-point" else 0


def integer_neuron(
    name: str, neuron: FloatNeuron, form: IntegerFormat, unit: torch.Tensor, bias: torch.Tensor, gain: torch.Tensor
) -> IntegerNeuron:
    """The integer neuron.

    Args:
        name: of the float neurons, for messages.
        unit: integers per unit of current; a scalar, or one per channel shaped to broadcast over neurons.
        bias: of the weights in front, shaped alike.
        gain: factor of the neuron's input.
    Raises: UnsupportedError if the form has no such neuron.
    """
    if neuron.family == "li" and form.kind != "fixed-point":
        raise UnsupportedError(
            f"quantize: {name!r} integrates without spikes, which {form.name}'s neurons do not; "
            "end the network in a linear read-out"
        )
    if "any" not in form.models and neuron.family not in form.models:
        raise UnsupportedError(
            f"quantize: {name!r} is of family {neuron.family!r}; {form.name} has {', '.join(form.models) or 'no neurons'}"
        )
    if neuron.reset not in form.resets and neuron.family != "li":
        kinds = {"zero": "to a value (v_reset=0.0)", "subtract": "by subtraction (v_reset=None)"}
        accepted = " or ".join(kinds[reset] for reset in form.resets if reset in kinds)
        raise UnsupportedError(f"quantize: {name!r} resets {kinds[neuron.reset]}; {form.name} resets {accepted}")
    if bool((neuron.c_kept != 0).any()):
        # What enters through the current is filtered by it. Bit shifts have no such input: their neurons take the level
        # at which the current settles.
        bias = bias / (1 - neuron.c_kept) if form.kind == "bit-shift" else torch.zeros_like(bias)
    if bool((neuron.shift != 0).any()):
        bias, gain = bias * gain + neuron.shift, torch.ones((), dtype=torch.float64)
    surrogate = getattr(neuron.module, "surrogate_function", None)
    build = {"cuba": _cuba, "fixed-point": _fixed_point, "bit-shift": _bit_shift, "event-if": _event_if}[form.kind]
    return build(name, neuron, form, unit, bias, gain, surrogate)


def _whole(x: torch.Tensor, low: float, high: float) -> torch.Tensor:
    return torch.round(x).clamp(low, high)


def _cuba(
    name: str,
    neuron: FloatNeuron,
    form: IntegerFormat,
    unit: torch.Tensor,
    bias: torch.Tensor,
    gain: Any,
    surrogate: Any,
) -> IntegerNeuron:
    membrane = unit * 2.0**CUBA_SHIFT
    current_decay = _whole((1 - neuron.c_kept) * 4096, 1, 4096)
    largest = float((bias * gain * membrane).abs().max())
    exponent = max(0, min(7, floor(log2(largest / 4095)) + 1)) if largest > 4095 else 0
    return CubaNeuron(
        # Spikes need v > 64 vth, the float neuron v >= threshold.
        _whole(neuron.threshold * unit - 1 / 2**CUBA_SHIFT, 0, form.threshold_max or 131071),
        current_decay - 1,
        _whole((1 - neuron.v_kept) * 4096, 0, 4095),
        bias,
        exponent,
        bias_scale=gain * membrane / 2.0**exponent,
        unit=membrane,
        surrogate_function=surrogate,
    )


def _fixed_point(
    name: str,
    neuron: FloatNeuron,
    form: IntegerFormat,
    unit: torch.Tensor,
    bias: torch.Tensor,
    gain: Any,
    surrogate: Any,
) -> IntegerNeuron:
    one = 2**form.decay_bits
    top = form.threshold_max or form.state_high
    return FixedPointNeuron(
        _whole(neuron.threshold * unit, 1, top) if neuron.family != "li" else form.state_high,
        _whole(neuron.v_kept * one, 0, one),
        _whole(neuron.c_kept * one, 0, one),
        bias,
        decay_bits=form.decay_bits,
        state_bits=form.state_bits,
        rounding=form.rounding,
        reset=neuron.reset,
        spiking=neuron.family != "li",
        bias_scale=gain * unit,
        unit=unit,
        surrogate_function=surrogate,
    )


def _shift_of(name: str, what: str, kept: torch.Tensor) -> torch.Tensor:
    """The bit shift whose decay is nearest: round(log2(1 / (1 - kept)))."""
    lost = 1 - kept
    if bool((lost <= 0).any()) or bool((lost > 0.75).any()):
        raise UnsupportedError(
            f"quantize: {name!r} keeps {float(kept.max()):.3f} of its {what} in a step; bit shifts of 1 to 15 keep 0.5 to 0.99997"
        )
    return torch.round(-torch.log2(lost)).clamp(1, 15)


def _bit_shift(
    name: str,
    neuron: FloatNeuron,
    form: IntegerFormat,
    unit: torch.Tensor,
    bias: torch.Tensor,
    gain: Any,
    surrogate: Any,
) -> IntegerNeuron:
    current_shift = _shift_of(name, "current", neuron.c_kept)
    # A fresh input decays once before it reaches the membrane, so the membrane is smaller by that factor.
    membrane = unit * (1 - 2.0**-current_shift)
    return BitShiftNeuron(
        _whole(neuron.threshold * membrane, 1, form.threshold_max or form.state_high),
        current_shift,
        _shift_of(name, "membrane", neuron.v_kept),
        bias,
        most_spikes=form.most_spikes,
        state_bits=form.state_bits,
        bias_scale=gain * membrane,
        unit=membrane,
        surrogate_function=surrogate,
    )


def _event_if(
    name: str,
    neuron: FloatNeuron,
    form: IntegerFormat,
    unit: torch.Tensor,
    bias: torch.Tensor,
    gain: Any,
    surrogate: Any,
) -> IntegerNeuron:
    made = EventIFNeuron(
        _whole(neuron.threshold * unit, 1, form.threshold_max or form.state_high),
        reset=neuron.reset,
        state_bits=form.state_bits,
        unit=unit,
        surrogate_function=surrogate,
    )
    made.bias = torch.nn.Parameter((bias * torch.ones_like(unit)).clone())
    made.bias_scale = (gain * unit).clone() if isinstance(gain, torch.Tensor) else unit * gain
    return made
