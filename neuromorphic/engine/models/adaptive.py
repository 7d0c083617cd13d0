"""Adaptive neurons: ALIF (threshold and current) and the adaptive exponential integrate-and-fire neuron."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np

from neuromorphic.engine.models import propagators as exact
from neuromorphic.engine.models.current_lif import CURRENT, HELD, MEMBRANE, VOLTAGE, membrane_constants
from neuromorphic.engine.models.description import Constants, NeuronModel, Parameter, State
from neuromorphic.engine.models.operations import exp, maximum, minimum, select

_ALIF = MEMBRANE | {
    "tau_syn": Parameter(2.0, "ms", "time constant of the synaptic current", low=1e-6),
    "tau_a": Parameter(100.0, "ms", "time constant of the adaptation", low=1e-6),
    "beta": Parameter(1.0, "mV", "rise of the threshold with each spike"),
    "b": Parameter(0.0, "pA", "adaptation current after each spike"),
}


def _alif_constants(p: Mapping[str, Any], h: float) -> Constants:
    return membrane_constants(p, h) | {
        "p11": exact.decay(p["tau_syn"], h),
        "p21": exact.exponential_current(p["tau_syn"], p["tau_m"], p["C_m"], h),
        "pa": exact.decay(p["tau_a"], h),
        "p2a": p["b"] * exact.exponential_current(p["tau_a"], p["tau_m"], p["C_m"], h),
        "beta": p["beta"],
    }


def _alif_step(s: Any, x: Any, c: Any) -> Any:
    free = s.r <= 0.0
    v = select(free, c.p22 * s.v + c.p21 * s.i - c.p2a * s.a + c.drive, s.v)
    a = c.pa * s.a
    z = free & (v >= c.theta + c.beta * a)
    return z, {
        "v": select(z, c.reset, v),
        "i": c.p11 * s.i + x.input,
        "a": select(z, a + 1.0, a),
        "r": select(z, c.hold, maximum(s.r - 1.0, 0.0)),
    }


ALIF = NeuronModel(
    name="alif",
    parameters=_ALIF,
    states={"v": VOLTAGE, "i": CURRENT, "a": State("spikes"), "r": HELD},
    receptors=("input",),
    constants=_alif_constants,
    step=_alif_step,
    equation="iaf_psc_exp_one with a <- exp(-h/tau_a) a + spike, threshold V_th + beta a and current -b a",
)

_ADEX = {
    "C_m": Parameter(281.0, "pF", "membrane capacitance", low=1e-6),
    "g_L": Parameter(30.0, "nS", "leak conductance", low=1e-6),
    "E_L": Parameter(-70.6, "mV", "leak reversal potential"),
    "V_T": Parameter(-50.4, "mV", "start of the exponential rise"),
    "Delta_T": Parameter(2.0, "mV", "sharpness of the rise", low=1e-6),
    "V_peak": Parameter(0.0, "mV", "a spike when v >= V_peak"),
    "V_reset": Parameter(-60.0, "mV", "potential after a spike"),
    "t_ref": Parameter(0.0, "ms", "refractory time, rounded to whole steps", low=0.0),
    "a": Parameter(4.0, "nS", "adaptation by the potential"),
    "b": Parameter(80.5, "pA", "adaptation by a spike"),
    "tau_w": Parameter(144.0, "ms", "time constant of the adaptation", low=1e-6),
    "E_ex": Parameter(0.0, "mV", "excitatory reversal potential"),
    "E_in": Parameter(-85.0, "mV", "inhibitory reversal potential"),
    "tau_syn_ex": Parameter(5.0, "ms", "time constant of the excitatory conductance", low=1e-6),
    "tau_syn_in": Parameter(10.0, "ms", "time constant of the inhibitory conductance", low=1e-6),
    "I_e": Parameter(0.0, "pA", "constant current"),
}


def _adex_constants(p: Mapping[str, Any], h: float) -> Constants:
    return {
        "h": h,
        "half": h / 2,
        "sixth": h / 6,
        "inv_c": 1.0 / np.asarray(p["C_m"]),
        "inv_tau_w": 1.0 / np.asarray(p["tau_w"]),
        "g_l": p["g_L"],
        "g_l_delta": p["g_L"] * p["Delta_T"],
        "inv_delta": 1.0 / np.asarray(p["Delta_T"]),
        "v_t": p["V_T"] - p["E_L"],
        "peak": p["V_peak"] - p["E_L"],
        "reset": p["V_reset"] - p["E_L"],
        "a": p["a"],
        "b": p["b"],
        "e_ex": p["E_ex"] - p["E_L"],
        "e_in": p["E_in"] - p["E_L"],
        "p_ex": exact.decay(p["tau_syn_ex"], h),
        "p_in": exact.decay(p["tau_syn_in"], h),
        "q_ex": exact.decay(p["tau_syn_ex"], h / 2),
        "q_in": exact.decay(p["tau_syn_in"], h / 2),
        "i_e": p["I_e"],
        "hold": exact.refractory_steps(p["t_ref"], h),
    }


def _adex_step(s: Any, x: Any, c: Any) -> Any:
    # Classical Runge-Kutta; the potential is clipped to V_peak in every term of both right-hand sides.
    free = s.r <= 0.0
    g_ex_half = c.q_ex * s.g_ex
    g_in_half = c.q_in * s.g_in
    g_ex_end = c.p_ex * s.g_ex
    g_in_end = c.p_in * s.g_in

    u = minimum(s.v, c.peak)
    rise = c.g_l_delta * exp((u - c.v_t) * c.inv_delta)
    dv1 = (rise - c.g_l * u - s.g_ex * (u - c.e_ex) - s.g_in * (u - c.e_in) - s.w + c.i_e) * c.inv_c
    dw1 = (c.a * u - s.w) * c.inv_tau_w

    w = s.w + c.half * dw1
    u = minimum(s.v + c.half * dv1, c.peak)
    rise = c.g_l_delta * exp((u - c.v_t) * c.inv_delta)
    dv2 = (rise - c.g_l * u - g_ex_half * (u - c.e_ex) - g_in_half * (u - c.e_in) - w + c.i_e) * c.inv_c
    dw2 = (c.a * u - w) * c.inv_tau_w

    w = s.w + c.half * dw2
    u = minimum(s.v + c.half * dv2, c.peak)
    rise = c.g_l_delta * exp((u - c.v_t) * c.inv_delta)
    dv3 = (rise - c.g_l * u - g_ex_half * (u - c.e_ex) - g_in_half * (u - c.e_in) - w + c.i_e) * c.inv_c
    dw3 = (c.a * u - w) * c.inv_tau_w

    w = s.w + c.h * dw3
    u = minimum(s.v + c.h * dv3, c.peak)
    rise = c.g_l_delta * exp((u - c.v_t) * c.inv_delta)
    dv4 = (rise - c.g_l * u - g_ex_end * (u - c.e_ex) - g_in_end * (u - c.e_in) - w + c.i_e) * c.inv_c
    dw4 = (c.a * u - w) * c.inv_tau_w

    v = select(free, s.v + c.sixth * (dv1 + 2.0 * dv2 + 2.0 * dv3 + dv4), s.v)
    w = s.w + c.sixth * (dw1 + 2.0 * dw2 + 2.0 * dw3 + dw4)
    z = free & (v >= c.peak)
    return z, {
        "v": select(z, c.reset, v),
        "w": select(z, w + c.b, w),
        "g_ex": g_ex_end + x.ex,
        "g_in": g_in_end + x["in"],
        "r": select(z, c.hold, maximum(s.r - 1.0, 0.0)),
    }


ADEX = NeuronModel(
    name="aeif_cond_exp",
    parameters=_ADEX,
    states={"v": VOLTAGE, "w": CURRENT, "g_ex": State("nS"), "g_in": State("nS"), "r": HELD},
    receptors=("ex", "in"),
    constants=_adex_constants,
    step=_adex_step,
    conductance=True,
    nest="aeif_cond_exp",
    equation="C v' = -g_L (v - E_L) + g_L D_T exp((v - V_T)/D_T) - synapses - w + I; tau_w w' = a (v - E_L) - w (RK4)",
)
