"""Folds a trained MPBN into firing thresholds, and shows that the spikes stay the same."""

from __future__ import annotations

import copy
from typing import Any

import torch
from spikingjelly.activation_based import functional
from torch import nn

from snn.errors import UnsupportedError
from snn.layers.norm import MPBN
from snn.layers.norm_report import FoldedLayer, FoldReport
from snn.neurons.membrane import SIGNED, MembraneNorm, MembraneView, charge_alone, threshold_parameter
from snn.neurons.neuron import Neuron
from snn.neurons.recurrent import RecurrentLIF

ALWAYS = torch.finfo(torch.float32).max  # a threshold that is never reached; its negative always is
CHECK_STEPS = 8
CHECK_VALUES = 1 << 17

_SAME_SIGN = (nn.Identity, nn.AvgPool1d, nn.AvgPool2d, nn.AdaptiveAvgPool1d, nn.AdaptiveAvgPool2d, nn.Dropout)
_AFFINE = (nn.Linear, nn.Conv1d, nn.Conv2d, nn.BatchNorm1d, nn.BatchNorm2d, nn.BatchNorm3d)


class FoldedThreshold(MembraneNorm):
    """Fires where sign (h - threshold) >= 0; the reset keeps the neuron's own threshold and value.

    Args:
        threshold, sign: per channel [C] or per element [C, H, W], with one more leading dimension for values per step;
            sign is 1 or -1.
        channelwise: True for values [C] that hold for every pixel of a channel.
        steps: number of steps with values of their own, or None.
    """

    threshold: torch.Tensor
    sign: torch.Tensor

    def __init__(self, threshold: torch.Tensor, sign: torch.Tensor, channelwise: bool, steps: int | None) -> None:
        super().__init__()
        self.register_buffer("threshold", threshold)
        self.register_buffer("sign", sign)
        self.channelwise = channelwise
        self.step_count = steps
        self.shape = tuple(threshold.shape if steps is None else threshold.shape[1:])

    @property
    def view(self) -> MembraneView:  # type: ignore[override]
        return SIGNED

    @property
    def uses_batch(self) -> bool:
        return False

    def values(self, step: int, dims: int) -> dict[str, torch.Tensor]:
        """Sign and threshold of a step."""
        row = () if self.step_count is None else (step,)
        threshold, sign = self.threshold[row], self.sign[row]
        if self.channelwise:
            shape = (len(threshold), *(1 for _ in range(dims - 2)))
            threshold, sign = threshold.view(shape), sign.view(shape)
        return {"fire_sign": sign, "fire_threshold": threshold}

    def batch_values(
        self, mean: torch.Tensor, var: torch.Tensor, count: int, step: int, dims: int
    ) -> dict[str, torch.Tensor]:
        """As `values`; nothing depends on the batch."""
        return self.values(step, dims)

    def check_call(self, x: torch.Tensor, continued: bool) -> None:
        """Raises ValueError for steps that have no threshold of their own."""
        if self.step_count is not None and (continued or len(x) != self.step_count):
            came = "a call that continues from a state" if continued else f"{len(x)}"
            raise ValueError(
                f"FoldedThreshold: thresholds per step need all {self.step_count} steps in one call, got {came}"
            )

    def extra_repr(self) -> str:
        return f"{tuple(self.threshold.shape)}, negative={int((self.sign < 0).sum())}"


