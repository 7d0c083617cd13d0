"""CIFAR-10: archives, folders and pickles written here, and the real JPEG file where it is."""

import dataclasses
import hashlib
import io
import os
import pickle
import struct
import tarfile
from pathlib import Path

import numpy as np
import pytest
import torch

import spikedata
from spikedata import DataError, cifar10
from spikedata.formats.archive import read_members
from spikedata.formats.cifar import parse_binary_batch, parse_pickle_batch

ORIGIN = Path("batch")


def batch(count: int, seed: int = 0) -> tuple[np.ndarray, np.ndarray]:
    """Random pixels [count, 3, 32, 32], in blocks so that they compress, and each label equally often."""
    generator = np.random.default_rng(seed)
    pixels = np.repeat(generator.integers(0, 256, (count, 3), dtype=np.uint8), 1024, axis=1)
    pixels[:, ::97] = generator.integers(0, 256, (count, 32), dtype=np.uint8)
    return pixels.reshape(count, 3, 32, 32), np.arange(count) % 10


def binary(pixels: np.ndarray, labels: np.ndarray) -> bytes:
    return np.concatenate([labels.astype(np.uint8)[:, None], pixels.reshape(len(pixels), -1)], axis=1).tobytes()


def pickled(pixels: np.ndarray, labels: np.ndarray) -> bytes:
    content = {b"data": pixels.reshape(len(pixels), -1), b"labels": labels.tolist(), b"batch_label": b"testing batch"}
    return pickle.dumps(content, protocol=2)


def python2_pickled(pixels: np.ndarray, labels: np.ndarray) -> bytes:
    """A batch as Python 2 and NumPy 1 wrote it: byte strings as keys and content, the old name of NumPy's core."""
    data = pixels.tobytes()
    rows = struct.pack("<i", len(pixels))
    label_items = b"".join(b"K" + bytes([label]) for label in labels)
    return (
        b"\x80\x02}(U\x04data"
        b"cnumpy.core.multiarray\n_reconstruct\ncnumpy\nndarray\nK\x00\x85U\x01b\x87R"
        b"(K\x01J" + rows + b"M\x00\x0c\x86"
        b"cnumpy\ndtype\nU\x02u1K\x00K\x01\x87R(K\x03U\x01|NNNJ\xff\xff\xff\xffJ\xff\xff\xff\xffK\x00tb"
        b"\x89T" + struct.pack("<i", len(data)) + data + b"tb"
        b"U\x06labels](" + label_items + b"eu."
    )


def write_archive(path: Path, members: dict[str, bytes]) -> str:
    """Write a .tar.gz and return its checksum."""
    with tarfile.open(path, "w:gz", compresslevel=1) as archive:
        for name, content in members.items():
            info = tarfile.TarInfo(name)
            info.size = len(content)
            archive.addfile(info, io.BytesIO(content))
    return f"md5:{hashlib.md5(path.read_bytes()).hexdigest()}"


def test_binary_batch_round_trip() -> None:
    pixels, labels = batch(5)
    read_pixels, read_labels = parse_binary_batch(binary(pixels, labels), ORIGIN)
    assert np.array_equal(read_pixels, pixels)
    assert np.array_equal(read_labels, labels)


@pytest.mark.parametrize("length", [0, 3072, 5 * 3073 - 1])
def test_truncated_binary_batch_is_refused(length: int) -> None:
    with pytest.raises(DataError, match=f"batch: {length} bytes are not a whole number of records of 3073"):
        parse_binary_batch(binary(*batch(5))[:length], ORIGIN)


@pytest.mark.parametrize("write", [pickled, python2_pickled])
def test_pickled_batch_round_trip(write) -> None:
    pixels, labels = batch(5)
    read_pixels, read_labels = parse_pickle_batch(write(pixels, labels), ORIGIN)
    assert np.array_equal(read_pixels, pixels)
    assert (read_labels.tolist(), read_labels.dtype) == (labels.tolist(), np.int64)


class Harmful:
    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self) -> tuple[object, tuple[str]]:
        return os.mkdir, (str(self.path),)


