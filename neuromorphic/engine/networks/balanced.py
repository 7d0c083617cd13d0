"""CUBA and COBA: the balanced networks of Vogels and Abbott (2005) in the forms of Brette et al. (2007)."""

from __future__ import annotations

from neuromorphic.engine.connectivity import FixedInDegree, FixedProbability
from neuromorphic.engine.distributions import Uniform
from neuromorphic.engine.networks.ready import Options, ReadyNetwork

CUBA_NEURON = {
    "C_m": 20.0,  # with tau_m = 20 ms one pA moves the potential by 1 mV: weights read as the mV of the Brian2 example
    "tau_m": 20.0,
    "E_L": -49.0,
    "V_th": -50.0,
    "V_reset": -60.0,
    "t_ref": 5.0,
    "tau_syn_ex": 5.0,
    "tau_syn_in": 10.0,
}


def cuba(options: Options) -> ReadyNetwork:
    """Current-based network, 3,200 + 800 neurons, parameters of the Brian2 example.

    Weights 1.62 and -9 mV, probability 0.02, V(0) uniform in [-60, -50) mV, about 5.6 Hz. The example's delay of 0 is
    one grid step here. With ``scale`` the probability becomes 0.02 / scale, so that the in-degrees stay.
    """
    net = options.network()
    start = {"v": Uniform(-60.0, -50.0)}
    excitatory = net.population("iaf_psc_exp", options.size(3200), name="E", initial=start, **CUBA_NEURON)
    inhibitory = net.population("iaf_psc_exp", options.size(800), name="I", initial=start, **CUBA_NEURON)
    rule = FixedProbability(min(1.0, 0.02 / options.scale))
    for post in (excitatory, inhibitory):
        net.connect(excitatory, post, rule, weight=1.62, delay_ms=options.dt_ms)
        net.connect(inhibitory, post, rule, weight=-9.0, delay_ms=options.dt_ms)
    return ReadyNetwork(net, {"E": excitatory, "I": inhibitory}, {"E": 5.6, "I": 5.6})


def coba(options: Options) -> ReadyNetwork:
    """Conductance-based network, 3,200 + 800 neurons, parameters of the NEST example.

    Weights 6 and 67 nS, in-degrees 64 + 16, delay one step; a Poisson kick of 300 Hz onto 50 excitatory cells from 1 to
    51 ms starts the activity, which dies within 100 ms in about one seed of four.
    """
    net = options.network()
    excitatory = net.population("iaf_cond_exp", options.size(3200), name="E")
    inhibitory = net.population("iaf_cond_exp", options.size(800), name="I")
    for post in (excitatory, inhibitory):
        net.connect(excitatory, post, FixedInDegree(64), weight=6.0, delay_ms=options.dt_ms)
        net.connect(inhibitory, post, FixedInDegree(16), weight=-67.0, delay_ms=options.dt_ms)
    kicked = slice(0, min(options.size(50), excitatory.n))
    net.drive_poisson(excitatory, 300.0, 6.0, neurons=kicked, start_ms=1.0, stop_ms=51.0)
    return ReadyNetwork(net, {"E": excitatory, "I": inhibitory}, {"E": 14.0, "I": 14.0})
