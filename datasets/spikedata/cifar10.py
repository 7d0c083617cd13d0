"""CIFAR-10: 50,000 + 10,000 colour images of 32x32 pixels (A. Krizhevsky, 2009).

Accepted, the first that is found in root/cifar10 or root:

    cifar-10-binary.tar.gz     original archive, binary records        source "binary archive"
    cifar-10-python.tar.gz     original archive, pickled batches       source "python archive"
    cifar-10-batches-bin/      the binary archive, unpacked            source "binary folder"
    cifar-10-batches-py/       the pickle archive, unpacked            source "python folder"
    cifar10_jpeg.h5            JPEG images in HDF5                     source "jpeg"

Else the binary archive is downloaded, because it needs no pickle. Pickles are read by an unpickler that accepts arrays
only. JPEG is lossy, so accuracies on "jpeg" differ a little from those on the other sources, whose pixels are equal.
"""

import os
from collections.abc import Callable
from pathlib import Path

import numpy as np
import torch

from spikedata.checksum import verify_file
from spikedata.dataset import DatasetSpec
from spikedata.download import RemoteFile, fetch
from spikedata.errors import DataError
from spikedata.formats.archive import read_members
from spikedata.formats.cifar import Batch, parse_binary_batch, parse_pickle_batch
from spikedata.formats.jpeg_store import read_jpeg_store
from spikedata.root import data_root

SHAPE = (3, 32, 32)
CLASSES = ("airplane", "automobile", "bird", "cat", "deer", "dog", "frog", "horse", "ship", "truck")
COUNTS = {"train": 50_000, "test": 10_000}
BATCHES = {"train": tuple(f"data_batch_{number}" for number in range(1, 6)), "test": ("test_batch",)}
PICKLE_CHECKSUMS = {
    "data_batch_1": "md5:c99cafc152244af753f735de768cd75f",
    "data_batch_2": "md5:d4bba439e000b95fd0a9bffe97cbabec",
    "data_batch_3": "md5:54ebc095f3ab1f0389bbae665268c751",
    "data_batch_4": "md5:634d18415352ddfa80567beed471001a",
    "data_batch_5": "md5:482c414d41f54cd18b22e5b47cb7c3cb",
    "test_batch": "md5:40351d587109b95175f43aff81a1287e",
}

ORIGIN = "https://www.cs.toronto.edu/~kriz/"
BINARY_ARCHIVE = RemoteFile(
    "cifar-10-binary.tar.gz", (f"{ORIGIN}cifar-10-binary.tar.gz",), "md5:c32a1d4ab5d03f1284b67883e8d87530"
)
PYTHON_ARCHIVE = RemoteFile(
    "cifar-10-python.tar.gz", (f"{ORIGIN}cifar-10-python.tar.gz",), "md5:c58f30108f718f92721af3b95e74349a"
)
BINARY_FOLDER = "cifar-10-batches-bin"
PYTHON_FOLDER = "cifar-10-batches-py"
JPEG_STORE = "cifar10_jpeg.h5"


def read_binary_archive(path: Path, split: str) -> Batch:
    """Return pixels and labels from the binary archive.

    Raises: DataError if it is not the original archive, byte for byte.
    """
    verify_file(path, BINARY_ARCHIVE.checksum)
    contents = read_members(path, [f"{BINARY_FOLDER}/{name}.bin" for name in BATCHES[split]])
    return _joined([parse_binary_batch(content, path) for content in contents])


def read_python_archive(path: Path, split: str) -> Batch:
    """Return pixels and labels from the pickle archive.

    Raises: DataError if it is not the original archive, byte for byte.
    """
    verify_file(path, PYTHON_ARCHIVE.checksum)
    contents = read_members(path, [f"{PYTHON_FOLDER}/{name}" for name in BATCHES[split]])
    return _joined([parse_pickle_batch(content, path) for content in contents])


def read_binary_folder(path: Path, split: str) -> Batch:
    """Return pixels and labels from the unpacked binary archive.

    Raises: DataError if a file is missing or truncated.
    """
    files = [_present(path / f"{name}.bin") for name in BATCHES[split]]
    return _joined([parse_binary_batch(file.read_bytes(), file) for file in files])


def read_python_folder(path: Path, split: str) -> Batch:
    """Return pixels and labels from the unpacked pickle archive.

    Raises: DataError if a file is missing or not the original, byte for byte.
    """
    files = [_present(path / name) for name in BATCHES[split]]
    for file in files:
        verify_file(file, PICKLE_CHECKSUMS[file.name])
    return _joined([parse_pickle_batch(file.read_bytes(), file) for file in files])


def read_jpeg(path: Path, split: str) -> Batch:
    """Return pixels and labels from the HDF5 file of JPEG images.

    Raises: DataError if it is damaged or has another layout.
    """
    return read_jpeg_store(path, split, SHAPE, CLASSES)


# In order of preference: name in the folder, source, reader.
SOURCES: tuple[tuple[str, str, Callable[[Path, str], Batch]], ...] = (
    (BINARY_ARCHIVE.name, "binary archive", read_binary_archive),
    (PYTHON_ARCHIVE.name, "python archive", read_python_archive),
    (BINARY_FOLDER, "binary folder", read_binary_folder),
    (PYTHON_FOLDER, "python folder", read_python_folder),
    (JPEG_STORE, "jpeg", read_jpeg),
)


def read(split: str, root: str | os.PathLike[str] | None, download: bool) -> tuple[torch.Tensor, torch.Tensor, str]:
    """Return pixels [N, 3, 32, 32], labels [N] and the source, one of those at the top of this file.

    Raises: DataError if nothing is found and the download is not wanted or fails, or if what is found is damaged.
    """
    base = data_root(root)
    for name, source, reader in SOURCES:
        for path in (base / "cifar10" / name, base / name):
            if path.exists():
                return *_complete(reader(path, split), split, path), source
    home = base / "cifar10"
    if not download:
        raise DataError(
            f"CIFAR-10: {home / BINARY_ARCHIVE.name} does not exist, nor does any of "
            f"{', '.join(name for name, _, _ in SOURCES[1:])} beside it; put one of them there, or load with "
            "download=True"
        )
    path = fetch(BINARY_ARCHIVE, home)
    return *_complete(read_binary_archive(path, split), split, path), "binary archive"


def _present(path: Path) -> Path:
    if not path.is_file():
        raise DataError(f"CIFAR-10: {path} does not exist; unpack the original archive again")
    return path


def _joined(batches: list[Batch]) -> Batch:
    return np.concatenate([pixels for pixels, _ in batches]), np.concatenate([labels for _, labels in batches])


def _complete(batch: Batch, split: str, path: Path) -> tuple[torch.Tensor, torch.Tensor]:
    """Return the tensors of a split that has as many images of each class as the original."""
    pixels, labels = batch
    expected = [COUNTS[split] // len(CLASSES)] * len(CLASSES)
    received = np.bincount(labels).tolist() if (labels >= 0).all() else labels.min()
    if received != expected:
        raise DataError(
            f"CIFAR-10: {path} holds {len(labels)} {split} images, {received} per class, expected {COUNTS[split]}, "
            f"{expected[0]} of each of the {len(CLASSES)} classes; put the original file there"
        )
    return torch.from_numpy(pixels), torch.from_numpy(labels)


CIFAR10 = DatasetSpec(
    name="cifar10",
    title="CIFAR-10 colour images, 32x32",
    shape=SHAPE,
    peak=255,
    classes=CLASSES,
    counts=COUNTS,
    read=read,
)
