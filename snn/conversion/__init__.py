"""Conversion of trained ANNs into spiking networks."""

from snn.conversion.activations import QCFS as QCFS
from snn.conversion.activations import QuantAct as QuantAct
from snn.conversion.convert import Conversion as Conversion
from snn.conversion.convert import convert as convert
from snn.conversion.convert import structure as structure
from snn.conversion.layers import LayerRecord as LayerRecord
from snn.conversion.layers import SpikingLayer as SpikingLayer
from snn.conversion.layers import Timed as Timed
from snn.conversion.network import ConvertedNetwork as ConvertedNetwork
from snn.conversion.recipe import Recipe as Recipe
from snn.conversion.recipes import RECIPES as RECIPES
from snn.conversion.report import ConversionReport as ConversionReport
from snn.conversion.report import measure as measure
from snn.conversion.visits import barrier_run as barrier_run
