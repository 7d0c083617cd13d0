"""Ranges cover every neuron once, whatever the sizes; errors reach the caller."""

from __future__ import annotations

import itertools
import os
import threading

import pytest
from hypothesis import given
from hypothesis import strategies as st

from snn.kernels import threads


@given(st.integers(1, 300_000), st.integers(1, 600), st.integers(1, 70), st.sampled_from([1024, 43690, 131072]))
def test_ranges_cover_every_neuron_once(neurons: int, steps: int, count: int, width: int) -> None:
    pieces = threads.ranges(neurons, steps, count, width)
    assert pieces[0][0] == 0
    assert pieces[-1][1] == neurons
    assert all(end == start for (_, end), (start, _) in itertools.pairwise(pieces))
    assert all(first < last for first, last in pieces)


def test_small_work_stays_in_one_piece() -> None:
    assert threads.ranges(100, 10, 8, 1024) == [(0, 100)]


def test_every_piece_is_taken_once() -> None:
    taken: list[tuple[int, int]] = []
    lock = threading.Lock()

    def work(pieces):  # type: ignore[no-untyped-def]
        for piece in pieces:
            with lock:
                taken.append(piece)

    pieces = [(k, k + 1) for k in range(1000)]
    threads.run(work, pieces, 4)
    assert sorted(taken) == pieces


def test_an_error_in_a_thread_reaches_the_caller() -> None:
    def work(pieces):  # type: ignore[no-untyped-def]
        for first, _ in pieces:
            if first == 7:
                raise ArithmeticError("in piece 7")

    with pytest.raises(ArithmeticError, match="piece 7"):
        threads.run(work, [(k, k + 1) for k in range(20)], 3)


@pytest.mark.skipif(not hasattr(os, "fork"), reason="no fork on this platform")
def test_a_forked_process_makes_its_own_pool() -> None:
    def work(pieces):  # type: ignore[no-untyped-def]
        for _ in pieces:
            pass

    pieces = [(k, k + 1) for k in range(8)]
    threads.run(work, pieces, 2)
    child = os.fork()
    if child == 0:
        threads.run(work, pieces, 2)
        os._exit(0)
    assert os.waitpid(child, 0)[1] == 0