def test_pickle_that_runs_code_is_refused_and_does_nothing(tmp_path: Path) -> None:
    data = pickle.dumps({b"data": Harmful(tmp_path / "made"), b"labels": []})
    with pytest.raises(DataError, match=r"not a CIFAR-10 batch .*asks for posix\.mkdir|nt\.mkdir"):
        parse_pickle_batch(data, ORIGIN)
    assert not (tmp_path / "made").exists()


@pytest.mark.parametrize(
    "content",
    [
        {b"data": np.zeros((2, 3072), np.uint8)},
        {b"data": np.zeros((2, 3071), np.uint8), b"labels": [1, 2]},
        {b"data": np.zeros((2, 3072), np.float32), b"labels": [1, 2]},
        {b"data": np.zeros((2, 3072), np.uint8), b"labels": [1]},
        {b"data": np.zeros((2, 3072), np.uint8), b"labels": [0.5, 1.0]},
        [1, 2],
    ],
)
def test_pickle_of_something_else_is_refused(content: object) -> None:
    with pytest.raises(DataError, match="batch: "):
        parse_pickle_batch(pickle.dumps(content), ORIGIN)


@pytest.mark.parametrize("kept", [0, 1, 100, -1])
def test_truncated_pickle_is_refused(kept: int) -> None:
    with pytest.raises(DataError, match="batch: not a CIFAR-10 batch"):
        parse_pickle_batch(pickled(*batch(5))[:kept], ORIGIN)


def test_members_come_in_the_order_asked_for(tmp_path: Path) -> None:
    path = tmp_path / "a.tar.gz"
    write_archive(path, {"x/1": b"one", "x/2": b"two", "x/3": b"three"})
    assert read_members(path, ["x/3", "x/1"]) == [b"three", b"one"]
    with pytest.raises(DataError, match=r"a\.tar\.gz: the archive has no member x/4"):
        read_members(path, ["x/1", "x/4"])


@pytest.mark.parametrize("kept", [0, 20, 3000])
def test_truncated_archive_is_refused(kept: int, tmp_path: Path) -> None:
    path = tmp_path / "a.tar.gz"
    write_archive(path, {"x/1": np.random.default_rng(0).bytes(10_000)})
    path.write_bytes(path.read_bytes()[:kept])
    with pytest.raises(DataError, match=r"a\.tar\.gz: the archive is truncated or damaged"):
        read_members(path, ["x/1"])


@pytest.fixture(scope="module")
def full_batch() -> tuple[np.ndarray, np.ndarray]:
    return batch(10_000)


def assert_is(data: spikedata.ImageDataset, full_batch: tuple[np.ndarray, np.ndarray], source: str) -> None:
    assert data.source == source
    assert torch.equal(data.pixels, torch.from_numpy(full_batch[0]))
    assert torch.equal(data.labels, torch.from_numpy(full_batch[1]))


