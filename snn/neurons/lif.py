"""The integrate-and-fire family: IF, LIF, PLIF, LI and the recurrent LIF."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import nn

from snn.declaration import neuron_model
from snn.neurons.checks import require_above
from snn.neurons.membrane import MembraneNorm
from snn.neurons.neuron import Neuron
from snn.neurons.reset import reset_voltage
from snn.ops import over_threshold, spike

RESET_PARAMS: dict[str, float | bool | None] = {"v_threshold": 1.0, "v_reset": 0.0, "detach_reset": False}


@neuron_model(state={"v": "v_reset"}, params=RESET_PARAMS)
def integrate_and_fire(x: Any, s: Any, p: Any) -> tuple[Any, dict[str, Any]]:
    h = s.v + x
    u, h = over_threshold(h, p.v_threshold)
    z = spike(u)
    return z, {"v": reset_voltage(h, z, p)}


@neuron_model(state={"v": "v_reset"}, params={"tau": 2.0, "decay_input": True, **RESET_PARAMS})
def leaky_integrate_and_fire(x: Any, s: Any, p: Any) -> tuple[Any, dict[str, Any]]:
    rest = 0.0 if p.v_reset is None else p.v_reset
    h = s.v + (x - (s.v - rest)) / p.tau if p.decay_input else s.v - (s.v - rest) / p.tau + x
    u, h = over_threshold(h, p.v_threshold)
    z = spike(u)
    return z, {"v": reset_voltage(h, z, p)}


@neuron_model(state={"v": "v_reset"}, params={"rate": 0.5, "decay_input": True, **RESET_PARAMS})
def parametric_lif(x: Any, s: Any, p: Any) -> tuple[Any, dict[str, Any]]:
    rest = 0.0 if p.v_reset is None else p.v_reset
    h = s.v + (x - (s.v - rest)) * p.rate if p.decay_input else s.v - (s.v - rest) * p.rate + x
    u, h = over_threshold(h, p.v_threshold)
    z = spike(u)
    return z, {"v": reset_voltage(h, z, p)}


@neuron_model(state={"v": 0.0}, params={"tau": 2.0, "decay_input": True})
def leaky_integrator(x: Any, s: Any, p: Any) -> tuple[Any, dict[str, Any]]:
    v = s.v + (x - s.v) / p.tau if p.decay_input else s.v - s.v / p.tau + x
    return v, {"v": v}


class IF(Neuron):
    """Integrate-and-fire neuron.

    Each step, in this order: charge  h = v + x; fire  z = [h >= v_threshold]; reset  v = v_reset where z, else h
    (v_reset None: v = h - z v_threshold).

    Args:
        v_threshold: firing threshold, in the unit of x.
        v_reset: value after a spike; None subtracts v_threshold instead.
        surrogate_function: SpikingJelly surrogate object, default Sigmoid(alpha=4).
        detach_reset: True stops the gradient through z in the reset.
        step_mode, store_v_seq, backend, learnable, membrane_norm: see `Neuron`.
    Input: current [T, B, ...] ("m") or [B, ...] ("s"), any float dtype.
    Returns: spikes 0/1, same shape and dtype.
    Raises: ShapeError if the state is from another batch.

    >>> IF(v_reset=None, step_mode="m")(torch.tensor([0.6, 0.6, 0.6, 1.5]).view(4, 1)).flatten().tolist()
    [0.0, 1.0, 0.0, 1.0]
    """

    def __init__(
        self,
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
        values = {"v_threshold": v_threshold, "v_reset": v_reset, "detach_reset": detach_reset}
        super().__init__(
            integrate_and_fire,
            values,
            learnable=learnable,
            surrogate_function=surrogate_function,
            step_mode=step_mode,
            backend=backend,
            store_v_seq=store_v_seq,
            membrane_norm=membrane_norm,
        )


class LIF(Neuron):
    """Leaky integrate-and-fire neuron.

    Each step, in this order: charge  h = v + (x - (v - v_reset)) / tau (decay_input True) or
    h = v - (v - v_reset) / tau + x (False); fire  z = [h >= v_threshold]; reset  v = v_reset where z, else h.
    With v_reset None the leak is towards 0 and the reset is h - z v_threshold.

    Args:
        tau: membrane time constant in steps, > 1.
        decay_input: True divides the input by tau too.
        v_threshold: firing threshold, in the unit of x.
        v_reset: value after a spike; None subtracts v_threshold instead.
        surrogate_function: SpikingJelly surrogate object, default Sigmoid(alpha=4).
        detach_reset: True stops the gradient through z in the reset.
        step_mode, store_v_seq, backend, learnable, membrane_norm: see `Neuron`.
    Input: current [T, B, ...] ("m") or [B, ...] ("s"), any float dtype.
    Returns: spikes 0/1, same shape and dtype.
    Raises: ValueError if tau <= 1; ShapeError if the state is from another batch.
    Source: SpikingJelly's LIFNode, whose spikes it gives bit for bit.

    >>> LIF(tau=2.0, step_mode="m")(torch.tensor([1.5, 1.5, 0.0, 3.0]).view(4, 1)).flatten().tolist()
    [0.0, 1.0, 0.0, 1.0]
    """

    def __init__(
        self,
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
        learnable: Sequence[str] = (),
        membrane_norm: MembraneNorm | None = None,
    ) -> None:
        require_above("LIF", "tau", tau, 1.0, "step")
        values = {
            "tau": tau,
            "decay_input": decay_input,
            "v_threshold": v_threshold,
            "v_reset": v_reset,
            "detach_reset": detach_reset,
        }
        super().__init__(
            leaky_integrate_and_fire,
            values,
            learnable=learnable,
            surrogate_function=surrogate_function,
            step_mode=step_mode,
            backend=backend,
            store_v_seq=store_v_seq,
            membrane_norm=membrane_norm,
        )


class PLIF(Neuron):
    """LIF with a learnable time constant, 1 / tau = sigmoid(w).

    Update order as LIF, with sigmoid(w) in place of 1 / tau; w starts at -log(init_tau - 1).

    Args:
        init_tau: starting time constant in steps, > 1; a tensor ([N], [C, 1, 1]) learns one per neuron or channel.
        decay_input, v_threshold, v_reset, surrogate_function, detach_reset, step_mode, store_v_seq: see `LIF`.
        backend, membrane_norm: see `Neuron`.
    Raises: ValueError if init_tau <= 1.
    Source: Fang et al., Incorporating Learnable Membrane Time Constant, ICCV 2021; parameter name as in SpikingJelly.
    """

    def __init__(
        self,
        init_tau: float | torch.Tensor = 2.0,
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
        require_above("PLIF", "init_tau", init_tau, 1.0, "step")
        values = {
            "decay_input": decay_input,
            "v_threshold": v_threshold,
            "v_reset": v_reset,
            "detach_reset": detach_reset,
        }
        super().__init__(
            parametric_lif,
            values,
            surrogate_function=surrogate_function,
            step_mode=step_mode,
            backend=backend,
            store_v_seq=store_v_seq,
            membrane_norm=membrane_norm,
        )
        del self.rate
        self.w = nn.Parameter(-torch.log(torch.as_tensor(init_tau, dtype=torch.get_default_dtype()) - 1.0))

    def call_params(self) -> dict[str, Any]:
        """The model's parameters for a call; the decay rate is sigmoid(w)."""
        fixed = {name: getattr(self, name) for name in self.model.params if name != "rate"}
        return {"rate": self.w.sigmoid(), **fixed}


class LI(Neuron):
    """Leaky integrator: a read-out that never spikes.

    Each step: v = v + (x - v) / tau (decay_input True) or v - v / tau + x (False); the output is v.

    Args:
        tau: time constant in steps, > 1.
        decay_input: True divides the input by tau too.
        step_mode, store_v_seq, backend, learnable: see `Neuron`.
    Raises: ValueError if tau <= 1.

    >>> LI(tau=2.0, step_mode="m")(torch.tensor([1.0, 1.0, 0.0]).view(3, 1)).flatten().tolist()
    [0.5, 0.75, 0.375]
    """

    def __init__(
        self,
        tau: float | torch.Tensor = 2.0,
        decay_input: bool = True,
        step_mode: str = "s",
        store_v_seq: bool = False,
        *,
        backend: str = "auto",
        learnable: Sequence[str] = (),
    ) -> None:
        require_above("LI", "tau", tau, 1.0, "step")
        super().__init__(
            leaky_integrator,
            {"tau": tau, "decay_input": decay_input},
            learnable=learnable,
            step_mode=step_mode,
            backend=backend,
            store_v_seq=store_v_seq,
        )
