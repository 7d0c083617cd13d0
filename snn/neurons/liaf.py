"""Neuron that integrates and fires inside and sends its membrane out: the analog stage before a spiking network."""

from __future__ import annotations

from typing import Any

import torch
from torch import nn

from snn.declaration import neuron_model
from snn.neurons.checks import require_above, require_within
from snn.neurons.neuron import Neuron
from snn.neurons.reset import reset_voltage
from snn.ops import spike, where


@neuron_model(
    state={"v": "v_reset"},
    params={"rate": 0.5, "negative_slope": 0.0, "v_threshold": 1.0, "v_reset": 0.0, "detach_reset": True},
)
def leaky_integrate_and_analog_fire(x: Any, s: Any, p: Any) -> tuple[Any, dict[str, Any]]:
    rest = 0.0 if p.v_reset is None else p.v_reset
    h = s.v - (s.v - rest) * p.rate + x
    fires = spike(h - p.v_threshold)
    return where(h >= 0.0, h, p.negative_slope * h), {"v": reset_voltage(h, fires, p)}


class LIAF(Neuron):
    """Leaky integrate-and-analog-fire neuron: the reset of a LIF neuron, the output of a rectifier.

    Each step, in this order: charge  h = v - (v - v_reset) sigmoid(w) + x; fire  f = [h >= v_threshold]; output
    y = h where h >= 0, else negative_slope h; reset  v = v_reset where f, else h (v_reset None: h - f v_threshold).
    State and parameter `w` are those of `PLIF(decay_input=False)`, so that a network trained with LIAF hands all of its
    tensors to the same network with PLIF, whose output is f instead of y.

    Args:
        init_tau: starting time constant in steps, > 1; 1 / tau = sigmoid(w) is trained.
        v_threshold: threshold of the reset, in the unit of x.
        v_reset: value after f = 1; None subtracts v_threshold instead.
        negative_slope: of the output below 0, in [0, 1].
        surrogate_function: derivative of f, used only where detach_reset is False.
        detach_reset: True (the default here) stops the gradient through f in the reset.
        step_mode, store_v_seq, backend: see `Neuron`.
    Input: current [T, B, ...] ("m") or [B, ...] ("s"), any float dtype.
    Returns: values y, same shape and dtype.
    Raises: ValueError if init_tau <= 1 or negative_slope is outside [0, 1].
    Source: Lin et al., Rethinking Pretraining as a Bridge from ANNs to SNNs, TNNLS 2022; the kept share of the membrane,
        sigmoid(d) there, is 1 - sigmoid(w) here, and a membrane exactly at the threshold fires.

    >>> LIAF(init_tau=2.0, step_mode="m")(torch.tensor([0.5, 1.0, 0.25, 0.25]).view(4, 1)).flatten().tolist()
    [0.5, 1.25, 0.25, 0.375]
    """

    def __init__(
        self,
        init_tau: float | torch.Tensor = 2.0,
        v_threshold: float | torch.Tensor = 1.0,
        v_reset: float | torch.Tensor | None = 0.0,
        negative_slope: float = 0.0,
        surrogate_function: nn.Module | None = None,
        detach_reset: bool = True,
        step_mode: str = "s",
        store_v_seq: bool = False,
        *,
        backend: str = "auto",
    ) -> None:
        require_above("LIAF", "init_tau", init_tau, 1.0, "step")
        require_within("LIAF", 0.0, 1.0, negative_slope=negative_slope)
        values = {
            "v_threshold": v_threshold,
            "v_reset": v_reset,
            "negative_slope": negative_slope,
            "detach_reset": detach_reset,
        }
        super().__init__(
            leaky_integrate_and_analog_fire,
            values,
            surrogate_function=surrogate_function,
            step_mode=step_mode,
            backend=backend,
            store_v_seq=store_v_seq,
        )
        del self.rate
        self.w = nn.Parameter(-torch.log(torch.as_tensor(init_tau, dtype=torch.get_default_dtype()) - 1.0))

    def call_params(self) -> dict[str, Any]:
        """The model's parameters for a call; the decay rate is sigmoid(w)."""
        fixed = {name: getattr(self, name) for name in self.model.params if name != "rate"}
        return {"rate": self.w.sigmoid(), **fixed}
