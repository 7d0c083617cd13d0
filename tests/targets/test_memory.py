"""Known memory sizes of published accountings."""

from __future__ import annotations

import doctest

import pytest
from hypothesis import given
from hypothesis import strategies as st

from neuromorphic.targets import memory
from neuromorphic.targets.memory import axon_words, padded_kernel_entries, padded_neuron_entries, shared_words


def test_examples_in_docstrings() -> None:
    assert doctest.testmod(memory).failed == 0


@pytest.mark.parametrize(
    ("synapses", "sparse", "dense"),
    [(1, 1, 1), (64, 17, 9), (65, 18, 10), (128, 34, 18), (256, 68, 36), (1024, 272, 144)],
)
def test_words_of_an_axon(synapses: int, sparse: int, dense: int) -> None:
    assert axon_words(synapses, 8 + 8) == sparse
    assert axon_words(synapses, 8) == dense


def test_dense_axons_that_fill_a_core() -> None:
    assert 16384 // axon_words(1024, 8) == 113


@pytest.mark.parametrize(
    ("rows", "outputs", "bits", "words"),
    [
        (100, 50, 16, 1300),
        (50, 10, 16, 150),
        (10, 1, 16, 10),
        (200, 85, 20, 5400),
        (252, 100, 20, 8064),
        (3 * 9, 24, 8, 81),
        (24 * 9, 36, 7, 864),
        (36 * 9, 48, 6, 1620),
        (48 * 9, 64, 5, 2160),
    ],
)
def test_words_that_positions_share(rows: int, outputs: int, bits: int, words: int) -> None:
    assert shared_words(rows, outputs, bits) == words


@pytest.mark.parametrize(
    ("inputs", "kernel", "outputs", "size", "kernels", "neurons"),
    [
        (16, (3, 3), 32, (64, 64), 8192, 131072),
        (2, (5, 5), 16, (16, 16), 1024, 4096),
        (16, (3, 3), 16, (16, 16), 4096, 4096),
        (16, (3, 3), 8, (8, 8), 2048, 512),
        (8, (4, 4), 256, (1, 1), 32768, 256),
        (256, (1, 1), 10, (1, 1), 4096, 10),
    ],
)
def test_entries_padded_to_powers_of_two(
    inputs: int, kernel: tuple[int, int], outputs: int, size: tuple[int, int], kernels: int, neurons: int
) -> None:
    assert padded_kernel_entries(inputs, kernel, outputs) == kernels
    assert padded_neuron_entries(outputs, *size) == neurons


@given(st.integers(1, 4000), st.integers(1, 4000), st.sampled_from([1, 2, 4, 8, 16]))
def test_axon_words_grow_with_synapses_and_bits(a: int, b: int, bits: int) -> None:
    assert axon_words(a + b, bits) >= max(axon_words(a, bits), axon_words(b, bits))
    assert axon_words(a, bits) <= axon_words(a, bits + 1)
    assert axon_words(a, bits) * 64 >= a * bits
