"""Poisson input: independent counts for each neuron and step, by comparing one random word half with the CDF."""

from __future__ import annotations

import math

import numpy as np

from neuromorphic.engine.kernels.counter_rng import GOLDEN, mix
from neuromorphic.engine.kernels.views import njit_views

_TOP = 2**32


def poisson_thresholds(mean: float) -> tuple[int, np.ndarray]:
    """Thresholds of the inverse CDF on 32-bit words.

    Args:
        mean: expected count per step, >= 0.
    Returns:
        first count with a probability above 2^-33 below it, and thresholds [K] uint32: the count of a word u is
        first + number of thresholds that are <= u. Each probability is exact to 2^-32. K is a multiple of 4.
    """
    if mean > 600.0:
        raise ValueError(f"Poisson input: mean count per step must be <= 600, got {mean:g}; shorten dt_ms or split it")
    k, probability = 0, math.exp(-mean)
    cumulative = probability
    first, thresholds = 0, []
    while True:
        edge = round(cumulative * _TOP)
        if edge >= _TOP:
            break
        if edge <= 0:
            first = k + 1
        else:
            thresholds.append(edge)
        k += 1
        probability *= mean / k
        cumulative += probability
        if k > mean and probability < 1e-13:
            break
    padding = -len(thresholds) % 4
    # A word equal to 2^32 - 1 passes the padding too; its probability is 2^-32.
    return first, np.array(thresholds + [_TOP - 1] * padding, dtype=np.uint32)


@njit_views
def draw_counts(key, first_neuron, n, words, counts, base, thresholds):  # type: ignore[no-untyped-def]
    """Fill counts[0:n] for neurons first_neuron, ... (an even number) of the step whose stream is ``key``.

    words [>= n/2 + 1] uint64 and counts [>= n] are scratch; one word serves two neighbours.
    """
    pair = np.uint64(first_neuron // 2)
    for j in range((n + 1) // 2):
        words[j] = mix(key + (pair + np.uint64(j)) * GOLDEN)
    halves = words.view(np.uint32)
    for i in range(n):
        counts[i] = base
    for k in range(0, thresholds.shape[0], 4):
        t0, t1, t2, t3 = thresholds[k], thresholds[k + 1], thresholds[k + 2], thresholds[k + 3]
        for i in range(n):
            u = halves[i]
            counts[i] += np.int32(u >= t0) + np.int32(u >= t1) + np.int32(u >= t2) + np.int32(u >= t3)
