"""A run that was ended from outside and continued equals the run that was not."""

from __future__ import annotations

import csv
import json
import signal
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from tiny_data import recipe_file

from snn.training.checkpoint import AtomicCheckpoints, load_checkpoint
from snn.training.command_line import main

TIMES = ("seconds", "train_seconds", "seconds_per_epoch")


def differences(a: Any, b: Any, place: str = "") -> list[str]:
    """Return the places where two nested structures differ in any bit, times of the clock aside."""
    if isinstance(a, torch.Tensor):
        return [] if isinstance(b, torch.Tensor) and a.dtype == b.dtype and torch.equal(a, b) else [place]
    if isinstance(a, dict):
        if a.keys() != b.keys():
            return [f"{place}: {sorted(a)} and {sorted(b)}"]
        return [entry for key in a if key not in TIMES for entry in differences(a[key], b[key], f"{place}/{key}")]
    if isinstance(a, list | tuple):
        if len(a) != len(b):
            return [f"{place}: {len(a)} and {len(b)} entries"]
        return [entry for i, pair in enumerate(zip(a, b, strict=True)) for entry in differences(*pair, f"{place}/{i}")]
    return [] if a == b else [f"{place}: {a!r} and {b!r}"]


def rows(folder: Path) -> list[dict[str, str]]:
    with (folder / "metrics.csv").open() as file:
        return [{key: value for key, value in row.items() if key not in TIMES} for row in csv.DictReader(file)]


def require_equal(folder: Path, finished: Path) -> None:
    for name in ("last", "best"):
        one, two = (load_checkpoint(run / "checkpoints" / f"{name}.ckpt") for run in (folder, finished))
        assert {"state_dict", "optimizer_states", "lr_schedulers", "spikeloop"} <= one.keys()
        assert one["optimizer_states"][0]["state"], "the optimiser has state to compare"
        for checkpoint in (one, two):
            checkpoint.pop("loops")  # counts batches of the interrupted epoch, compared by what follows from them
        assert differences(one, two) == []
    assert rows(folder) == rows(finished)
    assert [row["epoch"] for row in rows(folder)] == ["1", "2", "3", "4"]
    one, two = (json.loads((run / "metrics.json").read_text()) for run in (folder, finished))
    assert differences(one, two) == []


@pytest.mark.parametrize(
    ("end", "epochs_done"),
    [("SIGKILL 0 2", 0), ("SIGKILL 2 0", 2), ("SIGKILL 2 3", 2)],
    ids=["in the first epoch", "after an epoch", "in the middle of an epoch"],
)
def test_killed_and_resumed_equals_uninterrupted(
    end: str, epochs_done: int, in_child: Callable[..., Any], finished_run: Path, tmp_path: Path
) -> None:
    folder = tmp_path / "run"
    assert in_child(["--config", str(recipe_file(tmp_path)), "--run-dir", str(folder)], end).code == -signal.SIGKILL
    assert not (folder / "metrics.json").exists()
    last = folder / "checkpoints" / "last.ckpt"
    assert (len(rows(folder)) if last.exists() else 0) == epochs_done
    assert main(["--run-dir", str(folder), "--resume"]) == 0
    require_equal(folder, finished_run)


def test_killed_while_writing_a_checkpoint_reads_the_one_before(
    in_child: Callable[..., Any], finished_run: Path, tmp_path: Path
) -> None:
    folder = tmp_path / "run"
    ended = in_child(["--config", str(recipe_file(tmp_path)), "--run-dir", str(folder)], die_while_saving=True)
    assert ended.code == -signal.SIGKILL, ended.text
    leftovers = list(folder.rglob(".*.tmp"))
    assert len(leftovers) == 1
    with pytest.raises((RuntimeError, EOFError, OSError)):
        torch.load(leftovers[0])
    for name in ("last", "best"):
        load_checkpoint(folder / "checkpoints" / f"{name}.ckpt")
    assert main(["--run-dir", str(folder), "--resume"]) == 0
    assert list(folder.rglob(".*.tmp")) == []
    require_equal(folder, finished_run)


def test_ctrl_c_ends_with_130_and_says_how_to_continue(
    in_child: Callable[..., Any], finished_run: Path, tmp_path: Path
) -> None:
    folder = tmp_path / "run"
    ended = in_child(["--config", str(recipe_file(tmp_path)), "--run-dir", str(folder)], "SIGINT 2 1")
    assert ended.code == 130, ended.text
    assert "Traceback" not in ended.text
    assert f"interrupted; continue with: spikeloop train --run-dir {folder} --resume" in ended.text
    assert load_checkpoint(folder / "checkpoints" / "last.ckpt")["epoch"] == 1
    assert len(rows(folder)) == 2
    assert main(["--run-dir", str(folder), "--resume"]) == 0
    require_equal(folder, finished_run)


def test_resuming_a_finished_run_changes_nothing(finished_run: Path, tmp_path: Path) -> None:
    import shutil

    folder = tmp_path / "run"
    shutil.copytree(finished_run, folder)
    assert main(["--run-dir", str(folder), "--resume"]) == 0
    require_equal(folder, finished_run)


def test_resume_of_a_folder_without_run_starts_one(finished_run: Path, tmp_path: Path) -> None:
    folder = tmp_path / "run"
    folder.mkdir()
    (folder / ".config.yaml.123.tmp").write_text("epo")  # killed before the first file was whole
    assert main(["--config", str(recipe_file(tmp_path)), "--run-dir", str(folder), "--resume"]) == 0
    require_equal(folder, finished_run)


@pytest.mark.parametrize("change", ["--epochs=5", "--seed=1", "--optimizer.lr=0.02", "--trainer.benchmark=true"])
def test_resume_with_another_recipe_is_refused(
    change: str, finished_run: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["--run-dir", str(finished_run), "--resume", change]) == 2
    key = change[2:].split("=")[0]
    error = capsys.readouterr().err
    assert f"--resume: {key} was" in error
    assert "--overwrite" in error


def test_failed_save_leaves_the_old_checkpoint_and_no_leftover(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "last.ckpt"
    files = AtomicCheckpoints()
    files.save_checkpoint({"epoch": 1}, path)

    def half_save(content: Any, target: Path) -> None:
        target.write_bytes(b"half")
        raise OSError("no space left on device")

    monkeypatch.setattr(torch, "save", half_save)
    with pytest.raises(OSError, match="no space"):
        files.save_checkpoint({"epoch": 2}, path)
    assert load_checkpoint(path) == {"epoch": 1}
    assert [entry.name for entry in tmp_path.iterdir()] == ["last.ckpt"]


def test_checkpoints_with_code_in_them_are_refused(tmp_path: Path) -> None:
    torch.save({"state_dict": Path("a")}, tmp_path / "bad.ckpt")
    with pytest.raises(Exception, match=r"[Ww]eights"):
        load_checkpoint(tmp_path / "bad.ckpt")
