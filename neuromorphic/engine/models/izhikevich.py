"""Izhikevich neurons: consistent Euler, and the two half-steps of the 2003 paper."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from neuromorphic.engine.models.description import Constants, NeuronModel, Parameter, State
from neuromorphic.engine.models.operations import select

PARAMETERS = {
    "a": Parameter(0.02, "1/ms", "rate of recovery"),
    "b": Parameter(0.2, "1/ms", "coupling of the recovery to the potential"),
    "c": Parameter(-65.0, "mV", "potential after a spike"),
    "d": Parameter(8.0, "mV/ms", "step of the recovery at a spike"),
    "V_th": Parameter(30.0, "mV", "peak; a spike when v >= V_th"),
    "I_e": Parameter(0.0, "mV/ms", "constant input"),
}
STATES = {"v": State("mV", -65.0), "u": State("mV/ms", -13.0)}
# Parameters of five cell types: Izhikevich 2003, figure 2.
CELL_TYPES = {
    "RS": {"a": 0.02, "b": 0.2, "c": -65.0, "d": 8.0},
    "IB": {"a": 0.02, "b": 0.2, "c": -55.0, "d": 4.0},
    "CH": {"a": 0.02, "b": 0.2, "c": -50.0, "d": 2.0},
    "FS": {"a": 0.1, "b": 0.2, "c": -65.0, "d": 2.0},
    "LTS": {"a": 0.02, "b": 0.25, "c": -65.0, "d": 2.0},
}


def _constants(p: Mapping[str, Any], h: float) -> Constants:
    return {
        "h": h,
        "half": h / 2,
        "ha": h * p["a"],
        "b": p["b"],
        "c": p["c"],
        "d": p["d"],
        "peak": p["V_th"],
        "i_e": p["I_e"],
    }


def _step(s: Any, x: Any, c: Any) -> Any:
    v = s.v + c.h * (0.04 * s.v * s.v + 5.0 * s.v + 140.0 - s.u + c.i_e) + x.input
    u = s.u + c.ha * (c.b * s.v - s.u)
    z = v >= c.peak
    return z, {"v": select(z, c.c, v), "u": select(z, u + c.d, u)}


def _half_steps(s: Any, x: Any, c: Any) -> Any:
    v = s.v + x.input
    v = v + c.half * (0.04 * v * v + 5.0 * v + 140.0 - s.u + c.i_e)
    v = v + c.half * (0.04 * v * v + 5.0 * v + 140.0 - s.u + c.i_e)
    u = s.u + c.ha * (c.b * v - s.u)
    z = v >= c.peak
    return z, {"v": select(z, c.c, v), "u": select(z, u + c.d, u)}


IZHIKEVICH = NeuronModel(
    name="izhikevich",
    parameters=PARAMETERS,
    states=STATES,
    receptors=("input",),
    constants=_constants,
    step=_step,
    nest="izhikevich",
    equation="v <- v + h (0.04 v^2 + 5 v + 140 - u + I) + weights (mV); u <- u + h a (b v - u); both from the old v, u",
)
IZHIKEVICH_2003 = NeuronModel(
    name="izhikevich_2003",
    parameters=PARAMETERS,
    states=STATES,
    receptors=("input",),
    constants=_constants,
    step=_half_steps,
    equation="two half-steps of v, then u from the new v (Izhikevich 2003)",
)
