"""The table of data sets and the function that reads one."""

import os
from difflib import get_close_matches

from spikedata.cifar10 import CIFAR10
from spikedata.dataset import DatasetSpec, ImageDataset
from spikedata.digits import DIGITS
from spikedata.mnist import MNIST

DATASETS: dict[str, DatasetSpec] = {"digits": DIGITS, "mnist": MNIST, "cifar10": CIFAR10}


def load(
    name: str, split: str = "train", root: str | os.PathLike[str] | None = None, *, download: bool = True
) -> ImageDataset:
    """Return one split of a data set, whole in memory.

    Args:
        name: "digits", "mnist" or "cifar10".
        split: "train" or "test".
        root: folder with one sub-folder per data set; None takes the environment variable SPIKEDATA_ROOT, and where
            that is unset the user's cache folder.
        download: False raises instead of downloading what is missing.
    Returns: the data set.
    Raises: ValueError for an unknown name or split; DataError if a file is missing, damaged or cannot be downloaded;
        ImportError if an optional library is missing.

    >>> load("digits", split="test")
    ImageDataset('digits', split='test', images=360, shape=(1, 8, 8), source='scikit-learn')
    """
    if name not in DATASETS:
        close = get_close_matches(str(name), DATASETS, n=1)
        hint = f"; did you mean {close[0]!r}?" if close else ""
        raise ValueError(f"load: name must be one of {', '.join(map(repr, DATASETS))}, got {name!r}{hint}")
    spec = DATASETS[name]
    if split not in spec.counts:
        raise ValueError(f"load: split must be one of {', '.join(map(repr, spec.counts))}, got {split!r}")
    pixels, labels, source = spec.read(split, root, download)
    return ImageDataset(spec, split, pixels, labels, source)
