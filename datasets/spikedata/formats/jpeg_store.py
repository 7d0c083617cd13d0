"""Labelled JPEG images in one HDF5 file.

Per split one group with `jpeg`, uint8 [bytes]: all files one after the other; `offset`, int64 [n + 1]: image i is
jpeg[offset[i]:offset[i + 1]]; `label`, uint8 [n]. The file's attribute `classes` names the labels.
"""

import io
from pathlib import Path

import numpy as np
import numpy.typing as npt

from spikedata.errors import DataError
from spikedata.extras import require


def read_jpeg_store(
    path: Path, split: str, shape: tuple[int, int, int], classes: tuple[str, ...]
) -> tuple[npt.NDArray[np.uint8], npt.NDArray[np.int64]]:
    """Decode all images of a split, with a progress bar.

    One thread: for images of a kilobyte pillow spends most of its time with the interpreter lock held, and several
    threads are no faster.

    Args:
        path: the HDF5 file.
        split: name of the group.
        shape: (3, H, W) of each image.
        classes: names the file must give to the labels.
    Returns: pixels uint8 [n, 3, H, W], labels int64 [n].
    Raises: DataError if the file is damaged, has another layout, or an image cannot be decoded or has another shape.
    """
    tqdm = require("tqdm", "decoding JPEG images").tqdm
    stream, offset, label = _read_arrays(path, split, classes)
    count = len(label)
    if offset.shape != (count + 1,) or offset[0] != 0 or offset[-1] != len(stream) or (np.diff(offset) <= 0).any():
        raise DataError(
            f"{path}: {split}/offset must rise from 0 to the {len(stream)} bytes of {split}/jpeg in {count} steps, one "
            f"per label; got {len(offset)} values: the file is damaged, put a fresh copy there"
        )
    data, bounds = stream.tobytes(), offset.tolist()
    pixels = np.empty((count, *shape), dtype=np.uint8)
    for index in tqdm(range(count), desc=f"{path.name} {split}", unit="image", disable=None):
        image = _decode(data[bounds[index] : bounds[index + 1]], f"{path}: {split} image {index}")
        if image.shape != (*shape[1:], shape[0]):
            raise DataError(f"{path}: {split} image {index} is {image.shape}, expected {(*shape[1:], shape[0])}")
        pixels[index] = image.transpose(2, 0, 1)
    return pixels, label.astype(np.int64)


def _read_arrays(
    path: Path, split: str, classes: tuple[str, ...]
) -> tuple[npt.NDArray[np.uint8], npt.NDArray[np.int64], npt.NDArray[np.uint8]]:
    import h5py

    try:
        with h5py.File(path, "r") as file:
            found = tuple(str(name) for name in file.attrs["classes"])
            group = file[split]
            stream, offset, label = group["jpeg"][:], group["offset"][:], group["label"][:]
    except (OSError, KeyError) as error:
        raise DataError(
            f"{path}: truncated or not a JPEG store ({error}); put a fresh copy of the file there"
        ) from error
    if found != classes:
        raise DataError(f"{path}: the attribute classes is {found}, expected {classes}; this is another data set")
    if stream.dtype != np.uint8 or offset.dtype != np.int64 or label.dtype != np.uint8:
        raise DataError(
            f"{path}: {split}/jpeg, offset, label must be uint8, int64, uint8, got {stream.dtype}, {offset.dtype}, "
            f"{label.dtype}"
        )
    return stream, offset, label


def _decode(data: bytes, origin: str) -> npt.NDArray[np.uint8]:
    image = require("PIL.Image", "decoding JPEG images")
    try:
        return np.asarray(image.open(io.BytesIO(data), formats=("JPEG",)))
    except OSError as error:
        raise DataError(f"{origin} is not a complete JPEG ({error}); put a fresh copy of the file there") from error
