"""Weights of few bits and spikes of several bits, trainable: the two widths of a Bit Budget.

Weights: symmetric and uniform with b_w bits, gradients straight through. Neurons: integrate, send the rounded number of
thresholds as one spike of b_s bits, subtract it. With one step such a layer is a quantised clipped rectifier, so the
same network is an SNN (b_s = 1, T steps), anything between, or a QNN (T = 1).
"""

from __future__ import annotations

from collections.abc import Sequence
from math import prod
from typing import Any, Literal

import torch
from spikingjelly.activation_based import surrogate as sj
from torch import nn

from snn.declaration import neuron_model
from snn.models.sizes import positive_sizes
from snn.models.stack import NOT_CARRIED, NotCarried, Stack, StackState
from snn.neurons.neuron import Neuron
from snn.neurons.reset import resetting_spike
from snn.ops import spike

FULL_PRECISION = 32
Rounding = Literal["floor", "round"]


class _Replaced(torch.autograd.Function):
    """Another value with the gradient of the first."""

    @staticmethod
    def forward(ctx: Any, x: torch.Tensor, value: torch.Tensor) -> torch.Tensor:
        return value

    @staticmethod
    def backward(ctx: Any, *gradients: torch.Tensor) -> tuple[torch.Tensor, None]:
        return gradients[0], None


def weight_codes(w: torch.Tensor, bits: int, per_channel: bool = False) -> tuple[torch.Tensor, torch.Tensor]:
    """Whole numbers and step width with w close to their product.

    bits >= 2: codes = round(w / step), step = max|w| / (2^(bits-1) - 1), halves to even; bits = 1: sign(w) with
    sign(0) = 1 and step = mean|w|. With `per_channel` one step for each first index of w.

    Raises: ValueError for bits below 1.

    >>> weight_codes(torch.tensor([-0.5, 0.3, 1.0]), 8)[0].tolist()
    [-64.0, 38.0, 127.0]
    """
    if bits < 1:
        raise ValueError(f"weight_codes: bits must be >= 1, got {bits}")
    flat = w.detach().abs().flatten(1) if per_channel else w.detach().abs().reshape(1, -1)
    shape = (len(w), *([1] * (w.dim() - 1))) if per_channel else (1,) * w.dim()
    if bits == 1:
        step = flat.mean(1).view(shape)
        return torch.where(w.detach() >= 0, 1.0, -1.0).to(w), step
    largest = 2 ** (bits - 1) - 1
    step = (flat.amax(1) / largest).view(shape)
    step = torch.where(step > 0, step, torch.ones_like(step))
    return (w.detach() / step).round().clamp(-largest, largest), step


def quantised_weight(w: torch.Tensor, bits: int, per_channel: bool = False) -> torch.Tensor:
    """w with b bits, its gradient straight through; the step takes no part in the gradient. 32 bits leave w as it is."""
    if bits >= FULL_PRECISION:
        return w
    codes, step = weight_codes(w, bits, per_channel)
    result: torch.Tensor = _Replaced.apply(w, codes * step)
    return result


class QuantisedLinear(nn.Linear):
    """Linear layer that computes with weights of `weight_bits`.

    Args:
        in_features, out_features, bias: see `torch.nn.Linear`.
        weight_bits: 1 to 32; 32 is full precision.
        per_channel: one step width for each output.
    """

    def __init__(
        self, in_features: int, out_features: int, weight_bits: int, bias: bool = True, per_channel: bool = True
    ) -> None:
        super().__init__(in_features, out_features, bias)
        self.weight_bits = _checked_bits("QuantisedLinear", weight_bits)
        self.per_channel = per_channel

    def coded_weight(self) -> torch.Tensor:
        """The weights that the layer multiplies with [out, in]."""
        return quantised_weight(self.weight, self.weight_bits, self.per_channel)

    def forward(self, input: torch.Tensor) -> torch.Tensor:
        return nn.functional.linear(input, self.coded_weight(), self.bias)


class QuantisedConv2d(nn.Conv2d):
    """Convolution that computes with weights of `weight_bits`; see `QuantisedLinear`."""

    def __init__(
        self,
        in_channels: int,
        out_channels: int,
        kernel_size: int,
        weight_bits: int,
        stride: int = 1,
        padding: int = 0,
        bias: bool = True,
        per_channel: bool = True,
    ) -> None:
        super().__init__(in_channels, out_channels, kernel_size, stride, padding, bias=bias)
        self.weight_bits = _checked_bits("QuantisedConv2d", weight_bits)
        self.per_channel = per_channel

    def coded_weight(self) -> torch.Tensor:
        """The weights that the layer multiplies with."""
        return quantised_weight(self.weight, self.weight_bits, self.per_channel)

    def forward(self, input: torch.Tensor) -> torch.Tensor:
        return self._conv_forward(input, self.coded_weight(), self.bias)