def test_binary_archive_is_preferred_and_verified(
    full_batch, empty_root: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = empty_root / "cifar-10-binary.tar.gz"
    (empty_root / "cifar10_jpeg.h5").write_bytes(b"not looked at")
    checksum = write_archive(path, {"cifar-10-batches-bin/test_batch.bin": binary(*full_batch)})
    with pytest.raises(DataError, match=r"cifar-10-binary\.tar\.gz: md5 .*, expected c32a1d4ab5d03f1284b67883e8d87530"):
        spikedata.load("cifar10", "test", empty_root)
    monkeypatch.setattr(cifar10, "BINARY_ARCHIVE", dataclasses.replace(cifar10.BINARY_ARCHIVE, checksum=checksum))
    assert_is(spikedata.load("cifar10", "test", empty_root), full_batch, "binary archive")


def test_missing_archive_is_downloaded(full_batch, empty_root: Path, server, monkeypatch: pytest.MonkeyPatch) -> None:
    path = empty_root / "elsewhere"
    checksum = write_archive(path, {"cifar-10-batches-bin/test_batch.bin": binary(*full_batch)})
    server.files["archive"] = path.read_bytes()
    remote = dataclasses.replace(cifar10.BINARY_ARCHIVE, checksum=checksum, urls=(server.url("archive"),))
    monkeypatch.setattr(cifar10, "BINARY_ARCHIVE", remote)
    assert_is(spikedata.load("cifar10", "test", empty_root), full_batch, "binary archive")
    assert (empty_root / "cifar10" / "cifar-10-binary.tar.gz").is_file()


def test_python_archive_is_verified(full_batch, empty_root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (empty_root / "cifar10").mkdir()
    path = empty_root / "cifar10" / "cifar-10-python.tar.gz"
    checksum = write_archive(path, {"cifar-10-batches-py/test_batch": pickled(*full_batch)})
    with pytest.raises(DataError, match=r"cifar-10-python\.tar\.gz: md5 .*, expected c58f30108f718f92721af3b95e74349a"):
        spikedata.load("cifar10", "test", empty_root)
    monkeypatch.setattr(cifar10, "PYTHON_ARCHIVE", dataclasses.replace(cifar10.PYTHON_ARCHIVE, checksum=checksum))
    assert_is(spikedata.load("cifar10", "test", empty_root), full_batch, "python archive")


def test_binary_folder(full_batch, empty_root: Path) -> None:
    folder = empty_root / "cifar10" / "cifar-10-batches-bin"
    folder.mkdir(parents=True)
    with pytest.raises(DataError, match=r"cifar-10-batches-bin.test_batch\.bin does not exist; unpack"):
        spikedata.load("cifar10", "test", empty_root)
    (folder / "test_batch.bin").write_bytes(binary(*full_batch))
    assert_is(spikedata.load("cifar10", "test", empty_root), full_batch, "binary folder")


def test_python_folder_is_verified(full_batch, empty_root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = empty_root / "cifar-10-batches-py"
    folder.mkdir()
    data = python2_pickled(*full_batch)
    (folder / "test_batch").write_bytes(data)
    with pytest.raises(DataError, match=r"test_batch: md5 .*, expected 40351d587109b95175f43aff81a1287e"):
        spikedata.load("cifar10", "test", empty_root)
    monkeypatch.setitem(cifar10.PICKLE_CHECKSUMS, "test_batch", f"md5:{hashlib.md5(data).hexdigest()}")
    assert_is(spikedata.load("cifar10", "test", empty_root), full_batch, "python folder")


def test_train_batches_are_joined_in_order(empty_root: Path) -> None:
    batches = [batch(2, seed=number) for number in range(5)]
    for number, part in enumerate(batches, start=1):
        (empty_root / f"data_batch_{number}.bin").write_bytes(binary(*part))
    pixels, _ = cifar10.read_binary_folder(empty_root, "train")
    assert np.array_equal(pixels, np.concatenate([part[0] for part in batches]))


@pytest.mark.parametrize("change", ["fewer", "label 10", "other share"])
def test_counts_per_class_must_be_those_of_the_original(change: str, full_batch, empty_root: Path) -> None:
    pixels, labels = full_batch[0], full_batch[1].copy()
    if change == "fewer":
        pixels, labels = pixels[:9990], labels[:9990]
    else:
        labels[0] = 10 if change == "label 10" else 1
    folder = empty_root / "cifar-10-batches-bin"
    folder.mkdir()
    (folder / "test_batch.bin").write_bytes(binary(pixels, labels))
    with pytest.raises(DataError, match=rf"cifar-10-batches-bin holds {len(labels)} test images, .*, expected 10000"):
        spikedata.load("cifar10", "test", empty_root)


def test_real_jpeg_test_set(cifar10_test: spikedata.ImageDataset) -> None:
    assert cifar10_test.source in {source for _, source, _ in cifar10.SOURCES}
    assert cifar10_test.pixels.shape == (10_000, 3, 32, 32)
    assert torch.bincount(cifar10_test.labels).tolist() == [1000] * 10
    assert cifar10_test.classes[6] == "frog"
    mean = cifar10_test.pixels.double().mean(dim=(0, 2, 3)) / 255
    # Of the original test pixels; the JPEG step hardly moves a mean.
    assert torch.allclose(mean, torch.tensor([0.4942, 0.4851, 0.4504], dtype=torch.float64), atol=2e-3)
