"""LIF with an adaptive threshold."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import nn

from snn.declaration import neuron_model
from snn.neurons.checks import require_above
from snn.neurons.lif import RESET_PARAMS
from snn.neurons.membrane import MembraneNorm
from snn.neurons.neuron import Neuron
from snn.neurons.reset import reset_voltage, resetting_spike
from snn.ops import over_threshold, spike


@neuron_model(
    state={"v": "v_reset", "a": 0.0},
    params={"tau": 2.0, "a_decay": 0.95, "beta": 0.2, "decay_input": True, **RESET_PARAMS},
)
def adaptive_lif(x: Any, s: Any, p: Any) -> tuple[Any, dict[str, Any]]:
    rest = 0.0 if p.v_reset is None else p.v_reset
    h = s.v + (x - (s.v - rest)) / p.tau if p.decay_input else s.v - (s.v - rest) / p.tau + x
    u, h = over_threshold(h, p.v_threshold + p.beta * s.a)
    z = spike(u)
    return z, {"v": reset_voltage(h, z, p), "a": p.a_decay * s.a + resetting_spike(z, p)}


class ALIF(Neuron):
    """LIF whose threshold rises with its own spikes and relaxes back.

    Each step, in this order: charge h as LIF; fire  z = [h >= v_threshold + beta a]; reset as LIF (the soft reset
    subtracts the base threshold v_threshold); adapt  a = exp(-1 / tau_a) a + z.

    Args:
        tau: membrane time constant in steps, > 1.
        tau_a: time constant of the adaptation in steps, > 0.
        beta: threshold rise per unit of a, in the unit of x.
        decay_input, v_threshold, v_reset, surrogate_function, detach_reset, step_mode, store_v_seq: see `LIF`;
            detach_reset also stops the gradient through z in the adaptation.
        backend, learnable, membrane_norm: see `Neuron`; "tau_a" may be learned too.
    Raises: ValueError if tau <= 1 or tau_a <= 0.
    Source: Bellec et al., A solution to the learning dilemma for recurrent networks of spiking neurons, Nature
        Communications 2020 (ALIF).

    >>> ALIF(beta=1.0, step_mode="m")(torch.full((8, 1), 2.5)).flatten().tolist()
    [1.0, 0.0, 0.0, 1.0, 0.0, 0.0, 0.0, 0.0]
    """

    def __init__(
        self,
        tau: float | torch.Tensor = 2.0,
        tau_a: float | torch.Tensor = 20.0,
        beta: float | torch.Tensor = 0.2,
        decay_input: bool = True,
        v_threshold: float | torch.Tensor = 1.0,
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
        require_above("ALIF", "tau", tau, 1.0, "step")
        require_above("ALIF", "tau_a", tau_a, 0.0, "step")
        values = {
            "tau": tau,
            "beta": beta,
            "decay_input": decay_input,
            "v_threshold": v_threshold,
            "v_reset": v_reset,
            "detach_reset": detach_reset,
        }
        super().__init__(
            adaptive_lif,
            values,
            learnable=[name for name in learnable if name != "tau_a"],
            surrogate_function=surrogate_function,
            step_mode=step_mode,
            backend=backend,
            store_v_seq=store_v_seq,
            membrane_norm=membrane_norm,
        )
        del self.a_decay
        self._register_value("tau_a", tau_a, "tau_a" in learnable)

    def call_params(self) -> dict[str, Any]:
        """The model's parameters for a call; the adaptation decays by exp(-1 / tau_a)."""
        a_decay = torch.exp(-1.0 / torch.as_tensor(self.tau_a))
        fixed = {name: getattr(self, name) for name in self.model.params if name != "a_decay"}
        return {"a_decay": a_decay, **fixed}
