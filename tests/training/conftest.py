"""Fixtures of the training tests: a command that runs here, and one that runs in a process that may be killed."""

from __future__ import annotations

import multiprocessing
import os
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import NamedTuple

import pytest
import tiny_data
import torch

from snn.training.command_line import main
from snn.training.lightning_import import import_lightning

import_lightning()  # first, in the way that copes with a torchvision of another build


@pytest.fixture(scope="session", autouse=True)
def _one_thread() -> Iterator[None]:
    """The networks are so small that a second thread only waits."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


class Ended(NamedTuple):
    code: int
    text: str


@pytest.fixture(scope="session")
def in_child(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Callable[..., Ended]]:
    """Run `spikeloop train ARGUMENTS` in a process of its own, forked from one that has imported everything."""
    changed = {
        "PYTHONPATH": os.pathsep.join([str(Path(__file__).parent), *filter(None, sys.path)]),
        "SPIKELOOP_TEST_PRELOAD": "1",
        "OMP_NUM_THREADS": "1",
    }
    before = {key: os.environ.get(key) for key in changed}
    os.environ.update(changed)
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(["tiny_data"])
    logs = tmp_path_factory.mktemp("logs")

    def run(arguments: list[str], end: str = "", die_while_saving: bool = False) -> Ended:
        log = logs / f"{len(list(logs.iterdir()))}.txt"
        child = context.Process(target=tiny_data.run_in_child, args=(arguments, end, die_while_saving, str(log)))
        child.start()
        child.join(120)
        if child.exitcode is None:
            child.kill()
            pytest.fail(f"the child process did not end; it wrote:\n{log.read_text()}")
        return Ended(child.exitcode, log.read_text())

    yield run
    for key, value in before.items():
        if value is None:
            os.environ.pop(key, None)
        else:
            os.environ[key] = value


@pytest.fixture(scope="session")
def finished_run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of an uninterrupted run; only to be read."""
    folder = tmp_path_factory.mktemp("finished")
    arguments = ["--config", str(tiny_data.recipe_file(folder)), "--run-dir", str(folder / "run")]
    assert main(arguments) == 0
    return folder / "run"
