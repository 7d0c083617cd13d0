"""Neurons of converted networks: declared steps in the units of the source network, output in spike counts.

Each takes `theta`, the value of one spike, and `v_start`, the membrane before the first step. The membrane is never
reset by force: what a spike carries away is subtracted, so that theta N + v(T) = v(0) + the sum of all inputs.
"""

from __future__ import annotations

from typing import Any

from snn.declaration import neuron_model
from snn.ops import maximum, minimum, rounded, spike, where


@neuron_model(state={"v": "v_start"}, params={"theta": 1.0, "v_start": 0.0})
def soft_reset_if(x: Any, s: Any, p: Any) -> tuple[Any, dict[str, Any]]:
    """Integrate and fire: one spike where v + x >= theta, which takes theta away."""
    h = s.v + x
    z = spike(h - p.theta)
    return z, {"v": h - z * p.theta}


@neuron_model(state={"v": "v_start"}, params={"theta": 1.0, "v_start": 0.0, "most": 5.0})
def burst_if(x: Any, s: Any, p: Any) -> tuple[Any, dict[str, Any]]:
    """As many spikes in one step as the membrane holds, at most `most` (Li and Zeng, IJCAI 2022)."""
    h = s.v + x
    nearest = rounded(h / p.theta)
    whole = where(nearest * p.theta > h, nearest - 1.0, nearest)
    count = minimum(maximum(whole, 0.0), p.most)
    return count, {"v": h - count * p.theta}


@neuron_model(state={"v": "v_start", "room": 0.0}, params={"theta": 1.0, "v_start": 0.0, "most": 5.0})
def clipped_burst_if(x: Any, s: Any, p: Any) -> tuple[Any, dict[str, Any]]:
    """As `burst_if`, but never more spikes than steps so far, so that the mean output is at most theta."""
    h = s.v + x
    room = s.room + 1.0
    nearest = rounded(h / p.theta)
    whole = where(nearest * p.theta > h, nearest - 1.0, nearest)
    count = minimum(minimum(maximum(whole, 0.0), p.most), room)
    return count, {"v": h - count * p.theta, "room": room - count}


@neuron_model(state={"v": "v_start", "net": 0.0}, params={"theta": 1.0, "v_start": 0.0})
def signed_if(x: Any, s: Any, p: Any) -> tuple[Any, dict[str, Any]]:
    """As `soft_reset_if`, and one negative spike where the membrane is below 0 and an earlier spike can be taken back."""
    h = s.v + x
    up = spike(h - p.theta)
    down = where(h < 0.0, where(s.net > 0.0, 1.0, 0.0), 0.0)
    z = up - down
    return z, {"v": h - z * p.theta, "net": s.net + z}
