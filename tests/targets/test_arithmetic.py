"""Known integers of each chip's neuron, in Python and compiled."""

from __future__ import annotations

import doctest
from collections.abc import Callable

import numba
import pytest

from neuromorphic.targets import arithmetic
from neuromorphic.targets.arithmetic import (
    bit_shift_step,
    cuba_step,
    event_if_step,
    event_lif_step,
    fixed_point_step,
    linear_leak_step,
    receive,
    rounded_shift,
    shift_decay,
)


@pytest.fixture(params=["python", "compiled"])
def form(request: pytest.FixtureRequest) -> Callable:
    """A scalar function as it is, or as a Numba loop calls it."""

    def compiled(function: Callable) -> Callable:
        @numba.njit
        def call(*values):  # type: ignore[no-untyped-def]
            return function(*values)

        return call

    return (lambda function: function) if request.param == "python" else compiled


def cuba_trace(step, inputs, du, dv, threshold, bias=0, refractory=1):  # type: ignore[no-untyped-def]
    u = v = hold = 0
    rows = []
    for a in inputs:
        z, u, v, hold = step(a, u, v, hold, du, dv, threshold, bias, refractory)
        rows.append((z, u, v))
    return [list(column) for column in zip(*rows, strict=True)]


def test_examples_in_docstrings() -> None:
    assert doctest.testmod(arithmetic).failed == 0


def test_cuba_known_integers(form: Callable) -> None:
    z, u, v = cuba_trace(form(cuba_step), [100, 0, -38, 0, 0, 256, 100, 0, 0, 0], 2048, 512, 200)
    assert u == [6400, 3200, -832, -416, -208, 16280, 14540, 7270, 3635, 1817]
    assert v == [6400, 8800, 6868, 5593, 4685, 0, 0, 7270, 9996, 10563]
    assert z == [0, 0, 0, 0, 0, 1, 1, 0, 0, 0]


def test_cuba_threshold_is_strict(form: Callable) -> None:
    z, _, v = cuba_trace(form(cuba_step), [0] * 9, 0, 0, 10, bias=5 << 6)
    assert z == [0, 0, 1] * 3
    assert v == [320, 640, 0] * 3


def test_cuba_current_wraps_and_voltage_clips(form: Callable) -> None:
    z, u, v = cuba_trace(form(cuba_step), [60000] * 4, 1, 0, 131071)
    assert u == [3840000, 7679062, -5260029, -1418744]
    assert v == [3840000, 0, -5260029, -6678773]
    assert z == [0, 1, 0, 0]


def test_cuba_rests_after_a_spike(form: Callable) -> None:
    z, u, v = cuba_trace(form(cuba_step), [300] * 7, 4096, 0, 200, refractory=3)
    assert z == [1, 0, 0, 1, 0, 0, 1]
    assert u == [19200] * 7
    assert v == [0] * 7


def test_bit_shift_network_of_two(form: Callable) -> None:
    """Two hidden neurons with feedback and an output neuron that sees the spikes of the step before."""
    step, weights, counts = form(bit_shift_step), (100, -60), [1, 0, 2] + [0] * 9
    i, v, last = [0, 0], [0, 0], [0, 0]
    i_out = v_out = 0
    rows = []
    for count in counts:
        i = [receive(i[n], weights[n], count, 16) for n in range(2)]
        i[1] = receive(i[1], 20, last[0], 16)
        i_out = receive(receive(i_out, 50, last[0], 16), 30, last[1], 16)
        z0, i[0], v[0] = step(i[0], v[0], 0, 2, 3, 250, 0, 31, 16)
        z1, i[1], v[1] = step(i[1], v[1], 0, 2, 3, 200, 0, 31, 16)
        z_out, i_out, v_out = step(i_out, v_out, 0, 1, 2, 30, 0, 1, 16)
        last = [z0, z1]
        rows.append((z0, i[0], v[0], z1, i[1], v[1], i_out, v_out, z_out))
    z0, i0, v0, z1, i1, v1, i_out, v_out, z_out = (list(column) for column in zip(*rows, strict=True))
    assert [t for t, z in enumerate(z0) if z] == [2, 4]
    assert sum(z1) == 0
    assert i0 == [75, 57, 193, 145, 109, 82, 62, 47, 36, 27, 21, 16]
    assert v0 == [75, 123, 51, 190, 26, 105, 154, 182, 196, 199, 196, 188]
    assert i1 == [-45, -33, -114, -70, -52, -24, -18, -13, -9, -6, -4, -3]
    assert v1 == [-45, -72, -177, -224, -248, -241, -228, -212, -194, -175, -157, -140]
    assert i_out == [0, 0, 0, 25, 13, 32, 16, 8, 4, 2, 1, 0]
    assert v_out == [0, 0, 0, 25, 2, 3, 18, 22, 21, 18, 15, 12]
    assert [t for t, z in enumerate(z_out) if z] == [4, 5]


