"""HDF5 files of JPEG images, written here."""

import io
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import pytest
from PIL import Image

from spikedata import DataError
from spikedata.formats.jpeg_store import read_jpeg_store

CLASSES = ("cat", "dog")
SHAPE = (3, 8, 16)
COLOURS = [(250, 10, 20), (10, 240, 30), (30, 20, 230)]


def jpeg(colour: tuple[int, int, int], size: tuple[int, int] = (16, 8), mode: str = "RGB") -> bytes:
    stream = io.BytesIO()
    Image.new("RGB", size, colour).convert(mode).save(stream, "JPEG", quality=95)
    return stream.getvalue()


JPEG_BYTES = sum(len(jpeg(colour)) for colour in COLOURS)


def write(path: Path, files: list[bytes], **changes: Any) -> Path:
    """Write a store with group "train"; `changes` replaces one of its arrays, or the classes."""
    arrays = {
        "jpeg": np.frombuffer(b"".join(files), dtype=np.uint8),
        "offset": np.cumsum([0, *map(len, files)]),
        "label": np.arange(len(files), dtype=np.uint8) % 2,
    }
    with h5py.File(path, "w") as file:
        file.attrs["classes"] = changes.pop("classes", CLASSES)
        for name, array in (arrays | changes).items():
            file[f"train/{name}"] = array
    return path


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "store.h5"


def test_images_are_decoded_channels_first(path: Path) -> None:
    pixels, labels = read_jpeg_store(write(path, [jpeg(colour) for colour in COLOURS]), "train", SHAPE, CLASSES)
    assert (pixels.dtype, pixels.shape) == (np.uint8, (3, 3, 8, 16))
    expected = np.broadcast_to(np.array(COLOURS)[:, :, None, None], pixels.shape)
    assert np.abs(pixels.astype(int) - expected).max() <= 3
    assert (labels.dtype, labels.tolist()) == (np.int64, [0, 1, 0])


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"classes": ("dog", "cat")}, "attribute classes is"),
        ({"offset": np.array([0, 5])}, "train/offset must rise from 0"),
        ({"offset": np.array([0, 9, 10, 11])}, "train/offset must rise from 0"),
        ({"offset": np.array([0, 9, 9, JPEG_BYTES])}, "train/offset must rise from 0"),
        ({"offset": np.array([1, 8, 9, JPEG_BYTES])}, "train/offset must rise from 0"),
        ({"label": np.zeros(4, np.uint8)}, "one per label"),
        ({"label": np.zeros(3)}, "must be uint8, int64, uint8, got uint8, int64, float64"),
    ],
)
def test_inconsistent_store_is_refused(changes: dict[str, Any], message: str, path: Path) -> None:
    write(path, [jpeg(colour) for colour in COLOURS], **changes)
    with pytest.raises(DataError, match=rf"store\.h5: .*{message}"):
        read_jpeg_store(path, "train", SHAPE, CLASSES)


def test_truncated_or_other_file_is_refused(path: Path) -> None:
    write(path, [jpeg(colour) for colour in COLOURS])
    for content in (path.read_bytes()[:-500], b"something else", b""):
        path.write_bytes(content)
        with pytest.raises(DataError, match=r"store\.h5: truncated or not a JPEG store"):
            read_jpeg_store(path, "train", SHAPE, CLASSES)


def test_missing_split_is_refused(path: Path) -> None:
    write(path, [jpeg(colour) for colour in COLOURS])
    with pytest.raises(DataError, match=r"store\.h5: truncated or not a JPEG store .*test"):
        read_jpeg_store(path, "test", SHAPE, CLASSES)


@pytest.mark.parametrize("damaged", [b"\xff\xd8 no image", jpeg((1, 2, 3))[:300], jpeg((1, 2, 3))[:-40]])
def test_damaged_image_is_named(damaged: bytes, path: Path) -> None:
    write(path, [jpeg((1, 2, 3)), damaged])
    with pytest.raises(DataError, match=r"store\.h5: train image 1 is not a complete JPEG"):
        read_jpeg_store(path, "train", SHAPE, CLASSES)


@pytest.mark.parametrize("other", [jpeg((1, 2, 3), size=(8, 16)), jpeg((1, 2, 3), mode="L")])
def test_image_of_another_shape_is_named(other: bytes, path: Path) -> None:
    write(path, [jpeg((1, 2, 3)), other])
    with pytest.raises(DataError, match=r"train image 1 is \(.*\), expected \(8, 16, 3\)"):
        read_jpeg_store(path, "train", SHAPE, CLASSES)
