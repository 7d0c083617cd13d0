"""Rate theory of integrate-and-fire neurons in white noise, to check networks against."""

from __future__ import annotations

import numpy as np
from scipy.integrate import quad
from scipy.optimize import brentq
from scipy.special import erfcx

COLOUR_SHIFT = 1.0326  # |zeta(1/2)| / sqrt(2)


def siegert_rate_hz(
    mu_mv: float,
    sigma_mv: float,
    tau_m_ms: float,
    t_ref_ms: float,
    theta_mv: float,
    v_reset_mv: float,
    tau_s_ms: float = 0.0,
) -> float:
    """Stationary rate of a LIF neuron with mean input mu and noise sigma.

    nu = 1 / (t_ref + tau_m sqrt(pi) int erfcx(-x) dx) from (v_reset - mu)/sigma to (theta - mu)/sigma (Siegert 1951);
    exponential synapses shift both bounds by sqrt(tau_s/tau_m) |zeta(1/2)|/sqrt(2) (Fourcaud and Brunel 2002).

    >>> round(siegert_rate_hz(15.0, 5.0, 20.0, 2.0, 20.0, 10.0), 4)
    9.4608
    """
    shift = COLOUR_SHIFT * np.sqrt(tau_s_ms / tau_m_ms)
    low, high = (v_reset_mv - mu_mv) / sigma_mv + shift, (theta_mv - mu_mv) / sigma_mv + shift
    integral, _ = quad(lambda x: erfcx(-x), low, high, limit=200)
    return 1e3 / (t_ref_ms + tau_m_ms * np.sqrt(np.pi) * integral)


def siegert_cv(
    mu_mv: float, sigma_mv: float, tau_m_ms: float, t_ref_ms: float, theta_mv: float, v_reset_mv: float
) -> float:
    """CV of inter-spike intervals in white noise.

    CV^2 = 2 pi (nu tau_m)^2 int_a^b dx exp(x^2) int_{-inf}^x dy exp(y^2) (1 + erf y)^2 (Brunel 2000, appendix).
    """
    low, high = (v_reset_mv - mu_mv) / sigma_mv, (theta_mv - mu_mv) / sigma_mv
    rate = siegert_rate_hz(mu_mv, sigma_mv, tau_m_ms, t_ref_ms, theta_mv, v_reset_mv) * 1e-3

    def inner(x: float) -> float:
        # exp(x^2) exp(y^2) (1 + erf y)^2 = exp(x^2 - y^2) erfcx(-y)^2
        value, _ = quad(lambda y: np.exp(x * x - y * y) * erfcx(-y) ** 2, min(x, 0.0) - 12.0, x, limit=200)
        return float(value)

    outer, _ = quad(inner, low, high, limit=200)
    return float(np.sqrt(2.0 * np.pi * (rate * tau_m_ms) ** 2 * outer))


def brunel_rate_hz(
    c_e: int = 1000, g: float = 5.0, eta: float = 2.0, v_reset_mv: float = 0.0, external_hz: float | None = None
) -> float:
    """Self-consistent rate of the Brunel network: J 0.1 mV, tau_m 20 ms, theta 20 mV, t_ref 2 ms, C_I = C_E / 4.

    mu = J tau (nu_ext + C_E nu (1 - g/4)), sigma^2 = J^2 tau (nu_ext + C_E nu (1 + g^2/4)); the lowest root of nu = F(nu).

    Args:
        external_hz: rate of the drive of each neuron; default 10,000 eta.
    """
    j, tau, theta = 0.1, 0.02, 20.0
    drive = 1e4 * eta if external_hz is None else external_hz

    def residual(rate: float) -> float:
        mu = j * tau * (drive + c_e * rate * (1 - g / 4))
        sigma = j * np.sqrt(tau * (drive + c_e * rate * (1 + g * g / 4)))
        return siegert_rate_hz(mu, sigma, 20.0, 2.0, theta, v_reset_mv) - rate

    edges = np.linspace(0.01, 400.0, 400)
    values = [residual(r) for r in edges]
    k = next(k for k in range(len(edges) - 1) if values[k] > 0 >= values[k + 1])
    return float(brentq(residual, edges[k], edges[k + 1]))
