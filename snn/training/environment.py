"""What a run was made with: versions and machine."""

import os
import platform
from importlib import metadata
from typing import Any

import torch

_PACKAGES = ("spikeloop", "lightning", "spikingjelly", "numpy", "numba", "jsonargparse", "scikit-learn")


def environment() -> dict[str, Any]:
    """Return versions of the libraries and facts about the machine, as plain values."""
    return {
        # the package's own word names its build (CPU, CUDA) too
        "versions": {name: _version(name) for name in _PACKAGES} | {"torch": str(torch.__version__)},
        "python": platform.python_version(),
        "platform": platform.platform(),
        "cpu_count": os.cpu_count(),
        "torch_threads": torch.get_num_threads(),
        "gpus": [torch.cuda.get_device_name(i) for i in range(torch.cuda.device_count())],
    }


def _version(package: str) -> str:
    try:
        return metadata.version(package)
    except metadata.PackageNotFoundError:
        return "not installed"
