"""Exact propagators of linear membranes (Rotter and Diesmann 1999), in ms, pF, pA and mV."""

from __future__ import annotations

from typing import Any

import numpy as np

_NEAR = 1e-7  # relative difference of two time constants below which the equal-constants form is used


def decay(tau_ms: Any, h: float) -> Any:
    """exp(-h/tau)."""
    return np.exp(-h / tau_ms)


def current_to_voltage(tau_m: Any, c_m: Any, h: float) -> Any:
    """Voltage after h from a constant current of 1 pA: tau/C (1 - exp(-h/tau)), mV/pA."""
    return -np.expm1(-h / tau_m) * tau_m / c_m


def exponential_current(tau_s: Any, tau_m: Any, c_m: Any, h: float) -> Any:
    """Voltage after h from a current of 1 pA that decays with tau_s (P21), mV/pA.

    beta = tau_s tau_m / (tau_m - tau_s); P21 = beta/C exp(-h/tau_s) expm1(h/beta), h/C exp(-h/tau_m) when equal.
    """
    tau_s, tau_m, c_m = np.broadcast_arrays(np.asarray(tau_s, float), tau_m, c_m)
    difference = tau_m - tau_s
    equal = np.abs(difference) < _NEAR * tau_m
    beta = tau_s * tau_m / np.where(equal, 1.0, difference)
    return np.where(equal, h * np.exp(-h / tau_m), beta * np.exp(-h / tau_s) * np.expm1(h / beta)) / c_m


def alpha_current(tau_s: Any, tau_m: Any, c_m: Any, h: float) -> Any:
    """Voltage after h from dI = 1 pA/ms of an alpha-shaped current (P31), mV ms/pA.

    P31 = beta/C exp(-h/tau_s) (beta expm1(h/beta) - h); h^2/(2C) exp(-h/tau_m) when the constants are close.
    """
    tau_s, tau_m, c_m = np.broadcast_arrays(np.asarray(tau_s, float), tau_m, c_m)
    difference = tau_m - tau_s
    equal = np.abs(difference) < 1e-5 * tau_m
    beta = tau_s * tau_m / np.where(equal, 1.0, difference)
    ratio = h / beta
    # beta expm1(h/beta) - h, by its series where the two terms cancel
    series = h * ratio / 2 * (1 + ratio / 3 * (1 + ratio / 4 * (1 + ratio / 5)))
    bracket = np.where(np.abs(ratio) < 1e-2, series, beta * np.expm1(ratio) - h)
    return np.where(equal, 0.5 * h * h * np.exp(-h / tau_m), beta * np.exp(-h / tau_s) * bracket) / c_m


def psc_for_psp(psp_mv: float, tau_m: float, tau_s: float, c_m: float) -> float:
    """Weight in pA of an exponential synapse whose voltage response peaks at ``psp_mv``.

    >>> round(psc_for_psp(0.15, 10.0, 0.5, 250.0), 4)
    87.8085
    """
    q = (tau_m / tau_s) ** (1.0 / (tau_s - tau_m))
    return psp_mv / (tau_m * tau_s / (c_m * (tau_s - tau_m)) * (q**tau_m - q**tau_s))


def refractory_steps(t_ref: Any, h: float) -> Any:
    """Whole steps a neuron is held after its spike: t_ref/h rounded, ties upward."""
    return np.floor(np.asarray(t_ref, float) / h + 0.5 + 1e-9)
