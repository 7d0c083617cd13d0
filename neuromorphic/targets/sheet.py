"""Data sheets: reading a chip's TOML file, checking it, and asking it for numbers."""

from __future__ import annotations

import difflib
import math
import os
import re
import tomllib
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from neuromorphic.targets.schema import EVIDENCE, SECTIONS, WORKLOAD, Field

FOLDER = Path(__file__).parent


class SheetError(ValueError):
    """A data sheet that cannot be used; the text names file, section, entry and what is accepted."""


@dataclass(frozen=True)
class Entry:
    """One sourced statement of a data sheet.

    Attributes:
        value: the typical value of a number, or the text, flag or list.
        low, high: range of a number over its sources; equal to value where one number is known.
        source: keys of the sheet's sources.
        evidence: see `neuromorphic.targets.schema.EVIDENCE`.
        note: what a reader must know to use the number.
    """

    value: Any
    low: Any
    high: Any
    source: tuple[str, ...]
    evidence: str
    note: str = ""


@dataclass(frozen=True)
class Workload:
    """A published measurement of the whole chip at one task."""

    workload: str
    entries: Mapping[str, Entry]


@dataclass(frozen=True)
class Target:
    """A chip as its data sheet describes it.

    Attributes:
        name, title: short and full name.
        sources: key -> citation of everything that entries refer to.
        sections: section -> entry name -> entry; sections as in `neuromorphic.targets.schema.SECTIONS`.
        measured: published workloads.
        notes: what is not known or needs care.
        path: the file.
    """

    name: str
    title: str
    sources: Mapping[str, str]
    sections: Mapping[str, Mapping[str, Entry]]
    measured: tuple[Workload, ...]
    notes: tuple[str, ...]
    path: Path = field(compare=False)

    def entry(self, name: str) -> Entry | None:
        """The entry "section.name" (for example "fabric.cores"), or None where the sheet is silent.

        Raises: ValueError if no sheet can have such an entry.
        """
        section, _, key = name.rpartition(".")
        if section not in SECTIONS or key not in SECTIONS[section]:
            known = [f"{part}.{entry}" for part, entries in SECTIONS.items() for entry in entries]
            raise ValueError(f"no data sheet has an entry {name!r}{_closest(name, known)}")
        return self.sections.get(section, {}).get(key)

    def value(self, name: str, default: Any = None) -> Any:
        """The typical value of an entry, or `default` where the sheet is silent."""
        found = self.entry(name)
        return default if found is None else found.value

    def limit(self, name: str) -> Any:
        """The smallest value that a source gives for a limit, or None: what is checked before anything is refused."""
        found = self.entry(name)
        return None if found is None else found.low

    def require(self, name: str, purpose: str) -> Entry:
        """The entry.

        Raises: UnsupportedError where the sheet is silent, naming the entry and what needs it.
        """
        found = self.entry(name)
        if found is None:
            from snn.errors import UnsupportedError  # brings torch, which reading a sheet does not need

            raise UnsupportedError(f"{self.name}: {purpose} needs {name}, which {self.path.name} does not state")
        return found

    @property
    def energy_scope(self) -> str | None:
        """Which prices give a total: "per_event" (synapses and neurons are both priced there), else "all_in" (the chip's
        whole energy divided by its events, to which nothing may be added), else None: the total is not known."""
        event, all_in = (self.sections.get(f"energy.{scope}", {}) for scope in ("per_event", "all_in"))
        neurons = "neuron_update_pj" in event or {"neuron_active_pj", "neuron_inactive_pj"} <= set(event)
        if "synop_pj" in event and neurons:
            return "per_event"
        return "all_in" if "synop_pj" in all_in or "mac_pj" in all_in else None


def names() -> list[str]:
    """Names of the data sheets that come with the package."""
    return sorted(path.stem for path in FOLDER.glob("*.toml"))


