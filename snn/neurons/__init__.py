"""Neuron models and their layers."""

from snn.declaration import NeuronModel as NeuronModel
from snn.declaration import neuron_model as neuron_model
from snn.neurons.adaptive import ALIF as ALIF
from snn.neurons.biophysical import AdEx as AdEx
from snn.neurons.biophysical import Izhikevich as Izhikevich
from snn.neurons.cuba import CubaLIF as CubaLIF
from snn.neurons.diet import DIET as DIET
from snn.neurons.graded import BipolarIF as BipolarIF
from snn.neurons.graded import MultiSpikeLIF as MultiSpikeLIF
from snn.neurons.liaf import LIAF as LIAF
from snn.neurons.lif import IF as IF
from snn.neurons.lif import LI as LI
from snn.neurons.lif import LIF as LIF
from snn.neurons.lif import PLIF as PLIF
from snn.neurons.neuron import Neuron as Neuron
from snn.neurons.recurrent import RecurrentLIF as RecurrentLIF
from snn.neurons.tracer import STBIF as STBIF

NEURONS: dict[str, type[Neuron]] = {
    "if": IF,
    "lif": LIF,
    "plif": PLIF,
    "cuba_lif": CubaLIF,
    "alif": ALIF,
    "recurrent_lif": RecurrentLIF,
    "li": LI,
    "izhikevich": Izhikevich,
    "adex": AdEx,
    "diet": DIET,
    "liaf": LIAF,
    "bipolar_if": BipolarIF,
    "multi_spike_lif": MultiSpikeLIF,
    "st_bif": STBIF,
}
"""Every neuron layer by its name in recipes."""