def test_bit_shift_burst(form: Callable) -> None:
    step, i, v, rows = form(bit_shift_step), 0, 0, []
    for spikes in [15, *[0] * 7]:
        i = receive(i, 127, spikes, 16)
        z, i, v = step(i, v, 0, 1, 4, 20, 0, 31, 16)
        rows.append((z, i, v))
    assert [row[0] for row in rows] == [31, 31, 19, 6, 3, 2, 1, 0]
    assert [row[1] for row in rows] == [953, 477, 239, 120, 60, 30, 15, 8]
    assert [row[2] for row in rows] == [333, 170, 19, 18, 17, 6, 0, 8]


def test_bit_shift_decay_ends_at_zero_and_saturates(form: Callable) -> None:
    assert [form(shift_decay)(x, 4) for x in (3, -3, 0, 160, -161)] == [1, -1, 0, 10, -11]
    assert form(receive)(32000, 127, 10, 16) == 32767
    assert form(receive)(-32000, -128, 10, 16) == -32768
    assert form(bit_shift_step)(0, 0, 0, 2, 3, 0, 0, 31, 16)[0] == 31
    assert form(bit_shift_step)(0, 0, 4, 2, 3, 100, 0, 31, 16)[0] == 4


def test_event_if_known_events(form: Callable) -> None:
    step, v, spikes, states = form(event_if_step), 0, [], []
    for weight in (38, 38, 127, -64, -254, 300, 0):
        z, v = step(weight, v, 127, -127, True)
        spikes.append(z)
        states.append(v)
    assert spikes == [0, 0, 1, 0, 0, 1, 0]
    assert states == [38, 76, 76, 12, -127, 46, 46]
    assert form(event_if_step)(300, 0, 127, -127, False) == (1, 0)


def test_event_lif_known_events(form: Callable) -> None:
    step, v, spikes, states = form(event_lif_step), 0, [], []
    for weight in (7, 7, -3, -2, 7, 7, -2, 7, 7, 5, -7):
        z, v = step(weight, v, 20)
        spikes.append(z)
        states.append(v)
    assert states == [7, 14, 11, 9, 16, 0, 0, 7, 14, 19, 12]
    assert [n for n, z in enumerate(spikes) if z] == [5]
    assert form(event_lif_step)(7, 250, 300) == (0, 255)


def test_linear_leak_resets_and_floor(form: Callable) -> None:
    step = form(linear_leak_step)
    assert step(10, 0, 1, 11, 2, False, 50, False) == (1, 2)
    assert step(12, 0, 1, 11, 2, True, 50, False) == (1, 2)
    assert step(9, 0, 1, 11, 2, True, 50, False) == (0, 10)
    assert step(-60, 0, 0, 11, 2, True, 50, False) == (0, -50)
    assert step(-60, 0, 0, 11, 2, True, 50, True) == (0, -2)


@pytest.mark.parametrize(
    ("rounding", "expected"), [(0, [1, -1, 2, -2, 0]), (1, [1, -2, 2, -3, -1]), (2, [2, -2, 3, -3, 0])]
)
def test_roundings(form: Callable, rounding: int, expected: list[int]) -> None:
    assert [form(rounded_shift)(x, 1, rounding) for x in (3, -3, 5, -5)] + [
        form(rounded_shift)(-1, 2, rounding)
    ] == expected


def test_fixed_point_resets_and_saturates(form: Callable) -> None:
    step = form(fixed_point_step)
    assert step(50, 100, 80, 2048, 3072, 150, 5, 12, 16, 0, True) == (1, 100, 15)
    assert step(50, 100, 80, 2048, 3072, 150, 5, 12, 16, 0, False) == (1, 100, 0)
    assert step(50, 100, 80, 2048, 3072, 166, 5, 12, 16, 0, False) == (0, 100, 165)
    assert step(100, 0, 100, 0, 4096, 1000, 0, 12, 8, 0, True) == (0, 100, 127)
    assert step(-100, 0, -100, 0, 4096, 1000, 0, 12, 8, 0, True) == (0, -100, -128)
