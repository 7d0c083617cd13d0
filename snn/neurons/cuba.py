"""LIF with a synaptic current."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import nn

from snn.declaration import neuron_model
from snn.neurons.checks import require_within
from snn.neurons.lif import RESET_PARAMS
from snn.neurons.membrane import MembraneNorm
from snn.neurons.neuron import Neuron
from snn.neurons.reset import reset_voltage
from snn.ops import over_threshold, spike


@neuron_model(state={"v": "v_reset", "c": 0.0}, params={"c_decay": 0.5, "v_decay": 0.75, **RESET_PARAMS})
def cuba_lif(x: Any, s: Any, p: Any) -> tuple[Any, dict[str, Any]]:
    c = s.c * p.c_decay + x
    h = s.v * p.v_decay + c
    u, h = over_threshold(h, p.v_threshold)
    z = spike(u)
    return z, {"v": reset_voltage(h, z, p), "c": c}


class CubaLIF(Neuron):
    """Current-based LIF: a synaptic current and a membrane, each with its own decay.

    Each step, in this order: current  c = c c_decay + x; charge  h = v v_decay + c (the new c); fire
    z = [h >= v_threshold]; reset  v = v_reset where z, else h (v_reset None: h - z v_threshold).

    Args:
        c_decay: factor of the current per step, in [0, 1].
        v_decay: factor of the membrane per step, in [0, 1].
        v_threshold: firing threshold, in the unit of x.
        v_reset: value after a spike; None subtracts v_threshold instead.
        surrogate_function, detach_reset, step_mode, store_v_seq: see `LIF`.
        backend, learnable, membrane_norm: see `Neuron`.
    Raises: ValueError if a decay lies outside [0, 1].
    Source: SpikingJelly's CUBALIFNode, whose defaults it takes; the neuron of Loihi (Davies et al., IEEE Micro 2018).

    >>> CubaLIF(step_mode="m")(torch.tensor([0.3, 0.3, 0.0, 0.0]).view(4, 1)).flatten().tolist()
    [0.0, 1.0, 0.0, 0.0]
    """

    def __init__(
        self,
        c_decay: float | torch.Tensor = 0.5,
        v_decay: float | torch.Tensor = 0.75,
        v_threshold: float | torch.Tensor = 0.5,
        v_reset: float | torch.Tensor | None = 0.0,
        surrogate_function: nn.Module | None = None,
        detach_reset: bool = False,
        step_mode: str = "s",
        store_v_seq: bool = False,
        *,
        backend: str = "auto",
        learnable: Sequence[str] = (),
        membrane_norm: MembraneNorm | None = None,
    ) -> None:
        require_within("CubaLIF", 0.0, 1.0, c_decay=c_decay, v_decay=v_decay)
        values = {
            "c_decay": c_decay,
            "v_decay": v_decay,
            "v_threshold": v_threshold,
            "v_reset": v_reset,
            "detach_reset": detach_reset,
        }
        super().__init__(
            cuba_lif,
            values,
            learnable=learnable,
            surrogate_function=surrogate_function,
            step_mode=step_mode,
            backend=backend,
            store_v_seq=store_v_seq,
            membrane_norm=membrane_norm,
        )
