"""Random weights, delays and initial states: what to draw, never the draw itself."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np

CONSTANT, NORMAL, CLIPPED_NORMAL, LOG_NORMAL, UNIFORM = range(5)


def _check_finite(kind: str, **numbers: float) -> None:
    for name, value in numbers.items():
        if not np.isfinite(value):
            raise ValueError(f"{kind}: {name} must be finite, got {value!r}")


@dataclass(frozen=True)
class Normal:
    """Normal distribution, in the unit of the quantity.

    Args:
        mean, std: std >= 0.
        low, high: accepted range. Values outside are drawn again, or set to the bound when ``clip`` is true.
        clip: as above.
    """

    mean: float
    std: float
    low: float = -np.inf
    high: float = np.inf
    clip: bool = False

    def __post_init__(self) -> None:
        _check_finite("Normal", mean=self.mean, std=self.std)
        if self.std < 0:
            raise ValueError(f"Normal: std must be >= 0, got {self.std}")
        if not self.low < self.high:
            raise ValueError(f"Normal: low must be < high, got {self.low} and {self.high}")
        if not self.clip and not (self.low <= self.mean + 3 * self.std and self.high >= self.mean - 3 * self.std):
            raise ValueError(
                f"Normal: [{self.low}, {self.high}] is more than 3 std from the mean {self.mean}; use clip"
            )


@dataclass(frozen=True)
class LogNormal:
    """exp of a normal with mean ``mu`` and standard deviation ``sigma`` (both of the logarithm)."""

    mu: float
    sigma: float

    def __post_init__(self) -> None:
        _check_finite("LogNormal", mu=self.mu, sigma=self.sigma)
        if self.sigma < 0:
            raise ValueError(f"LogNormal: sigma must be >= 0, got {self.sigma}")


@dataclass(frozen=True)
class Uniform:
    """Uniform on [low, high)."""

    low: float
    high: float

    def __post_init__(self) -> None:
        _check_finite("Uniform", low=self.low, high=self.high)
        if not self.low <= self.high:
            raise ValueError(f"Uniform: low must be <= high, got {self.low} and {self.high}")


Distribution = Normal | LogNormal | Uniform
Quantity = Any  # a number, an array or a Distribution


def encode(quantity: float | Distribution) -> np.ndarray:
    """[kind, a, b, low, high] float64 for the build kernels."""
    match quantity:
        case Normal(mean, std, low, high, clip):
            return np.array([CLIPPED_NORMAL if clip else NORMAL, mean, std, low, high])
        case LogNormal(mu, sigma):
            return np.array([LOG_NORMAL, mu, sigma, -np.inf, np.inf])
        case Uniform(low, high):
            return np.array([UNIFORM, low, high, -np.inf, np.inf])
        case _:
            return np.array([CONSTANT, float(quantity), 0.0, -np.inf, np.inf])


def draw(quantity: Quantity, n: int, generator: np.random.Generator) -> np.ndarray:
    """n values [n] float64 of a number, an array [n] or a distribution."""
    match quantity:
        case Normal(mean, std, low, high, clip):
            values = generator.normal(mean, std, n)
            if clip:
                return np.clip(values, low, high)
            while (outside := (values < low) | (values > high)).any():
                values[outside] = generator.normal(mean, std, int(outside.sum()))
            return values
        case LogNormal(mu, sigma):
            return generator.lognormal(mu, sigma, n)
        case Uniform(low, high):
            return generator.uniform(low, high, n)
        case _:
            return np.broadcast_to(np.asarray(quantity, dtype=np.float64), (n,)).copy()
