"""Spiking neural networks: neurons, layers, learning rules and conversion."""

from snn import surrogate as surrogate
from snn.acceleration import accelerate as accelerate
from snn.conversion import convert as convert
from snn.errors import ShapeError as ShapeError
from snn.errors import UnsupportedError as UnsupportedError
from snn.layers import fold_mpbn as fold_mpbn
from snn.neurons import ALIF as ALIF
from snn.neurons import DIET as DIET
from snn.neurons import IF as IF
from snn.neurons import LI as LI
from snn.neurons import LIAF as LIAF
from snn.neurons import LIF as LIF
from snn.neurons import NEURONS as NEURONS
from snn.neurons import PLIF as PLIF
from snn.neurons import STBIF as STBIF
from snn.neurons import AdEx as AdEx
from snn.neurons import BipolarIF as BipolarIF
from snn.neurons import CubaLIF as CubaLIF
from snn.neurons import Izhikevich as Izhikevich
from snn.neurons import MultiSpikeLIF as MultiSpikeLIF
from snn.neurons import Neuron as Neuron
from snn.neurons import NeuronModel as NeuronModel
from snn.neurons import RecurrentLIF as RecurrentLIF
from snn.neurons import neuron_model as neuron_model

__all__ = [
    "ALIF",
    "DIET",
    "IF",
    "LI",
    "LIAF",
    "LIF",
    "NEURONS",
    "PLIF",
    "STBIF",
    "AdEx",
    "BipolarIF",
    "CubaLIF",
    "Izhikevich",
    "MultiSpikeLIF",
    "Neuron",
    "NeuronModel",
    "RecurrentLIF",
    "ShapeError",
    "UnsupportedError",
    "accelerate",
    "convert",
    "fold_mpbn",
    "neuron_model",
    "surrogate",
]
