"""Brunel's sparse random network (2000), with delta or exponential synapses, and a variant with STDP."""

from __future__ import annotations

from typing import Any

import numpy as np

from neuromorphic.engine.connectivity import FixedInDegree
from neuromorphic.engine.distributions import Normal
from neuromorphic.engine.models.propagators import psc_for_psp
from neuromorphic.engine.networks.ready import Options, ReadyNetwork
from neuromorphic.engine.plasticity import PairSTDP

TAU_M_MS, THETA_MV, DELAY_MS, J_MV = 20.0, 20.0, 1.5, 0.1


def brunel(
    options: Options, synapses: str = "delta", v_reset_mv: float = 0.0, g: float = 5.0, eta: float = 2.0
) -> ReadyNetwork:
    """10,000 + 2,500 neurons with in-degree 1,000 + 250, times ``scale``.

    J = 0.1 mV, inhibition -g J, delay 1.5 ms, each neuron driven by Poisson spikes of 10,000 eta Hz (delta synapses).

    Args:
        synapses: "delta", or "exp": currents of 0.5 ms whose potential peaks at J, drive with the same mean.
        v_reset_mv: 0 as in the NEST examples; the paper has 10.
        g, eta: relative inhibition, and drive relative to the threshold.
    """
    if synapses not in ("delta", "exp"):
        raise ValueError(f'brunel: synapses must be "delta" or "exp", got {synapses!r}')
    net = options.network()
    order = options.size(2500)
    cell: dict[str, Any] = {"tau_m": TAU_M_MS, "E_L": 0.0, "V_th": THETA_MV, "V_reset": v_reset_mv, "t_ref": 2.0}
    drive_hz = 1e4 * eta
    if synapses == "delta":
        model, weight = "iaf_psc_delta", J_MV
        cell["C_m"] = 250.0
    else:
        model, tau_s, c_m = "iaf_psc_exp_one", 0.5, 250.0
        weight = psc_for_psp(J_MV, TAU_M_MS, tau_s, c_m)
        drive_hz = 1e3 * eta * THETA_MV * c_m / (weight * tau_s * TAU_M_MS)
        cell |= {"C_m": c_m, "tau_syn": tau_s}
    excitatory = net.population(model, 4 * order, name="E", **cell)
    inhibitory = net.population(model, order, name="I", **cell)
    for post in (excitatory, inhibitory):
        net.connect(excitatory, post, FixedInDegree(max(1, 4 * order // 10)), weight=weight, delay_ms=DELAY_MS)
        net.connect(inhibitory, post, FixedInDegree(max(1, order // 10)), weight=-g * weight, delay_ms=DELAY_MS)
        net.drive_poisson(post, drive_hz, weight)
    return ReadyNetwork(net, {"E": excitatory, "I": inhibitory})


def brunel_stdp(options: Options) -> ReadyNetwork:
    """9,000 + 2,250 neurons with in-degree 900 + 225, times ``scale``; multiplicative STDP from E to E.

    The network of the 2007 review: currents of 2 ms, J = 35 pA, g = 5, 4,050 Hz drive for each neuron, V(0) normal
    (7, 5) mV below threshold, STDP with lambda 0.01, alpha 1.05, mu 1, w_max 70 pA, first weights normal (35, 3) pA.
    """
    net = options.network()
    order = options.size(2250)
    cell: dict[str, Any] = {
        "C_m": 250.0,
        "tau_m": 20.0,
        "tau_syn": 2.0,
        "E_L": 0.0,
        "V_th": THETA_MV,
        "V_reset": 0.0,
        "t_ref": 2.0,
    }
    start = {"v": Normal(7.0, 5.0, high=float(np.nextafter(THETA_MV, 0)))}
    excitatory = net.population("iaf_psc_exp_one", 4 * order, name="E", initial=start, **cell)
    inhibitory = net.population("iaf_psc_exp_one", order, name="I", initial=start, **cell)
    to_e, to_i = FixedInDegree(max(1, 4 * order // 10)), FixedInDegree(max(1, order // 10))
    rule = PairSTDP(learning_rate=0.01, alpha=1.05, mu_plus=1.0, mu_minus=1.0, w_max=70.0)
    net.connect(excitatory, excitatory, to_e, Normal(35.0, 3.0, low=0.0, high=70.0), DELAY_MS, plasticity=rule)
    net.connect(excitatory, inhibitory, to_e, 35.0, DELAY_MS)
    for post in (excitatory, inhibitory):
        net.connect(inhibitory, post, to_i, -175.0, DELAY_MS)
        net.drive_poisson(post, 4050.0, 35.0)
    return ReadyNetwork(net, {"E": excitatory, "I": inhibitory})
