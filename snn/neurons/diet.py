"""Neuron with a trained threshold and a trained leak, for networks that end at very few steps."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import nn

from snn.declaration import neuron_model
from snn.neurons.checks import require_above, require_within
from snn.neurons.neuron import Neuron
from snn.neurons.reset import resetting_spike
from snn.ops import spike
from snn.surrogate import ScaledTriangle


@neuron_model(state={"v": 0.0}, params={"leak": 1.0, "v_threshold": 1.0, "detach_reset": True})
def diet(x: Any, s: Any, p: Any) -> tuple[Any, dict[str, Any]]:
    h = p.leak * s.v + x
    z = 1.0 - spike(1.0 - h / p.v_threshold)  # strictly above the threshold
    return z, {"v": h - resetting_spike(z, p) * p.v_threshold}


class DIET(Neuron):
    """Integrate-and-fire neuron whose threshold and leak are trained with the weights.

    Each step, in this order: charge  h = leak v + x; fire  z = [h / v_threshold - 1 > 0]; reset  v = h - z v_threshold.
    The threshold is softplus(w), so that no optimiser step makes it negative; the leak is put back into [0, 1] by
    `clamp_leaks` after every step.

    Args:
        v_threshold: starting threshold, > 0, in the unit of x; a tensor ([C, 1, 1], [N]) trains one per channel or neuron.
        leak: share of the membrane that is kept from step to step, in [0, 1]; may be a tensor too.
        surrogate_function: of u = h / v_threshold - 1, symmetric; default ScaledTriangle(height=0.3, width=1).
        trained: which of "v_threshold" and "leak" are trained.
        detach_reset: True (the default here) gives the comparison in the reset no gradient; its factor v_threshold has one.
        step_mode, store_v_seq, backend: see `Neuron`.
    Input: current [T, B, ...] ("m") or [B, ...] ("s"), any float dtype.
    Returns: spikes 0/1, same shape and dtype.
    Raises: ValueError for a threshold that is not positive, a leak outside [0, 1] or an unknown name in `trained`.
    Source: Rathi and Roy, DIET-SNN, 2021, as trained by Chowdhury et al., Towards Ultra Low Latency Spiking Neural
        Networks, ECCV 2022. There the threshold is free to become negative and the leak is bounded from above only.

    >>> DIET(v_threshold=0.5, leak=0.9, step_mode="m")(torch.tensor([0.3, 0.3, 0.7, 0.1, 0.5]).view(5, 1)).flatten().tolist()
    [0.0, 1.0, 1.0, 0.0, 1.0]
    """

    def __init__(
        self,
        v_threshold: float | torch.Tensor = 1.0,
        leak: float | torch.Tensor = 1.0,
        surrogate_function: nn.Module | None = None,
        trained: Sequence[str] = ("v_threshold", "leak"),
        detach_reset: bool = True,
        step_mode: str = "s",
        store_v_seq: bool = False,
        *,
        backend: str = "auto",
    ) -> None:
        require_above("DIET", "v_threshold", v_threshold, 0.0)
        require_within("DIET", 0.0, 1.0, leak=leak)
        for name in trained:
            if name not in ("v_threshold", "leak"):
                raise ValueError(f"DIET: trained must name 'v_threshold' or 'leak', got {name!r}")
        super().__init__(
            diet,
            {"v_threshold": v_threshold, "leak": leak, "detach_reset": detach_reset},
            learnable=("leak",),
            surrogate_function=ScaledTriangle() if surrogate_function is None else surrogate_function,
            step_mode=step_mode,
            backend=backend,
            store_v_seq=store_v_seq,
        )
        del self.v_threshold
        self.leak.requires_grad_("leak" in trained)
        start = torch.as_tensor(v_threshold, dtype=torch.get_default_dtype())
        self.w = nn.Parameter(_softplus_inverse(start), requires_grad="v_threshold" in trained)

    @property
    def threshold(self) -> torch.Tensor:
        """Firing threshold, in the unit of x."""
        return nn.functional.softplus(self.w)

    def set_threshold(self, value: float | torch.Tensor) -> None:
        """Gives the trained threshold a new value, a number or the shape of the old one.

        Raises: ValueError if it is not positive; RuntimeError for another shape.
        """
        require_above("DIET", "v_threshold", value, 0.0)
        with torch.no_grad():
            self.w.copy_(_softplus_inverse(torch.as_tensor(value, dtype=self.w.dtype, device=self.w.device)))

    def call_params(self) -> dict[str, Any]:
        """The model's parameters for a call: the leak within [0, 1] and the positive threshold."""
        return {"leak": self.leak.clamp(0.0, 1.0), "v_threshold": self.threshold, "detach_reset": self.detach_reset}


def clamp_leaks(net: nn.Module) -> None:
    """Puts all trained leaks of `net` back into [0, 1]; call it after every optimiser step."""
    with torch.no_grad():
        for module in net.modules():
            if isinstance(module, DIET):
                module.leak.clamp_(0.0, 1.0)


def _softplus_inverse(value: torch.Tensor) -> torch.Tensor:
    exact = value.double()
    return (exact + torch.log(-torch.expm1(-exact))).to(value.dtype)
