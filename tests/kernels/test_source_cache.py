"""Generated sources: complete or absent, found again by later processes, and an error where they cannot be written."""

from __future__ import annotations

import os
import subprocess
import sys
import threading
from pathlib import Path

import pytest
import torch

import snn
from snn.kernels import source_cache

TEXT = "value = 41 + 1\n"


def test_source_is_written_once_and_imported(cache_folder: Path) -> None:
    module = source_cache.load_source("answer", TEXT)
    assert module.value == 42
    (file,) = cache_folder.glob("answer_*.py")
    assert file.read_text() == TEXT
    assert source_cache.load_source("answer", TEXT) is module


def test_other_text_is_another_file(cache_folder: Path) -> None:
    source_cache.load_source("number", "value = 1\n")
    assert source_cache.load_source("number", "value = 2\n").value == 2
    assert len(list(cache_folder.glob("number_*.py"))) == 2


def test_many_threads_and_a_half_written_file(cache_folder: Path) -> None:
    text = "value = 7\n" + "# filler\n" * 10000
    (cache_folder / "raced_leftover.part").write_text("value = ")
    results: list[int] = []
    workers = [
        threading.Thread(target=lambda: results.append(source_cache.load_source("raced", text).value)) for _ in range(8)
    ]
    for worker in workers:
        worker.start()
    for worker in workers:
        worker.join()
    assert results == [7] * 8
    (file,) = cache_folder.glob("raced_*.py")
    assert file.read_text() == text


def test_a_folder_that_cannot_be_written_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    blocked = tmp_path / "file"
    blocked.write_text("")
    monkeypatch.setenv("SPIKELOOP_CACHE", str(blocked / "kernels"))
    with pytest.raises(OSError, match=r"kernel cache folder .*SPIKELOOP_CACHE"):
        source_cache.load_source("nowhere", "value = 0\n")


def test_compiled_kernels_serve_the_next_process(tmp_path: Path) -> None:
    script = (
        "import torch, snn\n"
        "snn.LIF(step_mode='m', backend='numba')(torch.zeros(2, 3))\n"
        "from snn.kernels import cpu\n"
        "(kernels,) = cpu._kernels.values()\n"
        "(kernel,) = kernels._known.values()\n"
        "print(sum(kernel.function.stats.cache_hits.values()), sum(kernel.function.stats.cache_misses.values()))\n"
    )
    environment = {**os.environ, "SPIKELOOP_CACHE": str(tmp_path), "PYTHONPATH": os.pathsep.join(sys.path)}
    counts = [
        subprocess.run(
            [sys.executable, "-c", script], env=environment, capture_output=True, text=True, check=True
        ).stdout
        for _ in range(2)
    ]
    assert [count.split() for count in counts] == [["0", "1"], ["1", "0"]]


def test_generated_text_shows_the_step_it_came_from(cache_folder: Path) -> None:
    @snn.neuron_model(state={"v": 0.0}, params={"leak": 0.7731})
    def shown(x, s, p):  # type: ignore[no-untyped-def]
        v = s.v * p.leak + x  # a remark that must come along
        return v, {"v": v}

    snn.Neuron(shown, step_mode="m", backend="numba")(torch.zeros(2, 3))
    (file,) = cache_folder.glob("shown_forward_*.py")
    assert "a remark that must come along" in file.read_text()
