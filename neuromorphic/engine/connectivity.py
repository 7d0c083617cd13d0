"""Connection rules: which source meets which target."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

import numpy as np

from neuromorphic.engine.errors import unknown_name


def _count(rule: str, name: str, value: int) -> None:
    if isinstance(value, bool) or not isinstance(value, int | np.integer) or value < 0:
        raise ValueError(f"{rule}: {name} must be an integer >= 0, got {value!r}")


@dataclass(frozen=True)
class AllToAll:
    """Every source to every target; ``autapses`` false leaves out a neuron's synapse on itself."""

    autapses: bool = True


@dataclass(frozen=True)
class OneToOne:
    """Source i to target i; both populations have the same size."""


@dataclass(frozen=True)
class FixedProbability:
    """Each pair independently with probability p in [0, 1]; at most one synapse per pair."""

    p: float
    autapses: bool = True

    def __post_init__(self) -> None:
        if not 0.0 <= self.p <= 1.0:
            raise ValueError(f"FixedProbability: p must be in [0, 1], got {self.p!r}")


@dataclass(frozen=True)
class FixedInDegree:
    """Every target draws k sources uniformly; ``multapses`` false makes them distinct."""

    k: int
    autapses: bool = True
    multapses: bool = True

    def __post_init__(self) -> None:
        _count("FixedInDegree", "k", self.k)


@dataclass(frozen=True)
class FixedOutDegree:
    """Every source draws k targets uniformly; ``multapses`` false makes them distinct."""

    k: int
    autapses: bool = True
    multapses: bool = True

    def __post_init__(self) -> None:
        _count("FixedOutDegree", "k", self.k)


@dataclass(frozen=True)
class FixedTotalNumber:
    """k synapses, each between a uniform source and a uniform target (multapses and autapses occur)."""

    k: int

    def __post_init__(self) -> None:
        _count("FixedTotalNumber", "k", self.k)


@dataclass(frozen=True)
class DistanceDependent:
    """Each pair with probability p_max * profile(distance); both populations need positions in um.

    Args:
        p_max: probability at distance 0, in [0, 1].
        length_um: standard deviation of "gaussian", length constant of "exponential", > 0.
        profile: "gaussian": exp(-d^2 / (2 length^2)); "exponential": exp(-d / length).
        cutoff_um: no synapse beyond this distance.
    """

    p_max: float
    length_um: float
    profile: str = "gaussian"
    cutoff_um: float = np.inf
    autapses: bool = True

    def __post_init__(self) -> None:
        if not 0.0 <= self.p_max <= 1.0:
            raise ValueError(f"DistanceDependent: p_max must be in [0, 1], got {self.p_max!r}")
        if not self.length_um > 0.0:
            raise ValueError(f"DistanceDependent: length_um must be > 0, got {self.length_um!r}")
        if self.profile not in ("gaussian", "exponential"):
            raise unknown_name("DistanceDependent profile", self.profile, ("gaussian", "exponential"))


@dataclass(frozen=True, eq=False)
class Explicit:
    """Synapse j from ``pre[j]`` to ``post[j]``, indices within the populations; arrays of weights and delays align."""

    pre: Any
    post: Any
    _pre: np.ndarray = field(init=False, repr=False)
    _post: np.ndarray = field(init=False, repr=False)

    def __post_init__(self) -> None:
        for name in ("pre", "post"):
            index = np.asarray(getattr(self, name))
            if index.ndim != 1 or index.dtype.kind not in "iu":
                raise ValueError(f"Explicit: {name} must be a 1-D integer array, got {index.dtype} {index.shape}")
            object.__setattr__(self, f"_{name}", index.astype(np.int64))
        if len(self._pre) != len(self._post):
            raise ValueError(
                f"Explicit: pre and post must have equal length, got {len(self._pre)} and {len(self._post)}"
            )


Rule = (
    AllToAll
    | OneToOne
    | FixedProbability
    | FixedInDegree
    | FixedOutDegree
    | FixedTotalNumber
    | DistanceDependent
    | Explicit
)
_BY_NAME: dict[str, Rule] = {"all_to_all": AllToAll(), "one_to_one": OneToOne()}


def as_rule(rule: Any) -> Rule:
    """A rule from a rule, the names "all_to_all" and "one_to_one", or a SciPy sparse matrix [n_pre, n_post]."""
    if isinstance(rule, str):
        if rule not in _BY_NAME:
            raise unknown_name("connection rule", rule, _BY_NAME)
        return _BY_NAME[rule]
    if isinstance(rule, Rule):
        return rule
    raise TypeError(f"connect: rule must be a rule object, a name or a sparse matrix, got {type(rule).__name__}")


def from_sparse(matrix: Any, n_pre: int, n_post: int) -> tuple[Explicit, np.ndarray]:
    """Rule and weights of the stored entries of a SciPy sparse matrix, row = source."""
    if matrix.shape != (n_pre, n_post):
        raise ValueError(
            f"connect: sparse matrix must have shape (n_pre, n_post) = {(n_pre, n_post)}, got {matrix.shape}"
        )
    entries = matrix.tocoo()
    return Explicit(entries.row, entries.col), np.asarray(entries.data, dtype=np.float64)
