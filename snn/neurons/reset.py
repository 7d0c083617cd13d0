"""What a spike does to the membrane, shared by the families."""

from __future__ import annotations

from typing import Any

from snn.ops import detach, select


def resetting_spike(z: Any, p: Any) -> Any:
    """The spike as the reset sees it: without gradient where `detach_reset` is set."""
    return detach(z) if p.detach_reset else z


def reset_voltage(h: Any, z: Any, p: Any) -> Any:
    """Membrane after the reset: `v_reset` where z (hard), or h - z v_threshold where v_reset is None (soft)."""
    z = resetting_spike(z, p)
    return h - z * p.v_threshold if p.v_reset is None else select(z, p.v_reset, h)
