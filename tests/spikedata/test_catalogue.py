"""The table of data sets, `load`, the root folder and the error for a missing library."""

import re
from pathlib import Path

import platformdirs
import pytest

import spikedata
from spikedata import DATASETS, DataError, load
from spikedata.extras import require
from spikedata.root import data_root

NOT_DATA_SETS = {
    "__init__",
    "catalogue",
    "checksum",
    "dataset",
    "download",
    "encode",
    "errors",
    "extras",
    "mel",
    "root",
    "saccades",
    "speech_commands",
    "spoken",
}


def test_every_data_set_file_is_in_the_table() -> None:
    files = {path.stem for path in Path(spikedata.__file__).parent.glob("*.py")}
    assert files - NOT_DATA_SETS == set(DATASETS)
    assert all(name == spec.name for name, spec in DATASETS.items())


def test_unknown_name_lists_the_names_and_the_closest() -> None:
    with pytest.raises(
        ValueError, match=r"name must be one of 'digits', 'mnist', 'cifar10', got 'minst'.*mean 'mnist'"
    ):
        load("minst")


def test_unknown_split_lists_the_splits() -> None:
    with pytest.raises(ValueError, match="split must be one of 'train', 'test', got 'validation'"):
        load("digits", "validation")


def test_root_argument_comes_before_the_environment(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    argument, variable = tmp_path / "argument", tmp_path / "variable"
    argument.mkdir()
    variable.mkdir()
    monkeypatch.setenv("SPIKEDATA_ROOT", str(variable))
    assert data_root(argument) == argument
    assert data_root(str(argument)) == argument
    assert data_root(None) == variable


@pytest.mark.parametrize("value", [None, ""])
def test_root_without_argument_and_environment_is_the_cache(value: str | None, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("SPIKEDATA_ROOT", raising=False)
    if value is not None:
        monkeypatch.setenv("SPIKEDATA_ROOT", value)
    assert data_root(None) == Path(platformdirs.user_cache_dir("spikeloop", appauthor=False))


def test_named_root_that_does_not_exist_is_an_error(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    missing = tmp_path / "typo"
    with pytest.raises(DataError, match=r"typo, named by the argument root, does not exist; create it"):
        load("mnist", root=missing)
    monkeypatch.setenv("SPIKEDATA_ROOT", str(missing))
    with pytest.raises(DataError, match=r"typo, named by the environment variable SPIKEDATA_ROOT, does not exist"):
        load("cifar10")
    assert not missing.exists()


@pytest.mark.parametrize("name", ["mnist", "cifar10"])
def test_missing_files_name_the_expected_path(name: str, empty_root: Path) -> None:
    with pytest.raises(
        DataError, match=rf"{re.escape(str(empty_root / name))}.* does not exist.*put .* or load with download=True"
    ):
        load(name, root=empty_root, download=False)
    assert list(empty_root.iterdir()) == []


def test_missing_library_names_the_install_command() -> None:
    with pytest.raises(
        ImportError, match=r"decoding needs no_such_library; install it with: pip install 'spikeloop\[data\]'"
    ):
        require("no_such_library.part", "decoding")
