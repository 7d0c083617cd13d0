"""The integer neurons as torch layers: exactly the scalar functions' integers forward, surrogate gradients backward."""

from __future__ import annotations

from abc import ABC, abstractmethod
from typing import Any

import torch
from spikingjelly.activation_based import surrogate as sj
from torch import nn

from neuromorphic.targets.arithmetic import CUBA_CURRENT_LIMIT, CUBA_SHIFT, CUBA_VOLTAGE_LIMIT
from neuromorphic.targets.straight_through import (
    bounded,
    floored,
    halves_away,
    nearest,
    replaced,
    truncated,
    within,
)

States = tuple[torch.Tensor, ...]
ROUNDINGS = {"toward_zero": truncated, "down": floored, "nearest": halves_away}
"""Rounding of products; the position in this table is the code that the scalar functions take."""


class IntegerNeuron(nn.Module, ABC):
    """A layer of integer neurons: parameters, a state that starts at zero, and one step.

    Args:
        bias: added at every step, in units of the stored bias (a mantissa where the neuron has one) / bias_scale.
        bias_scale: stored bias per unit of `bias`; 1 for a bias that is given as integers.
        unit: integers of the membrane that make one unit of the surrogate's argument; None takes the threshold.
        surrogate_function: SpikingJelly surrogate object, default Sigmoid(alpha=4).

    Attributes:
        saturated: state updates of the last call that were clipped or wrapped, of `updates`.
        state_count: numbers of state per neuron.
    """

    kind: str
    state_count: int
    bias_scale: torch.Tensor
    unit: torch.Tensor | None

    def __init__(
        self, bias: Any = 0, bias_scale: Any = 1.0, unit: Any = None, surrogate_function: nn.Module | None = None
    ) -> None:
        super().__init__()
        self.bias = nn.Parameter(torch.as_tensor(bias, dtype=torch.float64).clone())
        self.register_buffer("bias_scale", torch.as_tensor(bias_scale, dtype=torch.float64))
        self.register_buffer("unit", None if unit is None else torch.as_tensor(unit, dtype=torch.float64))
        self.surrogate_function = sj.Sigmoid() if surrogate_function is None else surrogate_function
        self.saturated = 0
        self.updates = 0

    def bias_integers(self, low: int, high: int) -> torch.Tensor:
        """The stored bias, trained through its rounding."""
        return bounded(nearest(self.bias * self.bias_scale), low, high)

    def start(self, a: torch.Tensor) -> States:
        """States before the first step, for inputs like `a` [B, ...]."""
        self.saturated = self.updates = 0
        return tuple(torch.zeros_like(a) for _ in range(self.state_count))

    def fire(self, above: torch.Tensor, threshold: torch.Tensor) -> torch.Tensor:
        """1 where `above` >= 0, through the surrogate."""
        unit = threshold.clamp(min=1.0) if self.unit is None else self.unit
        z: torch.Tensor = self.surrogate_function(above / unit)
        return z

    def clipped(self, x: torch.Tensor, low: float, high: float) -> torch.Tensor:
        """x within low..high; counts what was outside."""
        with torch.no_grad():
            self.saturated += int(((x < low) | (x > high)).sum())
            self.updates += x.numel()
        return bounded(x, low, high)

    def forward(self, a: torch.Tensor) -> torch.Tensor:
        """Spikes [T, B, ...] for integer inputs a [T, B, ...], from a fresh state; float64."""
        states, output = self.start(a[0]), []
        for a_t in a.to(torch.float64):
            z, states = self.step(a_t, states)
            output.append(z)
        return torch.stack(output)

    @abstractmethod
    def step(self, a: torch.Tensor, states: States) -> tuple[torch.Tensor, States]:
        """Spikes and new states of one step, all [B, ...] float64 integers."""

    @abstractmethod
    def scalar_parameters(self) -> dict[str, torch.Tensor]:
        """Arguments of the scalar function after the states, by name, integers that broadcast over neurons."""


