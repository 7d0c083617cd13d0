"""The folder of one run: which files it holds and when it may be used."""

import csv
import io
import json
import os
import shutil
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import yaml

from snn.training.atomic_write import is_leftover, remove_leftovers, write_text
from snn.training.environment import environment
from snn.training.recipe import RecipeError

_FILES = (
    "config.yaml",
    "environment.json",
    "metrics.csv",
    "alignment.csv",
    "metrics.json",
    "accuracy.png",
    "raster.png",
    "stage.json",
    "stages.csv",
    "layers.csv",
    "stages.png",
    # of a converted network
    "report.json",
    "report.md",
    "errors.png",
    "rates.png",
)
_FOLDERS = ("checkpoints", "tensorboard", "stages")
# Where a run is computed, which a continued run may change.
_PLACE = ("accelerator", "devices", "num_nodes", "strategy")


class RunFolder:
    """Paths of a run folder and the small files in it.

    Args:
        path: the folder; made by `open`.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self.config = path / "config.yaml"
        self.last = path / "checkpoints" / "last.ckpt"
        self.best = path / "checkpoints" / "best.ckpt"
        self.tensorboard = path / "tensorboard"
        self.accuracy_picture = path / "accuracy.png"
        self.raster_picture = path / "raster.png"
        self.metrics = path / "metrics.json"

    def open(self, recipe: Mapping[str, Any], resume: bool, overwrite: bool) -> None:
        """Make the folder ready for a run, or for the rest of one.

        Raises: RecipeError if the folder holds a run and neither flag is given, holds other files, or holds a run of
            another recipe that is to be continued.
        """
        if self.path.exists() and not self.path.is_dir():
            raise RecipeError(f"--run-dir: {self.path} is a file")
        if self.config.is_file():
            if not resume and not overwrite:
                raise RecipeError(
                    f"--run-dir: {self.path} already holds a run; "
                    "continue it with --resume, replace it with --overwrite, or choose another folder"
                )
            if overwrite:
                self._clear()
            else:
                self._require_same(recipe)
                remove_leftovers(self.path)
        elif self.path.is_dir() and any(not is_leftover(path) for path in self.path.iterdir()):
            raise RecipeError(f"--run-dir: {self.path} holds files that are not a run; choose another folder")
        self.path.mkdir(parents=True, exist_ok=True)
        write_text(self.config, yaml.safe_dump(dict(recipe), sort_keys=False))
        write_text(self.path / "environment.json", json.dumps(environment(), indent=2) + "\n")

    def _clear(self) -> None:
        remove_leftovers(self.path)
        for name in _FOLDERS:
            shutil.rmtree(self.path / name, ignore_errors=True)
        for name in _FILES:
            (self.path / name).unlink(missing_ok=True)

    def _require_same(self, recipe: Mapping[str, Any]) -> None:
        saved = yaml.safe_load(self.config.read_text(encoding="utf-8"))
        for key, before, now in _differences(saved, recipe):
            if key.split(".")[0] not in _PLACE and key not in ("data.root", "data.workers"):
                raise RecipeError(
                    f"--resume: {key} was {before!r} in {self.config} and is now {now!r}; "
                    "give the same recipe, or start anew with --overwrite"
                )

    def write_history(self, rows: Sequence[Mapping[str, Any]]) -> None:
        """Write metrics.csv, one row per finished epoch."""
        if not rows:
            (self.path / "metrics.csv").unlink(missing_ok=True)
            return
        columns = [key for key, value in rows[0].items() if not isinstance(value, Mapping)]
        text = io.StringIO()
        writer = csv.DictWriter(text, columns, extrasaction="ignore", lineterminator="\n")
        writer.writeheader()
        writer.writerows(rows)
        write_text(self.path / "metrics.csv", text.getvalue())
        self._write_alignment(rows)

    def _write_alignment(self, rows: Sequence[Mapping[str, Any]]) -> None:
        lines = [
            f"{row['epoch']},{layer},{cosine:.6f},{norm_ratio:.6g}\n"
            for row in rows
            for layer, (cosine, norm_ratio) in row["alignment"].items()
        ]
        if lines:
            write_text(self.path / "alignment.csv", "".join(["epoch,layer,cosine,norm_ratio\n", *lines]))

    def write_metrics(self, metrics: Mapping[str, Any]) -> None:
        """Write metrics.json."""
        write_text(self.metrics, json.dumps(metrics, indent=2) + "\n")


def _differences(saved: Any, now: Any, place: str = "") -> list[tuple[str, Any, Any]]:
    if isinstance(saved, Mapping) and isinstance(now, Mapping):
        keys = [*saved, *(key for key in now if key not in saved)]
        return [
            entry
            for key in keys
            for entry in _differences(saved.get(key), now.get(key), f"{place}.{key}" if place else key)
        ]
    return [] if saved == now else [(place, saved, now)]


def is_first_process() -> bool:
    """Tell whether this process, of those that a launcher started, is the one that writes files."""
    names = ("RANK", "LOCAL_RANK", "NODE_RANK", "GROUP_RANK", "SLURM_PROCID")
    return all(int(os.environ.get(name, "0")) == 0 for name in names)
