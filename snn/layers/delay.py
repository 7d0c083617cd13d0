"""Linear and convolution layers whose synapses have learnable delays."""

from __future__ import annotations

import itertools
import math
from collections.abc import Sequence
from typing import Any, ClassVar, Literal

import torch
from spikingjelly.activation_based.base import MemoryModule
from torch import nn
from torch.nn import functional

from snn.errors import ShapeError
from snn.layers.delay_path import delayed_channels, delayed_sum
from snn.layers.delay_positions import Delays, Kernel

Kind = Literal["synaptic", "axonal", "dendritic"]
KINDS = ("synaptic", "axonal", "dendritic")


class _FreshStart:
    """Type of the default of `state`: the call starts with silence before it and returns no state."""


_FRESH = _FreshStart()


class _History:
    """The inputs of the last max_delay steps, in front of a new piece of the sequence."""

    @staticmethod
    def before(x: torch.Tensor, state: Any, max_delay: int, layer: str) -> torch.Tensor:
        """x [T, B, ...] with the history before it: zeros for state None."""
        shape = (max_delay, *x.shape[1:])
        if state is None:
            return torch.cat([x.new_zeros(shape), x])
        history = state["history"]
        if history.shape != shape:
            raise ShapeError(
                f"{layer}: state 'history' has shape {tuple(history.shape)}, the input needs {shape}; "
                "call reset_net(net) or pass state=None between sequences"
            )
        return torch.cat([history, x])


def _check_kind(layer: str, kind: str) -> None:
    if kind not in KINDS:
        raise ValueError(f"{layer}: kind must be one of {KINDS}, got {kind!r}")


class DelayedLinear(MemoryModule):
    """Linear layer with a learnable delay per synapse, per input or per output.

    synaptic:   y[t, o] = sum_i w[o, i] x[t - d[o, i], i]
    axonal:     y[t, o] = sum_i w[o, i] x[t - d[i], i]
    dendritic:  y[t, o] = sum_i w[o, i] x[t - d[o], i]

    x is 0 before its start; the output has the input's T steps (append silent steps to the input to let late values
    arrive). While training, x[t - d] is a sum over whole delays, Gaussian or two-tap (`tap_kernel_reference`);
    in evaluation delays are rounded to whole steps, halves up, so that accuracy is always that of whole delays.

    In step mode "m" every call starts fresh unless `state` is given; in step mode "s" the layer remembers the last
    max_delay inputs until `reset()`.

    Args:
        in_features, out_features: sizes.
        max_delay: longest delay in steps; DCLS's kernel length is max_delay + 1.
        kind: "synaptic", "axonal" or "dendritic".
        kernel: "gaussian" (anneal its width with `anneal_sigma`) or "two-tap".
        bias: adds a bias at every step.
        step_mode: "m" or "s".
    Attributes: weight [out, in], uniform within sqrt(6 / in); positions.delay [out, in], [in] or [out], in steps.
    Input: [T, B, in_features] ("m") or [B, in_features] ("s").
    Returns: [T, B, out_features] or [B, out_features]; with `state=` also the state, the last max_delay inputs.
    Raises: ValueError for an unknown kind or kernel or max_delay < 1; ShapeError for another shape.
    Source: Hammouamri, Khalfaoui-Hassani, Masquelier, Learning Delays in SNNs using DCLS, ICLR 2024. Differences: delays
        start uniform in [0, max_delay]; the output is not lengthened; ties round up.

    >>> layer = DelayedLinear(2, 1, max_delay=3, kernel="two-tap").eval()
    >>> with torch.no_grad():
    ...     _ = layer.weight.fill_(1.0), layer.positions.delay.copy_(torch.tensor([[0.0, 2.0]]))
    >>> layer(torch.eye(2).repeat(2, 1).view(4, 1, 2)).flatten().tolist()
    [1.0, 0.0, 1.0, 1.0]
    """

    def __init__(
        self,
        in_features: int,
        out_features: int,
        max_delay: int,
        kind: Kind = "synaptic",
        kernel: Kernel = "gaussian",
        bias: bool = False,
        step_mode: str = "m",
    ) -> None:
        super().__init__()
        _check_kind("DelayedLinear", kind)
        self.in_features, self.out_features, self.max_delay, self.kind = in_features, out_features, max_delay, kind
        shape = {"synaptic": (out_features, in_features), "axonal": (in_features,), "dendritic": (out_features,)}[kind]
        bound = math.sqrt(6.0 / in_features)
        self.weight = nn.Parameter(torch.empty(out_features, in_features).uniform_(-bound, bound))
        self.positions = Delays(shape, max_delay, kernel)
        self.bias = nn.Parameter(torch.zeros(out_features)) if bias else None
        self.step_mode = step_mode
        self.register_memory("history", 0.0)

    def delays(self) -> torch.Tensor:
        """The delays that act now, in steps, without gradient: [out, in], [in] or [out]."""
        return self.positions.current()[0].detach()

    def round_(self) -> DelayedLinear:
        """Rounds the delays to whole steps for good, halves up; they no longer learn. Returns the layer."""
        self.positions.round_()
        return self

    def forward(self, x: torch.Tensor, state: Any = _FRESH) -> Any:
        """The delayed sums; see the class."""
        form, dims = ("[T, B, in_features]", 3) if self.step_mode == "m" else ("[B, in_features]", 2)
        if x.dim() != dims or x.shape[-1] != self.in_features:
            raise ShapeError(
                f'DelayedLinear: input must be {form} with in_features={self.in_features} in step mode "{self.step_mode}", '
                f"got shape {tuple(x.shape)}"
            )
        return _run(self, x, state, self._sequence)

    def _sequence(self, x: torch.Tensor) -> torch.Tensor:
        delay, sigma = self.positions.current()
        if self.kind == "synaptic":
            y = delayed_sum(x, self.weight, delay, self.max_delay, sigma)
        elif self.kind == "axonal":
            y = functional.linear(delayed_channels(x, delay, self.max_delay, sigma), self.weight)
        else:
            y = delayed_channels(functional.linear(x, self.weight), delay, self.max_delay, sigma)
        return y if self.bias is None else y + self.bias

    def extra_repr(self) -> str:
        return f"{self.in_features}, {self.out_features}, kind={self.kind!r}, step_mode={self.step_mode!r}"