class CubaNeuron(IntegerNeuron):
    """Loihi's current-based LIF neuron; update order in `arithmetic.cuba_step`.

    Args:
        vth: threshold mantissa, 0..131071; 64 vth is compared with the voltage.
        du: decay register of the current, 0..4095; the current loses (du + 1) / 4096 in a step.
        dv: decay register of the voltage, 0..4095; the voltage loses dv / 4096.
        bias_mantissa: -4096..4095; bias_mantissa 2^bias_exponent is added to the voltage at every step.
        bias_exponent: 0..7.
        refractory: steps from a spike to the first one that may follow, 1..63.
        bias_scale, unit, surrogate_function: see `IntegerNeuron`.
    All are numbers or tensors that broadcast over the neurons.
    Raises: ValueError for a value that the chip cannot hold.

    >>> CubaNeuron(10, 4095, 0, bias_mantissa=5, bias_exponent=6)(torch.zeros(6, 1)).flatten().tolist()
    [0.0, 0.0, 1.0, 0.0, 0.0, 1.0]
    """

    kind = "cuba"
    state_count = 3
    vth: torch.Tensor
    du: torch.Tensor
    dv: torch.Tensor
    bias_exponent: torch.Tensor
    refractory: torch.Tensor

    def __init__(
        self,
        vth: Any,
        du: Any,
        dv: Any,
        bias_mantissa: Any = 0,
        bias_exponent: Any = 0,
        refractory: Any = 1,
        *,
        bias_scale: Any = 1.0,
        unit: Any = None,
        surrogate_function: nn.Module | None = None,
    ) -> None:
        if torch.as_tensor(bias_scale).eq(1).all():
            within("bias_mantissa", bias_mantissa, -4096, 4095)
        super().__init__(bias_mantissa, bias_scale, unit, surrogate_function)
        self.register_buffer("vth", within("vth", vth, 0, 131071))
        self.register_buffer("du", within("du", du, 0, 4095))
        self.register_buffer("dv", within("dv", dv, 0, 4095))
        self.register_buffer("bias_exponent", within("bias_exponent", bias_exponent, 0, 7))
        self.register_buffer("refractory", within("refractory", refractory, 1, 63))

    def _added_bias(self) -> torch.Tensor:
        return self.bias_integers(-4096, 4095) * 2.0**self.bias_exponent

    def step(self, a: torch.Tensor, states: States) -> tuple[torch.Tensor, States]:
        u, v, hold = states
        u = truncated(u * ((4095.0 - self.du) / 4096.0)) + a * 2.0**CUBA_SHIFT
        with torch.no_grad():
            turns = (u > CUBA_CURRENT_LIMIT).double() - (u <= -CUBA_CURRENT_LIMIT).double()
            self.saturated += int(turns.abs().sum())
        u = u - turns * (2.0 * CUBA_CURRENT_LIMIT)
        v = truncated(v * ((4096.0 - self.dv) / 4096.0)) + u + self._added_bias()
        v = self.clipped(v, -CUBA_VOLTAGE_LIMIT, CUBA_VOLTAGE_LIMIT)
        awake = (hold == 0).double()
        threshold = self.vth * 2.0**CUBA_SHIFT
        z = self.fire(v - threshold - 1.0, threshold) * awake
        fired = z.detach()
        hold = torch.where(fired > 0, self.refractory - 1.0, (hold - 1.0).clamp(min=0.0))
        return z, (u, v * (1.0 - fired) * awake, hold)

    def scalar_parameters(self) -> dict[str, torch.Tensor]:
        return {
            "current_decay": self.du + 1,
            "voltage_decay": self.dv,
            "threshold": self.vth,
            "bias": self._added_bias(),
            "refractory": self.refractory,
        }


