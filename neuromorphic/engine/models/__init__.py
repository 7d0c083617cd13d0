"""Neuron models of the engine; add one by writing its description and one line here."""

from neuromorphic.engine.models.adaptive import ADEX, ALIF
from neuromorphic.engine.models.conductance_lif import IAF_COND_EXP
from neuromorphic.engine.models.current_lif import IAF_PSC_ALPHA, IAF_PSC_DELTA, IAF_PSC_EXP, IAF_PSC_EXP_ONE
from neuromorphic.engine.models.description import NeuronModel, Parameter, State
from neuromorphic.engine.models.izhikevich import IZHIKEVICH, IZHIKEVICH_2003

MODELS = {
    "iaf_psc_delta": IAF_PSC_DELTA,
    "iaf_psc_exp": IAF_PSC_EXP,
    "iaf_psc_exp_one": IAF_PSC_EXP_ONE,
    "iaf_psc_alpha": IAF_PSC_ALPHA,
    "iaf_cond_exp": IAF_COND_EXP,
    "alif": ALIF,
    "aeif_cond_exp": ADEX,
    "izhikevich": IZHIKEVICH,
    "izhikevich_2003": IZHIKEVICH_2003,
}

__all__ = ["MODELS", "NeuronModel", "Parameter", "State"]
