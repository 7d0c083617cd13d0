"""The cortical microcircuit of Potjans and Diesmann (2014), full size or scaled down."""

from __future__ import annotations

import numpy as np

from neuromorphic.engine.connectivity import FixedTotalNumber
from neuromorphic.engine.distributions import Normal
from neuromorphic.engine.models.propagators import psc_for_psp
from neuromorphic.engine.networks.ready import Options, ReadyNetwork

NAMES = ("L23E", "L23I", "L4E", "L4I", "L5E", "L5I", "L6E", "L6I")
SIZES = np.array([20683, 5834, 21915, 5479, 4850, 1065, 14395, 2948])
EXTERNAL_INDEGREE = np.array([1600, 1500, 2100, 1900, 2000, 1900, 2900, 2100])
PROBABILITY = np.array(  # row = target, column = source
    [
        [0.1009, 0.1689, 0.0437, 0.0818, 0.0323, 0.0, 0.0076, 0.0],
        [0.1346, 0.1371, 0.0316, 0.0515, 0.0755, 0.0, 0.0042, 0.0],
        [0.0077, 0.0059, 0.0497, 0.1350, 0.0067, 0.0003, 0.0453, 0.0],
        [0.0691, 0.0029, 0.0794, 0.1597, 0.0033, 0.0, 0.1057, 0.0],
        [0.1004, 0.0622, 0.0505, 0.0057, 0.0831, 0.3726, 0.0204, 0.0],
        [0.0548, 0.0269, 0.0257, 0.0022, 0.0600, 0.3158, 0.0086, 0.0],
        [0.0156, 0.0066, 0.0211, 0.0166, 0.0572, 0.0197, 0.0396, 0.2252],
        [0.0364, 0.0010, 0.0034, 0.0005, 0.0277, 0.0080, 0.0658, 0.1443],
    ]
)
# Rates of one full-scale run with NEST 3.10 over 0.5 s, Poisson drive; used for the scaling correction and as check.
FULL_RATES_HZ = np.array([0.903, 2.965, 4.414, 5.876, 7.569, 8.633, 1.105, 7.829])
START_MEAN_MV = (-68.28, -63.16, -63.33, -63.45, -63.11, -61.66, -66.72, -61.43)
START_STD_MV = (5.36, 4.57, 4.74, 4.94, 4.94, 4.55, 5.46, 4.48)
C_M_PF, TAU_M_MS, TAU_S_MS, PSP_MV, INHIBITION = 250.0, 10.0, 0.5, 0.15, -4.0
BACKGROUND_HZ = 8.0


def synapse_numbers(scale: float = 1.0) -> np.ndarray:
    """[target, source] synapses: K = ln(1 - p) / ln(1 - 1/(N_t N_s)) at full size, times scale^2."""
    pairs = np.outer(SIZES, SIZES).astype(float)
    full = np.log1p(-PROBABILITY) / np.log1p(-1.0 / pairs)
    return np.rint(full * scale * scale).astype(int)


def _weights_pa() -> np.ndarray:
    """[target, source] mean weights at full size."""
    weight = psc_for_psp(PSP_MV, TAU_M_MS, TAU_S_MS, C_M_PF)
    weights = np.full((8, 8), weight)
    weights[:, 1::2] *= INHIBITION
    weights[0, 2] *= 2.0  # L4E to L23E
    return weights


def microcircuit(options: Options, drive: str = "poisson") -> ReadyNetwork:
    """77,169 neurons and 299 million synapses at scale 1.

    Scaling keeps means and variances: neurons and in-degrees times s, weights times 1/sqrt(s), and a constant current
    for the lost mean input. Weights N(w, 0.1 |w|) that keep their sign, delays N(1.5, 0.75) ms from excitatory and
    N(0.75, 0.375) ms from inhibitory cells. V(0) is the "optimised" normal of the reference, so 500 ms of warm-up do.

    Args:
        drive: "poisson" (8 Hz from each external synapse) or "dc" (the mean current; full size only, because the scaled
            network falls silent with it).
    """
    if drive not in ("poisson", "dc"):
        raise ValueError(f'microcircuit: drive must be "poisson" or "dc", got {drive!r}')
    s = options.scale
    if s > 1:
        raise ValueError(f"microcircuit: scale must be in (0, 1], got {s!r}")
    if drive == "dc" and s != 1:
        raise ValueError(f"microcircuit: drive 'dc' needs scale 1, got {s!r}: scaled networks fall silent with it")
    net = options.network()
    weights, numbers = _weights_pa(), synapse_numbers(s)
    external = psc_for_psp(PSP_MV, TAU_M_MS, TAU_S_MS, C_M_PF)
    full_indegree = synapse_numbers() / SIZES[:, None]
    recurrent = (weights * full_indegree * FULL_RATES_HZ).sum(axis=1)
    mean_external = external * EXTERNAL_INDEGREE * BACKGROUND_HZ
    lost = 1e-3 * TAU_S_MS * (1.0 - np.sqrt(s)) * (recurrent + mean_external)
    populations = []
    for k, name in enumerate(NAMES):
        current = lost[k] if drive == "poisson" else 1e-3 * TAU_S_MS * mean_external[k]
        populations.append(
            net.population(
                "iaf_psc_exp_one",
                options.size(int(SIZES[k])),
                name=name,
                initial={"v": Normal(START_MEAN_MV[k], START_STD_MV[k])},
                C_m=C_M_PF,
                tau_m=TAU_M_MS,
                tau_syn=TAU_S_MS,
                E_L=-65.0,
                V_reset=-65.0,
                V_th=-50.0,
                t_ref=2.0,
                I_e=float(current),
            )
        )
    h = options.dt_ms
    for target in range(8):
        for source in range(8):
            if not numbers[target, source]:
                continue
            mean = weights[target, source] / np.sqrt(s)
            low, high = (0.0, np.inf) if mean > 0 else (-np.inf, 0.0)
            delay = Normal(1.5, 0.75, low=h / 2) if source % 2 == 0 else Normal(0.75, 0.375, low=h / 2)
            rule = FixedTotalNumber(int(numbers[target, source]))
            weight = Normal(float(mean), 0.1 * abs(float(mean)), low, high)
            net.connect(populations[source], populations[target], rule, weight, delay)
        if drive == "poisson":
            rate = BACKGROUND_HZ * float(EXTERNAL_INDEGREE[target]) * s
            net.drive_poisson(populations[target], rate, external / float(np.sqrt(s)))
    return ReadyNetwork(
        net, dict(zip(NAMES, populations, strict=True)), dict(zip(NAMES, FULL_RATES_HZ.tolist(), strict=True))
    )
