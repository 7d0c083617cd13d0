"""Conversion of trained ANNs into spiking networks."""

from snn.conversion.activations import QCFS as QCFS
from snn.conversion.activations import QuantAct as QuantAct
from snn.conversion.convert import Conversion as Conversion
from snn.conversion.convert import convert as convert
from snn.conversion.convert import structure as structure
from snn.conversion.dyadic_rounding import make_dyadic as make_dyadic
from snn.conversion.layers import LayerRecord as LayerRecord
from snn.conversion.layers import SpikingLayer as SpikingLayer
from snn.conversion.layers import Timed as Timed
from snn.conversion.network import ConvertedNetwork as ConvertedNetwork
from snn.conversion.quantised_recurrent import QuantGRU as QuantGRU
from snn.conversion.quantised_recurrent import QuantLSTM as QuantLSTM
from snn.conversion.quantised_recurrent import QuantRNN as QuantRNN
from snn.conversion.recipe import Recipe as Recipe
from snn.conversion.recipes import RECIPES as RECIPES
from snn.conversion.report import ConversionReport as ConversionReport
from snn.conversion.report import measure as measure
from snn.conversion.verification import exactness as exactness
from snn.conversion.verification import quantised_form as quantised_form
from snn.conversion.verification import verify_exact as verify_exact
from snn.conversion.visits import barrier_run as barrier_run