def _checked_bits(layer: str, bits: int) -> int:
    if not 1 <= bits <= FULL_PRECISION:
        raise ValueError(f"{layer}: weight_bits must be in 1..{FULL_PRECISION}, got {bits}")
    return bits


class _Levels(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, u: torch.Tensor, levels: int, offset: float) -> torch.Tensor:
        ctx.save_for_backward(u)
        ctx.levels = levels
        return (u + offset).floor().clamp(0, levels)

    @staticmethod
    def backward(ctx: Any, *gradients: torch.Tensor) -> tuple[torch.Tensor, None, None]:
        (u,) = ctx.saved_tensors
        return gradients[0] * ((u >= 0) & (u <= ctx.levels)), None, None


class LevelCount(nn.Module):
    """Whole thresholds in u: clip(floor(u) or floor(u + 1/2), 0, levels), gradient 1 for 0 <= u <= levels.

    With one level and "floor" the gradient is that of SpikingJelly's ATan around the threshold.
    """

    def __init__(self, levels: int, rounding: Rounding) -> None:
        super().__init__()
        self.max_spike_count = levels
        self.offset = 0.5 if rounding == "round" else 0.0
        self.binary = sj.ATan() if levels == 1 and rounding == "floor" else None

    def forward(self, u: torch.Tensor) -> torch.Tensor:
        if self.binary is not None:
            fired: torch.Tensor = self.binary(u - 1.0)
            return fired
        result: torch.Tensor = _Levels.apply(u, self.max_spike_count, self.offset)
        return result


@neuron_model(state={"v": "v_start"}, params={"decay": 1.0, "v_threshold": 1.0, "v_start": 0.0, "detach_reset": False})
def level_integrate_and_fire(x: Any, s: Any, p: Any) -> tuple[Any, dict[str, Any]]:
    h = p.decay * s.v + x
    k = spike(h / p.v_threshold)
    return k * p.v_threshold, {"v": h - resetting_spike(k, p) * p.v_threshold}


class LevelIF(Neuron):
    """Integrate-and-fire neuron with spikes of b_s bits.

    Each step, in this order: charge  h = decay v + x; fire  k = clip(floor(h / v_threshold), 0, 2^b_s - 1)  or, with
    "round", floor(h / v_threshold + 1/2); reset  v = h - k v_threshold. The output is k v_threshold.

    Args:
        spike_bits: b_s; 1 with "floor" is the ordinary IF with soft reset.
        rounding: "floor" or "round"; None takes "floor" for one bit and "round" otherwise.
        v_threshold: size of one level; None takes 1 / (2^b_s - 1), so that a full spike is 1 whatever the bits.
        decay: share of the membrane that is kept, 0 to 1; 1 does not leak.
        v_start: membrane before the first step.
        detach_reset, step_mode, store_v_seq: see `snn.LIF`.
    Raises: ValueError for bits outside 1..16, a decay outside [0, 1], a threshold <= 0 or another rounding.
    Source: Shen et al., CVPR 2024 (rounded spikes); clip, order and surrogate are this package's.

    >>> LevelIF(4, step_mode="m")(torch.tensor([[0.3]])).mul(15).round().item()
    5.0
    """

    def __init__(
        self,
        spike_bits: int,
        rounding: Rounding | None = None,
        v_threshold: float | None = None,
        decay: float = 1.0,
        v_start: float = 0.0,
        detach_reset: bool = False,
        step_mode: str = "s",
        store_v_seq: bool = False,
    ) -> None:
        if not 1 <= spike_bits <= 16:
            raise ValueError(f"LevelIF: spike_bits must be in 1..16, got {spike_bits}")
        if rounding not in (None, "floor", "round"):
            raise ValueError(f"LevelIF: rounding must be 'floor', 'round' or None, got {rounding!r}")
        if not 0 <= decay <= 1:
            raise ValueError(f"LevelIF: decay must be in [0, 1], got {decay}")
        levels = 2**spike_bits - 1
        threshold = 1.0 / levels if v_threshold is None else v_threshold
        if threshold <= 0:
            raise ValueError(f"LevelIF: v_threshold must be > 0, got {v_threshold}")
        chosen: Rounding = rounding or ("floor" if spike_bits == 1 else "round")
        super().__init__(
            level_integrate_and_fire,
            {"decay": decay, "v_threshold": threshold, "v_start": v_start, "detach_reset": detach_reset},
            surrogate_function=LevelCount(levels, chosen),
            step_mode=step_mode,
            backend="reference",
            store_v_seq=store_v_seq,
        )
        self.spike_bits = spike_bits
        self.rounding = chosen


