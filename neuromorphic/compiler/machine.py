"""The arrays of an event network and the calls that advance them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from neuromorphic.compiler.kernels import machine as m
from neuromorphic.compiler.lowering import Held, Lowered
from neuromorphic.compiler.machine_source import load
from neuromorphic.compiler.memory import row

Events = tuple[np.ndarray, np.ndarray, np.ndarray]
"""(places int64 [E], values [E], bounds int64 [T + 1]): the events of step t are those from bounds[t] to bounds[t + 1]."""


class Machine:
    """Memory and instructions of one network; `reset` brings it to its first step.

    Attributes:
        program: instructions with the network's output.
        steps_done: steps since the last reset.
    """

    def __init__(self, lowered: Lowered, dtype: str) -> None:
        self.lowered = lowered
        self.real = np.dtype(dtype)
        memory = lowered.memory
        self._lists, list_values = memory.list_table()
        self._weights = memory.weights.whole()
        tables = memory.tables.whole()
        self._places = np.concatenate([np.zeros(list_values, np.int32), tables])
        self._values = np.zeros(list_values, self.real)
        self._first_state = memory.state.whole()
        for place, values in lowered.start.items():
            self._first_state[place : place + len(values)] = values
        self._state = self._first_state.copy()
        widest = max((int(step.row[m.SIZE]) for step in lowered.instructions), default=0)
        self._flags = np.zeros(-(-widest // 64) * 64 + 64, np.uint8)
        self._clock = np.zeros(1, np.int64)
        self._table_offset = list_values
        self._advance = load(lowered.kinds, dtype).advance
        self._no_events: Events = (np.zeros(0, np.int64), np.zeros(0, self.real), np.zeros(1, np.int64))
        self._no_rows = np.zeros((0, 1), self.real)
        self._no_counts = np.zeros((0, 1, 2), np.int64)
        self.names, self.program = self.with_outputs({lowered.output: 0})

    def with_outputs(self, columns: Mapping[str, int]) -> tuple[list[str], np.ndarray]:
        """Layer of each instruction and the program, with layers written to the given first columns of the output."""
        steps = [(step.layer, step.row.copy()) for step in self.lowered.instructions]
        held = self.lowered.held
        written = [(name, self._output_row(held[name], column)) for name, column in columns.items()]
        rows = [*steps, *written]
        for _, values in rows:
            if values[m.TABLE_SIZE]:
                values[m.TABLE] += self._table_offset
            if values[m.MARKS_SIZE]:
                values[m.MARKS] += self._table_offset
        return [name for name, _ in rows], np.stack([values for _, values in rows])

    def _output_row(self, held: Held, column: int) -> np.ndarray:
        table: dict[str, int] = {}
        if held.order is not None:
            table = {"table": len(self._places) - self._table_offset, "table_size": held.size}
            self._places = np.concatenate([self._places, held.order.astype(np.int32)])
        if held.buffer is not None:
            return row(m.OUTPUT_BUFFER, source=held.buffer.place, target=column, size=held.size, **table)
        assert held.list is not None
        gain = len(self._weights)
        self._weights = np.append(self._weights, self.real.type(held.gain))
        return row(m.OUTPUT_LIST, source=held.list, target=column, size=held.size, gain=gain, **table)

    @property
    def steps_done(self) -> int:
        """Steps since the last reset."""
        return int(self._clock[0])

    def reset(self) -> None:
        """Back to the state before the first step."""
        self._state[:] = self._first_state
        self._lists[:, m.COUNT] = 0
        for place, size in self.lowered.cleared:
            first = self._table_offset + place
            self._places[first : first + size] = 0
        self._clock[0] = 0

    def advance(
        self, steps: int, rows: np.ndarray | None, events: Events | None, out: np.ndarray, program: np.ndarray | None = None,
        counts: np.ndarray | None = None,
    ) -> None:  # fmt: skip
        """Advances by `steps`, with input from dense rows [T or 1, n] or from events; out [T, columns] is written."""
        ids, values, bounds = self._no_events if events is None else events
        self._advance(
            steps,
            self.program if program is None else program,
            self._state,
            self._weights,
            self._places,
            self._values,
            self._lists,
            self._flags,
            self._clock,
            self._no_rows if rows is None else rows,
            ids,
            values,
            bounds,
            out,
            self._no_counts if counts is None else counts,
        )

    def list_counts(self, numbers: Sequence[int]) -> list[int]:
        """Events in each list now."""
        return [int(self._lists[number, m.COUNT]) for number in numbers]

    def memory_bytes(self) -> dict[str, int]:
        """Bytes of each array."""
        arrays: dict[str, Any] = {"state": self._state, "weights": self._weights, "places": self._places}
        return {name: array.nbytes for name, array in arrays.items()}
