"""What a neuron model is to the engine: parameters, states, propagators and one scalar step."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np

Constants = dict[str, Any]  # name -> float, or array of one value per neuron


@dataclass(frozen=True)
class Parameter:
    """A number of the model that a user may set for a population.

    Args:
        default: value when the user gives none.
        unit: physical unit, "" for a pure number.
        meaning: one line.
        low, high: accepted range, both ends included.
    """

    default: float
    unit: str
    meaning: str
    low: float = -np.inf
    high: float = np.inf


@dataclass(frozen=True)
class State:
    """A variable of each neuron.

    Args:
        unit: physical unit.
        default: first value in that unit, or the name of the parameter that gives it.
        relative_to: parameter subtracted in storage, so that float32 keeps its digits near rest.
    """

    unit: str
    default: float | str = 0.0
    relative_to: str | None = None


@dataclass(frozen=True)
class NeuronModel:
    """A point neuron on a fixed time grid.

    ``step(s, x, c)`` is a pure scalar function: s holds the states at t, x the summed input that arrives at
    t + h (one number per receptor), c the constants; it returns ``(spike, {state: value at t + h})``. It may
    use arithmetic, comparisons, ``&``, ``|`` and the functions of `operations`. The same function runs on NumPy arrays
    (the reference) and is emitted as the body of a Numba loop.

    Args:
        name: name given to ``Network.population``.
        parameters: what a user may set.
        states: variables, in storage order.
        receptors: input channels. With two, "ex" and "in", the sign of a weight picks the channel.
        constants: (parameters, h in ms) -> the numbers that ``step`` reads from c.
        step: the update.
        conductance: weights are conductances, stored as magnitudes.
        nest: name of the NEST model that computes the same, None where there is none.
        equation: one line shown in messages and documentation.
    """

    name: str
    parameters: Mapping[str, Parameter]
    states: Mapping[str, State]
    receptors: tuple[str, ...]
    constants: Callable[[Mapping[str, Any], float], Constants]
    step: Callable[..., Any]
    conductance: bool = False
    nest: str | None = None
    equation: str = ""
    body: str | None = field(default=None)  # source text of the step, for models traced from another package

    def check_values(self, given: Mapping[str, Any], n: int) -> dict[str, Any]:
        """Merge defaults with the user's values; raise naming the parameter for anything unusable."""
        from neuromorphic.engine.errors import unknown_name

        for name in given:
            if name not in self.parameters:
                raise unknown_name(f"parameter of {self.name}", name, self.parameters)
        values: dict[str, Any] = {}
        for name, spec in self.parameters.items():
            value = np.asarray(given.get(name, spec.default))
            if value.dtype.kind not in "fiub":
                raise TypeError(f"{self.name}: {name} must be a number or an array, got {given[name]!r}")
            value = value.astype(np.float64)
            if value.ndim and value.shape != (n,):
                raise ValueError(f"{self.name}: {name} must be a number or have shape ({n},), got shape {value.shape}")
            if not np.isfinite(value).all():
                raise ValueError(f"{self.name}: {name} must be finite, got {given[name]!r}")
            if (value < spec.low).any() or (value > spec.high).any():
                raise ValueError(
                    f"{self.name}: {name} must be in [{spec.low:g}, {spec.high:g}] {spec.unit}, "
                    f"got {given.get(name, spec.default)!r}"
                )
            values[name] = value if value.ndim else float(value)
        return values
