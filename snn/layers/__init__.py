"""Layers between neurons, and normalisations inside them."""

from snn.layers.annealed_step import AnnealedStep, anneal_steps, annealed_bounds
from snn.layers.delay import DelayedConv1d, DelayedConv2d, DelayedLinear
from snn.layers.delay_positions import (
    anneal_sigma,
    annealed_sigma,
    clamp_delays,
    delay_parameter_groups,
    round_delays,
)
from snn.layers.norm import MPBN
from snn.layers.norm_fold import FoldedThreshold, fold_mpbn
from snn.layers.norm_report import FoldedLayer, FoldReport, integer_threshold
from snn.layers.sparse import Path, SpikeConv2d, SpikeLinear, conv2d_max_density, linear_max_density

__all__ = [
    "MPBN",
    "AnnealedStep",
    "DelayedConv1d",
    "DelayedConv2d",
    "DelayedLinear",
    "FoldReport",
    "FoldedLayer",
    "FoldedThreshold",
    "Path",
    "SpikeConv2d",
    "SpikeLinear",
    "anneal_sigma",
    "anneal_steps",
    "annealed_bounds",
    "annealed_sigma",
    "clamp_delays",
    "conv2d_max_density",
    "delay_parameter_groups",
    "fold_mpbn",
    "integer_threshold",
    "linear_max_density",
    "round_delays",
]
