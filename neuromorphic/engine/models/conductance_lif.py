"""Leaky integrate-and-fire with exponential conductances (COBA), exponential Euler."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from neuromorphic.engine.models import propagators as exact
from neuromorphic.engine.models.current_lif import HELD, VOLTAGE
from neuromorphic.engine.models.description import Constants, NeuronModel, Parameter, State
from neuromorphic.engine.models.operations import exp_decay, maximum, select

PARAMETERS = {
    "C_m": Parameter(200.0, "pF", "membrane capacitance", low=1e-6),
    "g_L": Parameter(10.0, "nS", "leak conductance", low=1e-6),
    "E_L": Parameter(-60.0, "mV", "leak reversal potential"),
    "E_ex": Parameter(0.0, "mV", "excitatory reversal potential"),
    "E_in": Parameter(-80.0, "mV", "inhibitory reversal potential"),
    "V_th": Parameter(-50.0, "mV", "threshold; a spike when v >= V_th"),
    "V_reset": Parameter(-60.0, "mV", "potential after a spike and while refractory"),
    "t_ref": Parameter(5.0, "ms", "refractory time, rounded to whole steps", low=0.0),
    "tau_syn_ex": Parameter(5.0, "ms", "time constant of the excitatory conductance", low=1e-6),
    "tau_syn_in": Parameter(10.0, "ms", "time constant of the inhibitory conductance", low=1e-6),
    "I_e": Parameter(0.0, "pA", "constant current"),
}


def _constants(p: Mapping[str, Any], h: float) -> Constants:
    return {
        "g_l": p["g_L"],
        "rise_ex": p["E_ex"] - p["E_L"],
        "rise_in": p["E_in"] - p["E_L"],
        "i_e": p["I_e"],
        "h_c": h / p["C_m"],
        "p_ex": exact.decay(p["tau_syn_ex"], h),
        "p_in": exact.decay(p["tau_syn_in"], h),
        "theta": p["V_th"] - p["E_L"],
        "reset": p["V_reset"] - p["E_L"],
        "hold": exact.refractory_steps(p["t_ref"], h),
    }


def _step(s: Any, x: Any, c: Any) -> Any:
    free = s.r <= 0.0
    g = c.g_l + s.g_ex + s.g_in
    v_inf = (s.g_ex * c.rise_ex + s.g_in * c.rise_in + c.i_e) / g
    v = select(free, v_inf + (s.v - v_inf) * exp_decay(c.h_c * g), s.v)
    z = free & (v >= c.theta)
    return z, {
        "v": select(z, c.reset, v),
        "g_ex": c.p_ex * s.g_ex + x.ex,
        "g_in": c.p_in * s.g_in + x["in"],
        "r": select(z, c.hold, maximum(s.r - 1.0, 0.0)),
    }


IAF_COND_EXP = NeuronModel(
    name="iaf_cond_exp",
    parameters=PARAMETERS,
    states={"v": VOLTAGE, "g_ex": State("nS"), "g_in": State("nS"), "r": HELD},
    receptors=("ex", "in"),
    constants=_constants,
    step=_step,
    conductance=True,
    nest="iaf_cond_exp",
    equation="v <- v_inf + (v - v_inf) exp(-h g/C), g = g_L + g_ex + g_in; g_x <- g_x exp(-h/tau_x) + weights (nS)",
)
