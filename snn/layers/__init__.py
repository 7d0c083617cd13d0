"""Layers between neurons."""

from snn.layers.sparse import Path, SpikeConv2d, SpikeLinear, conv2d_max_density, linear_max_density

__all__ = ["Path", "SpikeConv2d", "SpikeLinear", "conv2d_max_density", "linear_max_density"]
