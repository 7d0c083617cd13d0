"""Speech Commands 0.02: 105,829 recordings of 35 words (P. Warden, arXiv 1804.03209, 2018), as 140 mel bands.

Accepted, the first that is found in root/speech_commands or root:

    speech_commands_v0.02_mel140.h5   bands, made from one of the others by `prepare`
    speech_commands_v0.02.tar.gz      original archive
    speech_commands_v0.02/            the archive, unpacked

`python -m spikedata.speech_commands` downloads the archive (2.4 GB) where nothing is there, and makes the bands (3 GB).

A recording is cut or filled with silence to one second, brought from 16 to 8 kHz, and becomes the power in 140 mel bands
every 10 ms (256 samples under a Hann window, 80 samples apart), in dB. As in the delay networks of Hammouamri et al.
(ICLR 2024), but for two things. Their bands reach to 14 kHz, of which 53 lie above the 4 kHz that the sampling leaves
and are constant; here the 140 bands end at 4 kHz. And values are (dB + 100) / 100, so that silence is 0, as are the silent
steps that training appends; there silence is -100.
"""

from __future__ import annotations

import argparse
import io
import itertools
import os
import sys
import tarfile
import wave
import zlib
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch

from spikedata.checksum import verify_file
from spikedata.download import RemoteFile, fetch
from spikedata.errors import DataError
from spikedata.extras import require
from spikedata.mel import FLOOR_DB, band_decibels, mel_filters
from spikedata.root import data_root
from spikedata.spoken import SpokenWords

CLASSES = (
    "backward", "bed", "bird", "cat", "dog", "down", "eight", "five", "follow", "forward", "four", "go", "happy", "house",
    "learn", "left", "marvin", "nine", "no", "off", "on", "one", "right", "seven", "sheila", "six", "stop", "three", "tree",
    "two", "up", "visual", "wow", "yes", "zero",
)  # fmt: skip
COUNTS = {"train": 84_843, "valid": 9_981, "test": 11_005}
LISTS = {"validation_list.txt": "valid", "testing_list.txt": "test"}
NAME = "speech_commands"
ARCHIVE = RemoteFile(
    "speech_commands_v0.02.tar.gz",
    (
        "https://storage.googleapis.com/download.tensorflow.org/data/speech_commands_v0.02.tar.gz",
        "http://download.tensorflow.org/data/speech_commands_v0.02.tar.gz",
    ),
    "sha256:af14739ee7dc311471de98f5f9d2c9191b18aedfe957f4a6ff791c709868ff58",
)
FOLDER = "speech_commands_v0.02"
BANDS_FILE = "speech_commands_v0.02_mel140.h5"

RECORDED_HZ, RATE_HZ = 16_000, 8_000
WINDOW, HOP, BANDS, LOWEST_HZ, HIGHEST_HZ = 256, 80, 140, 50.0, 14_000.0
STEPS = 1 + RATE_HZ // HOP
AT_ONCE = 256  # recordings; a chunk of the file too


def load(split: str, root: str | None = None) -> SpokenWords:
    """One split of the recordings as bands, [101, 140] per word, kept in 16-bit floats.

    Args:
        split: "train", "valid" or "test", of the published lists.
        root: see `spikedata.root.data_root`.
    Raises: DataError for another split, if `prepare` has not been run, or if its file is damaged.
    """
    if split not in COUNTS:
        raise DataError(f"{NAME}: split must be one of {', '.join(map(repr, COUNTS))}, got {split!r}")
    base = data_root(root)
    path = _found(base, BANDS_FILE)
    if path is None:
        place = "" if root is None else f" --root {root}"
        raise DataError(
            f"{NAME}: no file {base / NAME / BANDS_FILE}; make it with: python -m spikedata.speech_commands{place} "
            f"(downloads {ARCHIVE.name}, 2.4 GB, unless it is there), or use "
            "spikedata.spoken:speech_commands_stand_in, which is synthetic"
        )
    frames, labels = _read_bands(path, split)
    return SpokenWords(torch.from_numpy(frames), torch.from_numpy(labels), CLASSES, str(path))


