"""Two-variable neurons in physical units: Izhikevich and AdEx."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from spikingjelly.activation_based import surrogate as sj
from torch import nn

from snn.declaration import neuron_model
from snn.neurons.checks import require_above
from snn.neurons.neuron import Neuron
from snn.neurons.reset import resetting_spike
from snn.ops import exp, minimum, select, spike


@neuron_model(
    state={"v": "v_start", "u": "u_start"},
    params={
        "a": 0.02, "b": 0.2, "v_reset": -65.0, "d": 8.0, "v_threshold": 30.0, "dt_ms": 0.1,
        "v_start": -65.0, "u_start": -13.0, "detach_reset": False,
    },
)  # fmt: skip
def izhikevich(x: Any, s: Any, p: Any) -> tuple[Any, dict[str, Any]]:
    h = s.v + p.dt_ms * (0.04 * s.v * s.v + 5.0 * s.v + 140.0 - s.u + x)
    u = s.u + p.dt_ms * (p.a * (p.b * s.v - s.u))
    z = spike(h - p.v_threshold)
    reset = resetting_spike(z, p)
    return z, {"v": select(reset, p.v_reset, h), "u": u + reset * p.d}


@neuron_model(
    state={"v": "e_l", "w": 0.0},
    params={
        "c_m": 281.0, "g_l": 30.0, "e_l": -70.6, "v_t": -50.4, "delta_t": 2.0, "tau_w": 144.0, "a": 4.0, "b": 80.5,
        "v_reset": -60.0, "v_threshold": 0.0, "dt_ms": 0.1, "detach_reset": False,
    },
)  # fmt: skip
def adaptive_exponential(x: Any, s: Any, p: Any) -> tuple[Any, dict[str, Any]]:
    v = minimum(s.v, p.v_threshold)  # in every term: an overshoot must reach neither the exponential nor w
    drive = p.g_l * p.delta_t * exp((v - p.v_t) / p.delta_t)
    h = s.v + p.dt_ms * ((drive - p.g_l * (v - p.e_l) - s.w + x) / p.c_m)
    w = s.w + p.dt_ms * ((p.a * (v - p.e_l) - s.w) / p.tau_w)
    z = spike(h - p.v_threshold)
    reset = resetting_spike(z, p)
    return z, {"v": select(reset, p.v_reset, h), "w": w + reset * p.b}


class Izhikevich(Neuron):
    """Izhikevich's quadratic neuron, one Euler step of `dt_ms` for each step of the input.

    Each step, from the old v and u: h = v + dt (0.04 v^2 + 5 v + 140 - u + x); u' = u + dt a (b v - u);
    fire  z = [h >= v_threshold]; reset  v = v_reset where z, else h;  u = u' + d z.

    Args:
        a: rate of the recovery variable, 1/ms.
        b: sensitivity of u to v.
        v_reset: membrane after a spike, mV (c in the paper).
        d: jump of u at a spike.
        v_threshold: peak at which a spike is counted, mV.
        dt_ms: length of one step, ms; 0.5 or less keeps the Euler scheme stable.
        surrogate_function: SpikingJelly surrogate object on a scale of mV, default ATan(alpha=0.2).
        detach_reset, step_mode, store_v_seq: see `LIF`.
        backend, learnable: see `Neuron`.
    Starts at v = v_reset, u = b v_reset. Regular spiking .02 .2 -65 8 (default), bursting .02 .2 -55 4, chattering
    .02 .2 -50 2, fast spiking .1 .2 -65 2, low-threshold .02 .25 -65 2.
    Raises: ValueError if dt_ms <= 0.
    Source: Izhikevich, Simple model of spiking neurons, IEEE Transactions on Neural Networks 2003; there v takes two
        half steps and u sees the new v.
    """

    def __init__(
        self,
        a: float | torch.Tensor = 0.02,
        b: float | torch.Tensor = 0.2,
        v_reset: float | torch.Tensor = -65.0,
        d: float | torch.Tensor = 8.0,
        v_threshold: float | torch.Tensor = 30.0,
        dt_ms: float = 0.1,
        surrogate_function: nn.Module | None = None,
        detach_reset: bool = False,
        step_mode: str = "s",
        store_v_seq: bool = False,
        *,
        backend: str = "auto",
        learnable: Sequence[str] = (),
    ) -> None:
        require_above("Izhikevich", "dt_ms", dt_ms, 0.0, "ms")
        values = {"a": a, "b": b, "v_reset": v_reset, "d": d, "v_threshold": v_threshold, "dt_ms": dt_ms}
        super().__init__(
            izhikevich,
            values | {"detach_reset": detach_reset},
            learnable=learnable,
            surrogate_function=sj.ATan(alpha=0.2) if surrogate_function is None else surrogate_function,
            step_mode=step_mode,
            backend=backend,
            store_v_seq=store_v_seq,
        )
        del self.v_start, self.u_start

    def call_params(self) -> dict[str, Any]:
        """The model's parameters for a call; the start lies on u = b v at the reset."""
        fixed = {name: getattr(self, name) for name in self.model.params if not name.endswith("_start")}
        return {**fixed, "v_start": self.v_reset, "u_start": self.b * self.v_reset}


