"""Reading single members of a compressed tar archive without unpacking it."""

import gzip
import tarfile
import zlib
from collections.abc import Sequence
from pathlib import Path

from spikedata.errors import DataError


def read_members(path: Path, names: Sequence[str]) -> list[bytes]:
    """Return the content of some members, in the order of `names`.

    Args:
        path: a .tar.gz file.
        names: full names of the members.
    Raises: DataError if the archive is damaged or lacks a member.
    """
    found: dict[str, bytes] = {}
    try:
        with tarfile.open(path, "r|gz") as archive:
            for member in archive:
                file = archive.extractfile(member) if member.name in names else None
                if file is not None:
                    found[member.name] = file.read()
                if len(found) == len(names):
                    break
    except (tarfile.TarError, EOFError, zlib.error, gzip.BadGzipFile) as error:
        raise DataError(f"{path}: the archive is truncated or damaged ({error}); delete it and load again") from error
    missing = [name for name in names if name not in found]
    if missing:
        raise DataError(f"{path}: the archive has no member {', '.join(missing)}; put the original archive there")
    return [found[name] for name in names]
