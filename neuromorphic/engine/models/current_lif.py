"""Leaky integrate-and-fire with current input: delta, exponential and alpha synapses, exact on the grid."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np

from neuromorphic.engine.models import propagators as exact
from neuromorphic.engine.models.description import Constants, NeuronModel, Parameter, State
from neuromorphic.engine.models.operations import maximum, select

_TINY = 1e-6  # smallest time constant in ms
MEMBRANE = {
    "C_m": Parameter(250.0, "pF", "membrane capacitance", low=_TINY),
    "tau_m": Parameter(10.0, "ms", "membrane time constant", low=_TINY),
    "E_L": Parameter(-70.0, "mV", "resting potential"),
    "V_th": Parameter(-55.0, "mV", "threshold; a spike when v >= V_th"),
    "V_reset": Parameter(-70.0, "mV", "potential after a spike and while refractory"),
    "t_ref": Parameter(2.0, "ms", "refractory time, rounded to whole steps", low=0.0),
    "I_e": Parameter(0.0, "pA", "constant current"),
}
TWO_SYNAPSES = {
    "tau_syn_ex": Parameter(2.0, "ms", "time constant of the excitatory current", low=_TINY),
    "tau_syn_in": Parameter(2.0, "ms", "time constant of the inhibitory current", low=_TINY),
}
VOLTAGE = State("mV", "E_L", relative_to="E_L")
HELD = State("steps")


def membrane_constants(p: Mapping[str, Any], h: float) -> Constants:
    """Constants shared by the models of this file; potentials are relative to E_L."""
    return {
        "p22": exact.decay(p["tau_m"], h),
        "drive": exact.current_to_voltage(p["tau_m"], p["C_m"], h) * p["I_e"],
        "theta": p["V_th"] - p["E_L"],
        "reset": p["V_reset"] - p["E_L"],
        "hold": exact.refractory_steps(p["t_ref"], h),
    }


def _delta_step(s: Any, x: Any, c: Any) -> Any:
    free = s.r <= 0.0
    v = select(free, c.p22 * s.v + c.drive + x.input, s.v)
    z = free & (v >= c.theta)
    return z, {"v": select(z, c.reset, v), "r": select(z, c.hold, maximum(s.r - 1.0, 0.0))}


def _one_constants(p: Mapping[str, Any], h: float) -> Constants:
    return membrane_constants(p, h) | {
        "p11": exact.decay(p["tau_syn"], h),
        "p21": exact.exponential_current(p["tau_syn"], p["tau_m"], p["C_m"], h),
    }


def _one_step(s: Any, x: Any, c: Any) -> Any:
    free = s.r <= 0.0
    v = select(free, c.p22 * s.v + c.p21 * s.i + c.drive, s.v)
    z = free & (v >= c.theta)
    return z, {
        "v": select(z, c.reset, v),
        "i": c.p11 * s.i + x.input,
        "r": select(z, c.hold, maximum(s.r - 1.0, 0.0)),
    }


def _exp_constants(p: Mapping[str, Any], h: float) -> Constants:
    return membrane_constants(p, h) | {
        "p11_ex": exact.decay(p["tau_syn_ex"], h),
        "p11_in": exact.decay(p["tau_syn_in"], h),
        "p21_ex": exact.exponential_current(p["tau_syn_ex"], p["tau_m"], p["C_m"], h),
        "p21_in": exact.exponential_current(p["tau_syn_in"], p["tau_m"], p["C_m"], h),
    }


def _exp_step(s: Any, x: Any, c: Any) -> Any:
    free = s.r <= 0.0
    v = select(free, c.p22 * s.v + c.p21_ex * s.i_ex + c.p21_in * s.i_in + c.drive, s.v)
    z = free & (v >= c.theta)
    return z, {
        "v": select(z, c.reset, v),
        "i_ex": c.p11_ex * s.i_ex + x.ex,
        "i_in": c.p11_in * s.i_in + x["in"],
        "r": select(z, c.hold, maximum(s.r - 1.0, 0.0)),
    }


def _alpha_constants(p: Mapping[str, Any], h: float) -> Constants:
    constants = _exp_constants(p, h)
    for channel in ("ex", "in"):
        tau = p[f"tau_syn_{channel}"]
        constants[f"p31_{channel}"] = exact.alpha_current(tau, p["tau_m"], p["C_m"], h)
        constants[f"hp11_{channel}"] = h * constants[f"p11_{channel}"]
        constants[f"kick_{channel}"] = np.e / tau
    return constants


def _alpha_step(s: Any, x: Any, c: Any) -> Any:
    free = s.r <= 0.0
    exciting = c.p31_ex * s.y_ex + c.p21_ex * s.i_ex
    v = select(free, c.p22 * s.v + exciting + c.p31_in * s.y_in + c.p21_in * s.i_in + c.drive, s.v)
    z = free & (v >= c.theta)
    return z, {
        "v": select(z, c.reset, v),
        "i_ex": c.hp11_ex * s.y_ex + c.p11_ex * s.i_ex,
        "i_in": c.hp11_in * s.y_in + c.p11_in * s.i_in,
        "y_ex": c.p11_ex * s.y_ex + c.kick_ex * x.ex,
        "y_in": c.p11_in * s.y_in + c.kick_in * x["in"],
        "r": select(z, c.hold, maximum(s.r - 1.0, 0.0)),
    }


CURRENT = State("pA")
CURRENT_SLOPE = State("pA/ms")

IAF_PSC_DELTA = NeuronModel(
    name="iaf_psc_delta",
    parameters=MEMBRANE,
    states={"v": VOLTAGE, "r": HELD},
    receptors=("input",),
    constants=membrane_constants,
    step=_delta_step,
    nest="iaf_psc_delta",
    equation="v <- P22 v + P20 I_e + weights (mV); input is dropped while refractory",
)
IAF_PSC_EXP_ONE = NeuronModel(
    name="iaf_psc_exp_one",
    parameters=MEMBRANE | {"tau_syn": Parameter(2.0, "ms", "time constant of the current of both signs", low=_TINY)},
    states={"v": VOLTAGE, "i": CURRENT, "r": HELD},
    receptors=("input",),
    constants=_one_constants,
    step=_one_step,
    nest="iaf_psc_exp",
    equation="as iaf_psc_exp with tau_syn_ex = tau_syn_in: one current for both signs, half the input memory",
)
IAF_PSC_EXP = NeuronModel(
    name="iaf_psc_exp",
    parameters=MEMBRANE | TWO_SYNAPSES,
    states={"v": VOLTAGE, "i_ex": CURRENT, "i_in": CURRENT, "r": HELD},
    receptors=("ex", "in"),
    constants=_exp_constants,
    step=_exp_step,
    nest="iaf_psc_exp",
    equation="v <- P22 v + P21_ex i_ex + P21_in i_in + P20 I_e; i <- P11 i + weights (pA)",
)
IAF_PSC_ALPHA = NeuronModel(
    name="iaf_psc_alpha",
    parameters=MEMBRANE | TWO_SYNAPSES,
    states={
        "v": VOLTAGE,
        "i_ex": CURRENT,
        "i_in": CURRENT,
        "y_ex": CURRENT_SLOPE,
        "y_in": CURRENT_SLOPE,
        "r": HELD,
    },
    receptors=("ex", "in"),
    constants=_alpha_constants,
    step=_alpha_step,
    nest="iaf_psc_alpha",
    equation="y <- P11 y + e/tau_s weights; i <- h P11 y + P11 i; v <- P22 v + P31 y + P32 i + P20 I_e",
)