def fold_mpbn(net: nn.Module, inputs: torch.Tensor | None = None) -> tuple[nn.Module, FoldReport]:
    """A copy of `net` in evaluation whose MPBNs have become firing thresholds, with the same spikes.

    threshold' = mean + (v_threshold - bias) std / weight, where std = sqrt(var + eps). A negative weight turns the
    comparison round, weight 0 makes the unit fire always (bias >= v_threshold) or never. The reset, the leak and the
    start stay as they are: a soft reset goes on subtracting v_threshold. Where the currents of a layer with hard reset to
    0 come from a linear, convolution or batch-norm layer just before it (in a `Stack` or `nn.Sequential`), negative
    signs go into that layer, and the neurons become plain ones with a threshold per unit. Elsewhere they keep
    a sign per unit (`FoldedThreshold`). All arithmetic is in float64, the result in the network's dtype.

    Args:
        net: network with trained statistics.
        inputs: one input of the network, on which the spikes of both networks are compared layer by layer.
    Returns: the folded network, and the report: per layer its form, thresholds, negative and constant units, units that
        fire at rest, and the spikes that differ on random currents.
    Raises: ValueError if the network has no MPBN; UnsupportedError for an MPBN with carry="normalised", whose
        normalisation is part of the state, and for a neuron whose threshold moves.
    Source: Guo et al., ICCV 2023 (training-inference decoupled re-parameterisation), extended by signs, weight 0, eps
        and soft reset.
    """
    original = copy.deepcopy(net).eval()
    folded = copy.deepcopy(original)
    names = [name for name, module in folded.named_modules() if _has_mpbn(module)]
    if not names:
        raise ValueError(f"fold_mpbn: {type(net).__name__} has no neuron with an MPBN as membrane_norm")
    if inputs is not None:
        before = _spikes(original, names, inputs)  # also tells every norm how many dimensions its input has
        folded = copy.deepcopy(original)
    layers = tuple(_fold_layer(name, original.get_submodule(name), folded) for name in names)  # type: ignore[arg-type]
    if inputs is None:
        return folded, FoldReport(layers, None, None)
    after = _spikes(folded, names, inputs)
    differences = sum(int((before[name] != after[name]).sum()) for name in names)
    return folded, FoldReport(layers, sum(z.numel() for z in before.values()), differences)


def _has_mpbn(module: nn.Module) -> bool:
    return isinstance(module, Neuron) and isinstance(module.membrane_norm, MPBN)


def _fold_layer(name: str, original: Neuron, net: nn.Module) -> FoldedLayer:
    neuron = net.get_submodule(name)
    assert isinstance(neuron, Neuron)
    norm = neuron.membrane_norm
    assert isinstance(norm, MPBN)
    if norm.carry != "raw":
        raise UnsupportedError(
            f"fold_mpbn: {name!r} has an MPBN with carry={norm.carry!r}, whose normalisation is part of the state; "
            "only carry='raw' can be folded into a threshold"
        )
    parameter = threshold_parameter(neuron.model)
    if parameter is None:
        raise UnsupportedError(f"fold_mpbn: the threshold of {name!r} ({type(neuron).__name__}) moves with its state")
    threshold, sign, channelwise = _threshold_and_sign(norm, neuron.call_params()[parameter])
    plain = norm.step_count is None and _resets_to_zero(neuron) and (norm.dims is not None or not channelwise)
    flip = sign < 0
    moved = plain and bool(flip.any()) and _move_signs(net, name, neuron, flip)
    held_threshold, held_sign = (threshold * sign, sign.abs()) if moved else (threshold, sign)
    dtype = norm.weight.dtype
    if plain and bool((held_sign > 0).all()):
        shape = (
            (*held_threshold.shape, *(1 for _ in range((norm.dims or 0) - 2)))
            if channelwise
            else tuple(held_threshold.shape)
        )
        neuron.membrane_norm = None
        neuron.set_value(parameter, held_threshold.to(dtype).view(shape))
    else:
        neuron.membrane_norm = FoldedThreshold(
            held_threshold.to(dtype), held_sign.to(dtype), channelwise, norm.step_count
        )
    differences, checked = _differences(original, neuron, norm, sign if moved else None)
    return FoldedLayer(
        name=name,
        form="threshold" if neuron.membrane_norm is None else "signed threshold",
        threshold=held_threshold,
        sign=held_sign,
        negative_count=int(flip.sum()),
        moved_sign_count=int(flip.sum()) if moved else 0,
        constant_count=int((norm.weight == 0).sum()),
        fires_at_rest=_fires_at_rest(neuron, norm),
        checked=checked,
        differences=differences,
    )


