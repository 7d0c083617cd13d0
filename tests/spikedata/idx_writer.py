"""IDX files written from the description of the format, for tests of the parser."""

import struct

import numpy as np


def idx_bytes(array: np.ndarray) -> bytes:
    """Return the IDX file of a byte array."""
    return struct.pack(f">BBBB{array.ndim}I", 0, 0, 8, array.ndim, *array.shape) + array.astype(np.uint8).tobytes()
