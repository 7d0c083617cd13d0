"""Spectrograms of recordings in bands of the mel scale."""

from __future__ import annotations

from typing import Any

import numpy as np

Array = np.ndarray[Any, Any]

FLOOR_DB = -100.0


def mel_of_hertz(hertz: Array | float) -> Array:
    """Mel scale, 2595 log10(1 + f / 700).

    >>> round(float(mel_of_hertz(1000.0)), 2)
    999.99
    """
    return np.asarray(2595.0 * np.log10(1.0 + np.asarray(hertz) / 700.0))


def mel_filters(bands: int, window: int, rate_hz: float, lowest_hz: float, highest_hz: float) -> Array:
    """Share of each Fourier bin in each band, float32 [window // 2 + 1, bands].

    Band k is a triangle over [c[k], c[k + 2]] with its peak 1 at c[k + 1]; the c are evenly spaced on the mel scale from
    lowest_hz to highest_hz, at most half of rate_hz. A bin counts with the triangle's mean over the bin's whole width, so
    that a triangle between two bins does not vanish.

    Args:
        bands: number of triangles.
        window: samples of the Fourier transform; bins are rate_hz / window wide.
        rate_hz: sampling rate.
        lowest_hz, highest_hz: ends of the first and of the last triangle; the last is cut to rate_hz / 2, above which
            there is nothing.
    Raises: ValueError unless 0 <= lowest_hz < highest_hz and lowest_hz < rate_hz / 2.
    """
    highest = min(highest_hz, rate_hz / 2)
    if not 0 <= lowest_hz < highest:
        raise ValueError(
            f"mel_filters: lowest_hz must lie in [0, {highest}) (highest_hz, and half of rate_hz), got {lowest_hz}"
        )
    ends = np.linspace(mel_of_hertz(lowest_hz), mel_of_hertz(highest), bands + 2)
    corner = 700.0 * (10.0 ** (ends / 2595.0) - 1.0)
    width = rate_hz / window
    edges = (np.arange(window // 2 + 2) - 0.5) * width
    reached = _triangle_integral(edges[:, None], corner[:-2], corner[1:-1], corner[2:])  # [bins + 1, bands]
    return np.asarray(np.diff(reached, axis=0) / width, np.float32)


def _triangle_integral(x: Array, start: Array, peak: Array, end: Array) -> Array:
    """Area below x of triangles of height 1."""
    rising = np.clip(x, start, peak) - start
    falling = np.clip(x, peak, end) - peak
    return rising**2 / (2 * (peak - start)) + falling - falling**2 / (2 * (end - peak))


def band_decibels(signals: Array, filters: Array, window: int, hop: int) -> Array:
    """Power of each band over time in dB, at least FLOOR_DB, float32 [N, 1 + samples // hop, bands].

    Frames of `window` samples under a Hann window, their middles hop samples apart from sample 0 on; the signals are
    mirrored at both ends.

    Args:
        signals: [N, samples].
        filters: of `mel_filters`.
        window, hop: in samples.
    """
    mirrored = np.pad(signals, ((0, 0), (window // 2, window // 2)), mode="reflect")
    frames = np.lib.stride_tricks.sliding_window_view(mirrored, window, axis=1)[:, ::hop]
    hann = (0.5 - 0.5 * np.cos(2 * np.pi * np.arange(window) / window)).astype(np.float32)
    power = np.abs(np.fft.rfft(frames * hann, axis=2)).astype(np.float32) ** 2
    heard = np.maximum(power @ filters, 10.0 ** (FLOOR_DB / 10.0))
    return np.asarray(np.maximum(10.0 * np.log10(heard), FLOOR_DB), np.float32)  # the logarithm is rounded
