"""From a trained float network to the integers of a target."""

from __future__ import annotations

from dataclasses import dataclass
from math import floor, log2, prod

import torch
from torch import nn

from neuromorphic.targets.chain import FloatLayer, FloatNeuron, float_chain
from neuromorphic.targets.connections import IntegerConnection, IntegerConv, IntegerLinear
from neuromorphic.targets.formats import IntegerFormat, format_of
from neuromorphic.targets.layers import Flatten, IntegerLayer, SumPool
from neuromorphic.targets.network import AnalogInput, IntegerNetwork
from neuromorphic.targets.neuron_choice import integer_neuron, largest_exponent, membrane_limit
from neuromorphic.targets.quantization_report import QuantizationReport, compare
from neuromorphic.targets.scales import METHODS, clipping_point
from neuromorphic.targets.sheet import Target
from snn.errors import ShapeError, UnsupportedError


@dataclass(frozen=True)
class QuantizationOptions:
    """How scales are chosen.

    Attributes:
        per_channel: one weight scale for each output channel, so each has its own integer threshold; False: one per layer.
        method: range of the weights, "max", "percentile" or "mse" (see `scales.clipping_point`).
        percentile: for that method.
        state_percentile: share of the calibration's membrane values, in percent, that must fit into the state.
    """

    per_channel: bool = True
    method: str = "mse"
    percentile: float = 99.9
    state_percentile: float = 100.0

    def __post_init__(self) -> None:
        if self.method not in METHODS:
            raise ValueError(f"method must be one of {METHODS}, got {self.method!r}")
        for name in ("percentile", "state_percentile"):
            if not 0 < getattr(self, name) <= 100:
                raise ValueError(f"{name} must lie in (0, 100], got {getattr(self, name)}")


def quantize(
    module: nn.Module,
    target: Target | IntegerFormat | str,
    calibration: torch.Tensor,
    options: QuantizationOptions | None = None,
) -> tuple[IntegerNetwork, QuantizationReport]:
    """The network in the target's integers, and how it differs from the float network on the calibration data.

    Normalisation is folded into weights, dropout removed, average pooling becomes sum pooling. Weights, thresholds,
    decays and biases become integers of the target's widths; the update order is the target's.

    Args:
        module: trained network over all steps, [T, B, ...] -> [T, B, ...]: a chain of linear and convolution layers with
            batch normalisation, average pooling, dropout, flattening and neurons (IF, LIF, PLIF, CubaLIF, RecurrentLIF,
            LI; SpikingJelly's IF, LIF, PLIF in step mode "m"). It is not changed.
        target: a data sheet, its name or path, or an `IntegerFormat`.
        calibration: inputs [T, B, ...] as the network gets them; sets the ranges of states.
        options: how scales are chosen.

    Returns: the integer network and the report.
    Raises:
        UnsupportedError: the target cannot express a layer; the text names it and the reason.
        ShapeError: calibration is not [T, B, ...].
    """
    options = options or QuantizationOptions()
    form = format_of(target)
    if (
        not isinstance(calibration, torch.Tensor)
        or calibration.dim() < 3
        or calibration.shape[0] * calibration.shape[1] == 0
    ):
        got = tuple(calibration.shape) if isinstance(calibration, torch.Tensor) else type(calibration).__name__
        raise ShapeError(f"quantize: calibration must be inputs [T, B, ...], got {got}")
    with torch.no_grad():
        layers = float_chain(module, calibration)
        analog, factor = _analog_input(form, calibration)
        stages: dict[str, nn.Module] = {}
        x, scale = calibration, torch.ones((), dtype=torch.float64)
        for layer in layers:
            for number, window in enumerate(layer.pool_before):
                stages[f"{layer.name}.pool{number}"] = SumPool(tuple(window))
                factor *= prod(window)
            if layer.flatten_before:
                stages[f"{layer.name}.flatten"] = Flatten()
            current = layer.current(x)
            stages[layer.name], scale = _integer_layer(layer, form, options, current, factor)
            x, factor = layer.output(current), 1.0
        network = IntegerNetwork(stages, analog, scale)
        report = compare(layers, network, calibration, form)
    return network, report


def quantization_aware(
    module: nn.Module,
    target: Target | IntegerFormat | str,
    calibration: torch.Tensor,
    options: QuantizationOptions | None = None,
) -> IntegerNetwork:
    """The same integer network, to be trained on: every forward pass computes the target's integers exactly, gradients go
    straight through the roundings and through the surrogates of the float network's neurons.

    Scales, thresholds and decays stay as `quantize` chose them; weights and biases train. Arguments as in `quantize`.
    """
    network, _ = quantize(module, target, calibration, options)
    return network.train()


