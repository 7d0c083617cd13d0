"""MNIST: 60,000 + 10,000 handwritten digits of 28x28 pixels (Y. LeCun, C. Cortes, C. Burges, 1998), from its IDX files.

The files may be gzip or plain. What is verified on every load is the content after decompression, since the same images
compressed anew are still the same images; a download must in addition have the bytes of the original gzip file.
"""

import os
from dataclasses import dataclass
from pathlib import Path

import torch

from spikedata.checksum import verify_bytes
from spikedata.dataset import DatasetSpec
from spikedata.download import RemoteFile, fetch
from spikedata.errors import DataError
from spikedata.formats.idx import parse_idx, read_content
from spikedata.root import data_root

MIRRORS = (
    "https://ossci-datasets.s3.amazonaws.com/mnist/",
    "https://storage.googleapis.com/cvdf-datasets/mnist/",
)
FOLDERS = ("mnist", ".", "MNIST/raw")


@dataclass(frozen=True)
class IdxFile:
    """One of the four files.

    Args:
        name: name without compression suffix, such as "t10k-labels-idx1-ubyte".
        dimension_count: 3 for images, 1 for labels.
        gzip_checksum: of the original gzip file.
        content_checksum: of its content.
    """

    name: str
    dimension_count: int
    gzip_checksum: str
    content_checksum: str


FILES = {
    "train": (
        IdxFile(
            "train-images-idx3-ubyte",
            3,
            "sha256:440fcabf73cc546fa21475e81ea370265605f56be210a4024d2ca8f203523609",
            "sha256:ba891046e6505d7aadcbbe25680a0738ad16aec93bde7f9b65e87a2fc25776db",
        ),
        IdxFile(
            "train-labels-idx1-ubyte",
            1,
            "sha256:3552534a0a558bbed6aed32b30c495cca23d567ec52cac8be1a0730e8010255c",
            "sha256:65a50cbbf4e906d70832878ad85ccda5333a97f0f4c3dd2ef09a8a9eef7101c5",
        ),
    ),
    "test": (
        IdxFile(
            "t10k-images-idx3-ubyte",
            3,
            "sha256:8d422c7b0a1c1c79245a5bcf07fe86e33eeafee792b84584aec276f5a2dbc4e6",
            "sha256:0fa7898d509279e482958e8ce81c8e77db3f2f8254e26661ceb7762c4d494ce7",
        ),
        IdxFile(
            "t10k-labels-idx1-ubyte",
            1,
            "sha256:f7ae60f92e00ec6debd23a6088c31dbd2371eca3ffa0defaefb259924204aec6",
            "sha256:ff7bcfd416de33731a308c3f266cc351222c34898ecbeaf847f06e48f7ec33f2",
        ),
    ),
}


def locate(file: IdxFile, root: Path, download: bool) -> Path:
    """Return the path of one of the four files.

    Looked for in root/mnist, root and root/MNIST/raw, plain before gzip, with "-idx" or ".idx" in the name; else
    downloaded to root/mnist.

    Raises: DataError if it is not there and is not or cannot be downloaded.
    """
    names = [name + suffix for suffix in ("", ".gz") for name in (file.name, file.name.replace("-idx", ".idx"))]
    for folder in FOLDERS:
        for name in names:
            if (root / folder / name).is_file():
                return root / folder / name
    home = root / "mnist"
    name = f"{file.name}.gz"
    if not download:
        raise DataError(
            f"MNIST: {home / name} does not exist; put the four IDX files (gzip or plain) into {home}, or load with "
            "download=True"
        )
    return fetch(RemoteFile(name, tuple(mirror + name for mirror in MIRRORS), file.gzip_checksum), home)


def read(split: str, root: str | os.PathLike[str] | None, download: bool) -> tuple[torch.Tensor, torch.Tensor, str]:
    """Return pixels [N, 1, 28, 28], labels [N] and the source "idx".

    Raises: DataError if a file is missing, truncated, of another kind or altered.
    """
    folder = data_root(root)
    image_file, label_file = FILES[split]
    image_path, label_path = (locate(file, folder, download) for file in FILES[split])
    image_content, label_content = read_content(image_path), read_content(label_path)
    images = parse_idx(image_content, image_file.dimension_count, image_path)
    labels = parse_idx(label_content, label_file.dimension_count, label_path)
    if len(images) != len(labels):
        raise DataError(
            f"MNIST: {image_path} holds {len(images)} images but {label_path} holds {len(labels)} labels; "
            "the two files belong to different sets: replace the wrong one"
        )
    verify_bytes(image_content, image_file.content_checksum, image_path)
    verify_bytes(label_content, label_file.content_checksum, label_path)
    return torch.from_numpy(images.copy()).unsqueeze(1), torch.from_numpy(labels.astype("int64")), "idx"


MNIST = DatasetSpec(
    name="mnist",
    title="MNIST handwritten digits, 28x28",
    shape=(1, 28, 28),
    peak=255,
    classes=tuple("0123456789"),
    counts={"train": 60_000, "test": 10_000},
    read=read,
)
