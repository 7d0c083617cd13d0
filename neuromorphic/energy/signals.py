"""What a tensor is declared to carry."""

from __future__ import annotations

from dataclasses import dataclass
from math import ceil, log2
from typing import Final, Literal


@dataclass(frozen=True)
class Signal:
    """What a tensor is declared to carry; never found by looking at its values.

    Args:
        kind: "spikes" for whole numbers of spikes (times one common factor, which folds into the next weights), "analog"
            for anything else.
        levels: largest magnitude of one entry, in spikes; 1 for ordinary spikes, 2^b - 1 for b-bit ones; 0 for analog.
        signed: entries may be negative.

    >>> Signal("spikes", levels=5).bits
    3
    """

    kind: Literal["spikes", "analog"]
    levels: int = 0
    signed: bool = False

    def __post_init__(self) -> None:
        if self.kind not in ("spikes", "analog"):
            raise ValueError(f"Signal: kind must be 'spikes' or 'analog', got {self.kind!r}")
        if (self.kind == "spikes") != (self.levels >= 1):
            raise ValueError(f"Signal: levels must be >= 1 for spikes and 0 for analog, got {self.levels}")

    @property
    def is_binary(self) -> bool:
        """True where one event is one addition or subtraction: entries 0, 1 or -1."""
        return self.levels == 1

    @property
    def bits(self) -> int | None:
        """Width of one entry, sign included: ceil(log2(levels + 1)) + signed; None for analog."""
        return None if self.kind == "analog" else ceil(log2(self.levels + 1)) + self.signed


ANALOG: Final = Signal("analog")
SPIKES: Final = Signal("spikes", 1)
