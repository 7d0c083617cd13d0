"""LIF neurons with feedback of their own spikes."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import torch
from torch import nn

from snn.declaration import neuron_model
from snn.kernels.call import NeuronCall, NeuronResult
from snn.neurons.checks import require_above
from snn.neurons.lif import leaky_integrate_and_fire
from snn.neurons.membrane import MembraneNorm, run_with_norm
from snn.neurons.neuron import Neuron


@neuron_model(state={"v": "v_reset", "z": 0.0}, params=leaky_integrate_and_fire.params)
def recurrent_lif(x: Any, s: Any, p: Any) -> tuple[Any, dict[str, Any]]:
    z, new = leaky_integrate_and_fire.step(x, s, p)
    return z, {**new, "z": z}


class RecurrentLIF(Neuron):
    """LIF whose last spikes come back as input: i_t = x_t + recurrent(z_{t-1}), then the update of LIF.

    Args:
        recurrent: number of neurons for an all-to-all `nn.Linear` without bias, or a module that maps spikes [B, ...]
            to currents of the same shape (a convolution keeps the feedback local).
        tau, decay_input, v_threshold, v_reset, surrogate_function, detach_reset, step_mode, store_v_seq: see `LIF`.
        backend, membrane_norm: see `Neuron`.
    Input: current [T, B, ...] ("m") or [B, ...] ("s"); its last dimension is `recurrent` where that is a number.
    Raises: ValueError if tau <= 1; ShapeError if the state is from another batch.

    >>> layer = RecurrentLIF(2, tau=2.0, step_mode="m")
    >>> tuple(layer(torch.ones(5, 3, 2)).shape)
    (5, 3, 2)
    """

    def __init__(
        self,
        recurrent: int | nn.Module,
        tau: float | torch.Tensor = 2.0,
        decay_input: bool = True,
        v_threshold: float | torch.Tensor = 1.0,
        v_reset: float | torch.Tensor | None = 0.0,
        surrogate_function: nn.Module | None = None,
        detach_reset: bool = False,
        step_mode: str = "s",
        store_v_seq: bool = False,
        *,
        backend: str = "auto",
        membrane_norm: MembraneNorm | None = None,
    ) -> None:
        require_above("RecurrentLIF", "tau", tau, 1.0, "step")
        values = {
            "tau": tau,
            "decay_input": decay_input,
            "v_threshold": v_threshold,
            "v_reset": v_reset,
            "detach_reset": detach_reset,
        }
        super().__init__(
            recurrent_lif,
            values,
            surrogate_function=surrogate_function,
            step_mode=step_mode,
            backend=backend,
            store_v_seq=store_v_seq,
            membrane_norm=membrane_norm,
        )
        self.recurrent = nn.Linear(recurrent, recurrent, bias=False) if isinstance(recurrent, int) else recurrent

    def run_steps(self, backend: str, call: NeuronCall) -> NeuronResult:
        """Runs step after step, since each step's input needs the spikes of the one before."""
        states: dict[str, Any] = dict(call.states)
        states["z"] = torch.as_tensor(states["z"], dtype=call.x.dtype, device=call.x.device).expand(call.x.shape[1:])
        outputs, sequences = [], []
        for number, x_t in enumerate(call.x.unbind()):
            current = x_t + self.recurrent(states["z"].to(x_t.dtype))
            one = replace(call, x=current.to(x_t.dtype).unsqueeze(0), states=states)
            step = run_with_norm(self.membrane_norm, backend, one, number)
            states = step.states
            outputs.append(step.output)
            sequences.append(step.sequences)
        recorded = {name: torch.cat([sequence[name] for sequence in sequences]) for name in call.recorded}
        return NeuronResult(torch.cat(outputs), dict(states), recorded)