def _threshold_and_sign(norm: MPBN, v_threshold: float | torch.Tensor) -> tuple[torch.Tensor, torch.Tensor, bool]:
    """Folded thresholds and signs in float64, and whether they are per channel alone."""
    weight, bias, mean, deviation = norm.folded_terms()
    own = torch.as_tensor(v_threshold).detach().double()
    channelwise = not norm.elementwise
    if channelwise and own.numel() > 1 and own.dim() > 1:  # [C, 1, 1] or [C, H, W]
        channelwise = own.shape[1:].numel() == 1
        trailing = () if channelwise else (1,) * (own.dim() - 1)
        own = own.flatten() if channelwise else own
        weight, bias, mean, deviation = (
            value.view(*value.shape, *trailing) for value in (weight, bias, mean, deviation)
        )
    elif own.numel() == 1:
        own = own.reshape(())
    threshold = mean + (own - bias) * deviation / torch.where(weight == 0, 1.0, weight)
    constant = torch.where(bias >= own, -ALWAYS, ALWAYS).expand_as(threshold)
    threshold = torch.where((weight == 0).expand_as(threshold), constant, threshold).clamp(-ALWAYS, ALWAYS)
    return threshold, torch.where(weight < 0, -1.0, 1.0).double().expand_as(threshold).clone(), channelwise


def _resets_to_zero(neuron: Neuron) -> bool:
    v_reset = neuron.call_params().get("v_reset")
    return v_reset is not None and not bool(torch.as_tensor(v_reset).any())


def _move_signs(net: nn.Module, name: str, neuron: Neuron, flip: torch.Tensor) -> bool:
    """Negates the rows of the affine layer before the neuron where `flip` says so; False if that is not exact."""
    layer = _affine_before(net, name)
    if layer is None or flip.dim() != 1 or isinstance(neuron, RecurrentLIF) or not _charge_is_odd(neuron):
        return False
    factor = torch.where(flip, -1.0, 1.0)
    with torch.no_grad():
        weight = layer.weight
        weight.mul_(factor.to(weight).view(-1, *(1 for _ in range(weight.dim() - 1))))
        if layer.bias is not None:
            layer.bias.mul_(factor.to(weight))
    return True


def _affine_before(net: nn.Module, name: str) -> Any:
    """The linear, convolution or affine batch-norm layer whose output is the current of the neuron, if it is known."""
    container_name, _, own = name.rpartition(".")
    path = container_name.split(".") if container_name else []
    if path and path[-1] == "layers" and isinstance(net.get_submodule(".".join(path[:-1])), _stack()):
        in_order = True
    else:
        in_order = isinstance(net.get_submodule(container_name), nn.Sequential)
    if not in_order:
        return None
    children = list(net.get_submodule(container_name).named_children())
    before = [child for _, child in children[: [key for key, _ in children].index(own)]]
    for layer in reversed(before):
        if isinstance(layer, _AFFINE):
            known = (
                isinstance(layer.weight, torch.Tensor)
                and sum(other is layer for _, other in net.named_modules(remove_duplicate=False)) == 1
            )
            return layer if known else None
        if not isinstance(layer, _SAME_SIGN):
            return None
    return None


def _stack() -> type[nn.Module]:
    from snn.models.stack import Stack

    return Stack


@torch.no_grad()
def _charge_is_odd(neuron: Neuron) -> bool:
    """True if negated currents and states give the negated membrane, bit for bit."""
    from snn.kernels.call import NeuronCall
    from snn.kernels.reference import run_reference

    generator = torch.Generator().manual_seed(0)
    x, *states = (
        torch.randn((1, 1, 64), generator=generator, dtype=torch.float64) for _ in range(1 + len(neuron.model.state))
    )
    params = {
        key: value.flatten()[0].double() if isinstance(value, torch.Tensor) else value
        for key, value in neuron.call_params().items()
    }
    results = [
        run_reference(
            NeuronCall(
                charge_alone(neuron.model),
                factor * x,
                {key: factor * state[0] for key, state in zip(neuron.model.state, states, strict=True)},
                params,
                neuron.surrogate_function,
            )
        ).output
        for factor in (1.0, -1.0)
    ]
    return torch.equal(results[0], -results[1])


