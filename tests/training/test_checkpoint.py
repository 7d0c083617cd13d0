"""Checkpoints are whole or absent."""

from __future__ import annotations

import signal
import subprocess
import sys
from pathlib import Path

import pytest
import torch

from snn.training.atomic_write import remove_leftovers, replacing, write_text
from snn.training.lightning_import import import_lightning

KILLED_WHILE_SAVING = """
import os, signal, sys
import torch
from snn.training.lightning_import import import_lightning
import_lightning()
from snn.training.checkpoint import AtomicCheckpoints

def half(content, target):
    with open(target, "wb") as file:
        file.write(b"half of it")
    os.kill(os.getpid(), signal.SIGKILL)

torch.save = half
AtomicCheckpoints().save_checkpoint({"new": 1}, sys.argv[1])
"""


def test_a_kill_while_saving_leaves_the_checkpoint_before(tmp_path: Path, command_environment: dict[str, str]) -> None:
    import_lightning()
    from snn.training.checkpoint import AtomicCheckpoints, load_checkpoint

    target = tmp_path / "checkpoints" / "last.ckpt"
    AtomicCheckpoints().save_checkpoint({"old": torch.ones(2)}, target)
    command = [sys.executable, "-c", KILLED_WHILE_SAVING, str(target)]
    assert subprocess.run(command, env=command_environment).returncode == -signal.SIGKILL
    assert list(load_checkpoint(target)) == ["old"]
    assert len(list(target.parent.iterdir())) == 2
    remove_leftovers(tmp_path)
    assert list(target.parent.iterdir()) == [target]


def test_a_failure_while_writing_leaves_no_file(tmp_path: Path) -> None:
    write_text(tmp_path / "a", "before")

    def interrupted() -> None:
        with replacing(tmp_path / "a") as temporary:
            temporary.write_text("half")
            raise RuntimeError("full")

    with pytest.raises(RuntimeError, match="full"):
        interrupted()
    assert (tmp_path / "a").read_text() == "before"
    assert [path.name for path in tmp_path.iterdir()] == ["a"]


def test_checkpoints_are_read_without_running_code(tmp_path: Path) -> None:
    import_lightning()
    from snn.training.checkpoint import load_checkpoint

    class Payload:
        def __reduce__(self) -> tuple[object, tuple[str]]:
            return print, ("code from a file",)

    torch.save({"x": Payload()}, tmp_path / "evil.ckpt")
    with pytest.raises(Exception, match=r"[Ww]eights.only"):
        load_checkpoint(tmp_path / "evil.ckpt")