class QuantisedNet(nn.Module):
    """Fully connected or convolutional network with one width for all weights and one for all spikes.

    Blocks of quantised weights, batch normalisation (which folds into a scale and offset per channel) and `LevelIF`
    neurons; then a quantised readout. With `spike_bits` None the neurons are rectifiers, which is an ordinary ANN. An
    image that repeats at every step (a view with stride 0) passes the layers before the first neurons once.

    Args:
        input_shape: (C, H, W).
        classes: number of logits.
        weight_bits: of all weights; 32 is full precision.
        spike_bits: of all spikes or activations; None for rectifiers.
        channels: output channels of 3x3 convolutions, each followed by 2x2 average pooling before the neurons.
        hidden: neurons of each fully connected layer, at least one layer.
        decay: of the neurons' membranes per step.
    Input: [T, B, C, H, W]; T = 1 makes a network without time.
    Returns: logits [T, B, classes]; with `state=` also the neurons' states, see `Stack`.
    """

    def __init__(
        self,
        input_shape: Sequence[int],
        classes: int,
        weight_bits: int = 8,
        spike_bits: int | None = 1,
        channels: Sequence[int] = (),
        hidden: Sequence[int] = (128, 128),
        decay: float = 1.0,
    ) -> None:
        super().__init__()
        C, H, W = input_shape
        layers: dict[str, nn.Module] = {}

        def neurons() -> nn.Module:
            return nn.ReLU() if spike_bits is None else LevelIF(spike_bits, decay=decay, step_mode="m")

        for number, out in enumerate(positive_sizes("channels", channels), start=1):
            layers[f"conv{number}"] = QuantisedConv2d(C, out, 3, weight_bits, padding=1, bias=False)
            layers[f"norm_conv{number}"] = nn.BatchNorm2d(out)
            layers[f"pool{number}"] = nn.AvgPool2d(2)
            layers[f"neuron_conv{number}"] = neurons()
            C, H, W = out, H // 2, W // 2
        layers["flatten"] = nn.Flatten()
        features = prod((C, H, W))
        for number, size in enumerate(positive_sizes("hidden", hidden), start=1):
            layers[f"linear{number}"] = QuantisedLinear(features, size, weight_bits, bias=False)
            layers[f"norm{number}"] = nn.BatchNorm1d(size)
            layers[f"neuron{number}"] = neurons()
            features = size
        layers["readout"] = QuantisedLinear(features, classes, weight_bits)
        first = next(iter(name for name in layers if name.startswith("neuron")))
        before = list(layers)[: list(layers).index(first)]
        self.front = Stack({name: layers.pop(name) for name in before})
        self.stack = Stack(layers)

    def forward(self, x: torch.Tensor, state: StackState | NotCarried | None = NOT_CARRIED) -> Any:
        # The same image at every step passes the layers before the first neurons once.
        is_repeated = len(x) > 1 and x.stride(0) == 0
        current = self.front(x[:1] if is_repeated else x)
        return self.stack(current.expand(len(x), *current.shape[1:]), state)


def bit_planes(codes: torch.Tensor, bits: int) -> torch.Tensor:
    """Binary planes [bits, ...] of whole numbers 0 .. 2^bits - 1, lowest first.

    Raises: ValueError for numbers that do not fit.
    """
    if bool((codes < 0).any()) or bool((codes >= 2**bits).any()):
        raise ValueError(f"bit_planes: codes must be in 0..{2**bits - 1} for {bits} bits")
    return torch.stack([(codes >> k) & 1 for k in range(bits)])


def bit_serial_product(weight: torch.Tensor, codes: torch.Tensor, bits: int) -> torch.Tensor:
    """weight @ codes as one binary product per bit plane, shifted and added; whole numbers, equal to the direct product.

    Args:
        weight: int64 [m, k].
        codes: int64 [k, n] in 0 .. 2^bits - 1.
    """
    return sum(((weight @ plane) << k for k, plane in enumerate(bit_planes(codes, bits))), weight.new_zeros(()))
