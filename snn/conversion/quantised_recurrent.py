"""Recurrent layers whose states and gates are quantised: trained as they are, converted by recipe rnn-morph exactly.

Each cell's equations are written once, over an `Algebra`. Run with values they are the layer that is trained; run with
increments over inner steps (`snn.conversion.recurrent`) they are its spiking form; run with step numbers they give the
time that this form needs.
"""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from collections.abc import Mapping
from typing import Any, Generic, NamedTuple, TypeVar

import torch
from torch import nn
from torch.nn import functional as F

from snn.conversion.activations import QuantAct, step_counts
from snn.errors import ShapeError, UnsupportedError

Signal = TypeVar("Signal")


class HardSigmoid(nn.Module):
    """clip(u / 4 + 1/2, 0, 1) in whole parts of 1 / resolution: clip(floor((u / 4 + 1/2) resolution + 1/2), 0, resolution).

    The gradient is 1/4 where nothing is clipped, else 0.

    Args:
        resolution: steps between 0 and 1; a power of two gives dyadic values.
    """

    def __init__(self, resolution: int) -> None:
        super().__init__()
        _require_resolution("HardSigmoid", resolution)
        self.resolution = resolution

    def forward(self, u: torch.Tensor) -> torch.Tensor:
        theta, value, lo, hi, start = spike_unit(self)
        exact = step_counts(u, torch.tensor(theta, dtype=u.dtype), lo, hi, start) * value
        if not u.requires_grad:
            return exact
        smooth = (u * 0.25 + 0.5).clamp(0.0, 1.0)
        return exact.detach() + (smooth - smooth.detach())  # the difference is 0 in every bit

    def extra_repr(self) -> str:
        return f"resolution={self.resolution}"


def hard_tanh(resolution: int, most: float = 1.0) -> QuantAct:
    """clip(u, -most, most) in whole steps of most / resolution."""
    _require_resolution("hard_tanh", resolution)
    return QuantAct(2 * resolution + 1, signed=True, step=most / resolution, learnable=False)


class SpikeUnit(NamedTuple):
    """The neuron with tracer that stands for a quantiser.

    Attributes:
        theta: threshold, in the unit of its input.
        value: what a spike is worth behind it.
        lo, hi: bounds of the count.
        start: membrane before the first step, in thresholds.
    """

    theta: Any
    value: Any
    lo: int
    hi: int
    start: float


def spike_unit(quantiser: nn.Module) -> SpikeUnit:
    """The neuron of a quantiser of a recurrent cell."""
    if isinstance(quantiser, HardSigmoid):
        parts = quantiser.resolution
        return SpikeUnit(4.0 / parts, 1.0 / parts, 0, parts, 0.5 + parts / 2)
    assert isinstance(quantiser, QuantAct)
    step = quantiser.step.detach()
    return SpikeUnit(step, step, quantiser.lo, quantiser.hi, 0.5)


class Algebra(ABC, Generic[Signal]):
    """What the equations of a cell are made of; all but `quantise` and `product` are linear."""

    @abstractmethod
    def linear(self, name: str, a: Signal) -> Signal:
        """The recurrent weight matrix of this name times a."""

    @abstractmethod
    def product(self, name: str, a: Signal, b: Signal) -> Signal:
        """Elementwise product; the name tells the products of a cell apart."""

    @abstractmethod
    def quantise(self, name: str, a: Signal) -> Signal:
        """The quantiser of this name."""

    @abstractmethod
    def add(self, a: Signal, b: Signal) -> Signal:
        """a + b."""

    @abstractmethod
    def subtract(self, a: Signal, b: Signal) -> Signal:
        """a - b."""


class _Values(Algebra[torch.Tensor]):
    def __init__(self, cell: QuantCell) -> None:
        self.cell = cell

    def linear(self, name: str, a: torch.Tensor) -> torch.Tensor:
        return F.linear(a, self.cell.weights[name])

    def product(self, name: str, a: torch.Tensor, b: torch.Tensor) -> torch.Tensor:
        return a * b

    def quantise(self, name: str, a: torch.Tensor) -> torch.Tensor:
        y: torch.Tensor = self.cell.quantisers[name](a)
        return y

    def add(self, a: torch.Tensor, b: torch.Tensor) -> torch.Tensor:
        return a + b

    def subtract(self, a: torch.Tensor, b: torch.Tensor) -> torch.Tensor:
        return a - b


