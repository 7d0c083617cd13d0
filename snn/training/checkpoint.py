"""Checkpoints on disk: whole or absent, and read without running code from them."""

import os
from pathlib import Path
from typing import Any

import torch
from lightning.fabric.plugins import CheckpointIO

from snn.training.atomic_write import replacing


class AtomicCheckpoints(CheckpointIO):
    """Lightning's way to files; a process killed while writing leaves the previous checkpoint in place."""

    def save_checkpoint(
        self, checkpoint: dict[str, Any], path: str | os.PathLike[str], storage_options: Any | None = None
    ) -> None:
        target = Path(path)
        target.parent.mkdir(parents=True, exist_ok=True)
        with replacing(target) as temporary:
            torch.save(checkpoint, temporary)

    def load_checkpoint(
        self, path: str | os.PathLike[str], map_location: Any | None = None, weights_only: bool | None = None
    ) -> dict[str, Any]:
        return load_checkpoint(Path(path), map_location or "cpu")

    def remove_checkpoint(self, path: str | os.PathLike[str]) -> None:
        Path(path).unlink(missing_ok=True)


def load_checkpoint(path: Path, map_location: Any = "cpu") -> dict[str, Any]:
    """Return the content of a checkpoint: `state_dict`, optimiser and loop states, and the record `spikeloop`."""
    content: dict[str, Any] = torch.load(path, map_location=map_location, weights_only=True)
    return content
