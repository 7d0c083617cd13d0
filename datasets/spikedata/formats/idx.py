"""The IDX format of MNIST.

A file is a big-endian header, then the values row by row:

    bytes 0-1   zero
    byte  2     type of the values; 0x08 is unsigned byte, the only one accepted here
    byte  3     number of dimensions d
    4*d bytes   sizes, each an unsigned 32-bit integer
    the rest    exactly as many bytes as the product of the sizes

so that images [N, H, W] start with 0x00000803 and labels [N] with 0x00000801.
"""

import gzip
import math
import struct
import zlib
from pathlib import Path

import numpy as np
import numpy.typing as npt

from spikedata.errors import DataError

GZIP_MAGIC = b"\x1f\x8b"
UNSIGNED_BYTE = 0x0800


def read_content(path: Path) -> bytes:
    """Return the content of a plain or gzip file; which of the two it is shows in its first bytes, not in its name.

    Raises: DataError if the gzip stream is truncated or damaged.
    """
    data = path.read_bytes()
    if not data.startswith(GZIP_MAGIC):
        return data
    try:
        return gzip.decompress(data)
    except (EOFError, zlib.error, gzip.BadGzipFile) as error:
        raise DataError(
            f"{path}: the gzip stream is truncated or damaged after {len(data)} bytes ({error}); "
            "delete it and load again to download it, or put the original file there"
        ) from error


def parse_idx(data: bytes, dimension_count: int, path: Path) -> npt.NDArray[np.uint8]:
    """Return the array of an IDX file.

    Args:
        data: content of the file, decompressed.
        dimension_count: 3 for images, 1 for labels.
        path: the file named in errors.
    Returns: uint8 array, a read-only view of `data`.
    Raises: DataError for a wrong magic number or a length that does not match the header.

    >>> parse_idx(bytes([0, 0, 8, 1, 0, 0, 0, 3, 7, 8, 9]), 1, Path("labels")).tolist()
    [7, 8, 9]
    """
    expected = UNSIGNED_BYTE | dimension_count
    header = 4 + 4 * dimension_count
    magic = int.from_bytes(data[:4], "big")
    if len(data) >= 4 and magic != expected:
        raise DataError(f"{path}: IDX magic number is 0x{magic:08x}, expected 0x{expected:08x}; this is another file")
    if len(data) < header:
        raise DataError(f"{path}: {len(data)} bytes are too few for an IDX header of {header}; the file is truncated")
    shape = struct.unpack(f">{dimension_count}I", data[4:header])
    length = header + math.prod(shape)
    if len(data) != length:
        state = "truncated" if len(data) < length else "longer than it should be"
        raise DataError(
            f"{path}: {len(data)} bytes, but the header (shape {shape}) asks for {length}: the file is {state}; "
            "delete it and load again to download it, or put the original file there"
        )
    return np.frombuffer(data, dtype=np.uint8, offset=header).reshape(shape)