class FixedPointNeuron(IntegerNeuron):
    """A LIF neuron, with or without current, in plain fixed point; update order in `arithmetic.fixed_point_step`.

    Args:
        threshold: in units of the state.
        voltage_kept: share of the voltage that stays, 0..2^decay_bits.
        current_kept: the same for the current; 0 is a neuron without current.
        bias: integer added at every step.
        decay_bits, state_bits: widths of the decay's fraction and of the states.
        rounding: of the decay products: "toward_zero", "down" or "nearest" (halves away from zero).
        reset: "subtract" the threshold or set to "zero".
        spiking: False makes an integrator: the output is the voltage and nothing is reset.
        bias_scale, unit, surrogate_function: see `IntegerNeuron`.
    Raises: ValueError for a value that does not fit.

    >>> FixedPointNeuron(100, 2048)(torch.tensor([60.0, 80.0, 0.0]).view(3, 1)).flatten().tolist()
    [0.0, 1.0, 0.0]
    """

    kind = "fixed-point"
    state_count = 2
    threshold: torch.Tensor
    voltage_kept: torch.Tensor
    current_kept: torch.Tensor

    def __init__(
        self,
        threshold: Any,
        voltage_kept: Any,
        current_kept: Any = 0,
        bias: Any = 0,
        *,
        decay_bits: int = 12,
        state_bits: int = 16,
        rounding: str = "toward_zero",
        reset: str = "subtract",
        spiking: bool = True,
        bias_scale: Any = 1.0,
        unit: Any = None,
        surrogate_function: nn.Module | None = None,
    ) -> None:
        if not (2 <= state_bits <= 40 and 1 <= decay_bits <= 12):  # products stay below 2^53
            raise ValueError(f"state_bits must lie in 2..40 and decay_bits in 1..12, got {state_bits} and {decay_bits}")
        if rounding not in ROUNDINGS or reset not in ("subtract", "zero"):
            raise ValueError(
                f"rounding must be one of {tuple(ROUNDINGS)} and reset 'subtract' or 'zero', got {rounding!r}, {reset!r}"
            )
        super().__init__(bias, bias_scale, unit, surrogate_function)
        self.low, self.high = -(2 ** (state_bits - 1)), 2 ** (state_bits - 1) - 1
        if torch.as_tensor(bias_scale).eq(1).all():
            within("bias", bias, self.low, self.high)
        self.register_buffer("threshold", within("threshold", threshold, 1, self.high))
        self.register_buffer("voltage_kept", within("voltage_kept", voltage_kept, 0, 2**decay_bits))
        self.register_buffer("current_kept", within("current_kept", current_kept, 0, 2**decay_bits))
        self.decay_bits, self.state_bits = decay_bits, state_bits
        self.rounding, self.reset, self.spiking = rounding, reset, spiking

    def step(self, a: torch.Tensor, states: States) -> tuple[torch.Tensor, States]:
        c, v = states
        rounded, one = ROUNDINGS[self.rounding], 2.0**self.decay_bits
        c = self.clipped(rounded(c * (self.current_kept / one)) + a, self.low, self.high)
        v = rounded(v * (self.voltage_kept / one)) + c + self.bias_integers(self.low, self.high)
        v = self.clipped(v, self.low, self.high)
        if not self.spiking:
            return v, (c, v)
        z = self.fire(v - self.threshold, self.threshold)
        fired = z.detach()
        return z, (c, v - fired * self.threshold if self.reset == "subtract" else v * (1.0 - fired))

    def scalar_parameters(self) -> dict[str, torch.Tensor]:
        def same(value: float) -> torch.Tensor:
            return torch.tensor(float(value), dtype=torch.float64)

        return {
            "current_kept": self.current_kept,
            "voltage_kept": self.voltage_kept,
            "threshold": self.threshold,
            "bias": self.bias_integers(self.low, self.high),
            "decay_bits": same(self.decay_bits),
            "state_bits": same(self.state_bits),
            "rounding": same(list(ROUNDINGS).index(self.rounding)),
            "subtract": same(self.reset == "subtract"),
        }


