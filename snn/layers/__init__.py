"""Layers between neurons, and normalisations inside them."""

from snn.layers.norm import MPBN
from snn.layers.norm_fold import FoldedThreshold, fold_mpbn
from snn.layers.norm_report import FoldedLayer, FoldReport, integer_threshold
from snn.layers.sparse import Path, SpikeConv2d, SpikeLinear, conv2d_max_density, linear_max_density

__all__ = [
    "MPBN",
    "FoldReport",
    "FoldedLayer",
    "FoldedThreshold",
    "Path",
    "SpikeConv2d",
    "SpikeLinear",
    "conv2d_max_density",
    "fold_mpbn",
    "integer_threshold",
    "linear_max_density",
]