class QuantCell(nn.Module, ABC):
    """A recurrent layer over sequences whose states are quantised.

    Args:
        inputs: features of one element.
        hidden: units.
        gates: names of the parts that the input is projected to, in order.
        recurrent: names of the recurrent weight matrices.
        quantisers: by name; each state has one of its name.
        states: names of the states that pass from element to element, the output first.

    Input: x [B, N, inputs]. Returns: the output state after each element [B, N, hidden].
    """

    def __init__(
        self,
        inputs: int,
        hidden: int,
        gates: tuple[str, ...],
        recurrent: tuple[str, ...],
        quantisers: Mapping[str, nn.Module],
        states: tuple[str, ...],
    ) -> None:
        super().__init__()
        for name, value in (("inputs", inputs), ("hidden", hidden)):
            if value < 1:
                raise ValueError(f"{type(self).__name__}: {name} must be at least 1, got {value}")
        self.inputs, self.hidden = inputs, hidden
        self.gates, self.states = gates, states
        self.projection = nn.Linear(inputs, len(gates) * hidden)
        self.weights = nn.ParameterDict({name: nn.Parameter(torch.empty(hidden, hidden)) for name in recurrent})
        for weight in self.weights.values():
            nn.init.orthogonal_(weight)
        self.quantisers = nn.ModuleDict(quantisers)

    @abstractmethod
    def equations(
        self, ops: Algebra[Signal], u: Mapping[str, Signal], state: Mapping[str, Signal]
    ) -> dict[str, Signal]:
        """The new states from the projected input by gate and the states before."""

    def split(self, projected: torch.Tensor) -> dict[str, torch.Tensor]:
        """The parts [..., hidden] of the projected input by gate."""
        return dict(zip(self.gates, projected.chunk(len(self.gates), -1), strict=True))

    def start(self, x: torch.Tensor) -> dict[str, torch.Tensor]:
        """The states before the first element, zeros [B, hidden]."""
        return {name: x.new_zeros(len(x), self.hidden) for name in self.states}

    def check(self, x: torch.Tensor) -> None:
        """Raises ShapeError unless x is [B, N, inputs] with N >= 1."""
        if x.dim() != 3 or x.shape[2] != self.inputs or x.shape[1] == 0:
            raise ShapeError(
                f"{type(self).__name__}: input must be [B, N, {self.inputs}] with N >= 1, got {tuple(x.shape)}"
            )

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        self.check(x)
        ops = _Values(self)
        projected = self.projection(x).unbind(1)
        state, outputs = self.start(x), []
        for u in projected:
            state = self.equations(ops, self.split(u), state)
            outputs.append(state[self.states[0]])
        return torch.stack(outputs, 1)

    def extra_repr(self) -> str:
        return f"inputs={self.inputs}, hidden={self.hidden}"


class QuantRNN(QuantCell):
    """Quantised simple recurrent layer: h_n = q(W_x x_n + W_h h_(n-1) + b), h_0 = 0.

    Args:
        inputs, hidden: features of one element; units.
        levels: output values of q.
        signed: False for a rectified state (W_h starts at the identity), True for a bounded one on both sides of 0
            (W_h starts orthogonal).
        step: step of q, > 0; None takes the power of two nearest to 2 / levels.
        learn_step: whether the step is trained.
    Input: x [B, N, inputs]. Returns: h [B, N, hidden].
    Raises: ValueError for sizes or a step that are not positive; ShapeError for another input.
    Source: Su et al., arXiv 2408.09403; identity start of Le, Jaitly and Hinton, arXiv 1504.00941.

    >>> QuantRNN(3, 8)(torch.zeros(2, 5, 3)).shape
    torch.Size([2, 5, 8])
    """

    def __init__(
        self,
        inputs: int,
        hidden: int,
        levels: int = 16,
        signed: bool = False,
        step: float | None = None,
        learn_step: bool = True,
    ) -> None:
        size = 2.0 ** round(math.log2(2.0 / levels)) if step is None and levels >= 2 else step
        quantiser = QuantAct(levels, signed, step=size, learnable=learn_step)
        super().__init__(inputs, hidden, ("h",), ("h",), {"h": quantiser}, ("h",))
        if not signed:
            nn.init.eye_(self.weights["h"])

    def equations(
        self, ops: Algebra[Signal], u: Mapping[str, Signal], state: Mapping[str, Signal]
    ) -> dict[str, Signal]:
        return {"h": ops.quantise("h", ops.add(u["h"], ops.linear("h", state["h"])))}


class QuantGRU(QuantCell):
    """Quantised gated recurrent layer.

        r = g(W_r x + U_r h),  z = g(W_z x + U_z h),  c = t(W_c x + U_c (r h)),  h' = t(c + z (h - c))

    with a bias in each W (that of z is 1 at the start, so that states last), g the quantised hard sigmoid and t the
    quantised hard tanh.

    Args:
        inputs, hidden: features of one element; units.
        resolution: steps of gates and states between 0 and 1; a power of two gives dyadic values.
    Input: x [B, N, inputs]. Returns: h [B, N, hidden].
    Raises: ValueError for sizes that are not positive; ShapeError for another input.
    Source: Cho et al., EMNLP 2014, with the reset gate before the matrix; U_c (r h) and z (h - c) are products of two
        quantised signals.
    """

    def __init__(self, inputs: int, hidden: int, resolution: int = 16) -> None:
        quantisers = {
            "r": HardSigmoid(resolution),
            "z": HardSigmoid(resolution),
            "c": hard_tanh(resolution),
            "h": hard_tanh(resolution),
        }
        super().__init__(inputs, hidden, ("r", "z", "c"), ("r", "z", "c"), quantisers, ("h",))
        with torch.no_grad():
            self.split(self.projection.bias)["z"].fill_(1.0)

    def equations(
        self, ops: Algebra[Signal], u: Mapping[str, Signal], state: Mapping[str, Signal]
    ) -> dict[str, Signal]:
        h = state["h"]
        r = ops.quantise("r", ops.add(u["r"], ops.linear("r", h)))
        z = ops.quantise("z", ops.add(u["z"], ops.linear("z", h)))
        c = ops.quantise("c", ops.add(u["c"], ops.linear("c", ops.product("r h", r, h))))
        return {"h": ops.quantise("h", ops.add(c, ops.product("z (h - c)", z, ops.subtract(h, c))))}