def _unit_shape(norm: MPBN, neuron: Neuron) -> tuple[int, ...]:
    """The smallest shape of one sample that the layer takes."""
    values = [value.shape for value in neuron.call_params().values() if isinstance(value, torch.Tensor) and value.dim()]
    if norm.elementwise:
        return norm.shape
    least = (norm.shape[0], *(1 for _ in range((norm.dims or 2) - 2)))
    return tuple(torch.broadcast_shapes(least, *values)) if norm.dims else max([least, *map(tuple, values)], key=len)


@torch.no_grad()
def _fires_at_rest(neuron: Neuron, norm: MPBN) -> tuple[int, ...]:
    steps = norm.step_count or 1
    z = _run_alone(neuron, torch.zeros(steps, 1, *_unit_shape(norm, neuron), dtype=norm.weight.dtype))
    return tuple(z[0, 0].flatten().nonzero().flatten().tolist())


@torch.no_grad()
def _differences(original: Neuron, folded: Neuron, norm: MPBN, sign: torch.Tensor | None) -> tuple[int, int]:
    """Spikes of both layers on random currents that spread as the membrane's statistics do."""
    shape = _unit_shape(norm, original)
    steps = norm.step_count or CHECK_STEPS
    samples = max(1, CHECK_VALUES // (steps * torch.Size(shape).numel()))
    generator = torch.Generator().manual_seed(0)
    noise = torch.randn((steps, samples, *shape), generator=generator, dtype=torch.float64)
    _, _, mean, deviation = norm.folded_terms()
    if norm.step_count is not None:
        mean, deviation = mean[0], deviation[0]
    trailing = (*mean.shape, *(1 for _ in range(len(shape) - mean.dim())))
    x = (mean.view(trailing) + 2.0 * deviation.view(trailing) * noise).to(norm.weight.dtype)
    flipped = x if sign is None else x * sign.to(x.dtype).view(-1, *(1 for _ in range(len(shape) - 1)))
    return int((_run_alone(original, x) != _run_alone(folded, flipped)).sum()), x.numel()


def _run_alone(neuron: Neuron, x: torch.Tensor) -> torch.Tensor:
    """Spikes [T, B, ...] for currents x, from a fresh start; a recurrent layer without its feedback."""
    alone = copy.deepcopy(neuron)
    functional.reset_net(alone)
    alone.step_mode = "m"
    if isinstance(alone, RecurrentLIF):
        alone.recurrent = _Nothing()
    y = alone(x.to(next(iter(neuron.buffers()), x).device))
    assert isinstance(y, torch.Tensor)
    return y.cpu()


class _Nothing(nn.Module):
    def forward(self, z: torch.Tensor) -> torch.Tensor:
        return torch.zeros_like(z)


@torch.no_grad()
def _spikes(net: nn.Module, names: list[str], inputs: torch.Tensor) -> dict[str, torch.Tensor]:
    """Output of the named layers for one input of the network, from a fresh start."""
    seen: dict[str, list[torch.Tensor]] = {name: [] for name in names}

    def keep(name: str) -> Any:
        def hook(module: nn.Module, given: Any, output: Any) -> None:
            seen[name].append((output[0] if isinstance(output, tuple) else output).cpu())

        return hook

    handles = [net.get_submodule(name).register_forward_hook(keep(name)) for name in names]
    functional.reset_net(net)
    try:
        net(inputs)
    finally:
        for handle in handles:
            handle.remove()
        functional.reset_net(net)
    return {name: torch.cat([z.flatten() for z in outputs]) for name, outputs in seen.items()}
