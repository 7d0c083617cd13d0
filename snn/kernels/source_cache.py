"""Generated kernels as readable files in a cache folder, so that one compilation serves every later process."""

from __future__ import annotations

import hashlib
import importlib.util
import os
import sys
import tempfile
import threading
from pathlib import Path
from types import ModuleType

import platformdirs

FOLDER_VARIABLE = "SPIKELOOP_CACHE"
_importing = threading.Lock()


def cache_folder() -> Path:
    """The folder of generated sources: $SPIKELOOP_CACHE, or the user's cache folder for spikeloop."""
    chosen = os.environ.get(FOLDER_VARIABLE)
    return Path(chosen) if chosen else Path(platformdirs.user_cache_dir("spikeloop")) / "kernels"


def load_source(name: str, source: str) -> ModuleType:
    """Imports `source` from a file of the cache folder, which is written first where it does not stand there yet.

    The file's name holds `name` and a digest of the text: another text is another file, and Numba's compiled code
    beside it is never stale. The file appears under its final name only when it is complete.

    Raises:
        OSError: the folder cannot be written; the text names it and the variable that chooses another.
    """
    digest = hashlib.sha256(source.encode()).hexdigest()[:12]
    module_name = f"spikeloop_kernel_{name}_{digest}"
    with _importing:
        if module_name not in sys.modules:
            sys.modules[module_name] = _imported(module_name, cache_folder() / f"{name}_{digest}.py", source)
        return sys.modules[module_name]


def _imported(module_name: str, path: Path, source: str) -> ModuleType:
    if not path.exists():
        _write(path, source)
    spec = importlib.util.spec_from_file_location(module_name, path)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def _write(path: Path, text: str) -> None:
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with tempfile.NamedTemporaryFile("w", dir=path.parent, suffix=".part", delete=False, encoding="utf8") as file:
            file.write(text)
        os.replace(file.name, path)
    except OSError as error:
        raise OSError(
            f"the kernel cache folder {path.parent} cannot be written ({error.strerror}); "
            f"set {FOLDER_VARIABLE} to a folder that can"
        ) from error
