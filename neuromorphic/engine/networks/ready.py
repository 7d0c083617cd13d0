"""A ready network: the description with its populations and the figures to expect."""

from __future__ import annotations

from dataclasses import dataclass, field

from neuromorphic.engine.network import Network, Population


@dataclass(frozen=True)
class Options:
    """What every ready network takes.

    Args:
        scale: 1 is the published size.
        seed, threads, backend: as in ``Network``.
        dt_ms: grid step.
    """

    scale: float = 1.0
    seed: int = 1
    threads: int | None = None
    backend: str = "numba"
    dt_ms: float = 0.1

    def __post_init__(self) -> None:
        if not 0 < self.scale <= 100:
            raise ValueError(f"scale must be in (0, 100], got {self.scale!r}")

    def network(self) -> Network:
        """An empty network."""
        return Network(dt_ms=self.dt_ms, seed=self.seed, threads=self.threads, backend=self.backend)

    def size(self, n: int) -> int:
        """Scaled number of neurons, at least one."""
        return max(1, round(n * self.scale))


@dataclass(frozen=True)
class ReadyNetwork:
    """A description and its populations by name, with expected rates in Hz where the source gives them."""

    network: Network
    populations: dict[str, Population]
    expected_hz: dict[str, float] = field(default_factory=dict)
