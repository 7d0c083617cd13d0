"""Integers of a running network, collected call by call and put together at the end."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from neuromorphic.energy.counts import ANALOG, ARRAYS, Events, LayerCounts, Signal
from neuromorphic.energy.propagation import Tag, widest
from snn.errors import ShapeError


@dataclass(frozen=True)
class Rows:
    """How the leading axes of a tensor are divided into steps and samples.

    Attributes:
        steps, samples: executions in this call, and B.
        rest: further entries of each sample, such as tokens.
        axes: leading axes that hold steps and samples, 1 or 2.
    """

    steps: int
    samples: int
    rest: tuple[int, ...] = ()
    axes: int = 1

    @property
    def extra(self) -> int:
        return int(np.prod(self.rest, dtype=np.int64))

    def total(self, values: Events) -> Events:
        """Sum over `rest` of values [steps * samples * rest], int64 [steps, B]."""
        return values.reshape(self.steps, self.samples, -1).sum(2)

    def every(self, value: int) -> Events:
        """The same integer at each step and sample."""
        return np.full((self.steps, self.samples), value, dtype=np.int64)


@dataclass(frozen=True)
class Layout:
    """Steps T and samples B of the call that is being counted."""

    steps: int
    samples: int

    def rows(self, leading: Sequence[int], layer: str, may_hold_tokens: bool = True) -> Rows:
        """Divide leading axes: [T * B, ...], [T, B, ...], or [B, ...] for a layer that runs one step in this call.

        Raises: ShapeError if they are none of these, or could be two of them.
        """
        T, B = self.steps, self.samples
        leading = tuple(leading)
        sequence = len(leading) >= 2 and leading[:2] == (T, B)
        single = len(leading) >= 1 and leading[0] == B
        if sequence and single and may_hold_tokens and T > 1 and B > 1:
            raise ShapeError(
                f"count: {layer!r} got leading axes {leading}, which could be [T, B] or [B, tokens] since T = B = {T}; "
                "count a batch of another size"
            )
        if sequence:
            return Rows(T, B, leading[2:], axes=2)
        if leading and leading[0] == T * B:
            return Rows(T, B, leading[1:])
        if single:
            return Rows(1, B, leading[1:])
        raise ShapeError(
            f"count: {layer!r} got leading axes {leading}; expected [T, B, ...] = [{T}, {B}, ...], "
            f"[T * B, ...] = [{T * B}, ...] or [B, ...] = [{B}, ...]"
        )

    def product_rows(self, row_count: int, layer: str) -> Rows:
        """Divide rows of a matrix product that hold steps, samples and anything else in this order."""
        T, B = self.steps, self.samples
        if row_count % (T * B) == 0:
            return Rows(T, B, (row_count // (T * B),))
        if row_count % B == 0:
            return Rows(1, B, (row_count // B,))
        raise ShapeError(f"count: {layer!r} has {row_count} rows, not a multiple of the {B} samples")


@dataclass
class Record:
    """One layer while the network runs."""

    name: str
    kind: Any
    geometry: dict[str, Any]
    sources: dict[str, None] = field(default_factory=dict)
    signals: list[Signal] = field(default_factory=list)
    arrays: dict[str, list[Events]] = field(default_factory=dict)

    def add(self, tag: Tag | None, **arrays: Events) -> None:
        """Append one call's rows."""
        if tag is not None:
            self.sources.update(dict.fromkeys(tag.sources))
            if tag.signal is not None:
                self.signals.append(tag.signal)
        shape = next(iter(arrays.values())).shape
        for name in ARRAYS:
            self.arrays.setdefault(name, []).append(arrays.get(name, np.zeros(shape, dtype=np.int64)))

    def finished(self, order: Sequence[str]) -> LayerCounts:
        """The layer's integers; `order` are the names of all layers as they first ran."""
        later = set(order[order.index(self.name) :])
        recurrent = bool(self.geometry.pop("recurrent", False)) or bool(later.intersection(self.sources))
        values: dict[str, Any] = self.geometry | {name: np.concatenate(parts) for name, parts in self.arrays.items()}
        return LayerCounts(
            name=self.name,
            kind=self.kind,
            inputs=tuple(self.sources),
            input_signal=widest(self.signals) if self.signals else ANALOG,
            recurrent=recurrent and self.kind in ("linear", "conv", "conv_transpose"),
            **values,
        )


class Records:
    """All layers of one counted run, in the order in which they first ran."""

    def __init__(self) -> None:
        self._found: dict[str, Record] = {}

    def of(self, name: str, kind: str, geometry: dict[str, Any]) -> Record:
        """The record of a layer; one that is used with another geometry gets a record of its own."""
        label, number = name, 1
        while label in self._found and not _same_shape(self._found[label].geometry, geometry):
            number += 1
            label = f"{name}#{number}"
        if label not in self._found:
            self._found[label] = Record(label, kind, geometry)
        return self._found[label]

    def finished(self) -> tuple[LayerCounts, ...]:
        """Every layer's integers."""
        order = list(self._found)
        return tuple(record.finished(order) for record in self._found.values())


def _same_shape(a: dict[str, Any], b: dict[str, Any]) -> bool:
    return all(a.get(key) == b.get(key) for key in ("input_shape", "output_shape", "weight_shape"))
