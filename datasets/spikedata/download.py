"""Downloads that continue where they stopped and are never taken for finished before their checksum is right."""

import os
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from spikedata.errors import DataError
from spikedata.extras import require

ROUNDS = 3
CHUNK_BYTES = 1 << 14  # also the most that a broken connection can lose
TIMEOUT_S = 30.0


@dataclass(frozen=True)
class RemoteFile:
    """A file of a data set in its original distribution.

    Args:
        name: name in the data folder.
        urls: mirrors in order of preference; each serves the same bytes.
        checksum: "sha256:..." or "md5:..." of these bytes.
    """

    name: str
    urls: tuple[str, ...]
    checksum: str


class ResumingDownloader:
    """Downloader for pooch that continues an interrupted transfer.

    Bytes are appended to `part`; a non-empty `part` is continued with an HTTP Range request. A server that ignores the
    range sends the whole file, which then replaces `part`. Only a complete transfer is moved to the file pooch checks,
    so an interruption leaves `part`, and a wrong checksum leaves nothing.

    Args:
        part: where the incomplete file is kept between attempts.
    """

    def __init__(self, part: Path) -> None:
        self.part = part

    def __call__(self, url: str, output_file: str, pooch: object) -> None:
        """Transfer `url` to `output_file`; pooch calls this.

        Raises: requests.RequestException if the server fails or the connection breaks; OSError from the disk.
        """
        requests = require("requests", "downloading data")
        start = self.part.stat().st_size if self.part.exists() else 0
        headers = {"Accept-Encoding": "identity"}
        if start:
            headers["Range"] = f"bytes={start}-"
        with requests.get(url, headers=headers, stream=True, timeout=TIMEOUT_S) as response:
            if response.status_code != requests.codes.requested_range_not_satisfiable:
                response.raise_for_status()
                self._append(response, start if response.status_code == requests.codes.partial_content else 0)
        # A range that starts at the end of the file means that nothing is missing: the checksum decides.
        os.replace(self.part, output_file)

    def _append(self, response: Any, start: int) -> None:
        tqdm = require("tqdm", "downloading data").tqdm
        length = response.headers.get("Content-Length")
        total = None if length is None else start + int(length)
        name = self.part.name.removesuffix(".part")
        with (
            self.part.open("ab" if start else "wb") as file,
            tqdm(total=total, initial=start, unit="B", unit_scale=True, desc=name, disable=None) as bar,
        ):
            for chunk in response.iter_content(CHUNK_BYTES):
                file.write(chunk)
                bar.update(len(chunk))


def fetch(remote: RemoteFile, folder: Path) -> Path:
    """Return the path of a file of the original distribution, downloading it if it is not there.

    Each mirror is tried in turn, three rounds in all, each attempt continuing `<name>.part`. A second process that
    wants the same file waits for the first.

    Args:
        remote: the file.
        folder: made if missing.
    Returns: `folder / remote.name`; verified, whether just downloaded or there before.
    Raises: DataError naming the path, the reason from each mirror and the remedy.
    """
    from filelock import FileLock

    pooch = require("pooch", "downloading data")
    target = folder / remote.name
    part = folder / f"{remote.name}.part"
    try:
        folder.mkdir(parents=True, exist_ok=True)
        with FileLock(folder / f"{remote.name}.lock"):
            reasons = _transfer(pooch, remote, target, part)
    except OSError as error:
        raise DataError(
            f"{target} is missing and cannot be downloaded: folder {folder} is not writable ({error}); put the file "
            "there or load with another root"
        ) from error
    if reasons:
        tried = "; ".join(f"{url}: {reason}" for url, reason in reasons.items())
        raise DataError(
            f"{target} is missing and could not be downloaded ({tried}). Load again to continue the download, or put "
            f"the file there by hand"
        )
    return target


def _transfer(pooch: Any, remote: RemoteFile, target: Path, part: Path) -> dict[str, str]:
    """Return {} once the file is there, else the last reason of failure of each mirror."""
    reasons = {}
    for url in remote.urls * ROUNDS:
        try:
            pooch.retrieve(
                url,
                known_hash=remote.checksum,
                fname=remote.name,
                path=target.parent,
                downloader=ResumingDownloader(part),
            )
        except (OSError, ValueError) as error:  # broken transfer; wrong checksum
            reasons[url] = str(error)
        else:
            return {}
    return reasons