def _run(layer: Any, x: torch.Tensor, state: Any, sequence: Any) -> Any:
    """Runs `sequence` on a whole sequence or a piece of one, with the history that belongs to it."""
    single = layer.step_mode == "s"
    x_seq = x.unsqueeze(0) if single else x
    carried = not isinstance(state, _FreshStart)
    if not carried and single:
        state = {"history": layer.history} if isinstance(layer.history, torch.Tensor) else None
    if not carried and not single:
        return sequence(x_seq)
    whole = _History.before(x_seq, state, layer.max_delay, type(layer).__name__)
    y = sequence(whole)[layer.max_delay :]
    history = whole[len(whole) - layer.max_delay :]
    if carried:
        return (y[0] if single else y), {"history": history.detach()}
    layer.history = history
    return y[0]


class _DelayedConv(MemoryModule):
    """Shared body of the convolutions; `spatial` is the number of spatial dimensions."""

    spatial: ClassVar[int]

    def __init__(
        self,
        in_channels: int,
        out_channels: int,
        kernel_size: int | Sequence[int],
        max_delay: int,
        stride: int | Sequence[int] = 1,
        padding: int | Sequence[int] = 0,
        *,
        kind: Kind = "synaptic",
        kernel: Kernel = "gaussian",
        bias: bool = False,
        step_mode: str = "m",
    ) -> None:
        super().__init__()
        _check_kind(type(self).__name__, kind)
        self.in_channels, self.out_channels = in_channels, out_channels
        sizes = (kernel_size, stride, padding)
        self.kernel_size, self.stride, self.padding = (_as_tuple(size, self.spatial) for size in sizes)
        self.max_delay, self.kind = max_delay, kind
        shape = (self.out_channels, self.in_channels, *self.kernel_size)
        bound = math.sqrt(6.0 / math.prod(shape[1:]))
        self.weight = nn.Parameter(torch.empty(shape).uniform_(-bound, bound))
        delayed = {"synaptic": shape, "axonal": shape[1:2], "dendritic": shape[:1]}[kind]
        self.positions = Delays(delayed, max_delay, kernel)
        self.bias = nn.Parameter(torch.zeros(self.out_channels)) if bias else None
        self.step_mode = step_mode
        self.register_memory("history", 0.0)

    def delays(self) -> torch.Tensor:
        """The delays that act now, in steps, without gradient: like weight, [in_channels] or [out_channels]."""
        return self.positions.current()[0].detach()

    def round_(self) -> Any:
        """Rounds the delays to whole steps for good, halves up; they no longer learn. Returns the layer."""
        self.positions.round_()
        return self

    def forward(self, x: torch.Tensor, state: Any = _FRESH) -> Any:
        """The delayed sums; see the class."""
        dims = self.spatial + (3 if self.step_mode == "m" else 2)
        if x.dim() != dims or x.shape[-1 - self.spatial] != self.in_channels:
            sizes = ", ".join(["L"] if self.spatial == 1 else ["H", "W"])
            raise ShapeError(
                f"{type(self).__name__}: input must be [{'T, ' if self.step_mode == 'm' else ''}B, {self.in_channels}, "
                f'{sizes}] in step mode "{self.step_mode}", got shape {tuple(x.shape)}'
            )
        return _run(self, x, state, self._sequence)

    def _sequence(self, x: torch.Tensor) -> torch.Tensor:
        delay, sigma = self.positions.current()
        if self.kind == "synaptic":
            y = self._synaptic(x, delay, sigma)
        elif self.kind == "axonal":
            y = self._plain(self._shifted(x, delay, sigma))
        else:
            y = self._shifted(self._plain(x), delay, sigma)
        return y if self.bias is None else y + self.bias.view(-1, *(1 for _ in range(self.spatial)))

    def _plain(self, x: torch.Tensor) -> torch.Tensor:
        convolve: Any = functional.conv1d if self.spatial == 1 else functional.conv2d
        y = convolve(x.flatten(0, 1), self.weight, None, self.stride, self.padding)
        return y.unflatten(0, x.shape[:2])

    def _shifted(self, x: torch.Tensor, delay: torch.Tensor, sigma: float | None) -> torch.Tensor:
        last = x.movedim(2, -1)
        y = delayed_channels(last.flatten(1, -2), delay, self.max_delay, sigma)
        return y.view(last.shape).movedim(-1, 2)

    def _synaptic(self, x: torch.Tensor, delay: torch.Tensor, sigma: float | None) -> torch.Tensor:
        """One delayed sum per place of the kernel, over the pixels that it sees."""
        x = functional.pad(x, [size for size in reversed(self.padding) for _ in (0, 1)]).movedim(2, -1)
        out_size = [
            (size - kernel) // stride + 1
            for size, kernel, stride in zip(x.shape[2:-1], self.kernel_size, self.stride, strict=True)
        ]
        total: torch.Tensor | None = None
        for place in itertools.product(*map(range, self.kernel_size)):
            spans = tuple(
                slice(start, start + stride * (count - 1) + 1, stride)
                for start, count, stride in zip(place, out_size, self.stride, strict=True)
            )
            seen = x[(slice(None), slice(None), *spans)].flatten(1, -2)
            at: Any = (slice(None), slice(None), *place)
            y = delayed_sum(seen, self.weight[at], delay[at], self.max_delay, sigma)
            total = y if total is None else total + y
        assert total is not None
        return total.view(*x.shape[:2], *out_size, self.out_channels).movedim(-1, 2)

    def extra_repr(self) -> str:
        return (
            f"{self.in_channels}, {self.out_channels}, kernel_size={self.kernel_size}, stride={self.stride}, "
            f"padding={self.padding}, kind={self.kind!r}, step_mode={self.step_mode!r}"
        )


def _as_tuple(size: int | Sequence[int], count: int) -> tuple[int, ...]:
    sizes = (size,) * count if isinstance(size, int) else tuple(size)
    if len(sizes) != count:
        raise ValueError(f"a size must be a number or {count} numbers, got {size!r}")
    return sizes


class DelayedConv1d(_DelayedConv):
    """Convolution along one spatial dimension whose synapses have learnable delays in time.

    As `DelayedLinear`, with a synapse per output channel, input channel and place of the kernel; axonal delays are per
    input channel, dendritic ones per output channel. Time is the first dimension, the kernel runs along the last.

    Args:
        in_channels, out_channels, kernel_size, stride, padding, bias: as in `torch.nn.Conv1d`.
        max_delay, kind, kernel, step_mode: as in `DelayedLinear`.
    Input: [T, B, in_channels, L] ("m") or [B, in_channels, L] ("s").
    """

    spatial = 1


class DelayedConv2d(_DelayedConv):
    """Convolution over images whose synapses have learnable delays in time.

    As `DelayedConv1d`; an input of [T, B, in_channels, H, W] ("m") or [B, in_channels, H, W] ("s").
    """

    spatial = 2
