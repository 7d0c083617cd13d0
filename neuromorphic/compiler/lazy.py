"""Which layers of neurons may be left alone until something reaches them."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import numpy as np
import torch

from neuromorphic.compiler.graph import Conv, Fire, LayerGraph
from neuromorphic.compiler.nir_neurons import first_order
from snn.kernels.trace import is_switch
from snn.neurons.lif import integrate_and_fire, leaky_integrate_and_fire, parametric_lif
from snn.ops import fire_with

POWERS = 64
"""Powers of the decay that are stored; longer pauses take several of them."""

MODELS = (integrate_and_fire, leaky_integrate_and_fire, parametric_lif, first_order)
"""Neurons with one state that only shrinks between inputs, and a threshold that stays."""

LARGEST_SHARE = 0.4
"""Share of neurons touched per step below which lazy updates are taken; a lazy update costs about twice a dense one."""


def decay_alone(op: Fire) -> float | None:
    """The factor of the membrane in a step without input, or None if the neuron cannot be left alone.

    It can if its step without input is v <- factor v with 0 <= factor <= 1, and if it starts at 0, below its threshold.
    """
    if op.model not in MODELS or any(isinstance(value, np.ndarray) for value in op.params.values()):
        return None
    if op.params.get("v_reset") not in (None, 0.0) or op.params.get("v_leak") is not None:
        return None
    if not op.params["v_threshold"] > 0 or op.params.get("fires") is False:
        return None
    small = 1e-3 * float(op.params["v_threshold"])
    one, two, none = (_silent_step(op, v) for v in (small, -2.0 * small, 0.0))
    factor = one / small
    linear = none == 0.0 and abs(two + 2.0 * one) <= 1e-12 * small
    return factor if linear and 0.0 <= factor <= 1.0 else None


def _silent_step(op: Fire, v: float) -> float:
    def value(item: Any) -> Any:
        return item if is_switch(item) else torch.tensor(float(item), dtype=torch.float64)

    params = SimpleNamespace(**{name: value(item) for name, item in op.params.items()})
    with fire_with(lambda u: (u >= 0).to(u.dtype)):
        zero = torch.zeros((), dtype=torch.float64)
        _, new = op.model.step(zero, SimpleNamespace(v=zero + v), params)
    return float(new["v"])


def lazy_candidates(graph: LayerGraph) -> frozenset[str]:
    """Layers of neurons fed by one convolution without bias alone, which tells the pixels that it reaches."""
    readers = graph.consumers()
    found = set()
    for layer in graph.neurons():
        source = graph.layers[layer.inputs[0]]
        op = source.op
        plain = isinstance(op, Conv) and op.groups == 1 and op.dilation == (1, 1) and layer.shape == source.shape
        alone = readers[source.name] == [layer.name] and not source.late and not layer.late
        silent = plain and (op.bias is None or not op.bias.any())  # type: ignore[union-attr]
        if alone and silent and isinstance(layer.op, Fire) and decay_alone(layer.op) is not None:
            found.add(layer.name)
    return frozenset(found)
