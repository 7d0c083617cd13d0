"""Recipes and commands shared by the tests of training."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from snn.training.recipe import DataOptions, EncodingOptions, Recipe

ROOT = Path(__file__).parents[2]


@pytest.fixture
def small_recipe() -> Callable[..., Recipe]:
    """A recipe of seconds in which every use of random numbers has a part; keys given replace its own."""

    def recipe(**given: Any) -> Recipe:
        base: dict[str, Any] = {
            "data": DataOptions("digits", batch_size=96, shift=1),
            "encoding": EncodingOptions("rate", 3),
            "network": {"class": "SpikingMLP", "hidden": [32], "batch_norm": True, "dropout": 0.2},
            "optimizer": {"class": "AdamW", "lr": 0.01},
            "epochs": 2,
            "threads": 1,
        }
        return Recipe(**{**base, **given})

    return recipe


@pytest.fixture
def command_environment(tmp_path_factory: pytest.TempPathFactory) -> dict[str, str]:
    """Environment in which a child process finds the packages, and this folder for data sets of the tests."""
    paths = [str(ROOT), str(ROOT / "datasets"), str(Path(__file__).parent)]
    return {**os.environ, "PYTHONPATH": os.pathsep.join(paths), "OMP_NUM_THREADS": "1"}


@pytest.fixture
def train_script(command_environment: dict[str, str]) -> Callable[..., subprocess.CompletedProcess[str]]:
    """Run scripts/train.py to its end."""

    def run(*arguments: str) -> subprocess.CompletedProcess[str]:
        command = [sys.executable, str(ROOT / "scripts" / "train.py"), *arguments]
        return subprocess.run(command, capture_output=True, text=True, env=command_environment, timeout=300)

    return run
