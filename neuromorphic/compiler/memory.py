"""The flat memory that instructions of the event network work on, while it is laid out."""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np

from neuromorphic.compiler.kernels.machine import EXTRA, OWN

WIDEST = OWN + 24  # columns of a row; a neuron with more states and parameters is refused by `row`


@dataclass
class Region:
    """Arrays one after the other, addressed by the place of their first value."""

    dtype: str
    parts: list[np.ndarray] = field(default_factory=list)
    size: int = 0

    def put(self, values: np.ndarray | float) -> int:
        """Appends values; returns their place. An array may still be changed in place until `whole` is called."""
        array = np.atleast_1d(np.asarray(values))
        place = self.size
        self.parts.append(array.reshape(-1))
        self.size += array.size
        return place

    def whole(self) -> np.ndarray:
        """All values in the region's dtype."""
        parts = [part.astype(self.dtype) for part in self.parts]
        return np.concatenate([np.zeros(0, self.dtype), *parts])


@dataclass
class Buffer:
    """Dense values of a layer in `state`.

    Attributes:
        place: in `state`.
        base: what it holds before anything arrives in a step; bias is added to it while the network is laid out.
        base_place: of a copy of `base` in `weights`.
        private: one layer of neurons alone reads it, and sets it back to its base.
    """

    place: int
    base: np.ndarray
    base_place: int
    private: bool = False

    @property
    def size(self) -> int:
        """Values in the buffer."""
        return self.base.size


class Memory:
    """State, weights, tables and event lists of one network."""

    def __init__(self, dtype: str) -> None:
        self.dtype = dtype
        self.state = Region(dtype)
        self.weights = Region(dtype)
        self.tables = Region("int32")
        self.lists: list[int] = []  # capacity of each
        self.one = self.weights.put(1.0)

    def buffer(self, size: int) -> Buffer:
        """A buffer with a base of zeros; the state starts at the base."""
        base = np.zeros(size)
        place = self.state.put(base)
        return Buffer(place, base, self.weights.put(base))

    def event_list(self, capacity: int) -> int:
        """A new, empty list; returns its number."""
        self.lists.append(max(capacity, 1))
        return len(self.lists) - 1

    def table(self, places: np.ndarray | None) -> dict[str, int]:
        """Columns of a table of places; without one, nothing is moved."""
        if places is None:
            return {"table": 0, "table_size": 0}
        return {"table": self.tables.put(places.astype(np.int64)), "table_size": len(places)}

    def list_table(self) -> tuple[np.ndarray, int]:
        """The array `lists` [n, 4] and the values that all lists need; tables follow them in `places`."""
        capacities = np.array([0, *self.lists], np.int64)
        starts = np.cumsum(capacities)
        table = np.zeros((len(self.lists), 4), np.int64)
        table[:, 0], table[:, 1] = starts[:-1], capacities[1:]
        return table, int(starts[-1])


_COLUMNS = {
    "op": 0, "source": 1, "target": 2, "size": 3, "weights": 18, "weights_size": 19, "table": 20, "table_size": 21,
    "cache": 22, "gain": 23, "extra": EXTRA, "marks": 25, "marks_size": 26,
}  # fmt: skip


def row(op: int, geometry: tuple[int, ...] = (), own: tuple[int, ...] = (), /, **columns: int) -> np.ndarray:
    """One instruction; `geometry` fills the columns from 4 on, `own` those of a kind of neurons."""
    if OWN + len(own) > WIDEST:
        raise ValueError(f"a neuron with {len(own)} states and parameters does not fit an instruction")
    values = np.zeros(WIDEST, np.int64)
    values[0] = op
    values[4 : 4 + len(geometry)] = geometry
    values[OWN : OWN + len(own)] = own
    values[_COLUMNS["cache"]] = -1
    for name, value in columns.items():
        values[_COLUMNS[name]] = value
    return values
