"""Where the data folders are."""

import os
from pathlib import Path

from platformdirs import user_cache_path

from spikedata.errors import DataError

ENVIRONMENT_VARIABLE = "SPIKEDATA_ROOT"


def data_root(root: str | os.PathLike[str] | None) -> Path:
    """Return the folder that holds one sub-folder per data set.

    The first of: the argument; the environment variable SPIKEDATA_ROOT; the user's cache folder for spikeloop. A folder
    that someone named must exist (a misspelt path would otherwise start a download); the cache folder is made when a
    download needs it.

    Args:
        root: folder, or None.
    Returns: the folder, `~` expanded.
    Raises: DataError if a named folder does not exist.
    """
    variable = os.environ.get(ENVIRONMENT_VARIABLE)
    if root is not None:
        path, origin = Path(root).expanduser(), "the argument root"
    elif variable:
        path, origin = Path(variable).expanduser(), f"the environment variable {ENVIRONMENT_VARIABLE}"
    else:
        return user_cache_path("spikeloop", appauthor=False)
    if not path.is_dir():
        raise DataError(f"data folder {path}, named by {origin}, does not exist; create it or correct {origin}")
    return path
