"""The two original forms of a CIFAR-10 batch: binary records and Python pickles.

Binary: per image one byte label, then 3072 bytes, the red, green and blue planes of 32x32 row by row.
Pickle: a dictionary with b"data", uint8 [n, 3072] in the same order, and b"labels", a list of n integers.
"""

import io
import pickle
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from spikedata.errors import DataError

SHAPE = (3, 32, 32)
IMAGE_BYTES = 3072

Batch = tuple[npt.NDArray[np.uint8], npt.NDArray[np.int64]]

# All that rebuilding an array needs; the second module name is the one of NumPy 2, the codec is Python 3's way to
# pickle bytes in protocol 2.
ALLOWED_GLOBALS = frozenset(
    {
        ("numpy.core.multiarray", "_reconstruct"),
        ("numpy._core.multiarray", "_reconstruct"),
        ("numpy", "ndarray"),
        ("numpy", "dtype"),
        ("_codecs", "encode"),
    }
)


class ArrayUnpickler(pickle.Unpickler):
    """Unpickler for plain containers and NumPy arrays; whatever else a pickle asks for is refused."""

    def find_class(self, module: str, name: str) -> Any:
        """Return the object a pickle names, if it is one of `ALLOWED_GLOBALS`."""
        if (module, name) not in ALLOWED_GLOBALS:
            raise pickle.UnpicklingError(f"it asks for {module}.{name}, and only arrays are accepted")
        return super().find_class(module.replace("numpy.core", "numpy._core"), name)


def parse_binary_batch(data: bytes, origin: Path) -> Batch:
    """Return pixels uint8 [n, 3, 32, 32] and labels int64 [n] of a binary batch.

    Args:
        data: content of the batch.
        origin: the file named in errors.
    Raises: DataError if the length is not a whole number of records.
    """
    if not data or len(data) % (1 + IMAGE_BYTES):
        raise DataError(
            f"{origin}: {len(data)} bytes are not a whole number of records of {1 + IMAGE_BYTES}; the file is "
            "truncated or of another kind: unpack the original archive again"
        )
    records = np.frombuffer(data, dtype=np.uint8).reshape(-1, 1 + IMAGE_BYTES)
    return records[:, 1:].reshape(-1, *SHAPE), records[:, 0].astype(np.int64)


def parse_pickle_batch(data: bytes, origin: Path) -> Batch:
    """Return pixels uint8 [n, 3, 32, 32] and labels int64 [n] of a pickled batch.

    Args:
        data: content of the batch.
        origin: the file named in errors.
    Raises: DataError if the pickle is damaged, asks for anything but arrays, or holds something else.
    """
    try:
        batch = ArrayUnpickler(io.BytesIO(data), encoding="bytes").load()
        pixels, labels = np.asarray(batch[b"data"]), np.array(batch[b"labels"])
    except Exception as error:  # a damaged pickle can raise anything
        raise DataError(f"{origin}: not a CIFAR-10 batch ({type(error).__name__}: {error})") from error
    if pixels.dtype != np.uint8 or pixels.shape != (len(labels), IMAGE_BYTES) or labels.dtype.kind != "i":
        raise DataError(
            f"{origin}: data must be uint8 [n, {IMAGE_BYTES}] with n integer labels, got {pixels.dtype} {pixels.shape} "
            f"with {labels.dtype} {labels.shape}"
        )
    return pixels.reshape(-1, *SHAPE), labels.astype(np.int64)
