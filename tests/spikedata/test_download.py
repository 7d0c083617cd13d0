"""Downloads from a server on this machine that breaks off, ignores ranges or sends something else."""

import hashlib
import random
import re
import threading
from pathlib import Path

import pytest

from spikedata import DataError
from spikedata.download import CHUNK_BYTES, RemoteFile, fetch

CONTENT = random.Random(0).randbytes(300_000)
CHECKSUM = f"md5:{hashlib.md5(CONTENT).hexdigest()}"


def remote(*urls: str) -> RemoteFile:
    return RemoteFile("file.bin", urls, CHECKSUM)


def assert_finished(folder: Path) -> None:
    assert (folder / "file.bin").read_bytes() == CONTENT
    assert {path.name for path in folder.iterdir()} <= {"file.bin", "file.bin.lock"}


def test_whole_file_into_a_new_folder(server, tmp_path: Path) -> None:
    server.files["a"] = CONTENT
    assert fetch(remote(server.url("a")), tmp_path / "new" / "folder") == tmp_path / "new" / "folder" / "file.bin"
    assert_finished(tmp_path / "new" / "folder")
    assert server.ranges == [None]


def test_file_that_is_there_is_not_downloaded(server, tmp_path: Path) -> None:
    (tmp_path / "file.bin").write_bytes(CONTENT)
    fetch(remote(server.url("a")), tmp_path)
    assert server.ranges == []


def test_broken_connection_is_continued(server, tmp_path: Path) -> None:
    server.files["a"] = CONTENT
    server.cuts = [6 * CHUNK_BYTES, 3 * CHUNK_BYTES, None]
    fetch(remote(server.url("a")), tmp_path)
    assert_finished(tmp_path)
    assert server.ranges == [None, f"bytes={6 * CHUNK_BYTES}-", f"bytes={9 * CHUNK_BYTES}-"]


def test_part_of_an_earlier_process_is_continued(server, tmp_path: Path) -> None:
    server.files["a"] = CONTENT
    (tmp_path / "file.bin.part").write_bytes(CONTENT[:123_456])
    fetch(remote(server.url("a")), tmp_path)
    assert_finished(tmp_path)
    assert server.ranges == ["bytes=123456-"]


def test_server_without_ranges_starts_anew(server, tmp_path: Path) -> None:
    server.files["a"] = CONTENT
    server.accepts_ranges = False
    server.cuts = [6 * CHUNK_BYTES, None]
    fetch(remote(server.url("a")), tmp_path)
    assert_finished(tmp_path)
    assert server.ranges == [None, f"bytes={6 * CHUNK_BYTES}-"]


def test_complete_part_needs_only_its_checksum(server, tmp_path: Path) -> None:
    server.files["a"] = CONTENT
    (tmp_path / "file.bin.part").write_bytes(CONTENT)
    fetch(remote(server.url("a")), tmp_path)
    assert_finished(tmp_path)
    assert server.ranges == [f"bytes={len(CONTENT)}-"]


@pytest.mark.parametrize("part", [b"other bytes" * 100, CONTENT + b"more"])
def test_part_of_another_file_is_thrown_away(part: bytes, server, tmp_path: Path) -> None:
    server.files["a"] = CONTENT
    (tmp_path / "file.bin.part").write_bytes(part)
    fetch(remote(server.url("a")), tmp_path)
    assert_finished(tmp_path)
    assert server.ranges == [f"bytes={len(part)}-", None]


def test_interrupted_download_is_not_a_finished_one(server, tmp_path: Path) -> None:
    server.files["a"] = CONTENT
    server.cuts = [CHUNK_BYTES, CHUNK_BYTES, CHUNK_BYTES + 5]
    with pytest.raises(DataError, match=r"file\.bin is missing and could not be downloaded.*Load again to continue"):
        fetch(remote(server.url("a")), tmp_path)
    assert not (tmp_path / "file.bin").exists()
    assert (tmp_path / "file.bin.part").read_bytes() == CONTENT[: 3 * CHUNK_BYTES]
    fetch(remote(server.url("a")), tmp_path)
    assert_finished(tmp_path)
    assert server.ranges[-1] == f"bytes={3 * CHUNK_BYTES}-"


def test_wrong_content_never_becomes_the_file(server, tmp_path: Path) -> None:
    server.files["a"] = b"<html>please log in</html>"
    with pytest.raises(
        DataError, match=rf"{re.escape(str(tmp_path / 'file.bin'))} is missing.*{server.url('a')}: .*MD5 hash"
    ):
        fetch(remote(server.url("a")), tmp_path)
    assert {path.name for path in tmp_path.iterdir()} <= {"file.bin.lock"}


def test_next_mirror_serves_what_the_first_lacks(server, tmp_path: Path) -> None:
    server.files["b"] = CONTENT
    fetch(remote(server.url("a"), server.url("b")), tmp_path)
    assert_finished(tmp_path)


def test_next_mirror_continues_what_the_first_began(server, tmp_path: Path) -> None:
    server.files = {"a": CONTENT, "b": CONTENT}
    server.cuts = [12 * CHUNK_BYTES, None]
    fetch(remote(server.url("a"), server.url("b")), tmp_path)
    assert_finished(tmp_path)
    assert server.ranges == [None, f"bytes={12 * CHUNK_BYTES}-"]


def test_every_mirror_is_named_with_its_reason(server, tmp_path: Path) -> None:
    gone = "http://127.0.0.1:1/gone"
    with pytest.raises(DataError, match=rf"{server.url('a')}: 404 .*; {gone}: .*[Rr]efused"):
        fetch(remote(server.url("a"), gone), tmp_path)


def test_folder_that_cannot_be_made_is_named(server, tmp_path: Path) -> None:
    (tmp_path / "folder").write_bytes(b"a file is in the way")
    with pytest.raises(DataError, match="folder is not writable"):
        fetch(remote(server.url("a")), tmp_path / "folder")


def test_two_at_once_download_once(server, tmp_path: Path) -> None:
    server.files["a"] = CONTENT
    threads = [threading.Thread(target=fetch, args=(remote(server.url("a")), tmp_path)) for _ in range(3)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert_finished(tmp_path)
    assert server.ranges == [None]
