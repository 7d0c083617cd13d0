"""Import of libraries that only some data sets need."""

import importlib
from typing import Any


def require(module: str, purpose: str) -> Any:
    """Return an optional library, or say how to install it.

    Args:
        module: dotted name to import, such as "sklearn.datasets".
        purpose: what needs it; the first words of the error.
    Returns: the imported module.
    Raises: ImportError with the install command.
    """
    try:
        return importlib.import_module(module)
    except ImportError as error:
        library = module.partition(".")[0]
        raise ImportError(f"{purpose} needs {library}; install it with: pip install 'spikeloop[data]'") from error
