"""The bipolar integrate-and-fire neuron with a tracer, which counts its own spikes."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import nn

from snn.declaration import neuron_model
from snn.neurons.checks import require_above, require_finite
from snn.neurons.neuron import Neuron
from snn.ops import indicator, spike

Bound = float | torch.Tensor


@neuron_model(
    state={"v": "v_start", "total": 0.0, "count": 0.0}, params={"theta": 1.0, "v_start": 0.5, "lo": 0.0, "hi": 15.0}
)
def bipolar_with_tracer(x: Any, s: Any, p: Any) -> tuple[Any, dict[str, Any]]:
    total = s.total + x
    deserved = total / p.theta + p.v_start
    more = spike(deserved - (s.count + 1.0)) * indicator(s.count < p.hi, deserved)
    less = (1.0 - spike(deserved - s.count)) * indicator(s.count > p.lo, deserved)
    z = more - less
    count = s.count + z
    return z, {"v": deserved - count, "total": total, "count": count}


class STBIF(Neuron):
    """Bipolar integrate-and-fire neuron with a spike tracer: whatever the order of its input, it settles at a quantiser.

    Each step, in this order: charge  v = v + x / theta; fire  z = +1 where v >= 1 and S < hi, -1 where v < 0 and
    S > lo, else 0; reset  v = v - z, S = S + z. It starts at v = v_start and S = 0. A negative spike takes back a
    positive one that was sent too early.

    When no input is left and the neuron is silent, S = clip(floor(X / theta + v_start), lo, hi) with X the sum of all
    input. The states are v (in thresholds), X (`total`) and S (`count`); v is worked out as X / theta + v_start - S, so
    that the comparisons are those of the quantiser in floating point as well, and S is a whole number always.

    Args:
        theta: size of one spike, > 0, in the unit of x.
        lo, hi: least and greatest net number of spikes, whole numbers, lo <= 0 < hi; hi may be infinite.
        surrogate_function, step_mode, store_v_seq: see `LIF`.
        v_start: membrane at the start in thresholds; 1/2 rounds to the nearest.
        backend, learnable: see `Neuron`.
    Input: current [T, B, ...] ("m") or [B, ...] ("s"). Returns: -1, 0 or 1, same shape; times theta it is the value.
    Raises: ValueError for theta <= 0 or bounds that are not whole or not in order.
    Source: You et al., SpikeZIP-TF, ICML 2024 (ST-BIF); Su et al., arXiv 2408.09403 (BIF). There the state is q.

    >>> layer = STBIF(theta=0.5, lo=0, hi=3, step_mode="m")
    >>> layer(torch.tensor([1.3, 0.0, 0.0, 0.0, -0.6, 0.0, 0.0]).view(7, 1)).flatten().tolist()
    [1.0, 1.0, 1.0, 0.0, -1.0, -1.0, 0.0]
    """

    def __init__(
        self,
        theta: float | torch.Tensor = 1.0,
        lo: Bound = 0,
        hi: Bound = 15,
        surrogate_function: nn.Module | None = None,
        step_mode: str = "s",
        store_v_seq: bool = False,
        *,
        v_start: float | torch.Tensor = 0.5,
        backend: str = "auto",
        learnable: Sequence[str] = (),
    ) -> None:
        require_above("STBIF", "theta", theta, 0.0)
        require_finite("STBIF", lo=lo, v_start=v_start)
        for name, bound in (("lo", lo), ("hi", hi)):
            values = torch.as_tensor(bound, dtype=torch.float64)
            if bool((values != values.floor()).any()) or bool(values.isnan().any()):
                raise ValueError(f"STBIF: {name} must be a whole number of spikes, got {bound}")
        if bool((torch.as_tensor(lo) > 0).any()) or bool((torch.as_tensor(hi) <= 0).any()):
            raise ValueError(f"STBIF: needs lo <= 0 < hi, got lo={lo} and hi={hi}")
        super().__init__(
            bipolar_with_tracer,
            {"theta": theta, "v_start": v_start, "lo": lo, "hi": hi},
            learnable=learnable,
            surrogate_function=surrogate_function,
            step_mode=step_mode,
            backend=backend,
            store_v_seq=store_v_seq,
        )

    def steps_to_settle(self) -> int:
        """How many more steps without input until every neuron of the layer is silent for good; 0 if it is settled."""
        total, count = torch.as_tensor(self.total), torch.as_tensor(self.count)
        pending = unsettled_steps(total, count, self.theta, self.lo, self.hi, self.v_start)
        return int(pending.max().item()) if pending.numel() else 0


def unsettled_steps(
    total: torch.Tensor, count: torch.Tensor, theta: Bound, lo: Bound, hi: Bound, v_start: Bound = 0.5
) -> torch.Tensor:
    """Spikes that each neuron still owes, one per step: |clip(floor(total / theta + v_start), lo, hi) - count|."""
    settled = torch.floor(total / theta + v_start)
    low, high = (torch.as_tensor(bound, dtype=settled.dtype, device=settled.device) for bound in (lo, hi))
    return (torch.maximum(torch.minimum(settled, high), low) - count).abs()


def settled_after(lo: int, hi: float, arrived: int = 1) -> float:
    """Steps after which a neuron is silent for good if the last of its input arrives in step `arrived`.

    By then it has sent at most arrived - 1 spikes, so its count lies within that distance of 0 and within the bounds;
    from there it goes to any count within the bounds, one spike a step, beginning in step `arrived`.
    """
    least, most = max(lo, 1 - arrived), min(hi, arrived - 1)
    return arrived - 1 + max(hi - least, most - lo)
