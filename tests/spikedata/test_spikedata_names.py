"""The public surface: names, what an import costs, and the examples in the docstrings."""

import doctest
import importlib
import os
import pkgutil
import subprocess
import sys

import pytest

import spikedata

MODULES = sorted(module.name for module in pkgutil.walk_packages(spikedata.__path__, "spikedata."))


def test_public_names_are_these() -> None:
    assert spikedata.__all__ == ["DATASETS", "DataError", "DatasetSpec", "ImageDataset", "encode", "load"]
    assert all(hasattr(spikedata, name) for name in spikedata.__all__)


def test_import_loads_no_optional_library_and_no_sibling_package() -> None:
    code = (
        "import sys, torch, torch.utils.data; before = set(sys.modules); import spikedata; "
        "print(' '.join({name.partition('.')[0] for name in set(sys.modules) - before}))"
    )
    search_path = os.pathsep.join(path for path in sys.path if path)
    result = subprocess.run(
        [sys.executable, "-c", code],
        capture_output=True,
        text=True,
        check=True,
        env=os.environ | {"PYTHONPATH": search_path},
    )
    new = set(result.stdout.split())
    assert "spikedata" in new
    assert not new & {"sklearn", "pooch", "requests", "tqdm", "PIL", "h5py", "scipy", "snn", "neuromorphic"}


@pytest.mark.parametrize("name", MODULES)
def test_docstring_examples_give_their_output(name: str) -> None:
    assert doctest.testmod(importlib.import_module(name)).failed == 0


def test_there_are_docstring_examples() -> None:
    finder = doctest.DocTestFinder()
    count = sum(bool(test.examples) for name in MODULES for test in finder.find(importlib.import_module(name)))
    assert count >= 6
