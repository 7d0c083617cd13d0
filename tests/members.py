"""Lists of all members of a kind, over which the property tests run."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

import torch
from spikingjelly.activation_based import surrogate as sj

import snn
from snn import surrogate


@dataclass(frozen=True)
class Member:
    """A neuron layer with the inputs that make it spike: mean + spread * noise."""

    name: str
    arguments: dict[str, Any] = field(default_factory=dict)
    mean: float = 0.3
    spread: float = 1.5
    fixed_surrogate: bool = False
    resets: tuple[Any, ...] = ()

    def build(self, **arguments: Any) -> snn.Neuron:
        return snn.NEURONS[self.name](**{"step_mode": "m", **self.arguments, **arguments})

    def currents(self, *shape: int, dtype: torch.dtype = torch.float32, seed: int = 0) -> torch.Tensor:
        noise = torch.randn(shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)
        return (self.mean + self.spread * noise).to(dtype)


HARD_AND_SOFT = (0.0, 0.1, None)
NEURONS = [
    Member("if", resets=HARD_AND_SOFT),
    Member("lif", resets=HARD_AND_SOFT),
    Member("plif", resets=HARD_AND_SOFT),
    Member("cuba_lif", resets=HARD_AND_SOFT),
    Member("alif", resets=HARD_AND_SOFT),
    Member("recurrent_lif", {"recurrent": 7}, resets=HARD_AND_SOFT),
    Member("li", fixed_surrogate=True),
    Member("izhikevich", {"dt_ms": 0.5}, mean=15.0, spread=40.0),
    Member("adex", {"dt_ms": 0.25}, mean=2000.0, spread=4000.0),
    Member("diet"),
    Member("liaf", resets=HARD_AND_SOFT),
    Member("bipolar_if", resets=(None, 0.0, -0.2)),
    Member("multi_spike_lif", fixed_surrogate=True),
    Member("st_bif", {"theta": 0.75, "lo": -2, "hi": 3}),
]

SURROGATES = [
    sj.ATan(),
    sj.Sigmoid(),
    sj.SuperSpike(),
    sj.SoftSign(),
    sj.PiecewiseQuadratic(),
    sj.Rect(),
    sj.Erf(),
    sj.PiecewiseExp(),
    sj.LeakyKReLU(leak=0.1),
    sj.PiecewiseLeakyReLU(),
    sj.DeterministicPass(),
    surrogate.FastSigmoid(2.0),
    surrogate.Triangle(),
    surrogate.ScaledTriangle(0.3, 1.5),
    surrogate.Gaussian(),
    surrogate.ClippedTanh(),
]
