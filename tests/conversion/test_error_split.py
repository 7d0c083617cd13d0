"""The four terms of a conversion's error."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from snn.conversion.error_split import SpikingResponse, error_split
from tests.conversion.looped_network import dyadic_images, looped_network


def spike_counts(train: list[int], other: list[int], theta: float = 1.0, start: float = 0.5) -> tuple[float, float]:
    """Input sum and spikes of one integrate-and-fire neuron with weights 2 and -2."""
    v, total, spikes = start, 0.0, 0
    for a, b in zip(train, other, strict=True):
        v += 2.0 * a - 2.0 * b
        total += 2.0 * a - 2.0 * b
        if v >= theta:
            v -= theta
            spikes += 1
    return total, float(spikes)


@pytest.mark.parametrize(
    ("first", "second", "spikes", "uneven"),
    [("10101", "01010", 2, 0.0), ("11100", "00011", 4, 0.4), ("00111", "11000", 1, -0.2)],
)
def test_order_of_arrival_is_the_unevenness(first: str, second: str, spikes: int, uneven: float) -> None:
    total, found = spike_counts([int(c) for c in first], [int(c) for c in second])
    assert found == spikes
    one = torch.ones(1, dtype=torch.float64)
    response = SpikingResponse(one, one / 2, 0, 5, 5, "rate")
    split = error_split(0.4 * one, 0.4 * one, total * one, found * one, response)
    terms = [float(term) for term in split]
    assert terms == pytest.approx([0.0, 0.0, uneven, 0.0], abs=1e-12)
    assert float(split.total) == pytest.approx(spikes / 5 - 0.4)


def test_each_kind_of_error_lands_in_its_own_term() -> None:
    one = torch.ones(1, dtype=torch.float64)
    response = SpikingResponse(one, one / 2, 0, 4, 4, "rate")
    too_large = error_split(1.5 * one, 1.5 * one, 6 * one, 4 * one, response)
    assert [float(term) for term in too_large] == [-0.5, 0.0, 0.0, 0.0]
    between = error_split(0.3 * one, 0.3 * one, 1.2 * one, 1 * one, response)
    assert [float(term) for term in between] == pytest.approx([0.0, -0.05, 0.0, 0.0])
    wrong_input = error_split(0.25 * one, 0.25 * one, 2.0 * one, 2 * one, response)
    assert [float(term) for term in wrong_input] == [0.0, 0.0, 0.0, 0.25]


def test_quantised_source_of_the_same_steps_has_no_quantisation_error() -> None:
    z = torch.linspace(-1, 3, 401, dtype=torch.float64)
    theta = torch.tensor(2.0, dtype=torch.float64)
    a = theta * torch.floor(z * 4 / theta + 0.5).clamp(0, 4) / 4
    response = SpikingResponse(theta, theta / 2, 0, 4, 4, "rate")
    split = error_split(z, a, 4 * z, 4 * a, response)
    assert all(float(term.abs().max()) < 1e-12 for term in split)


def test_signed_counts_clip_on_both_sides_and_sums_are_not_divided() -> None:
    one = torch.ones(1, dtype=torch.float64)
    response = SpikingResponse(0.5 * one, 0.25 * one, -2, 3, 9, "sum")
    low = error_split(-4 * one, -4 * one, -4 * one, -1 * one, response)
    assert [float(term) for term in low] == [3.0, 0.0, 0.0, 0.0]
    high = error_split(2 * one, 2 * one, 1.1 * one, 1.0 * one, response)
    assert [float(term) for term in high] == [-0.5, 0.0, 0.0, -0.5]


@given(st.integers(0, 10_000), st.sampled_from([1, 2, 4, 8]), st.sampled_from([0.0, 0.5]))
@settings(max_examples=25, deadline=None)
def test_terms_add_up_exactly_and_the_membrane_shows_the_unevenness(seed: int, T: int, start: float) -> None:
    # Powers of two keep every mean dyadic, so that nothing is rounded anywhere.
    network, x = looped_network(T, start, seed), dyadic_images(9, seed + 1)
    network(x)
    h = x
    for name, module in network.source.named_children():
        z, h = h, module(h)
        if name in network.layers():
            layer, record = network.layers()[name], network._records[name]
            response = SpikingResponse(layer.threshold, layer.initial, 0, T, T, "rate")
            split = error_split(z, h, record.input_sum, record.output_sum, response)
            assert torch.equal(split.total, record.output_sum / T - h)
            assert torch.equal(split.unevenness > 0, (record.membrane < 0) & (record.events > 0))
            assert torch.equal(split.unevenness < 0, (record.membrane >= layer.threshold) & (record.events < T))


def test_the_input_of_the_source_is_its_pre_activation() -> None:
    """An activation that is no rectifier: a = 0.9 where z = 0.3."""
    one = torch.tensor([1.0])
    response = SpikingResponse(one, one / 2, 0, 4, 4, "rate")
    split = error_split(0.3 * one, 0.9 * one, 2.0 * one, 2.0 * one, response)
    assert split.quantisation.item() == pytest.approx(0.25 - 0.9)
    assert split.propagated.item() == pytest.approx(0.5 - 0.25)
