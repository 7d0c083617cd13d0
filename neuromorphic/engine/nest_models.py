"""How descriptions are said in NEST 3: neuron parameters, rules, distributions, synapse models."""

from __future__ import annotations

from typing import Any

import numpy as np

from neuromorphic.engine import connectivity as rules
from neuromorphic.engine.distributions import LogNormal, Normal, Uniform
from neuromorphic.engine.errors import UnsupportedError
from neuromorphic.engine.network import Population, Projection
from neuromorphic.engine.plasticity import PairSTDP, PowerLawSTDP, ShortTermPlasticity, TripletSTDP

_RENAMED = {"V_T": "V_th"}  # the threshold of NEST's aeif models is the start of the exponential
STATES = {
    "iaf_psc_delta": {"v": "V_m"},
    "iaf_psc_exp": {"v": "V_m", "i_ex": "I_syn_ex", "i_in": "I_syn_in"},
    "iaf_psc_exp_one": {"v": "V_m"},
    "iaf_psc_alpha": {"v": "V_m", "i_ex": "I_syn_ex", "i_in": "I_syn_in"},
    "iaf_cond_exp": {"v": "V_m", "g_ex": "g_ex", "g_in": "g_in"},
    "aeif_cond_exp": {"v": "V_m", "g_ex": "g_ex", "g_in": "g_in", "w": "w"},
    "izhikevich": {"v": "V_m", "u": "U_m"},
}
SETTABLE = {"v": "V_m", "u": "U_m", "w": "w"}


def neuron(population: Population) -> tuple[str, dict[str, Any]]:
    """NEST model and parameters of a population; states start at the engine's defaults."""
    model = population.model
    assert model is not None
    if model.nest is None:
        raise UnsupportedError(f"backend 'nest': model {model.name!r} has no equivalent in NEST")
    values = {_RENAMED.get(name, name): value for name, value in population.values.items()}
    if "tau_syn" in values:
        tau = values.pop("tau_syn")
        values |= {"tau_syn_ex": tau, "tau_syn_in": tau}
    if model.name == "izhikevich":
        values["consistent_integration"] = True
    for name, spec in model.states.items():
        if name in SETTABLE and name in STATES[model.name]:
            values[SETTABLE[name]] = population.values[spec.default] if isinstance(spec.default, str) else spec.default
    return model.nest, values


def rule(projection: Projection) -> dict[str, Any]:
    """Connection specification; explicit lists are handled by the caller."""
    match projection.rule:
        case rules.AllToAll(autapses):
            return {"rule": "all_to_all", "allow_autapses": autapses}
        case rules.OneToOne():
            return {"rule": "one_to_one"}
        case rules.FixedProbability(p, autapses):
            return {"rule": "pairwise_bernoulli", "p": p, "allow_autapses": autapses}
        case rules.FixedInDegree(k, autapses, multapses):
            return {"rule": "fixed_indegree", "indegree": k, "allow_autapses": autapses, "allow_multapses": multapses}
        case rules.FixedOutDegree(k, autapses, multapses):
            return {"rule": "fixed_outdegree", "outdegree": k, "allow_autapses": autapses, "allow_multapses": multapses}
        case rules.FixedTotalNumber(k):
            return {"rule": "fixed_total_number", "N": k}
    raise UnsupportedError(
        f"backend 'nest': rule {type(projection.rule).__name__} is not expressed; use an explicit list"
    )


def quantity(nest: Any, value: Any, low: float = -np.inf) -> Any:
    """A number, or NEST's random expression for a distribution, drawn again below ``low``."""
    match value:
        case Normal(mean, std, least, most, clip):
            if clip:
                limited = nest.math.min(nest.random.normal(mean, std), float(min(most, 1e300)))
                return nest.math.max(limited, float(max(least, low, -1e300)))
            bounds = {"min": float(max(least, low, -1e300)), "max": float(min(most, 1e300))}
            return nest.math.redraw(nest.random.normal(mean, std), **bounds)
        case LogNormal(mu, sigma):
            return nest.math.redraw(nest.random.lognormal(mu, sigma), min=float(max(low, -1e300)), max=1e300)
        case Uniform(a, b):
            return nest.random.uniform(a, b)
        case _:
            return value


def synapse(projection: Projection) -> tuple[str, dict[str, Any], dict[str, float]]:
    """(NEST synapse model, its parameters, parameters that NEST keeps in the post neurons)."""
    plastic = projection.plasticity
    if getattr(plastic, "scaling", None) is not None:
        raise UnsupportedError("backend 'nest': SynapticScaling is not expressed")
    match plastic:
        case None:
            return "static_synapse", {}, {}
        case PairSTDP():
            values = {"lambda": plastic.learning_rate, "alpha": plastic.alpha, "Wmax": plastic.w_max}
            values |= {"mu_plus": plastic.mu_plus, "mu_minus": plastic.mu_minus, "tau_plus": plastic.tau_plus_ms}
            name = "stdp_synapse" if plastic.pairing == "all_to_all" else "stdp_nn_symm_synapse"
            return name, values, {"tau_minus": plastic.tau_minus_ms}
        case PowerLawSTDP():
            values = {"lambda": plastic.learning_rate, "alpha": plastic.alpha, "mu": plastic.mu}
            return (
                "stdp_pl_synapse_hom",
                values | {"tau_plus": plastic.tau_plus_ms},
                {"tau_minus": plastic.tau_minus_ms},
            )
        case TripletSTDP():
            values = {"tau_plus": plastic.tau_plus_ms, "tau_plus_triplet": plastic.tau_x_ms, "Wmax": plastic.w_max}
            values |= {"Aplus": plastic.a2_plus, "Aplus_triplet": plastic.a3_plus}
            values |= {"Aminus": plastic.a2_minus, "Aminus_triplet": plastic.a3_minus}
            post = {"tau_minus": plastic.tau_minus_ms, "tau_minus_triplet": plastic.tau_y_ms}
            return "stdp_triplet_synapse", values, post
        case ShortTermPlasticity():
            values = {"U": plastic.U, "u": plastic.U, "x": 1.0}
            return "tsodyks2_synapse", values | {"tau_rec": plastic.tau_rec_ms, "tau_fac": plastic.tau_fac_ms}, {}
    raise UnsupportedError(f"backend 'nest': plasticity {type(plastic).__name__} is not expressed")
