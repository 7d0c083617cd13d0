"""Energy of networks: what they did as integers, and models that price it, every price with its source."""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

from neuromorphic.energy.counting import count as count
from neuromorphic.energy.counting import with_geometry as with_geometry
from neuromorphic.energy.counts import ANALOG as ANALOG
from neuromorphic.energy.counts import SPIKES as SPIKES
from neuromorphic.energy.counts import Counts as Counts
from neuromorphic.energy.counts import EventNetwork as EventNetwork
from neuromorphic.energy.counts import LayerActivity as LayerActivity
from neuromorphic.energy.counts import LayerCounts as LayerCounts
from neuromorphic.energy.counts import Signal as Signal
from neuromorphic.energy.counts import from_activity as from_activity

if TYPE_CHECKING:
    from neuromorphic.energy.estimates import Estimate as Estimate
    from neuromorphic.energy.estimates import Price as Price
    from neuromorphic.energy.estimates import Row as Row
    from neuromorphic.energy.estimating import MODELS as MODELS
    from neuromorphic.energy.estimating import estimate as estimate
    from neuromorphic.energy.models.bits import bit_budget as bit_budget

# Public names whose modules bring torch, and where they live.
_LAZY = {
    "Estimate": "neuromorphic.energy.estimates",
    "MODELS": "neuromorphic.energy.estimating",
    "Price": "neuromorphic.energy.estimates",
    "Row": "neuromorphic.energy.estimates",
    "bit_budget": "neuromorphic.energy.models.bits",
    "estimate": "neuromorphic.energy.estimating",
}

__all__ = [
    "ANALOG",
    "MODELS",
    "SPIKES",
    "Counts",
    "Estimate",
    "EventNetwork",
    "LayerActivity",
    "LayerCounts",
    "Price",
    "Row",
    "Signal",
    "bit_budget",
    "count",
    "estimate",
    "from_activity",
    "with_geometry",
]


def __getattr__(name: str) -> Any:
    if name in _LAZY:
        return getattr(importlib.import_module(_LAZY[name]), name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
