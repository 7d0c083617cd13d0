"""From the counts of instructions to what each layer did."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from neuromorphic.compiler.graph import Add, LayerGraph
from neuromorphic.compiler.kernels import machine as m
from neuromorphic.energy.counts import LayerActivity

_CONNECTIONS = (m.DENSE, m.DELAYED_DENSE, m.CONV, m.CONV_GENERAL, m.POOL, m.DIAGONAL)


def layer_activity(
    graph: LayerGraph, names: Sequence[str], program: np.ndarray, counts: np.ndarray
) -> list[LayerActivity]:
    """One entry for each buffer that connections add to, with the neurons that read it.

    Args:
        graph: the layers.
        names: layer of each instruction.
        program: the instructions.
        counts: events and operations of each instruction, [T, B, instructions, 2].
    """
    layers: dict[int, _Sums] = {}
    nothing = np.zeros(counts.shape[:2], np.int64)
    for k, values in enumerate(program):
        events, work = counts[:, :, k, 0], counts[:, :, k, 1]
        if values[m.OP] in _CONNECTIONS:
            place = int(values[m.TARGET])
            found = layers.setdefault(place, _Sums(names[k], nothing))
            if isinstance(graph.layers[found.name].op, Add):
                found.name = names[k]  # a connection's own name says more
            found.spikes = found.spikes + events
            found.additions = found.additions + work
        elif values[m.OP] >= m.NEURON:
            found = layers.setdefault(int(values[m.SOURCE]), _Sums(names[k], nothing))
            found.updates = found.updates + work
            found.sent = found.sent + events
    return [LayerActivity(own.name, own.spikes, own.additions, own.updates, own.sent) for own in layers.values()]


class _Sums:
    """Integers of one buffer, [T, B] each."""

    def __init__(self, name: str, nothing: np.ndarray) -> None:
        self.name = name
        self.spikes = self.additions = self.updates = self.sent = nothing
