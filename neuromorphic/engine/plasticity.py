"""Plasticity rules: their parameters and equations. Times in ms; weights in the unit of the projection."""

from __future__ import annotations

from dataclasses import dataclass, fields

import numpy as np

from neuromorphic.engine.errors import unknown_name

PAIR, POWER_LAW, TRIPLET, REWARD = range(4)


def _check(rule: object, positive: tuple[str, ...]) -> None:
    for item in fields(rule):  # type: ignore[arg-type]
        value = getattr(rule, item.name)
        if isinstance(value, float | int) and not np.isfinite(value):
            raise ValueError(f"{type(rule).__name__}: {item.name} must be finite, got {value!r}")
    for name in positive:
        if not getattr(rule, name) > 0:
            raise ValueError(f"{type(rule).__name__}: {name} must be > 0, got {getattr(rule, name)!r}")


@dataclass(frozen=True)
class SynapticScaling:
    """Homeostasis: every ``interval_ms`` the plastic weights onto each neuron are multiplied by a factor.

    With a target rate: factor = 1 + strength (1 - rate / target), rate counted since the last scaling. With a target
    sum: factor = (target / sum of the neuron's weights)^strength.

    Args:
        interval_ms: > 0.
        target_rate_hz, target_sum: exactly one of them, > 0.
        strength: in (0, 1].
    """

    interval_ms: float
    target_rate_hz: float | None = None
    target_sum: float | None = None
    strength: float = 1.0

    def __post_init__(self) -> None:
        _check(self, ("interval_ms",))
        if (self.target_rate_hz is None) == (self.target_sum is None):
            raise ValueError("SynapticScaling: give exactly one of target_rate_hz and target_sum")
        target = self.target_rate_hz if self.target_sum is None else self.target_sum
        if target is None or not target > 0:
            raise ValueError(f"SynapticScaling: the target must be > 0, got {target!r}")
        if not 0 < self.strength <= 1:
            raise ValueError(f"SynapticScaling: strength must be in (0, 1], got {self.strength!r}")


@dataclass(frozen=True)
class PairSTDP:
    """Pair rule with traces K+ (pre) and K- (post), updated only at spikes.

    Post spike: w <- w + lambda w_max (1 - w/w_max)^mu_plus K+; pre spike: w <- w - alpha lambda w_max (w/w_max)^mu_minus
    K-; clipped to [0, w_max]. mu = 0 is additive, 1 multiplicative. The delay is dendritic: a post spike counts at the
    synapse one delay later; exact coincidence is skipped on the depression side (Morrison et al. 2007).

    Args:
        learning_rate: lambda.
        alpha: asymmetry of depression.
        w_max: largest weight, > 0.
        mu_plus, mu_minus: exponents, >= 0.
        tau_plus_ms, tau_minus_ms: time constants of the traces.
        pairing: "all_to_all", or "nearest" (each spike with the last opposite one only).
        scaling: optional homeostasis.
    """

    learning_rate: float = 0.01
    alpha: float = 1.0
    w_max: float = 100.0
    mu_plus: float = 1.0
    mu_minus: float = 1.0
    tau_plus_ms: float = 20.0
    tau_minus_ms: float = 20.0
    pairing: str = "all_to_all"
    scaling: SynapticScaling | None = None

    def __post_init__(self) -> None:
        _check(self, ("w_max", "tau_plus_ms", "tau_minus_ms"))
        if self.pairing not in ("all_to_all", "nearest"):
            raise unknown_name("pairing", self.pairing, ("all_to_all", "nearest"))


@dataclass(frozen=True)
class PowerLawSTDP:
    """Power-law rule of the HPC benchmark: post: w + lambda w^mu K+; pre: w - lambda alpha w K-; w >= 0."""

    learning_rate: float = 0.1
    alpha: float = 0.0513
    mu: float = 0.4
    tau_plus_ms: float = 15.0
    tau_minus_ms: float = 30.0
    scaling: SynapticScaling | None = None

    def __post_init__(self) -> None:
        _check(self, ("tau_plus_ms", "tau_minus_ms"))


@dataclass(frozen=True)
class TripletSTDP:
    """Triplet rule, all-to-all (Pfister and Gerstner 2006); traces r1, r2 (pre), o1, o2 (post) just before the event.

    Pre spike: w <- w - o1 (a2_minus + a3_minus r2); post spike: w <- w + r1 (a2_plus + a3_plus o2); in [0, w_max].
    """

    tau_plus_ms: float = 16.8
    tau_x_ms: float = 101.0
    tau_minus_ms: float = 33.7
    tau_y_ms: float = 125.0
    a2_plus: float = 5e-10
    a3_plus: float = 6.2e-3
    a2_minus: float = 7e-3
    a3_minus: float = 2.3e-4
    w_max: float = 100.0
    scaling: SynapticScaling | None = None

    def __post_init__(self) -> None:
        _check(self, ("tau_plus_ms", "tau_x_ms", "tau_minus_ms", "tau_y_ms", "w_max"))


@dataclass(frozen=True)
class RewardSTDP:
    """Additive pair rule that writes into an eligibility trace; rewards turn the trace into weight.

    Post spike: e <- e + K+; pre spike: e <- e - alpha K-; e decays with tau_e. ``Network.reward(projection, amount)``
    at time t: w <- clip(w + learning_rate amount e(t), 0, w_max) (Izhikevich 2007 with rewards as pulses).
    """

    learning_rate: float = 0.01
    alpha: float = 1.0
    w_max: float = 100.0
    tau_plus_ms: float = 20.0
    tau_minus_ms: float = 20.0
    tau_e_ms: float = 500.0
    scaling: SynapticScaling | None = None

    def __post_init__(self) -> None:
        _check(self, ("w_max", "tau_plus_ms", "tau_minus_ms", "tau_e_ms"))


Plasticity = PairSTDP | PowerLawSTDP | TripletSTDP | RewardSTDP


@dataclass(frozen=True)
class ShortTermPlasticity:
    """Tsodyks-Markram synapse: a spike transmits weight * u * x.

    Between spikes u decays to U with tau_fac (u = U when tau_fac is 0) and x recovers to 1 with tau_rec. At a spike
    after a gap d: x <- 1 + (x - x u - 1) exp(-d/tau_rec), u <- U + u (1 - U) exp(-d/tau_fac); the first spike has
    u = U, x = 1.

    Args:
        U: utilisation, in (0, 1].
        tau_rec_ms: > 0.
        tau_fac_ms: >= 0.
    """

    U: float = 0.5
    tau_rec_ms: float = 800.0
    tau_fac_ms: float = 0.0

    def __post_init__(self) -> None:
        _check(self, ("U", "tau_rec_ms"))
        if self.U > 1 or self.tau_fac_ms < 0:
            raise ValueError(f"ShortTermPlasticity: U must be in (0, 1] and tau_fac_ms >= 0, got {self}")
