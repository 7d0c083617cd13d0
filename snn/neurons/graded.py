"""Neurons whose output is more than 0 or 1: signed spikes and spike counts."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from spikingjelly.activation_based import surrogate as sj
from torch import nn

from snn.declaration import neuron_model
from snn.neurons.checks import require_above
from snn.neurons.neuron import Neuron
from snn.neurons.reset import resetting_spike
from snn.ops import select, spike


@neuron_model(state={"v": "v_reset"}, params={"v_threshold": 1.0, "v_reset": None, "detach_reset": False})
def bipolar_if(x: Any, s: Any, p: Any) -> tuple[Any, dict[str, Any]]:
    h = s.v + x
    positive = spike(h - p.v_threshold)
    negative = spike(-h - p.v_threshold)
    z = positive - negative
    if p.v_reset is None:
        return z, {"v": h - resetting_spike(z, p) * p.v_threshold}
    return z, {"v": select(resetting_spike(positive + negative, p), p.v_reset, h)}


@neuron_model(state={"v": 0.0}, params={"tau": 4.0 / 3.0, "v_threshold": 1.0, "detach_reset": False})
def multi_spike_lif(x: Any, s: Any, p: Any) -> tuple[Any, dict[str, Any]]:
    h = s.v - s.v / p.tau + x
    z = spike(h / p.v_threshold)
    return z, {"v": h - resetting_spike(z, p) * p.v_threshold}


class BipolarIF(Neuron):
    """Signed integrate-and-fire neuron with outputs -1, 0 and 1.

    Each step, in this order: charge  h = v + x; fire  z = [h >= v_threshold] - [-h >= v_threshold]; reset
    v = h - z v_threshold (v_reset None), or v_reset where z is not 0.

    Args:
        v_threshold: threshold of both signs, > 0, in the unit of x.
        v_reset: None (subtract the threshold, the default here) or the value after a spike, between the thresholds.
        surrogate_function, detach_reset, step_mode, store_v_seq: see `LIF`.
        backend, learnable: see `Neuron`.
    Raises: ValueError if v_threshold <= 0 or v_reset does not lie between the thresholds.

    >>> BipolarIF(step_mode="m")(torch.tensor([0.6, 0.6, -2.0, -0.5]).view(4, 1)).flatten().tolist()
    [0.0, 1.0, -1.0, -1.0]
    """

    def __init__(
        self,
        v_threshold: float | torch.Tensor = 1.0,
        v_reset: float | torch.Tensor | None = None,
        surrogate_function: nn.Module | None = None,
        detach_reset: bool = False,
        step_mode: str = "s",
        store_v_seq: bool = False,
        *,
        backend: str = "auto",
        learnable: Sequence[str] = (),
    ) -> None:
        require_above("BipolarIF", "v_threshold", v_threshold, 0.0)
        if v_reset is not None and bool((torch.as_tensor(v_reset).abs() >= torch.as_tensor(v_threshold)).any()):
            raise ValueError(f"BipolarIF: v_reset must lie between the thresholds +-{v_threshold}, got {v_reset}")
        super().__init__(
            bipolar_if,
            {"v_threshold": v_threshold, "v_reset": v_reset, "detach_reset": detach_reset},
            learnable=learnable,
            surrogate_function=surrogate_function,
            step_mode=step_mode,
            backend=backend,
            store_v_seq=store_v_seq,
        )


class MultiSpikeLIF(Neuron):
    """Integer-valued LIF: up to D spikes in one step.

    Each step, in this order: charge  h = v - v / tau + x; fire  z = round(clip(h / v_threshold, 0, D)), halves to even;
    reset  v = h - z v_threshold. The gradient of z is 1 where 0 <= h / v_threshold <= D, else 0.

    Args:
        tau: membrane time constant in steps, > 1 (4/3 keeps a quarter of v).
        v_threshold: size of one spike, > 0, in the unit of x.
        surrogate_function: SpikingJelly's `MultiLevelSpikeCount(D)`, default D = 4.
        detach_reset, step_mode, store_v_seq: see `LIF`.
        backend, learnable: see `Neuron`.
    Raises: ValueError if tau <= 1 or v_threshold <= 0; TypeError for another surrogate.
    Source: Luo et al., Integer-valued training and spike-driven inference SNN, ECCV 2024 (I-LIF).

    >>> MultiSpikeLIF(step_mode="m")(torch.tensor([2.4, 0.5, 9.0]).view(3, 1)).flatten().tolist()
    [2.0, 1.0, 4.0]
    """

    def __init__(
        self,
        tau: float | torch.Tensor = 4.0 / 3.0,
        v_threshold: float | torch.Tensor = 1.0,
        surrogate_function: nn.Module | None = None,
        detach_reset: bool = False,
        step_mode: str = "s",
        store_v_seq: bool = False,
        *,
        backend: str = "auto",
        learnable: Sequence[str] = (),
    ) -> None:
        require_above("MultiSpikeLIF", "tau", tau, 1.0, "step")
        require_above("MultiSpikeLIF", "v_threshold", v_threshold, 0.0)
        count = sj.MultiLevelSpikeCount(4) if surrogate_function is None else surrogate_function
        if not isinstance(count, sj.MultiLevelSpikeCount):
            raise TypeError(
                f"MultiSpikeLIF: surrogate_function must be a MultiLevelSpikeCount, got {type(count).__name__}"
            )
        super().__init__(
            multi_spike_lif,
            {"tau": tau, "v_threshold": v_threshold, "detach_reset": detach_reset},
            learnable=learnable,
            surrogate_function=count,
            step_mode=step_mode,
            backend=backend,
            store_v_seq=store_v_seq,
        )