def load(name: str | os.PathLike[str]) -> Target:
    """Reads and checks a data sheet.

    Args:
        name: one of `names()`, or the path of your own file, which ends in ".toml".
    Raises:
        ValueError: there is no such sheet; the closest name is given.
        FileNotFoundError: there is no such file.
        SheetError: the file is not TOML, or an entry is unknown, wrong, out of range or without a source.

    >>> load("loihi").value("fabric.cores")
    128
    """
    path = Path(name)
    if path.suffix != ".toml":
        if str(name) not in names():
            raise ValueError(
                f"no data sheet {str(name)!r}{_closest(str(name), names())} (or a path that ends in .toml)"
            )
        path = FOLDER / f"{name}.toml"
    with path.open("rb") as file:
        try:
            content = tomllib.load(file)
        except tomllib.TOMLDecodeError as error:
            raise SheetError(f"{path}: not valid TOML: {error}") from error
    return _target(path, content)


def _target(path: Path, content: Mapping[str, Any]) -> Target:
    place = path.name
    header = {"name", "title", "sources", "measured", "notes"}
    flat = _flat_sections(content, header)
    for section in flat:
        if section not in SECTIONS:
            raise SheetError(f"{place}: unknown section [{section}]{_closest(section, [*SECTIONS, *header])}")
    for key in ("name", "title"):
        if not isinstance(content.get(key), str) or not content[key]:
            raise SheetError(f"{place}: {key} must be a text, got {content.get(key)!r}")
    sources = content.get("sources", {})
    if not isinstance(sources, dict) or not all(isinstance(text, str) and text.strip() for text in sources.values()):
        raise SheetError(f"{place}: [sources] must map keys to citations, got {sources!r}")
    sections = {
        section: {
            key: _entry(f"{place}: {section}.{key}", given, _field(place, section, key, SECTIONS[section]), sources)
            for key, given in entries.items()
        }
        for section, entries in flat.items()
    }
    measured = tuple(
        _workload(place, number, given, sources) for number, given in enumerate(content.get("measured", []))
    )
    used = {source for entries in sections.values() for entry in entries.values() for source in entry.source}
    used |= {source for workload in measured for entry in workload.entries.values() for source in entry.source}
    if unused := sorted(set(sources) - used):
        raise SheetError(f"{place}: sources.{unused[0]} is not used by any entry")
    notes = content.get("notes", [])
    if not isinstance(notes, list) or not all(isinstance(note, str) for note in notes):
        raise SheetError(f"{place}: notes must be a list of texts, got {notes!r}")
    return Target(content["name"], content["title"], dict(sources), sections, measured, tuple(notes), path)


def _flat_sections(content: Mapping[str, Any], header: set[str]) -> dict[str, dict[str, Any]]:
    """Sections by dotted name: a table is an entry where it has a value or a range, else a group of sections."""
    flat: dict[str, dict[str, Any]] = {}
    for name, table in content.items():
        if name in header:
            continue
        nested = {part.partition(".")[0] for part in SECTIONS if "." in part}
        if name in nested and isinstance(table, dict):
            for part, entries in table.items():
                flat[f"{name}.{part}"] = entries if isinstance(entries, dict) else {}
        else:
            flat[name] = table if isinstance(table, dict) else {}
    return flat


def _field(place: str, section: str, key: str, fields: Mapping[str, Field]) -> Field:
    if key not in fields:
        raise SheetError(f"{place}: unknown entry {section}.{key}{_closest(key, fields)}")
    return fields[key]


def _workload(place: str, number: int, given: Mapping[str, Any], sources: Mapping[str, str]) -> Workload:
    where = f"measured[{number}]"
    text = given.get("workload")
    if not isinstance(text, str) or not text:
        raise SheetError(f"{place}: {where}.workload must be a text, got {text!r}")
    entries = {
        key: _entry(f"{place}: {where}.{key}", value, _field(place, where, key, WORKLOAD), sources)
        for key, value in given.items()
        if key != "workload"
    }
    return Workload(text, entries)


