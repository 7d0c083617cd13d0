"""The bipolar integrate-and-fire neuron with a tracer, which counts its own spikes."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import torch
from torch import nn

from snn.declaration import neuron_model
from snn.neurons.checks import require_above, require_finite
from snn.neurons.neuron import Neuron
from snn.ops import indicator, spike

Bound = float | torch.Tensor


@neuron_model(state={"total": 0.0, "count": 0.0}, params={"step": 1.0, "lo": 0.0, "hi": 15.0, "initial": 0.5})
def bipolar_with_tracer(x: Any, s: Any, p: Any) -> tuple[Any, dict[str, Any]]:
    total = s.total + x
    deserved = total / p.step + p.initial
    more = spike(deserved - (s.count + 1.0)) * indicator(s.count < p.hi, deserved)
    less = (1.0 - spike(deserved - s.count)) * indicator(s.count > p.lo, deserved)
    z = more - less
    return z, {"total": total, "count": s.count + z}


class STBIF(Neuron):
    """Bipolar integrate-and-fire neuron with a spike tracer: whatever the order of its input, it settles at a quantiser.

    Each step, in this order: charge  q = q + x / step; fire  z = +1 where q >= 1 and S < hi, -1 where q < 0 and
    S > lo, else 0; reset  q = q - z, S = S + z. It starts at q = initial and S = 0. A negative spike takes back a
    positive one that was sent too early.

    When no input is left and the neuron is silent, S = clip(floor(X / step + initial), lo, hi) with X the sum of all
    input. The state is (X, S), from which q = X / step + initial - S: the comparisons are then those of the quantiser
    in floating point as well, and S is a whole number always.

    Args:
        step: size of one spike, > 0, in the unit of x.
        lo, hi: least and greatest net number of spikes, whole numbers, lo <= 0 < hi; hi may be infinite.
        initial: membrane at the start in steps; 1/2 rounds to the nearest.
        surrogate_function, step_mode, store_v_seq: see `LIF`; there is no state v to store.
        backend, learnable: see `Neuron`.
    Input: current [T, B, ...] ("m") or [B, ...] ("s"). Returns: -1, 0 or 1, same shape; times step it is the value.
    Raises: ValueError for step <= 0 or bounds that are not whole or not in order.
    Source: You et al., SpikeZIP-TF, ICML 2024 (ST-BIF); Su et al., arXiv 2408.09403 (BIF). There the state is q.

    >>> layer = STBIF(step=0.5, lo=0, hi=3, step_mode="m")
    >>> layer(torch.tensor([1.3, 0.0, 0.0, 0.0, -0.6, 0.0, 0.0]).view(7, 1)).flatten().tolist()
    [1.0, 1.0, 1.0, 0.0, -1.0, -1.0, 0.0]
    """

    def __init__(
        self,
        step: float | torch.Tensor = 1.0,
        lo: Bound = 0,
        hi: Bound = 15,
        surrogate_function: nn.Module | None = None,
        step_mode: str = "s",
        *,
        initial: float | torch.Tensor = 0.5,
        backend: str = "auto",
        learnable: Sequence[str] = (),
    ) -> None:
        require_above("STBIF", "step", step, 0.0)
        require_finite("STBIF", lo=lo, initial=initial)
        for name, bound in (("lo", lo), ("hi", hi)):
            values = torch.as_tensor(bound, dtype=torch.float64)
            if bool((values != values.floor()).any()) or bool(values.isnan().any()):
                raise ValueError(f"STBIF: {name} must be a whole number of spikes, got {bound}")
        if bool((torch.as_tensor(lo) > 0).any()) or bool((torch.as_tensor(hi) <= 0).any()):
            raise ValueError(f"STBIF: needs lo <= 0 < hi, got lo={lo} and hi={hi}")
        super().__init__(
            bipolar_with_tracer,
            {"step": step, "lo": lo, "hi": hi, "initial": initial},
            learnable=learnable,
            surrogate_function=surrogate_function,
            step_mode=step_mode,
            backend=backend,
        )

    def membrane(self) -> torch.Tensor:
        """q after the last step, in steps: X / step + initial - S."""
        total, count = torch.as_tensor(self.total), torch.as_tensor(self.count)
        q: torch.Tensor = total / self.step + self.initial - count
        return q

    def steps_to_settle(self) -> int:
        """How many more steps without input until every neuron of the layer is silent for good; 0 if it is settled."""
        total, count = torch.as_tensor(self.total), torch.as_tensor(self.count)
        pending = unsettled_steps(total, count, self.step, self.lo, self.hi, self.initial)
        return int(pending.max().item()) if pending.numel() else 0


def unsettled_steps(
    total: torch.Tensor, count: torch.Tensor, step: Bound, lo: Bound, hi: Bound, initial: Bound = 0.5
) -> torch.Tensor:
    """Spikes that each neuron still owes, one per step: |clip(floor(total / step + initial), lo, hi) - count|."""
    settled = torch.floor(total / step + initial)
    low, high = (torch.as_tensor(bound, dtype=settled.dtype, device=settled.device) for bound in (lo, hi))
    return (torch.maximum(torch.minimum(settled, high), low) - count).abs()


def steps_needed(lo: int, hi: float) -> float:
    """Steps after which a neuron has settled whose whole input arrived at the first: the longer way to a bound."""
    return math.inf if math.isinf(hi) else max(int(hi), -lo)
