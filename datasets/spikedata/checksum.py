"""Checksums written as "algorithm:hexdigest", the form pooch uses."""

import hashlib
from pathlib import Path

from spikedata.errors import DataError


def verify_bytes(data: bytes, checksum: str, path: Path) -> None:
    """Raise DataError unless the content of `path` has the checksum.

    Args:
        data: content, after decompression where the file is compressed.
        checksum: "sha256:..." or "md5:...".
        path: the file named in the error.
    Raises: DataError naming the file, both checksums and the remedy.
    """
    algorithm = checksum.partition(":")[0]
    _compare(hashlib.new(algorithm, data, usedforsecurity=False).hexdigest(), checksum, path)


def verify_file(path: Path, checksum: str) -> None:
    """Raise DataError unless the bytes of the file have the checksum; the arguments are those of `verify_bytes`."""
    algorithm = checksum.partition(":")[0]
    with path.open("rb") as file:
        digest = hashlib.file_digest(file, lambda: hashlib.new(algorithm, usedforsecurity=False))
    _compare(digest.hexdigest(), checksum, path)


def _compare(received: str, checksum: str, path: Path) -> None:
    algorithm, _, expected = checksum.partition(":")
    if received != expected:
        raise DataError(
            f"{path}: {algorithm} of the content is {received}, expected {expected}: the file is incomplete, altered "
            "or of another data set; delete it and load again to download it, or put the original file there"
        )