_KEYS = ("value", "low", "high", "source", "evidence", "note")


def _entry(where: str, given: Any, kind: Field, sources: Mapping[str, str]) -> Entry:
    if not isinstance(given, dict):
        raise SheetError(f"{where} must be a table with value, source and evidence, got {given!r}")
    for key in given:
        if key not in _KEYS:
            raise SheetError(f"{where}: unknown key {key!r}{_closest(key, _KEYS)}")
    source = given.get("source", ())
    source = (source,) if isinstance(source, str) else tuple(source)
    if not source:
        raise SheetError(f"{where} has no source; give source = one of [sources] ({', '.join(sources) or 'empty'})")
    for key in source:
        if key not in sources:
            raise SheetError(f"{where}: source {key!r} is not in [sources]{_closest(str(key), sources)}")
    evidence = given.get("evidence")
    if evidence not in EVIDENCE:
        raise SheetError(f"{where}: evidence must be one of {', '.join(EVIDENCE)}, got {evidence!r}")
    note = given.get("note", "")
    if not isinstance(note, str):
        raise SheetError(f"{where}: note must be a text, got {note!r}")
    low, value, high = _range(where, given, kind)
    return Entry(value, low, high, source, evidence, note)


def _range(where: str, given: Mapping[str, Any], kind: Field) -> tuple[Any, Any, Any]:
    numeric = kind.kind in ("count", "number")
    if "value" not in given and not ("low" in given and "high" in given and numeric):
        raise SheetError(f"{where} has no value" + (" (or low and high)" if numeric else ""))
    if not numeric:
        for key in ("low", "high"):
            if key in given:
                raise SheetError(f"{where}: {key} is for numbers only")
        return (_checked(where, given["value"], kind),) * 3
    numbers = {key: _checked(where, given[key], kind) for key in ("low", "value", "high") if key in given}
    low, high = (numbers[key] if key in numbers else numbers["value"] for key in ("low", "high"))
    middle = (low + high) / 2
    value = numbers.get("value", round(middle) if kind.kind == "count" else middle)
    if not low <= value <= high:
        raise SheetError(f"{where}: must have low <= value <= high, got {low} <= {value} <= {high}")
    return low, value, high


def _checked(where: str, value: Any, kind: Field) -> Any:
    if kind.kind in ("counts", "texts"):
        if not isinstance(value, list) or (kind.kind == "counts" and not value):
            raise SheetError(f"{where} must be a list, got {value!r}")
        one = Field("count" if kind.kind == "counts" else "text", kind.least, kind.choices)
        return tuple(_checked(where, item, one) for item in value)
    expected = {"count": int, "number": (int, float), "text": str, "flag": bool}[kind.kind]
    if not isinstance(value, expected) or (isinstance(value, bool) and kind.kind != "flag"):  # type: ignore[arg-type]
        wanted = {"count": "a whole number", "number": "a number", "text": "a text", "flag": "true or false"}
        raise SheetError(f"{where} must be {wanted[kind.kind]}, got {value!r}")
    if kind.kind in ("count", "number") and not (math.isfinite(value) and value >= kind.least):
        raise SheetError(f"{where} must be finite and >= {kind.least:g}, got {value}")
    if kind.choices and value not in kind.choices:
        raise SheetError(f"{where} must be one of {', '.join(kind.choices)}, got {value!r}")
    return value


def _closest(name: str, known: Iterable[str]) -> str:
    accepted: Sequence[str] = sorted(known)
    folded = re.sub(r"[\s_-]", "", name.casefold())
    by_form = {re.sub(r"[\s_-]", "", other.casefold()): other for other in accepted}
    near = difflib.get_close_matches(folded, by_form, n=1)
    return f"; did you mean {by_form[near[0]]!r}?" if near else f"; accepted: {', '.join(accepted)}"