def prepare(root: str | os.PathLike[str] | None = None, *, download: bool = True) -> Path:
    """Make the file of bands, if it is not there, from the archive or the unpacked folder; returns its path.

    The file gets its name once it is whole. A second process that wants it waits for the first.

    Args:
        root: see `spikedata.root.data_root`.
        download: False raises instead of downloading a missing archive.
    Raises: DataError naming what is missing or damaged.
    """
    from filelock import FileLock

    base = data_root(root)
    home = base / NAME
    if (known := _found(base, BANDS_FILE)) is not None:
        return known
    archive, folder = _found(base, ARCHIVE.name), _found(base, FOLDER)
    if archive is None and folder is None and not download:
        raise DataError(
            f"{NAME}: neither {home / ARCHIVE.name} nor {home / FOLDER} exists; put one of them there, or allow the download"
        )
    home.mkdir(parents=True, exist_ok=True)
    target = home / BANDS_FILE
    with FileLock(home / f"{BANDS_FILE}.lock"):
        if target.is_file():
            return target
        if archive is None and folder is not None:
            _write_bands(_files_of_folder(folder), target, folder)
        else:
            archive = archive or fetch(ARCHIVE, home)
            verify_file(archive, ARCHIVE.checksum)
            _write_bands(_files_of_archive(archive), target, archive)
    return target


