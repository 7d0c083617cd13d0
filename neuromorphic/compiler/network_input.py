"""What users feed an event network, brought into the form that it reads."""

from __future__ import annotations

from dataclasses import dataclass
from math import prod
from typing import Any

import numpy as np
import torch

from neuromorphic.compiler.graph import Shape
from neuromorphic.compiler.machine import Events
from snn.errors import ShapeError


@dataclass(frozen=True, eq=False)
class NetworkInput:
    """Sequences or events, checked.

    Attributes:
        frames: [T or 1, B, n], None for events.
        events: of the only sample, None for frames.
        steps, samples: T and B.
        is_numpy: the caller gave NumPy arrays.
    """

    frames: np.ndarray | None
    events: Events | None
    steps: int
    samples: int
    is_numpy: bool

    def sample(self, number: int, whole: bool = False) -> tuple[np.ndarray | None, Events | None]:
        """Rows [T, n], or [1, n] for a repeated frame unless `whole`, or events of one sample."""
        if self.frames is None:
            return None, self.events
        rows = self.frames[:, number]
        if whole and len(rows) < self.steps:
            rows = rows.repeat(self.steps, axis=0)
        return np.ascontiguousarray(rows), None


def network_input(x: Any, shape: Shape, real: np.dtype[Any], steps: int | None) -> NetworkInput:
    """Checks and converts the input of a network whose single step has `shape`.

    Raises:
        TypeError: neither frames nor events.
        ShapeError: frames that are not [T, B, *shape].
        ValueError: values that are not finite, events that are unsorted or out of range.
    """
    if isinstance(x, tuple | list) and len(x) in (2, 3):
        return NetworkInput(None, *_events(x, prod(shape), real, steps), 1, False)
    if not isinstance(x, torch.Tensor | np.ndarray):
        raise TypeError(
            f"input must be a tensor or array [T, B, ...], or events (steps, places), got a {type(x).__name__}"
        )
    if steps is not None:
        raise ValueError("steps is given by frames; it is an argument for events only")
    if x.ndim != len(shape) + 2 or tuple(x.shape[2:]) != shape or 0 in x.shape[:2]:
        expected = ", ".join(["T", "B", *map(str, shape)])
        raise ShapeError(f"input must be [{expected}], got shape {tuple(x.shape)}")
    T, B = x.shape[:2]
    time_stride = x.stride(0) if isinstance(x, torch.Tensor) else x.strides[0]
    x = x[:1] if T > 1 and time_stride == 0 else x
    array = x.detach().cpu().numpy() if isinstance(x, torch.Tensor) else x
    if array.dtype.kind not in "fiub":
        raise TypeError(f"input must hold numbers, got dtype {array.dtype}")
    frames = np.asarray(array, real).reshape(len(array), B, prod(shape))
    if not np.isfinite(frames).all():
        raise ValueError("input must be finite, got NaN or infinity")
    return NetworkInput(frames, None, T, B, isinstance(x, np.ndarray))


def _events(x: Any, size: int, real: np.dtype[Any], steps: int | None) -> tuple[Events, int]:
    times, places = np.asarray(x[0]), np.asarray(x[1])
    values = np.ones(places.shape, real) if len(x) == 2 else np.asarray(x[2], real)
    if times.ndim != 1 or times.shape != places.shape or times.shape != values.shape:
        raise ShapeError(
            f"events: steps, places and values must be [E], got {times.shape}, {places.shape}, {values.shape}"
        )
    if times.dtype.kind not in "iu" or places.dtype.kind not in "iu":
        raise TypeError(f"events: steps and places must be integers, got {times.dtype} and {places.dtype}")
    last = int(times[-1]) + 1 if len(times) else 1
    steps = last if steps is None else steps
    if len(times) and (bool((np.diff(times.astype(np.int64)) < 0).any()) or times[0] < 0 or last > steps):
        raise ValueError(f"events: steps must be sorted and lie in [0, {steps})")
    if len(places) and (places.min() < 0 or places.max() >= size):
        raise ValueError(f"events: places must lie in [0, {size}), got {places.min()} to {places.max()}")
    bounds = np.searchsorted(times, np.arange(steps + 1)).astype(np.int64)
    per_step = np.diff(bounds)
    if per_step.size and per_step.max() > size:
        raise ValueError(f"events: at most {size} in one step, got {per_step.max()}")
    return (places.astype(np.int64), values, bounds), steps
