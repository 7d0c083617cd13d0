"""Layers of an integer network: synapses with their neurons, sum pooling, flattening, read-outs."""

from __future__ import annotations

from collections.abc import Callable
from math import prod
from typing import Any

import numpy as np
import torch
from torch import nn

from neuromorphic.targets import kernels
from neuromorphic.targets.connections import IntegerConnection, IntegerLinear, Run, Shape
from neuromorphic.targets.neurons import BitShiftNeuron, CubaNeuron, EventIFNeuron, FixedPointNeuron, IntegerNeuron
from neuromorphic.targets.straight_through import floored, replaced
from snn.errors import ShapeError, UnsupportedError


class SumPool(nn.Module):
    """Sums over non-overlapping windows of the last axes; positions that fill no window are left out, as in torch.

    Args:
        window: size along each pooled axis.
    """

    def __init__(self, window: tuple[int, ...]) -> None:
        super().__init__()
        self.window = window

    def output_shape(self, shape: Shape) -> Shape:
        """Shape of one output; ShapeError where a window does not fit."""
        axes = len(self.window)
        if len(shape) < axes or any(size < k for size, k in zip(shape[-axes:], self.window, strict=True)):
            raise ShapeError(f"SumPool: window {self.window} does not fit into an input of shape {shape}")
        sizes = [size // k for size, k in zip(shape[-axes:], self.window, strict=True)]
        return (*shape[:-axes], *sizes)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Sums [T, B, ...] of x [T, B, ...]."""
        axes = len(self.window)
        self.output_shape(tuple(x.shape[2:]))
        for axis, k in zip(range(-axes, 0), self.window, strict=True):
            size = x.shape[axis] // k * k
            x = x.narrow(axis, 0, size).unflatten(axis, (size // k, k)).sum(axis)
        return x

    def compiled(self, shape: Shape) -> Run:
        """The same as a function of x [T, B, N], for inputs shaped `shape`."""
        return lambda x: np.ascontiguousarray(self(torch.from_numpy(x).unflatten(2, shape)).flatten(2).numpy())


class Flatten(nn.Module):
    """[T, B, ...] to [T, B, N]."""

    def output_shape(self, shape: Shape) -> Shape:
        return (prod(shape),)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return x.flatten(2)

    def compiled(self, shape: Shape) -> Run:
        return lambda x: x


class IntegerLayer(nn.Module):
    """Synapses and the neurons behind them.

    Args:
        connection: the synapses.
        neuron: integer neurons; None gives the sums themselves plus `bias` (a read-out without state).
        pool: sums over windows between synapses and neurons.
        recurrent: synapses from the layer's own spikes of the step before (square).
        bias: added to the sums at every step (of a read-out, or as an always active synapse of neurons with a current), in
            units of the sums / bias_scale; trained through its rounding.
        bias_scale: stored bias per unit of `bias`.
        latency: steps by which the spikes arrive later; the first ones are silent.
        right_shift: bits that the sums lose before they reach the neurons, rounded to the nearest (halves upward); for
            wide sums of graded inputs.
    Input: whole numbers [T, B, ...], spikes or counts. Returns: float64 integers [T, B, ...].
    Raises: UnsupportedError for a combination that the neurons do not have.

    >>> layer = IntegerLayer(IntegerLinear([[7, 5]]), CubaNeuron(vth=11, du=4095, dv=0))
    >>> layer(torch.tensor([[[1.0, 1.0]], [[1.0, 0.0]], [[0.0, 1.0]]])).flatten().tolist()
    [1.0, 0.0, 1.0]
    """

    bias_scale: torch.Tensor

    def __init__(
        self,
        connection: IntegerConnection,
        neuron: IntegerNeuron | None = None,
        pool: SumPool | None = None,
        recurrent: IntegerLinear | None = None,
        bias: Any = 0,
        bias_scale: Any = 1.0,
        latency: int = 0,
        right_shift: int = 0,
    ) -> None:
        super().__init__()
        if right_shift and not isinstance(neuron, FixedPointNeuron):
            raise UnsupportedError("only fixed-point neurons have a right shift in front")
        if isinstance(neuron, EventIFNeuron) and (pool is not None or recurrent is not None):
            raise UnsupportedError(
                "event-driven integrate-and-fire neurons take events from feed-forward synapses only"
            )
        if isinstance(neuron, BitShiftNeuron) and (pool is not None or not isinstance(connection, IntegerLinear)):
            raise UnsupportedError("bit-shift neurons take their input from linear layers only")
        if isinstance(neuron, EventIFNeuron | BitShiftNeuron) and bool((torch.as_tensor(bias) != 0).any()):
            raise UnsupportedError(f"{type(neuron).__name__} takes its bias itself, not through the synapses")
        if latency < 0 or right_shift < 0:
            raise ValueError(f"latency and right_shift must be >= 0, got {latency} and {right_shift}")
        self.connection, self.neuron, self.pool, self.recurrent = connection, neuron, pool, recurrent
        self.bias = nn.Parameter(torch.as_tensor(bias, dtype=torch.float64).clone())
        self.register_buffer("bias_scale", torch.as_tensor(bias_scale, dtype=torch.float64))
        self.latency, self.right_shift = latency, right_shift

    def output_shape(self, shape: Shape) -> Shape:
        """Shape of one output for one input."""
        out = self.connection.output_shape(shape)
        return out if self.pool is None else self.pool.output_shape(out)

    def sum_bias(self) -> torch.Tensor:
        """The integer that is added to the sums."""
        scaled = self.bias * self.bias_scale
        return replaced(scaled, torch.round(scaled))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        if isinstance(self.neuron, EventIFNeuron):
            return self._late(self._events(x))
        if isinstance(self.neuron, BitShiftNeuron):
            return self._late(self._bit_shift(x, self.neuron))
        a = self.connection(x)
        if self.pool is not None:
            a = self.pool(a)
        a = a + self.sum_bias()
        if self.right_shift:
            a = floored(a / 2.0**self.right_shift + 0.5)
        if self.neuron is None:
            return a
        if self.recurrent is None:
            return self._late(self.neuron(a))
        states = self.neuron.start(a[0])
        spikes: list[torch.Tensor] = []
        for a_t in a:
            total = a_t + self.recurrent(spikes[-1].unsqueeze(0))[0] if spikes else a_t
            z, states = self.neuron.step(total, states)
            spikes.append(z)
        return self._late(torch.stack(spikes))

    def _late(self, z: torch.Tensor) -> torch.Tensor:
        if self.latency == 0:
            return z
        silent = torch.zeros_like(z[: self.latency])
        return torch.cat([silent, z[: max(len(z) - self.latency, 0)]])[: len(z)]

    def _bit_shift(self, x: torch.Tensor, neuron: BitShiftNeuron) -> torch.Tensor:
        """Spike by spike where a sum could leave the range on its way, all at once elsewhere."""
        weights = [self.connection.stored().T, *([self.recurrent.stored().T] if self.recurrent is not None else [])]
        (i, v), last, output = neuron.start(self.connection(x[:1])[0]), None, []
        for x_t in x.to(torch.float64):
            inputs = [x_t] if last is None else [x_t, last]
            reach = i.abs() + sum(part @ w.abs() for part, w in zip(inputs, weights, strict=False))
            if bool((reach <= neuron.high).all()):
                i = i + sum(part @ w for part, w in zip(inputs, weights, strict=False))
            else:
                for part, w in zip(inputs, weights, strict=False):
                    for source in range(part.shape[1]):
                        i = neuron.receive(i, part[:, source : source + 1] * w[source])
            z, (i, v) = neuron.after_receive(i, v)
            last = z if self.recurrent is not None else None
            output.append(z)
        return torch.stack(output)

    def _events(self, x: torch.Tensor) -> torch.Tensor:
        """Exact counts and membranes from the event loop; gradients as if all events of a step came at once."""
        neuron = self.neuron
        assert isinstance(neuron, EventIFNeuron)
        shape = tuple(x.shape[2:])
        counts, membranes = self._event_loop(shape)(_as_array(x.flatten(2)))
        out = (*x.shape[:2], *self.output_shape(shape))
        exact, after = (torch.from_numpy(array).to(x.device).double().view(out) for array in (counts, membranes))
        a = self.connection(x) + neuron.bias_integers(-(2**15), 2**15 - 1)
        (v,), output = neuron.start(a[0]), []
        for a_t, exact_t, after_t in zip(a, exact, after, strict=True):
            h = v + a_t
            z = replaced(neuron.fire(h - neuron.threshold, neuron.threshold), exact_t)
            v = replaced(h if neuron.reset == "subtract" else h * (exact_t == 0), after_t)
            output.append(z)
        return torch.stack(output)

    def _event_loop(self, shape: Shape) -> Callable[[np.ndarray], tuple[np.ndarray, np.ndarray]]:
        neuron = self.neuron
        assert isinstance(neuron, EventIFNeuron)
        form, out = self.connection.conv_form(shape), self.output_shape(shape)
        bias = _as_rows({"bias": neuron.bias_integers(-(2**15), 2**15 - 1)}, out)[0]
        rows = _as_rows(neuron.scalar_parameters(), out)

        def run(x: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
            if x.size and x.min() < 0:
                raise ValueError("events must be counts >= 0")
            counts, membranes = kernels.run_event_if(x, *form, bias, rows)
            return counts, membranes

        return run

    def compiled(self, shape: Shape) -> Run:
        """`forward` as compiled loops over integers that are read once, now.

        Args:
            shape: of one input.
        Returns: a function from x [T, B, I] int32 to int32 or int64 [T, B, O].
        """
        neuron, latency = self.neuron, self.latency
        if isinstance(neuron, EventIFNeuron):
            events = self._event_loop(shape)
            return lambda x: _shifted(events(x)[0], latency)
        out = self.output_shape(shape)
        feedback = np.zeros((0, 0), np.int32) if self.recurrent is None else self.recurrent.matrix()
        if neuron is None:
            return self._compiled_sums(shape)
        rows = _as_rows(neuron.scalar_parameters(), out)
        if isinstance(neuron, BitShiftNeuron):
            assert isinstance(self.connection, IntegerLinear)
            matrix = self.connection.matrix()
            return lambda x: _shifted(kernels.run_bit_shift(x, matrix, feedback, rows), latency)
        sums = self._compiled_sums(shape)
        if isinstance(neuron, CubaNeuron):
            return lambda x: _shifted(kernels.run_cuba(sums(x), feedback, rows), latency)
        assert isinstance(neuron, FixedPointNeuron)
        spiking = neuron.spiking
        return lambda x: _shifted(kernels.run_fixed_point(sums(x), feedback, rows, spiking), latency)

    def _compiled_sums(self, shape: Shape) -> Run:
        """What reaches the neurons: sums of weights, pooled, with their bias, shifted."""
        sums, shift = self.connection.compiled(shape), self.right_shift
        bias = _as_rows({"bias": self.sum_bias()}, self.output_shape(shape))[0]
        pool = None if self.pool is None else self.pool.compiled(self.connection.output_shape(shape))

        def run(x: np.ndarray) -> np.ndarray:
            a = (sums(x) if pool is None else pool(sums(x))) + bias
            return (a + (1 << (shift - 1))) >> shift if shift else a

        return run


def cuba_dense(
    weight: Any,
    vth: Any,
    du: Any,
    dv: Any,
    bias_mantissa: Any = 0,
    bias_exponent: Any = 0,
    *,
    refractory: Any = 1,
    latency: int = 0,
) -> IntegerLayer:
    """A dense layer of Loihi's neurons from integers that are stored on the chip.

    Args:
        weight: [outputs, inputs] integers as they are added, exponent included.
        vth, du, dv, bias_mantissa, bias_exponent, refractory: see `CubaNeuron`.
        latency: 1 delays the spikes by the step that Lava's dense connections take.
    """
    return IntegerLayer(
        IntegerLinear(weight), CubaNeuron(vth, du, dv, bias_mantissa, bias_exponent, refractory), latency=latency
    )


def _shifted(z: np.ndarray, latency: int) -> np.ndarray:
    if latency == 0:
        return z
    late = np.zeros_like(z)
    late[latency:] = z[: max(len(z) - latency, 0)]
    return late


def _as_array(x: torch.Tensor) -> np.ndarray:
    return np.ascontiguousarray(x.detach().cpu().numpy().astype(np.int32))


def _as_rows(values: dict[str, torch.Tensor], shape: Shape) -> np.ndarray:
    """Parameters as int64 [K, N], one row per name, each broadcast over the neurons."""
    with torch.no_grad():
        rows = [value.detach().cpu().expand(shape).reshape(-1) for value in values.values()]
        return np.ascontiguousarray(torch.stack([row.to(torch.float64) for row in rows]).numpy().astype(np.int64))
