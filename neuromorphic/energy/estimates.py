"""What an energy model answers: a table of layers and terms, each with its price, unit, node and source."""

from __future__ import annotations

import json
from collections.abc import Iterable
from dataclasses import asdict, dataclass, field
from typing import Any, Final

PJ: Final = "pJ"


@dataclass(frozen=True)
class Price:
    """A constant of a model: what one thing costs.

    Attributes:
        low, typical, high: range over its sources; all equal where one value is known.
        unit: of the constant, for example "pJ per MAC".
        node: technology node and voltage, or the device.
        source: citation.
        scope: "per term" for that operation alone, "all-in" for a chip's whole energy divided by its events.
    """

    low: float
    typical: float
    high: float
    unit: str
    node: str
    source: str
    scope: str = "per term"

    def __post_init__(self) -> None:
        if not 0 <= self.low <= self.typical <= self.high:
            raise ValueError(
                f"Price: must have 0 <= low <= typical <= high, got {self.low}, {self.typical}, {self.high}"
            )


def exact(value: float, unit: str, node: str, source: str, scope: str = "per term") -> Price:
    """A price with one known value."""
    return Price(value, value, value, unit, node, source, scope)


@dataclass(frozen=True)
class Row:
    """One term of one layer, per inference (mean over the samples).

    Attributes:
        layer, term: names.
        count: how many, typical; counting conventions that differ give `count_low` and `count_high`.
        low, typical, high: count times price.
        unit: of the three: "pJ", or what the model counts.
        price: the constant.
    """

    layer: str
    term: str
    count: float
    low: float
    typical: float
    high: float
    unit: str
    price: Price
    count_low: float
    count_high: float

    @property
    def low_pj(self) -> float:
        return self._pj(self.low)

    @property
    def typical_pj(self) -> float:
        return self._pj(self.typical)

    @property
    def high_pj(self) -> float:
        return self._pj(self.high)

    def _pj(self, value: float) -> float:
        if self.unit != PJ:
            raise ValueError(
                f"row {self.layer!r} {self.term!r} is in {self.unit}, which has no energy without a device"
            )
        return value

    def to_dict(self) -> dict[str, Any]:
        """Plain values; `low_pj`, `typical_pj`, `high_pj` where the unit is pJ."""
        values = asdict(self)
        if self.unit == PJ:
            values |= {"low_pj": self.low, "typical_pj": self.typical, "high_pj": self.high}
        return values


def row(
    layer: str,
    term: str,
    count: float,
    price: Price,
    unit: str = PJ,
    count_low: float | None = None,
    count_high: float | None = None,
) -> Row:
    """A row whose range multiplies that of the count with that of the price."""
    low = count if count_low is None else count_low
    high = count if count_high is None else count_high
    return Row(layer, term, count, low * price.low, count * price.typical, high * price.high, unit, price, low, high)


@dataclass(frozen=True)
class Range:
    """A sum over rows."""

    low: float
    typical: float
    high: float


@dataclass(frozen=True)
class Estimate:
    """What one inference costs under one model.

    Attributes:
        model: name that `estimate` was called with.
        convention: in words, what was counted and what was left out.
        rows: layer x term.
        unit: of every row.
        notes: what a reader must know before comparing.
        metrics: further numbers of the model that are not sums over layers.
    """

    model: str
    convention: str
    rows: tuple[Row, ...]
    unit: str = PJ
    notes: tuple[str, ...] = ()
    metrics: dict[str, float] = field(default_factory=dict)

    def __post_init__(self) -> None:
        wrong = [entry for entry in self.rows if entry.unit != self.unit]
        if wrong:
            raise ValueError(f"Estimate {self.model!r}: row {wrong[0].term!r} is in {wrong[0].unit}, not {self.unit}")
        scopes = {entry.price.scope for entry in self.rows if entry.count}
        if len(scopes) > 1:
            raise ValueError(f"Estimate {self.model!r}: all-in and per-term prices cannot be added")

    @property
    def total(self) -> Range:
        """Sum of all rows."""
        return _sum(self.rows)

    @property
    def low_pj(self) -> float:
        return sum(entry.low_pj for entry in self.rows)

    @property
    def typical_pj(self) -> float:
        return sum(entry.typical_pj for entry in self.rows)

    @property
    def high_pj(self) -> float:
        return sum(entry.high_pj for entry in self.rows)

    def by_layer(self) -> dict[str, Range]:
        """Sum of each layer."""
        return {
            name: _sum(e for e in self.rows if e.layer == name) for name in dict.fromkeys(e.layer for e in self.rows)
        }

    def by_term(self) -> dict[str, Range]:
        """Sum of each term."""
        return {name: _sum(e for e in self.rows if e.term == name) for name in dict.fromkeys(e.term for e in self.rows)}

    def to_dict(self) -> dict[str, Any]:
        """Plain values: model, convention, total, rows."""
        return {
            "model": self.model,
            "convention": self.convention,
            "unit": self.unit,
            "total": asdict(self.total),
            "notes": list(self.notes),
            "metrics": dict(self.metrics),
            "rows": [entry.to_dict() for entry in self.rows],
        }

    def to_json(self) -> str:
        """`to_dict` as JSON text."""
        return json.dumps(self.to_dict())


def _sum(rows: Iterable[Row]) -> Range:
    found = list(rows)
    return Range(sum(e.low for e in found), sum(e.typical for e in found), sum(e.high for e in found))