def _analog_input(form: IntegerFormat, x: torch.Tensor) -> tuple[AnalogInput | None, float]:
    """Coding of the input, and how many of its integers make one unit."""
    if bool((x == torch.round(x)).all()) and bool((x >= 0).all()):
        return None, 1.0
    if not form.graded:
        raise UnsupportedError(
            f"quantize: {form.name} sends spikes without values and the calibration input is analog; encode it as spikes "
            "(for example spikedata.encode.rate or latency) before the network"
        )
    top = 2**form.input_bits - 1
    scale = top / float(x.abs().max())
    return AnalogInput(scale, -top if bool((x < 0).any()) else 0, top), scale


def _integer_layer(
    layer: FloatLayer, form: IntegerFormat, options: QuantizationOptions, current: torch.Tensor, factor: float
) -> tuple[IntegerLayer, torch.Tensor]:
    """The integer form of one layer, and the integers per unit of its output."""
    neuron = layer.neuron
    pool = None if layer.pool_after is None else SumPool(tuple(layer.pool_after))
    gain = torch.ones((), dtype=torch.float64) if neuron is None else neuron.gain
    if gain.dim() > 0:
        gain = gain.reshape(-1, *[1] * (layer.weight.dim() - 1)) if gain.numel() == len(layer.weight) else gain.mean()
    divided = gain / (factor * (prod(layer.pool_after) if layer.pool_after is not None else 1))
    effective = layer.weight * divided
    low, high = form.weight_range
    per_channel = options.per_channel and form.kind != "event-if"
    point = clipping_point(effective, options.method, options.percentile, high // form.weight_step, per_channel)
    stored = (high // form.weight_step * form.weight_step) / point  # integers per unit of current
    feature = (-1, *[1] * (current.dim() - 3))
    if neuron is None:
        connection = _connection(layer, stored * divided, low, high, form, 0)
        scale = stored.reshape(feature) if per_channel else stored
        bias = layer.bias.reshape(feature)
        return IntegerLayer(connection, None, pool, bias=bias, bias_scale=scale), scale
    quantile = options.state_percentile / 100
    reach = max(neuron.largest(current, quantile))
    fits = membrane_limit(form, neuron, layer.bias * gain.flatten(), reach)
    shift = _shift(form, fits, stored, high, neuron.recurrent is None)
    stored = torch.minimum(stored, torch.as_tensor(fits / 2.0**shift, dtype=torch.float64))
    exponent = max(shift, 0)
    unit = stored * 2.0**shift
    connection = _connection(layer, stored * divided, low, high, form, exponent)
    recurrent = None
    if neuron.recurrent is not None:
        recurrent = IntegerLinear(neuron.recurrent, stored * gain, low, high, form.weight_step, exponent)
    made = integer_neuron(
        layer.neuron_name,
        neuron,
        form,
        unit.reshape(feature) if unit.dim() else unit,
        layer.bias.reshape(feature),
        (gain.flatten() if gain.dim() else gain).reshape(feature) if gain.dim() else gain,
    )
    output = torch.ones((), dtype=torch.float64)
    if neuron.family == "li":
        output = unit.reshape(feature) if unit.dim() else unit
    through_current = bool((neuron.c_kept != 0).any()) and form.kind in ("cuba", "fixed-point")
    entering = stored * 2.0**exponent * gain
    made_layer = IntegerLayer(
        connection,
        made,
        pool,
        recurrent,
        bias=layer.bias.reshape(feature) if through_current else 0,
        bias_scale=(entering.reshape(feature) if entering.dim() else entering) if through_current else 1.0,
        right_shift=max(-shift, 0),
    )
    return made_layer, output


def _shift(form: IntegerFormat, fits: float, stored: torch.Tensor, high: int, may_be_right: bool) -> int:
    """Left shift of arriving weights (right shift where negative) that uses the width of the state best."""
    wanted = floor(log2(fits / float(stored.max())))
    least = -31 if form.kind == "fixed-point" and may_be_right else 0
    return max(least, min(largest_exponent(form, high), wanted))


def _connection(
    layer: FloatLayer, scale: torch.Tensor, low: int, high: int, form: IntegerFormat, exponent: int
) -> IntegerConnection:
    if layer.conv:
        return IntegerConv(layer.weight, scale, low, high, form.weight_step, exponent, **layer.conv)
    return IntegerLinear(layer.weight, scale, low, high, form.weight_step, exponent)


__all__ = ["FloatNeuron", "QuantizationOptions", "quantization_aware", "quantize"]