class QuantLSTM(QuantCell):
    """Quantised long short-term memory.

        i, f, o = g(W x + U h) each,  a = t(W_a x + U_a h),  c' = q(f c + i a),  h' = t(o t(c'))

    with a bias in each W, g the quantised hard sigmoid, t the quantised hard tanh, and q in steps of range / resolution
    up to +-range.

    Args:
        inputs, hidden: features of one element; units.
        resolution: steps of gates and states between 0 and 1; a power of two gives dyadic values.
        cell_range: bound of the cell state.
    Input: x [B, N, inputs]. Returns: h [B, N, hidden].
    Raises: ValueError for sizes that are not positive; ShapeError for another input.
    Source: Hochreiter and Schmidhuber, 1997, with forget gate (bias 1 at the start).
    """

    def __init__(self, inputs: int, hidden: int, resolution: int = 16, cell_range: float = 4.0) -> None:
        quantisers: dict[str, nn.Module] = {name: HardSigmoid(resolution) for name in ("i", "f", "o")}
        quantisers |= {name: hard_tanh(resolution) for name in ("a", "t", "h")}
        quantisers["c"] = hard_tanh(resolution, cell_range)
        gates = ("i", "f", "o", "a")
        super().__init__(inputs, hidden, gates, gates, quantisers, ("h", "c"))
        with torch.no_grad():
            self.split(self.projection.bias)["f"].fill_(1.0)

    def equations(
        self, ops: Algebra[Signal], u: Mapping[str, Signal], state: Mapping[str, Signal]
    ) -> dict[str, Signal]:
        i, f, o, a = (ops.quantise(name, ops.add(u[name], ops.linear(name, state["h"]))) for name in self.gates)
        c = ops.quantise("c", ops.add(ops.product("f c", f, state["c"]), ops.product("i a", i, a)))
        return {"h": ops.quantise("h", ops.product("o t", o, ops.quantise("t", c))), "c": c}


def from_float(rnn: nn.RNN | nn.LSTM, levels: int = 16) -> QuantRNN | QuantLSTM:
    """A quantised layer with the weights of a trained float one, to be trained on.

    A rectified `nn.RNN` differs from it by quantisation alone; tanh and sigmoid become their piecewise linear forms.

    Args:
        rnn: nn.RNN or nn.LSTM with one layer in one direction, batch_first, without projection.
        levels: of the state of a `QuantRNN`, or the resolution of a `QuantLSTM`.
    Raises: UnsupportedError for another form; a GRU of torch has its reset gate behind the matrix, QuantGRU before it.
    """
    if not isinstance(rnn, nn.RNN | nn.LSTM):
        raise UnsupportedError(f"from_float: a {type(rnn).__name__} has no quantised form with the same weights")
    if rnn.num_layers != 1 or rnn.bidirectional or not rnn.batch_first or rnn.proj_size:
        raise UnsupportedError("from_float: needs num_layers=1, batch_first=True, one direction and no projection")
    cell: QuantRNN | QuantLSTM
    if isinstance(rnn, nn.RNN):
        cell, order = QuantRNN(rnn.input_size, rnn.hidden_size, levels, signed=rnn.nonlinearity == "tanh"), ("h",)
    else:
        cell, order = QuantLSTM(rnn.input_size, rnn.hidden_size, levels), ("i", "f", "a", "o")
    weights: dict[str, torch.Tensor] = {name: value.detach() for name, value in rnn.named_parameters()}
    inputs, recurrent = (
        dict(zip(order, weights[f"weight_{kind}_l0"].chunk(len(order)), strict=True)) for kind in ("ih", "hh")
    )
    with torch.no_grad():
        cell.projection.weight.copy_(torch.cat([inputs[gate] for gate in cell.gates]))
        for name, weight in recurrent.items():
            cell.weights[name].copy_(weight)
        cell.projection.bias.zero_()
        if rnn.bias:
            bias = dict(zip(order, (weights["bias_ih_l0"] + weights["bias_hh_l0"]).chunk(len(order)), strict=True))
            cell.projection.bias.copy_(torch.cat([bias[gate] for gate in cell.gates]))
    return cell.to(weights["weight_ih_l0"])


def _require_resolution(owner: str, resolution: int) -> None:
    if not isinstance(resolution, int) or resolution < 1:
        raise ValueError(f"{owner}: resolution must be a whole number >= 1, got {resolution!r}")