class BitShiftNeuron(IntegerNeuron):
    """Xylo's LIF neuron with bit-shift decays and several spikes a step; update order in `arithmetic.bit_shift_step`.

    Args:
        threshold: -32768..32767 at 16 bits.
        current_shift, voltage_shift: decays, 0..15.
        bias: integer of the state's width.
        most_spikes: largest count of one step, 1..31.
        state_bits: width of the states.
        bias_scale, unit, surrogate_function: see `IntegerNeuron`.
    The gradient of the count is the surrogate's at the threshold of each spike that was or could be next.
    Raises: ValueError for a value that the chip cannot hold.
    """

    kind = "bit-shift"
    state_count = 2
    threshold: torch.Tensor
    current_shift: torch.Tensor
    voltage_shift: torch.Tensor

    def __init__(
        self,
        threshold: Any,
        current_shift: Any,
        voltage_shift: Any,
        bias: Any = 0,
        *,
        most_spikes: int = 31,
        state_bits: int = 16,
        bias_scale: Any = 1.0,
        unit: Any = None,
        surrogate_function: nn.Module | None = None,
    ) -> None:
        super().__init__(bias, bias_scale, unit, surrogate_function)
        self.low, self.high = -(2 ** (state_bits - 1)), 2 ** (state_bits - 1) - 1
        if torch.as_tensor(bias_scale).eq(1).all():
            within("bias", bias, self.low, self.high)
        self.register_buffer("threshold", within("threshold", threshold, self.low, self.high))
        self.register_buffer("current_shift", within("current_shift", current_shift, 0, 15))
        self.register_buffer("voltage_shift", within("voltage_shift", voltage_shift, 0, 15))
        self.most_spikes = int(within("most_spikes", most_spikes, 1, 31))
        self.state_bits = state_bits

    @staticmethod
    def _lost(x: torch.Tensor, shift: torch.Tensor) -> torch.Tensor:
        lost = x / 2.0**shift
        whole = torch.floor(lost)
        return replaced(lost, torch.where(whole == 0, torch.sign(x), whole))

    def receive(self, i: torch.Tensor, a: torch.Tensor) -> torch.Tensor:
        """The current after input; exact where no sum on the way leaves the range (see `IntegerLayer`)."""
        return self.clipped(i + a, self.low, self.high)

    def step(self, a: torch.Tensor, states: States) -> tuple[torch.Tensor, States]:
        i, v = states
        return self.after_receive(self.receive(i, a), v)

    def after_receive(self, i: torch.Tensor, v: torch.Tensor) -> tuple[torch.Tensor, States]:
        """The step once the current holds this step's input."""
        i = self.clipped(i - self._lost(i, self.current_shift), self.low, self.high)
        change = self.clipped(i - self._lost(v, self.voltage_shift), self.low, self.high)
        change = self.clipped(change + self.bias_integers(self.low, self.high), self.low, self.high)
        v = self.clipped(v + change, self.low, self.high)
        count = torch.zeros_like(v)
        for _ in range(self.most_spikes):
            z = self.fire(v - self.threshold, self.threshold)
            count = count + z
            v = v - z.detach() * self.threshold
            if not bool((z > 0).any()):
                break
        return count, (i, v)

    def scalar_parameters(self) -> dict[str, torch.Tensor]:
        return {
            "current_shift": self.current_shift,
            "voltage_shift": self.voltage_shift,
            "threshold": self.threshold,
            "bias": self.bias_integers(self.low, self.high),
            "most_spikes": torch.tensor(float(self.most_spikes), dtype=torch.float64),
            "state_bits": torch.tensor(float(self.state_bits), dtype=torch.float64),
        }


class EventIFNeuron(IntegerNeuron):
    """Speck's integrate-and-fire neuron, which tests its threshold at every event; see `arithmetic.event_if_step`.

    Its layer hands it the events one by one (`IntegerLayer`); `step` is the event.

    Args:
        threshold: 1..2^(state_bits - 1) - 1.
        lowest: the membrane's lower end; None is the lowest number of the state.
        reset: "subtract" the threshold or set to "zero".
        state_bits: width of the membrane.
        unit, surrogate_function: see `IntegerNeuron`.
    Raises: ValueError for a value that the chip cannot hold.
    """

    kind = "event-if"
    state_count = 1
    threshold: torch.Tensor
    lowest: torch.Tensor

    def __init__(
        self,
        threshold: Any,
        lowest: Any = None,
        *,
        reset: str = "subtract",
        state_bits: int = 16,
        unit: Any = None,
        surrogate_function: nn.Module | None = None,
    ) -> None:
        super().__init__(0, 1.0, unit, surrogate_function)
        self.bias.requires_grad_(False)
        if reset not in ("subtract", "zero"):
            raise ValueError(f"reset must be 'subtract' or 'zero', got {reset!r}")
        low, high = -(2 ** (state_bits - 1)), 2 ** (state_bits - 1) - 1
        self.register_buffer("threshold", within("threshold", threshold, 1, high))
        self.register_buffer("lowest", within("lowest", low if lowest is None else lowest, low, 0))
        self.reset, self.state_bits = reset, state_bits

    def step(self, a: torch.Tensor, states: States) -> tuple[torch.Tensor, States]:
        (v,) = states
        v = torch.maximum(v + a, self.lowest.expand_as(v))
        z = self.fire(v - self.threshold, self.threshold)
        fired = z.detach()
        return z, (v - fired * self.threshold if self.reset == "subtract" else v * (1.0 - fired),)

    def scalar_parameters(self) -> dict[str, torch.Tensor]:
        subtract = torch.tensor(float(self.reset == "subtract"), dtype=torch.float64)
        return {"threshold": self.threshold, "lowest": self.lowest, "subtract": subtract}


NEURON_KINDS = {neuron.kind: neuron for neuron in (CubaNeuron, FixedPointNeuron, BitShiftNeuron, EventIFNeuron)}
