"""Convolutions on 64 x 64 resistive crossbars, as SpikingJelly's SpikeSim preset prices them.

The figures are those of SpikeSim (Moitra et al., IEEE TCAD 2023) as SpikingJelly carries them; layers that are not
two-dimensional convolutions are not part of the model.
"""

from __future__ import annotations

from math import ceil, prod
from typing import Final

from neuromorphic.energy.counts import Counts
from neuromorphic.energy.estimates import Estimate, exact, row
from snn.errors import UnsupportedError

SOURCE: Final = "SpikeSim (Moitra et al., IEEE TCAD 2023), constants as in SpikingJelly's op_counter"
SIDE: Final = 64


def cycle_pj(kernel: tuple[int, ...]) -> float:
    """Energy of one cycle of a processing element: crossbar, converters, buffers, neuron circuits."""
    fixed = 19.64 * 8 + 4.64 + 397 + 8 * 16 * 1.15e-6 + 8 * 0.2 + SIDE * (2.03084 + 0.094245) + 5.096
    return fixed + 8 * prod(kernel) * 1.76423


def spikesim(counts: Counts) -> Estimate:
    """Energy of all two-dimensional convolutions, every crossbar read at every output position and step.

    Raises: UnsupportedError where there is none; other layers are named in `notes`.
    """
    layers = [layer for layer in counts.connections if layer.kind == "conv" and len(layer.kernel_size) == 2]
    if not layers:
        raise UnsupportedError("spikesim: the network has no two-dimensional convolution, the only layer it prices")
    rows = []
    for layer in layers:
        out_channels, in_channels = layer.weight_shape[0], layer.weight_shape[1] * layer.groups
        cycles = ceil(in_channels / SIDE) * ceil(out_channels / SIDE) * prod(layer.output_shape[1:]) * layer.steps
        price = exact(cycle_pj(layer.kernel_size), "pJ per crossbar cycle", "65 nm, RRAM", SOURCE)
        rows.append(row(layer.name, "crossbar cycles", cycles, price))
    left_out = [layer.name for layer in counts.connections if layer not in layers]
    notes = (f"not priced: {', '.join(left_out)}",) if left_out else ()
    return Estimate("spikesim", "64 x 64 crossbars, silent positions included", tuple(rows), notes=notes)
