"""Events one at a time or in windows, with state kept and latency reported."""

from __future__ import annotations

import time
from dataclasses import dataclass
from math import prod
from typing import Any

import numpy as np
import torch

from neuromorphic.compiler.graph import Shape
from neuromorphic.compiler.machine import Machine
from snn.errors import ShapeError


@dataclass(frozen=True)
class StreamStep:
    """The network's output at one step: its number since the reset, and the values, shaped as one sample's output."""

    step: int
    output: np.ndarray


class EventStream:
    """A network that is fed as its input arrives; one sample, state kept from call to call.

    Time is counted in steps from 0. `push` takes one event; a step is computed when the first event of a later step
    arrives, or at `advance_to`. `window` takes many steps at once. `latencies_us` holds, for each event of `push`, the
    time from the call that brought it to the end of the computation that used it, waiting for later events left out:
    the cost of taking it in plus that of its step.

    >>> stream = network.stream()
    >>> done = stream.push(step=0, place=17)      # step 0 is not over yet: []
    >>> done = stream.push(step=3, place=5)       # steps 0, 1 and 2
    >>> [step.step for step in done]
    [0, 1, 2]
    """

    def __init__(self, machine: Machine, input_shape: Shape, output_shape: Shape) -> None:
        self._machine = machine
        self._size = prod(input_shape)
        self.input_shape, self.output_shape = input_shape, output_shape
        self._places = np.zeros(self._size, np.int64)
        self._values = np.zeros(self._size, machine.real)
        self._bounds = np.zeros(2, np.int64)
        self._out = np.zeros((1, prod(output_shape)), machine.real)
        self._waiting_us: list[float] = []
        self.latencies_us: list[float] = []
        self.reset()

    def reset(self) -> None:
        """Back to step 0 with a fresh state; events that wait are dropped."""
        self._machine.reset()
        self._count = 0
        self._waiting_us.clear()
        self.latencies_us.clear()

    @property
    def now(self) -> int:
        """The step that takes events at present; all earlier ones are computed."""
        return self._machine.steps_done

    def push(self, step: int, place: int, value: float = 1.0) -> list[StreamStep]:
        """Takes one event; returns the steps that are over with it.

        Args:
            step: when, not before `now`.
            place: flat place in one step of the input.
            value: what it counts for.
        Raises: ValueError for a step in the past, a place out of range, or more events in a step than it has places.
        """
        start = time.perf_counter()
        if not 0 <= place < self._size:
            raise ValueError(f"push: place must lie in [0, {self._size}), got {place}")
        done = self.advance_to(step)
        if self._count == self._size:
            raise ValueError(f"push: at most {self._size} events in one step")
        self._places[self._count], self._values[self._count] = place, value
        self._count += 1
        self._waiting_us.append((time.perf_counter() - start) * 1e6 if not done else 0.0)
        return done

    def advance_to(self, step: int) -> list[StreamStep]:
        """Computes all steps before `step`.

        Raises: ValueError if `step` lies in the past.
        """
        if step < self.now:
            raise ValueError(f"step {step} is over; the stream is at step {self.now}")
        return [self._next_step() for _ in range(step - self.now)]

    def _next_step(self) -> StreamStep:
        start = time.perf_counter()
        self._bounds[1] = self._count
        number = self.now
        self._machine.advance(1, None, (self._places, self._values, self._bounds), self._out)
        used = (time.perf_counter() - start) * 1e6
        self.latencies_us.extend(waited + used for waited in self._waiting_us)
        self._waiting_us.clear()
        self._count = 0
        return StreamStep(number, self._out[0].reshape(self.output_shape).copy())

    def window(self, x: Any) -> Any:
        """Computes the next steps from frames or spikes [T, ...] of one sample; returns the outputs [T, ...].

        Raises: ShapeError for another shape; ValueError if events of `push` wait for their step to end.
        """
        if self._count:
            raise ValueError(f"window: {self._count} events of step {self.now} wait; call advance_to({self.now + 1})")
        array = x.detach().cpu().numpy() if isinstance(x, torch.Tensor) else np.asarray(x)
        if tuple(array.shape[1:]) != self.input_shape or len(array) == 0:
            expected = ", ".join(["T", *map(str, self.input_shape)])
            raise ShapeError(f"window: input must be [{expected}], got shape {tuple(array.shape)}")
        rows = np.ascontiguousarray(array, self._machine.real).reshape(len(array), self._size)
        out = np.empty((len(rows), self._out.shape[1]), self._machine.real)
        self._machine.advance(len(rows), rows, None, out)
        shaped = out.reshape(len(rows), *self.output_shape)
        return torch.from_numpy(shaped) if isinstance(x, torch.Tensor) else shaped

    def latency(self) -> dict[str, float]:
        """Median, 99th percentile and largest latency of the events so far, in us.

        Raises: ValueError before the first event has been used.
        """
        if not self.latencies_us:
            raise ValueError("latency: no event has been used yet")
        values = np.array(self.latencies_us)
        return {
            "median_us": float(np.median(values)),
            "p99_us": float(np.quantile(values, 0.99)),
            "max_us": float(values.max()),
        }
