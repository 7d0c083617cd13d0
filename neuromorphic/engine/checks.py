"""Checks of what a user hands to `Network`; each error names the argument, what was given and what is accepted."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from neuromorphic.engine import connectivity as rules
from neuromorphic.engine.distributions import Distribution, LogNormal, Normal, Uniform
from neuromorphic.engine.errors import unknown_name
from neuromorphic.engine.models import NeuronModel

if TYPE_CHECKING:
    from neuromorphic.engine.network import Population


def positive(where: str, name: str, value: Any, zero: bool = False) -> None:
    """A finite number > 0 (or >= 0)."""
    if isinstance(value, bool) or not isinstance(value, int | float | np.integer | np.floating):
        raise TypeError(f"{where}: {name} must be a number, got {value!r}")
    if not np.isfinite(value) or value < 0 or (value == 0 and not zero):
        raise ValueError(f"{where}: {name} must be finite and {'>=' if zero else '>'} 0, got {value!r}")


def number(where: str, name: str, value: Any) -> None:
    """A finite number."""
    if isinstance(value, bool) or not isinstance(value, int | float | np.integer | np.floating):
        raise TypeError(f"{where}: {name} must be a number, got {value!r}")
    if not np.isfinite(value):
        raise ValueError(f"{where}: {name} must be finite, got {value!r}")


def count(where: str, name: str, value: Any, low: int) -> None:
    """An integer >= low."""
    if isinstance(value, bool) or not isinstance(value, int | np.integer):
        raise TypeError(f"{where}: {name} must be an integer, got {value!r}")
    if value < low:
        raise ValueError(f"{where}: {name} must be >= {low}, got {value}")


def choice(name: str, value: Any, accepted: Sequence[str]) -> None:
    """One of the accepted names."""
    if value not in accepted:
        raise unknown_name(name, value, accepted)


def positions(given: Any, n: int) -> np.ndarray:
    """[n, 3] float64 from [n, 2] or [n, 3]."""
    array = np.asarray(given, dtype=np.float64)
    if array.shape not in ((n, 2), (n, 3)):
        raise ValueError(f"population: positions_um must have shape ({n}, 2) or ({n}, 3), got {array.shape}")
    if not np.isfinite(array).all():
        raise ValueError("population: positions_um must be finite")
    return np.pad(array, ((0, 0), (0, 3 - array.shape[1])))


def source_values(source: str, given: Mapping[str, Any], n: int, dt_ms: float) -> dict[str, Any]:
    """Parameters of a spike source."""
    accepted = ("rate_hz",) if source == "poisson" else ("times_ms", "ids")
    for name in given:
        if name not in accepted:
            raise unknown_name(f"parameter of {source}", name, accepted)
    for name in accepted:
        if name not in given:
            raise ValueError(f"{source}: parameter {name} is missing")
    if source == "poisson":
        positive(source, "rate_hz", given["rate_hz"], zero=True)
        return {"rate_hz": float(given["rate_hz"])}
    times, ids = np.asarray(given["times_ms"], dtype=np.float64), np.asarray(given["ids"])
    if times.ndim != 1 or times.shape != ids.shape:
        raise ValueError(f"spike_list: times_ms and ids must be 1-D of equal length, got {times.shape} and {ids.shape}")
    if not np.isfinite(times).all() or (times < dt_ms / 2).any():
        raise ValueError(f"spike_list: times_ms must be finite and >= dt_ms = {dt_ms:g} ms")
    return {"times_ms": times, "ids": indices("spike_list", ids, n)}


def initial_values(model: NeuronModel, given: Mapping[str, Any], n: int) -> dict[str, Any]:
    """Initial values by state name."""
    for name, value in given.items():
        if name not in model.states:
            raise unknown_name(f"state of {model.name}", name, model.states)
        if isinstance(value, Distribution):
            continue
        array = np.asarray(value, dtype=np.float64)
        if array.ndim and array.shape != (n,):
            raise ValueError(
                f"{model.name}: initial {name} must be a number, a distribution or [{n}], got {array.shape}"
            )
        if not np.isfinite(array).all():
            raise ValueError(f"{model.name}: initial {name} must be finite")
    return dict(given)


def rule_fits(rule: rules.Rule, pre: Population, post: Population) -> None:
    """The rule can be carried out between these populations."""
    kind = type(rule).__name__
    match rule:
        case rules.OneToOne():
            if pre.n != post.n:
                raise ValueError(f"OneToOne: populations must have equal size, got {pre.n} and {post.n}")
        case rules.FixedInDegree(k, autapses, multapses) | rules.FixedOutDegree(k, autapses, multapses):
            pool = pre.n if isinstance(rule, rules.FixedInDegree) else post.n
            pool -= int(pre is post and not autapses)
            if k and (pool < 1 or (not multapses and k > pool)):
                raise ValueError(f"{kind}: k must be <= {pool} available neurons, got {k}")
        case rules.DistanceDependent():
            for population in (pre, post):
                if population.positions_um is None:
                    raise ValueError(f"DistanceDependent: population {population.name!r} has no positions_um")
        case rules.Explicit():
            for name, index, n in (("pre", rule._pre, pre.n), ("post", rule._post, post.n)):
                if len(index) and (index.min() < 0 or index.max() >= n):
                    raise ValueError(f"Explicit: {name} must be in [0, {n}), got {index.min()}..{index.max()}")


def weight(value: Any, model: NeuronModel, receptor: str | None) -> None:
    """Finite; conductances given with a receptor are not negative."""
    if isinstance(value, Distribution):
        return
    array = np.asarray(value)
    if array.dtype.kind not in "fiu":
        raise TypeError(f"connect: weight must be a number, an array or a distribution, got {value!r}")
    if not np.isfinite(array).all():
        raise ValueError(f"connect: weight must be finite, got {int((~np.isfinite(array)).sum())} values that are not")
    if model.conductance and receptor is not None and (array < 0).any():
        raise ValueError(f"connect: a conductance on receptor {receptor!r} must be >= 0 nS, got {array.min()}")


def delay(value: Any, dt_ms: float) -> None:
    """At least one step."""
    match value:
        case Normal(mean, _, low, high, clip):
            if high < dt_ms or (clip and low < dt_ms) or (not clip and np.isfinite(low) and low < dt_ms / 2):
                raise ValueError(f"connect: delay_ms must reach dt_ms = {dt_ms:g} ms, got {value}")
            if mean < dt_ms:
                raise ValueError(f"connect: mean of delay_ms must be >= dt_ms = {dt_ms:g} ms, got {mean}")
        case Uniform(low, _):
            if low < dt_ms:
                raise ValueError(f"connect: delay_ms must be >= dt_ms = {dt_ms:g} ms, got {value}")
        case LogNormal(mu, _):
            if np.exp(mu) < dt_ms:
                raise ValueError(f"connect: median of delay_ms must be >= dt_ms = {dt_ms:g} ms, got {np.exp(mu):g}")
        case _:
            array = np.asarray(value)
            if array.dtype.kind not in "fiu":
                raise TypeError(f"connect: delay_ms must be a number, an array or a distribution, got {value!r}")
            if not np.isfinite(array).all() or (array < dt_ms * (1 - 1e-6)).any():
                shown = value if not array.ndim else f"minimum {array.min()}"
                raise ValueError(f"connect: delay_ms must be finite and >= dt_ms = {dt_ms:g} ms, got {shown}")


def driven_model(where: str, post: Population, populations: Sequence[Population]) -> NeuronModel:
    """The model of a population that can take input."""
    if post not in populations:
        raise ValueError(f"{where}: post must be a population of this network, got {post!r}")
    if post.model is None:
        raise ValueError(f"{where}: {post.name!r} is a spike source and takes no input")
    return post.model


def contiguous(where: str, neurons: slice | None, n: int) -> tuple[int, int]:
    """(low, high) of a slice without step."""
    if neurons is None:
        return 0, n
    if not isinstance(neurons, slice):
        raise TypeError(f"{where}: neurons must be a slice or None, got {neurons!r}")
    low, high, step = neurons.indices(n)
    if step != 1 or low >= high:
        raise ValueError(f"{where}: neurons must be a slice of step 1 with at least one of {n} neurons, got {neurons}")
    return low, high


def step_function(times_ms: Any, amplitudes: Any) -> tuple[np.ndarray, np.ndarray]:
    """Increasing times and their amplitudes."""
    times, values = np.asarray(times_ms, dtype=np.float64), np.asarray(amplitudes, dtype=np.float64)
    if times.ndim != 1 or times.shape != values.shape:
        raise ValueError(
            f"drive_current: times_ms and amplitudes must be 1-D of equal length, got {times.shape} and {values.shape}"
        )
    if not (np.isfinite(times).all() and np.isfinite(values).all()) or (times < 0).any() or (np.diff(times) <= 0).any():
        raise ValueError("drive_current: times_ms must be finite, >= 0 and increasing, amplitudes finite")
    return times, values


def indices(where: str, given: Any, n: int) -> np.ndarray:
    """1-D int64 indices in [0, n)."""
    array = np.asarray(given)
    if array.ndim != 1 or (array.size and array.dtype.kind not in "iu"):
        raise ValueError(f"{where}: indices must be a 1-D integer array, got {array.dtype} {array.shape}")
    array = array.astype(np.int64)
    if array.size and (array.min() < 0 or array.max() >= n):
        raise ValueError(f"{where}: indices must be in [0, {n}), got {array.min()}..{array.max()}")
    return array
