"""MNIST: small files in its form, and the real ones where they are."""

import dataclasses
import gzip
import hashlib
import re
from pathlib import Path

import numpy as np
import pytest
import torch
from idx_writer import idx_bytes

import spikedata
from spikedata import DataError, mnist

IMAGES = np.arange(3 * 28 * 28, dtype=np.uint8).reshape(3, 28, 28)
LABELS = np.array([2, 0, 9], dtype=np.uint8)
IMAGE_NAME, LABEL_NAME = "t10k-images-idx3-ubyte", "t10k-labels-idx1-ubyte"


def sha256(data: bytes) -> str:
    return f"sha256:{hashlib.sha256(data).hexdigest()}"


@pytest.fixture(autouse=True)
def small_files(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    """Make the checksums those of the small files, except for tests of the real ones."""
    if "mnist_train" in request.fixturenames or "mnist_test" in request.fixturenames:
        return
    files = tuple(
        dataclasses.replace(
            file,
            gzip_checksum=sha256(gzip.compress(idx_bytes(array), mtime=0)),
            content_checksum=sha256(idx_bytes(array)),
        )
        for file, array in zip(mnist.FILES["test"], (IMAGES, LABELS), strict=True)
    )
    monkeypatch.setitem(mnist.FILES, "test", files)


def write(folder: Path, images: bytes, labels: bytes, suffix: str = "") -> None:
    folder.mkdir(parents=True, exist_ok=True)
    (folder / (IMAGE_NAME + suffix)).write_bytes(images)
    (folder / (LABEL_NAME + suffix)).write_bytes(labels)


def assert_is_small_set(read: tuple[torch.Tensor, torch.Tensor, str]) -> None:
    pixels, labels, source = read
    assert torch.equal(pixels, torch.from_numpy(IMAGES).unsqueeze(1))
    assert (labels.tolist(), labels.dtype, source) == ([2, 0, 9], torch.int64, "idx")


@pytest.mark.parametrize("folder", ["mnist", ".", "MNIST/raw"])
def test_plain_and_gzip_files_are_found(folder: str, empty_root: Path) -> None:
    write(empty_root / folder, idx_bytes(IMAGES), gzip.compress(idx_bytes(LABELS)))
    assert_is_small_set(mnist.read("test", empty_root, download=False))


def test_names_with_a_dot_and_gz_are_found(empty_root: Path) -> None:
    (empty_root / "t10k-images.idx3-ubyte.gz").write_bytes(gzip.compress(idx_bytes(IMAGES)))
    (empty_root / "t10k-labels.idx1-ubyte").write_bytes(idx_bytes(LABELS))
    assert_is_small_set(mnist.read("test", empty_root, download=False))


def test_missing_files_are_downloaded_once(empty_root: Path, server, monkeypatch: pytest.MonkeyPatch) -> None:
    server.files = {
        f"{name}.gz": gzip.compress(idx_bytes(array), mtime=0)
        for name, array in ((IMAGE_NAME, IMAGES), (LABEL_NAME, LABELS))
    }
    monkeypatch.setattr(mnist, "MIRRORS", (f"{server.address}/",))
    assert_is_small_set(mnist.read("test", empty_root, download=True))
    assert_is_small_set(mnist.read("test", empty_root, download=True))
    assert len(server.ranges) == 2
    assert (empty_root / "mnist" / f"{IMAGE_NAME}.gz").is_file()


def test_truncated_gzip_is_one_clear_error(empty_root: Path) -> None:
    write(empty_root / "mnist", gzip.compress(idx_bytes(IMAGES))[:-50], idx_bytes(LABELS), ".gz")
    with pytest.raises(
        DataError,
        match=rf"{re.escape(str(empty_root / 'mnist' / IMAGE_NAME))}\.gz.*truncated.*delete it and load again",
    ):
        mnist.read("test", empty_root, download=False)


def test_exchanged_files_show_in_the_magic_number(empty_root: Path) -> None:
    write(empty_root / "mnist", idx_bytes(LABELS), idx_bytes(IMAGES))
    with pytest.raises(DataError, match=rf"{IMAGE_NAME}: IDX magic number is 0x00000801, expected 0x00000803"):
        mnist.read("test", empty_root, download=False)


def test_counts_of_images_and_labels_must_match(empty_root: Path) -> None:
    write(empty_root / "mnist", idx_bytes(IMAGES), idx_bytes(LABELS[:2]))
    with pytest.raises(DataError, match=f"{IMAGE_NAME} holds 3 images but .*{LABEL_NAME} holds 2 labels"):
        mnist.read("test", empty_root, download=False)


@pytest.mark.parametrize(
    ("images", "labels", "name"), [(IMAGES ^ 1, LABELS, IMAGE_NAME), (IMAGES, LABELS[::-1], LABEL_NAME)]
)
def test_altered_content_shows_in_the_checksum(
    images: np.ndarray, labels: np.ndarray, name: str, empty_root: Path
) -> None:
    write(empty_root / "mnist", idx_bytes(images), idx_bytes(labels))
    with pytest.raises(DataError, match=rf"{name}: sha256 of the content is .*, expected .*altered"):
        mnist.read("test", empty_root, download=False)


def test_real_train_set(mnist_train: spikedata.ImageDataset) -> None:
    assert mnist_train.pixels.shape == (60_000, 1, 28, 28)
    assert mnist_train.labels[:10].tolist() == [5, 0, 4, 1, 9, 2, 1, 3, 1, 4]
    assert torch.bincount(mnist_train.labels).tolist() == [5923, 6742, 5958, 6131, 5842, 5421, 5918, 6265, 5851, 5949]
    assert round(float(mnist_train.pixels.double().mean() / 255), 4) == 0.1307
    images, labels = mnist_train.batch(torch.arange(59_000, 60_000))
    assert torch.equal(images[-1], mnist_train[59_999][0])
    assert int(labels[-1]) == mnist_train[59_999][1] == 8


def test_real_test_set(mnist_test: spikedata.ImageDataset) -> None:
    assert mnist_test.pixels.shape == (10_000, 1, 28, 28)
    assert mnist_test.labels[:10].tolist() == [7, 2, 1, 0, 4, 1, 4, 9, 5, 9]
    assert torch.bincount(mnist_test.labels).tolist() == [980, 1135, 1032, 1010, 982, 892, 958, 1028, 974, 1009]
