"""The digits of scikit-learn: 1797 images of 8x8 pixels with 17 grey levels, part of that library's installation.

They are the test part of the "Optical Recognition of Handwritten Digits" set (E. Alpaydin and C. Kaynak, UCI Machine
Learning Repository, 1998). scikit-learn does not split them, so this file does: within each class the images are ranked
by the SHA-256 of "spikeloop digits <position>" and the first ones are the test set. The class shares of the 360 test
images follow the largest-remainder rule. No random generator takes part, so the split is the same on every platform and
with every version of any library. Writers are not known, so both parts contain images by the same hands.
"""

import hashlib
import os
from pathlib import Path

import numpy as np
import numpy.typing as npt
import torch

from spikedata.checksum import verify_bytes
from spikedata.dataset import DatasetSpec
from spikedata.extras import require

TEST_COUNT = 360
# Of the 1797 x 64 pixels followed by the 1797 labels, as bytes.
CONTENT = "sha256:87ff0c9e40dc7e2c0e34e7257799c2e3f3aec1a016363bb11cad869ec428a826"


def held_out_positions(labels: npt.NDArray[np.int64], test_count: int) -> npt.NDArray[np.int64]:
    """Return the sorted positions of the test images: stratified and fixed, see the top of this file.

    Args:
        labels: [N], 0 to the number of classes - 1.
        test_count: size of the test set.
    Returns: int64 [test_count].
    """
    sizes = np.bincount(labels)
    shares, remainders = np.divmod(sizes * test_count, len(labels))
    largest_first = np.argsort(-remainders, kind="stable")
    shares[largest_first[: test_count - shares.sum()]] += 1
    chosen: list[int] = []
    for label, share in enumerate(shares):
        ranked = sorted(np.flatnonzero(labels == label).tolist(), key=_rank)
        chosen += ranked[:share]
    return np.array(sorted(chosen), dtype=np.int64)


def _rank(position: int) -> bytes:
    return hashlib.sha256(f"spikeloop digits {position}".encode()).digest()


def read(split: str, root: str | os.PathLike[str] | None, download: bool) -> tuple[torch.Tensor, torch.Tensor, str]:
    """Return pixels, labels and source; root and download are not used, since scikit-learn brings the images.

    Raises: ImportError without scikit-learn; DataError if scikit-learn's copy is not the known one.
    """
    datasets = require("sklearn.datasets", "the data set 'digits'")
    features, labels = datasets.load_digits(return_X_y=True)
    pixels = features.astype(np.uint8)
    verify_bytes(pixels.tobytes() + labels.astype(np.uint8).tobytes(), CONTENT, Path(datasets.__file__).parent)
    is_test = np.zeros(len(labels), dtype=bool)
    is_test[held_out_positions(labels, TEST_COUNT)] = True
    rows = is_test if split == "test" else ~is_test
    return (
        torch.from_numpy(pixels[rows].reshape(-1, 1, 8, 8)),
        torch.from_numpy(labels[rows].astype(np.int64)),
        "scikit-learn",
    )


DIGITS = DatasetSpec(
    name="digits",
    title="scikit-learn's handwritten digits, 8x8",
    shape=(1, 8, 8),
    peak=16,
    classes=tuple("0123456789"),
    counts={"train": 1437, "test": TEST_COUNT},
    read=read,
)
