"""Data sheets: every shipped one is sound, and a wrong entry is rejected by name."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from neuromorphic import targets
from neuromorphic.targets.sheet import Entry, SheetError, Target
from snn.errors import UnsupportedError

CHIPS = [
    "akida",
    "brainscales2",
    "darwin3",
    "loihi",
    "loihi2",
    "northpole",
    "odin",
    "reckon",
    "speck",
    "spinnaker",
    "spinnaker2",
    "tianjic",
    "truenorth",
    "xylo",
]
BASELINES = ["arm", "asic45nm", "cpu", "gpu"]


def test_every_chip_of_the_documentation_has_a_sheet() -> None:
    assert targets.names() == sorted(CHIPS + BASELINES)


@pytest.mark.parametrize("name", CHIPS + BASELINES)
def test_shipped_sheets_are_sound(name: str) -> None:
    target = targets.load(name)
    assert target.name == name
    entries = [entry for section in target.sections.values() for entry in section.values()]
    assert entries
    assert all(entry.source and set(entry.source) <= set(target.sources) for entry in entries)


def number(name: str, entry: str) -> tuple[float, float, float]:
    found = targets.load(name).entry(entry)
    assert found is not None
    return found.low, found.value, found.high


@pytest.mark.parametrize(
    ("name", "entry", "expected"),
    [
        ("loihi", "fabric.cores", (128, 128, 128)),
        ("loihi", "energy.per_event.synop_pj", (23.6, 23.6, 35.5)),
        ("loihi", "energy.per_event.neuron_active_pj", (81, 81, 81)),
        ("loihi", "energy.per_event.neuron_inactive_pj", (52, 52, 52)),
        ("loihi", "power.static_mw", (104, 104, 104)),
        ("loihi", "time.barrier_ns", (113, 289, 465)),
        ("loihi2", "memory.words_per_core", (12000, 12000, 16000)),
        ("truenorth", "energy.all_in.synop_pj", (26, 26, 26)),
        ("spinnaker", "energy.all_in.synop_pj", (11300, 13300, 13300)),
        ("spinnaker2", "energy.all_in.neuron_update_pj", (2190, 2190, 2190)),
        ("odin", "energy.all_in.synop_pj", (12.7, 12.7, 54)),
        ("darwin3", "energy.per_event.synop_pj", (5.47, 5.47, 5.47)),
        ("darwin3", "fabric.neurons", (2355200, 2355200, 2355200)),
        ("gpu", "energy.all_in.mac_pj", (300, 300, 300)),
        ("asic45nm", "energy.per_event.mac_fp32_pj", (4.6, 4.6, 4.6)),
    ],
)
def test_known_numbers(name: str, entry: str, expected: tuple[float, float, float]) -> None:
    assert number(name, entry) == expected


def test_scope_of_the_total_is_never_mixed() -> None:
    scopes = {name: targets.load(name).energy_scope for name in CHIPS}
    assert scopes["loihi"] == "per_event"
    assert {name for name, scope in scopes.items() if scope == "all_in"} == {
        "truenorth",
        "spinnaker",
        "spinnaker2",
        "odin",
        "reckon",
    }
    assert {name for name, scope in scopes.items() if scope is None} == {
        "akida",
        "brainscales2",
        "darwin3",
        "loihi2",
        "northpole",
        "speck",
        "tianjic",
        "xylo",
    }


def test_limits_are_the_smallest_of_the_sources() -> None:
    target = targets.load("loihi2")
    assert target.limit("fabric.cores") == 120
    assert target.value("fabric.cores") == 128
    assert target.limit("connections.input_axons_per_core") is None


def test_a_missing_price_is_refused_by_name() -> None:
    target = targets.load("loihi2")
    with pytest.raises(UnsupportedError, match=r"loihi2: energy of a synapse needs energy\.per_event\.synop_pj"):
        target.require("energy.per_event.synop_pj", "energy of a synapse")
    assert isinstance(targets.load("loihi").require("energy.per_event.synop_pj", "energy"), Entry)


def test_unknown_names_say_the_closest() -> None:
    with pytest.raises(ValueError, match=r"no data sheet 'Loihi 2'; did you mean 'loihi2'\?"):
        targets.load("Loihi 2")
    with pytest.raises(ValueError, match=r"'fabric\.core'; did you mean 'fabric\.cores'\?"):
        targets.load("loihi").value("fabric.core")
    with pytest.raises(FileNotFoundError):
        targets.load("missing.toml")


SOUND = """
name = "mine"
title = "My chip"
[sources]
me = "a report, 2026"
[fabric]
cores = { value = 4, source = "me", evidence = "measured" }
[energy.per_event]
synop_pj = { low = 1, high = 3, source = "me", evidence = "simulated" }
"""


def written(folder: Path, text: str) -> Path:
    path = folder / "mine.toml"
    path.write_text(text, encoding="utf8")
    return path


def test_a_chip_is_added_by_a_file(tmp_path: Path) -> None:
    target = targets.load(written(tmp_path, SOUND))
    assert isinstance(target, Target)
    assert target.value("fabric.cores") == 4
    price = target.entry("energy.per_event.synop_pj")
    assert price is not None
    assert (price.low, price.value, price.high) == (1, 2, 3)
    assert price.evidence == "simulated"
    assert targets.load(str(target.path)) == target


CORES = 'cores = { value = 4, source = "me", evidence = "measured" }'


@pytest.mark.parametrize(
    ("old", "new", "text"),
    [
        (CORES, "cores = 4", r"fabric\.cores must be a table"),
        (CORES, 'cores = { value = 4, evidence = "measured" }', r"fabric\.cores has no source"),
        (CORES, 'cores = { value = 4, source = "you", evidence = "measured" }', r"source 'you' is not in \[sources\]"),
        (CORES, 'cores = { value = 4, source = "me" }', r"fabric\.cores: evidence must be one of"),
        (CORES, 'cores = { value = 4, source = "me", evidence = "guess" }', r"evidence must be one of .*got 'guess'"),
        (CORES, CORES.replace("4", "-1"), r"fabric\.cores must be finite and >= 0, got -1"),
        (CORES, CORES.replace("4", "4.5"), r"fabric\.cores must be a whole number, got 4\.5"),
        (CORES, CORES.replace("4", "true"), r"fabric\.cores must be a whole number, got True"),
        (CORES, CORES.replace("4", '"four"'), r"fabric\.cores must be a whole number"),
        (CORES, CORES.replace("value = 4", "value = 4, low = 5"), r"low <= value <= high"),
        (CORES, CORES.replace("value = 4", "low = 4"), r"fabric\.cores has no value \(or low and high\)"),
        (CORES, CORES.replace("value = 4", "valu = 4"), r"unknown key 'valu'; did you mean 'value'"),
        (CORES, CORES.replace("cores", "corse"), r"unknown entry fabric\.corse; did you mean 'cores'"),
        (
            CORES,
            CORES + "\nprocess_nm = { value = inf, source = 'me', evidence = 'measured' }",
            r"process_nm must be fin",
        ),
        ("[fabric]", "[fabrics]", r"unknown section \[fabrics\]; did you mean 'fabric'"),
        ("[energy.per_event]", "[energy.per_evnt]", r"unknown section \[energy\.per_evnt\]; did you mean"),
        ('me = "a report, 2026"', 'me = "a report"\nspare = "unused"', r"sources\.spare is not used"),
        ('me = "a report, 2026"', 'me = ""', r"\[sources\] must map keys to citations"),
        ('name = "mine"', "", r"name must be a text, got None"),
        ("[sources]", "[sources", r"not valid TOML"),
        (
            "[fabric]",
            '[neuron]\narithmetic = { value = "magic", source = "me", evidence = "measured" }\n[fabric]',
            "magic",
        ),
        (
            "[fabric]",
            '[weights]\nbits = { value = 8, source = "me", evidence = "measured" }\n[fabric]',
            "must be a list",
        ),
        ("[fabric]", "[[measured]]\npower_mw = 4\n[fabric]", r"measured\[0\]\.workload must be a text"),
        ("[fabric]", '[[measured]]\nworkload = "w"\npower = 4\n[fabric]', r"unknown entry measured\[0\]\.power"),
    ],
)
def test_a_wrong_entry_is_rejected_by_name(tmp_path: Path, old: str, new: str, text: str) -> None:
    assert old in SOUND
    with pytest.raises(SheetError, match=text):
        targets.load(written(tmp_path, SOUND.replace(old, new)))


def test_reading_a_sheet_does_not_bring_torch() -> None:
    script = "import sys; from neuromorphic import targets; targets.load('loihi'); print('torch' in sys.modules)"
    output = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)
    assert output.stdout.strip() == "False"