class AdEx(Neuron):
    """Adaptive exponential integrate-and-fire neuron, one Euler step of `dt_ms` for each step of the input.

    Each step, from the old v and w, with v clipped to v_threshold in every term:
    h = v + dt (-g_l (v - e_l) + g_l delta_t exp((v - v_t) / delta_t) - w + x) / c_m;
    w' = w + dt (a (v - e_l) - w) / tau_w; fire  z = [h >= v_threshold]; reset  v = v_reset where z;  w = w' + b z.

    Args:
        c_m: capacitance, pF.
        g_l, e_l: leak conductance, nS, and reversal potential, mV; the start is v = e_l, w = 0.
        v_t, delta_t: effective threshold and slope of the exponential, mV.
        tau_w, a, b: time constant, ms, sub-threshold coupling, nS, and jump, pA, of the adaptation current w.
        v_reset, v_threshold: membrane after a spike and peak at which a spike is counted, mV.
        dt_ms: length of one step, ms; 0.05 or less for spike times within 0.5 ms.
        surrogate_function: SpikingJelly surrogate object on a scale of mV, default ATan(alpha=0.2).
        detach_reset, step_mode, store_v_seq: see `LIF`.
        backend, learnable: see `Neuron`.
    Input: current, pA.
    Raises: ValueError if c_m, g_l, delta_t, tau_w or dt_ms is not positive.
    Source: Brette and Gerstner, J Neurophysiol 2005 (regular-spiking parameters).
    """

    def __init__(
        self,
        c_m: float | torch.Tensor = 281.0,
        g_l: float | torch.Tensor = 30.0,
        e_l: float | torch.Tensor = -70.6,
        v_t: float | torch.Tensor = -50.4,
        delta_t: float | torch.Tensor = 2.0,
        tau_w: float | torch.Tensor = 144.0,
        a: float | torch.Tensor = 4.0,
        b: float | torch.Tensor = 80.5,
        v_reset: float | torch.Tensor = -60.0,
        v_threshold: float | torch.Tensor = 0.0,
        dt_ms: float = 0.1,
        surrogate_function: nn.Module | None = None,
        detach_reset: bool = False,
        step_mode: str = "s",
        store_v_seq: bool = False,
        *,
        backend: str = "auto",
        learnable: Sequence[str] = (),
    ) -> None:
        positive = {"c_m": c_m, "g_l": g_l, "delta_t": delta_t, "tau_w": tau_w, "dt_ms": dt_ms}
        for name, value in positive.items():
            require_above("AdEx", name, value, 0.0)
        others = {"e_l": e_l, "v_t": v_t, "a": a, "b": b, "v_reset": v_reset, "v_threshold": v_threshold}
        super().__init__(
            adaptive_exponential,
            positive | others | {"detach_reset": detach_reset},
            learnable=learnable,
            surrogate_function=sj.ATan(alpha=0.2) if surrogate_function is None else surrogate_function,
            step_mode=step_mode,
            backend=backend,
            store_v_seq=store_v_seq,
        )
