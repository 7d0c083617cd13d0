"""Layers between neurons."""

from snn.layers.sparse import Path, SpikeConv2d, SpikeLinear, default_max_density

__all__ = ["Path", "SpikeConv2d", "SpikeLinear", "default_max_density"]
