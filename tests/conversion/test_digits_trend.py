"""Accuracy against T on the digits of scikit-learn: the orderings that theory predicts."""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from typing import Any

import pytest
import torch
from digits_network import digits, trained_on_digits
from torch import nn

import snn
from snn.conversion.activations import QCFS

STEPS = (1, 2, 4, 8, 16, 32, 64)


class Curves:
    """Trained networks, and accuracy in percent after `STEPS` steps of their conversions."""

    def __init__(self) -> None:
        self.images, _, self.test_images, self.test_labels = digits()
        self.relu = trained_on_digits(nn.ReLU)
        self.qcfs = trained_on_digits(lambda: QCFS(8, 4.0))

    def source(self, network: nn.Module) -> float:
        return self._accuracy(network(self.test_images))

    def of(self, network: nn.Module, recipe: str, T: int = 64, **options: Any) -> dict[int, float]:
        converted = snn.convert(network, recipe, self.images, T=T, **options).snn
        readouts = converted(self.test_images, 64, return_all_steps=True)
        return {step: self._accuracy(readouts[step - 1]) for step in STEPS}

    def _accuracy(self, logits: torch.Tensor) -> float:
        return (logits.argmax(-1) == self.test_labels).double().mean().item() * 100


@pytest.fixture(scope="module")
def curves() -> Curves:
    return Curves()


def rising(curve: dict[int, float], steps: Sequence[int]) -> bool:
    return all(curve[late] >= curve[early] - 1.0 for early, late in itertools.pairwise(steps))


@pytest.mark.slow
def test_source_networks_are_good(curves: Curves) -> None:
    assert curves.source(curves.relu) > 98.5
    assert curves.source(curves.qcfs) > 98.5


@pytest.mark.slow
def test_half_a_threshold_beats_zero_at_few_steps(curves: Curves) -> None:
    for network, recipe, options in ((curves.qcfs, "qcfs", {}), (curves.relu, "rate", {"percentile": 99.0})):
        half, zero = (curves.of(network, recipe, start=start, **options) for start in (0.5, 0.0))
        assert half[2] > zero[2] + 50
        assert half[4] > zero[4] + 5
        assert rising(half, STEPS)
        assert abs(half[64] - zero[64]) < 0.5


@pytest.mark.slow
def test_qcfs_reaches_its_source(curves: Curves) -> None:
    curve, source = curves.of(curves.qcfs, "qcfs"), curves.source(curves.qcfs)
    assert curve[4] >= source - 0.5
    assert curve[16] >= source - 0.21


@pytest.mark.slow
def test_lower_percentiles_are_better_at_few_steps_and_equal_at_many(curves: Curves) -> None:
    rules: list[dict[str, Any]] = [{"threshold": "max"}, {"percentile": 99.9}, {"percentile": 99.0}]
    most, middle, least = (curves.of(curves.relu, "rate", start=0.0, **rule) for rule in rules)
    assert most[8] < middle[8] < least[8]
    assert max(most[64], middle[64], least[64]) - min(most[64], middle[64], least[64]) < 0.5
    half = curves.of(curves.relu, "rate", percentile=99.0)
    assert half[16] >= curves.source(curves.relu) - 0.3


@pytest.mark.slow
def test_better_neurons_are_at_least_as_good_at_few_steps(curves: Curves) -> None:
    plain = curves.of(curves.qcfs, "qcfs")
    for recipe in ("signed", "burst"):
        other = curves.of(curves.qcfs, recipe)
        assert other[2] > plain[2]
        assert other[4] >= plain[4] - 0.5
    prepared = curves.of(curves.qcfs, "cos")
    assert prepared[1] > plain[1] + 20
    assert curves.of(curves.qcfs, "srp")[1] > plain[1]


@pytest.mark.slow
def test_calibration_helps_at_its_number_of_steps(curves: Curves) -> None:
    plain = curves.of(curves.relu, "rate", T=4, threshold="max")
    for recipe in ("calibration-light", "calibration-advanced"):
        assert curves.of(curves.relu, recipe, T=4)[2] > plain[2] + 5
    balanced = curves.of(curves.relu, "ltb", passes=1)
    assert balanced[2] > plain[2] + 5
    assert balanced[16] >= curves.source(curves.relu) - 0.3