def bands(recordings: np.ndarray[Any, Any]) -> np.ndarray[Any, Any]:
    """(dB + 100) / 100 in mel bands, float32 [N, 101, 140], of recordings [N, 16000] in [-1, 1] at 16 kHz."""
    from scipy.signal import resample_poly

    slower = resample_poly(recordings.astype(np.float32), 1, RECORDED_HZ // RATE_HZ, axis=1)
    filters = mel_filters(BANDS, WINDOW, RATE_HZ, LOWEST_HZ, HIGHEST_HZ)
    return (band_decibels(slower, filters, WINDOW, HOP) - FLOOR_DB) / -FLOOR_DB


def samples(content: bytes, origin: str) -> np.ndarray[Any, Any]:
    """The first second of a WAV file, float32 [16000] in [-1, 1); shorter ones end in silence.

    Raises: DataError unless it is a whole recording of 16 bits, 16 kHz and one channel.
    """
    try:
        with wave.open(io.BytesIO(content)) as file:
            kind = (file.getnchannels(), file.getsampwidth(), file.getframerate())
            data = file.readframes(RECORDED_HZ)
            expected = min(file.getnframes(), RECORDED_HZ) * 2
    except (wave.Error, EOFError) as error:
        raise DataError(f"{origin}: not a whole WAV file ({error}); put the original files there") from error
    if kind != (1, 2, RECORDED_HZ):
        raise DataError(f"{origin}: must have 1 channel, 2 bytes per sample and {RECORDED_HZ} Hz, got {kind}")
    if len(data) != expected:
        raise DataError(f"{origin}: ends after {len(data)} of {expected} bytes; put the original files there")
    values = np.zeros(RECORDED_HZ, np.float32)
    values[: len(data) // 2] = np.frombuffer(data, "<i2").astype(np.float32) / 32768
    return values


def _found(base: Path, name: str) -> Path | None:
    return next((path for path in (base / NAME / name, base / name) if path.exists()), None)


def _wanted(name: str) -> bool:
    word, _, file = name.rpartition("/")
    return name in LISTS or (word in CLASSES and file.endswith(".wav"))


def _files_of_archive(path: Path) -> Iterator[tuple[str, bytes]]:
    try:
        with tarfile.open(path, "r|gz") as archive:
            for member in archive:
                name = member.name.removeprefix("./")
                file = archive.extractfile(member) if _wanted(name) else None
                if file is not None:
                    yield name, file.read()
    except (tarfile.TarError, EOFError, zlib.error, OSError) as error:
        raise DataError(f"{path}: the archive is truncated or damaged ({error}); delete it and load again") from error


def _files_of_folder(path: Path) -> Iterator[tuple[str, bytes]]:
    for file in sorted(path.glob("*.txt")) + sorted(path.glob("*/*.wav")):
        if _wanted(name := file.relative_to(path).as_posix()):
            yield name, file.read_bytes()


def _write_bands(files: Iterator[tuple[str, bytes]], target: Path, origin: Path) -> None:
    """Write bands, labels and splits of all recordings, in the order in which they come."""
    import h5py

    tqdm = require("tqdm", "preparing recordings").tqdm
    names: list[str] = []
    listed: dict[str, str] = {}
    temporary = target.with_name(f".{target.name}.tmp")  # only the holder of the lock writes it
    try:
        with h5py.File(temporary, "w") as file, tqdm(desc=target.name, unit="word", disable=None) as bar:
            shape = (STEPS, BANDS)
            frames = file.create_dataset(
                "frames", (0, *shape), np.float16, maxshape=(None, *shape), chunks=(64, *shape)
            )
            waiting: list[np.ndarray[Any, Any]] = []
            for name, content in itertools.chain(files, [("", b"")]):
                if name in LISTS:
                    listed |= dict.fromkeys(content.decode().split(), LISTS[name])
                elif name:
                    names.append(name)
                    waiting.append(samples(content, f"{origin}: {name}"))
                if len(waiting) == AT_ONCE or (waiting and not name):
                    frames.resize(len(names), axis=0)
                    frames[-len(waiting) :] = bands(np.stack(waiting))
                    bar.update(len(waiting))
                    waiting = []
            file["label"] = np.array([CLASSES.index(name.partition("/")[0]) for name in names], np.uint8)
            file["split"] = np.array([list(COUNTS).index(listed.get(name, "train")) for name in names], np.uint8)
            file.attrs["classes"] = CLASSES
            _check_counts(names, listed, origin)
        temporary.replace(target)
    finally:
        temporary.unlink(missing_ok=True)


def _check_counts(names: Sequence[str], listed: dict[str, str], origin: Path) -> None:
    present = set(names)
    missing = [name for name in listed if name not in present]
    splits = [listed.get(name, "train") for name in names]
    found = {split: splits.count(split) for split in COUNTS}
    if missing or found != COUNTS:
        absent = f", {missing[0]!r} of a list is missing" if missing else ""
        raise DataError(f"{origin}: holds {found} recordings{absent}, expected {COUNTS}; put the original files there")


def _read_bands(path: Path, split: str) -> tuple[np.ndarray[Any, Any], np.ndarray[Any, Any]]:
    import h5py

    try:
        with h5py.File(path, "r") as file:
            label, kind, frames = file["label"][:], file["split"][:], file["frames"]
            found = tuple(str(name) for name in file.attrs["classes"])
            if found != CLASSES or frames.shape != (len(label), STEPS, BANDS) or kind.shape != label.shape:
                raise DataError(f"{path}: is of another layout; delete it and make it anew")
            rows = np.flatnonzero(kind == list(COUNTS).index(split))
            values = np.empty((len(rows), STEPS, BANDS), np.float16)
            for first in range(0, len(label), 4096):  # in whole chunks: picking rows from the file is far slower
                inside = slice(*np.searchsorted(rows, (first, first + 4096)))
                values[inside] = frames[first : first + 4096][rows[inside] - first]
    except (OSError, KeyError) as error:
        raise DataError(f"{path}: truncated or not a file of bands ({error}); delete it and make it anew") from error
    return values, label[rows].astype(np.int64)


def main(arguments: Sequence[str] | None = None) -> int:
    """The command; returns its exit code."""
    parser = argparse.ArgumentParser(
        prog="python -m spikedata.speech_commands", description="Download Speech Commands and make its mel bands."
    )
    parser.add_argument("--root", help="data folder; default: SPIKEDATA_ROOT, else the user's cache folder")
    parser.add_argument("--no-download", action="store_true", help="fail instead of downloading the archive")
    given = parser.parse_args(arguments)
    try:
        print(prepare(given.root, download=not given.no_download))
    except (DataError, ImportError) as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    except KeyboardInterrupt:
        print("\ninterrupted; the same command continues the download", file=sys.stderr)
        return 130
    return 0


if __name__ == "__main__":
    sys.exit(main())
