"""Mel bands: shape of the filters, known tones, silence and loudness."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from spikedata.mel import FLOOR_DB, band_decibels, mel_filters, mel_of_hertz

RATE, WINDOW, HOP = 8000, 256, 80


def tone(hertz: float, size: float = 1.0) -> np.ndarray:
    return size * np.sin(2 * np.pi * hertz * np.arange(RATE) / RATE, dtype=np.float64)[None].astype(np.float32)


def test_scale() -> None:
    assert float(mel_of_hertz(0.0)) == 0.0
    assert mel_of_hertz(np.array([700.0]))[0] == pytest.approx(2595 * np.log10(2))


def test_filters_are_triangles_that_overlap_by_half() -> None:
    filters = mel_filters(20, 4096, RATE, 50.0, 4000.0)
    assert filters.shape == (2049, 20)
    corners = 700 * (10 ** (np.linspace(mel_of_hertz(50.0), mel_of_hertz(4000.0), 22) / 2595) - 1)
    frequency = np.arange(2049) * RATE / 4096
    expected = np.stack([np.interp(frequency, corners[k : k + 3], [0, 1, 0], 0, 0) for k in range(20)], axis=1)
    np.testing.assert_allclose(filters, expected, atol=0.02)  # means over bins of 2 Hz, beside values at their middles
    inside = (frequency > corners[1]) & (frequency < corners[-2])
    np.testing.assert_allclose(filters[inside].sum(1), 1.0, atol=0.01)


@settings(max_examples=20, deadline=None)
@given(bands=st.integers(1, 200), lowest=st.floats(0, 1000), highest=st.floats(1500, 20_000))
def test_no_band_is_empty_and_areas_are_those_of_the_triangles(bands: int, lowest: float, highest: float) -> None:
    filters = mel_filters(bands, WINDOW, RATE, lowest, highest)
    end = min(highest, RATE / 2)
    corners = 700 * (10 ** (np.linspace(mel_of_hertz(lowest), mel_of_hertz(end), bands + 2) / 2595) - 1)
    area = (corners[2:] - corners[:-2]) / 2
    assert (area > 0).all()
    np.testing.assert_allclose(filters.sum(0) * RATE / WINDOW, area, rtol=2e-3, atol=0.02)


def test_bands_above_half_the_rate_are_not_made() -> None:
    assert np.array_equal(mel_filters(140, WINDOW, RATE, 50, 14_000), mel_filters(140, WINDOW, RATE, 50, 4000))
    with pytest.raises(ValueError, match=r"lowest_hz must lie in \[0, 4000.0\).* got 5000"):
        mel_filters(10, WINDOW, RATE, 5000, 14_000)


def test_a_tone_is_loudest_in_its_band() -> None:
    filters = mel_filters(40, WINDOW, RATE, 50, 4000)
    corners = 700 * (10 ** (np.linspace(mel_of_hertz(50.0), mel_of_hertz(4000.0), 42) / 2595) - 1)
    for band in (15, 25, 38):
        levels = band_decibels(tone(corners[band + 1]), filters, WINDOW, HOP)
        assert levels.shape == (1, 101, 40)
        assert (levels[0, 10:90].argmax(1) == band).all()


def test_level_of_a_tone_and_of_silence() -> None:
    one_bin = np.zeros((WINDOW // 2 + 1, 1), np.float32)
    one_bin[32] = 1.0  # 1000 Hz
    levels = [band_decibels(tone(1000.0, size), one_bin, WINDOW, HOP)[0, 50, 0] for size in (1.0, 0.1)]
    assert levels[0] == pytest.approx(20 * np.log10(WINDOW / 4), abs=1e-3)  # half the window's sum, which is half of it
    assert levels[0] - levels[1] == pytest.approx(20, abs=1e-3)
    assert (band_decibels(np.zeros((2, RATE), np.float32), one_bin, WINDOW, HOP) == FLOOR_DB).all()


def test_frames_are_centred() -> None:
    click = np.zeros((1, RATE), np.float32)
    click[0, 40 * HOP] = 1.0
    loud = band_decibels(click, np.ones((WINDOW // 2 + 1, 1), np.float32), WINDOW, HOP)[0, :, 0]
    assert loud.argmax() == 40
    assert (np.flatnonzero(loud > FLOOR_DB) == [39, 40, 41]).all()
