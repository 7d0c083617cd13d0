"""Chips: data sheets, integer arithmetic, quantisation and the placement of layers on cores."""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

from neuromorphic.targets.sheet import Entry, SheetError, Target, load, names

if TYPE_CHECKING:
    from neuromorphic.targets.connections import IntegerConv as IntegerConv
    from neuromorphic.targets.connections import IntegerLinear as IntegerLinear
    from neuromorphic.targets.formats import IntegerFormat as IntegerFormat
    from neuromorphic.targets.layers import Flatten as Flatten
    from neuromorphic.targets.layers import IntegerLayer as IntegerLayer
    from neuromorphic.targets.layers import SumPool as SumPool
    from neuromorphic.targets.layers import cuba_dense as cuba_dense
    from neuromorphic.targets.mapper import map as map
    from neuromorphic.targets.mapping import Mapping as Mapping
    from neuromorphic.targets.mapping import MappingError as MappingError
    from neuromorphic.targets.network import IntegerNetwork as IntegerNetwork
    from neuromorphic.targets.neurons import BitShiftNeuron as BitShiftNeuron
    from neuromorphic.targets.neurons import CubaNeuron as CubaNeuron
    from neuromorphic.targets.neurons import EventIFNeuron as EventIFNeuron
    from neuromorphic.targets.neurons import FixedPointNeuron as FixedPointNeuron
    from neuromorphic.targets.quantization import QuantizationOptions as QuantizationOptions
    from neuromorphic.targets.quantization import quantization_aware as quantization_aware
    from neuromorphic.targets.quantization import quantize as quantize
    from neuromorphic.targets.quantization_report import QuantizationReport as QuantizationReport

# Public names whose modules bring torch, and where they live.
_LAZY = {
    "BitShiftNeuron": "neurons",
    "CubaNeuron": "neurons",
    "EventIFNeuron": "neurons",
    "FixedPointNeuron": "neurons",
    "Flatten": "layers",
    "IntegerConv": "connections",
    "IntegerFormat": "formats",
    "IntegerLayer": "layers",
    "IntegerLinear": "connections",
    "IntegerNetwork": "network",
    "Mapping": "mapping",
    "MappingError": "mapping",
    "QuantizationOptions": "quantization",
    "QuantizationReport": "quantization_report",
    "SumPool": "layers",
    "cuba_dense": "layers",
    "map": "mapper",
    "quantization_aware": "quantization",
    "quantize": "quantization",
}

__all__ = [
    "BitShiftNeuron",
    "CubaNeuron",
    "Entry",
    "EventIFNeuron",
    "FixedPointNeuron",
    "Flatten",
    "IntegerConv",
    "IntegerFormat",
    "IntegerLayer",
    "IntegerLinear",
    "IntegerNetwork",
    "Mapping",
    "MappingError",
    "QuantizationOptions",
    "QuantizationReport",
    "SheetError",
    "SumPool",
    "Target",
    "cuba_dense",
    "load",
    "map",
    "names",
    "quantization_aware",
    "quantize",
]


def __getattr__(name: str) -> Any:
    if name in _LAZY:
        return getattr(importlib.import_module(f"{__name__}.{_LAZY[name]}"), name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
