"""Fixtures: the real data, if it is there, and a web server on this machine with adjustable faults."""

import os
import re
import threading
from collections.abc import Iterator
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest

import spikedata


def loaded(name: str, split: str) -> spikedata.ImageDataset:
    root = os.environ.get("SPIKEDATA_ROOT")
    if not root:
        pytest.skip(f"needs {name}: set SPIKEDATA_ROOT to a folder that holds it")
    return spikedata.load(name, split, download=False)


@pytest.fixture(scope="session")
def mnist_train() -> spikedata.ImageDataset:
    return loaded("mnist", "train")


@pytest.fixture(scope="session")
def mnist_test() -> spikedata.ImageDataset:
    return loaded("mnist", "test")


@pytest.fixture(scope="session")
def cifar10_test() -> spikedata.ImageDataset:
    return loaded("cifar10", "test")


@pytest.fixture(scope="session")
def digits_test() -> spikedata.ImageDataset:
    return spikedata.load("digits", "test")


@dataclass
class FaultyServer:
    """A web server. `cuts` holds, per request, after how many bytes of the body the connection breaks (None: never)."""

    address: str
    files: dict[str, bytes] = field(default_factory=dict)
    accepts_ranges: bool = True
    cuts: list[int | None] = field(default_factory=list)
    ranges: list[str | None] = field(default_factory=list)

    def url(self, name: str) -> str:
        return f"{self.address}/{name}"


@pytest.fixture
def server(monkeypatch: pytest.MonkeyPatch) -> Iterator[FaultyServer]:
    monkeypatch.setenv("NO_PROXY", "127.0.0.1")

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            asked = self.headers.get("Range")
            faults.ranges.append(asked)
            content = faults.files.get(self.path.lstrip("/"))
            if content is None:
                self.send_error(404)
                return
            start = 0
            if asked and faults.accepts_ranges:
                start = int(re.fullmatch(r"bytes=(\d+)-", asked).group(1))
                if start >= len(content):
                    self.send_response(416)
                    self.send_header("Content-Range", f"bytes */{len(content)}")
                    self.send_header("Content-Length", "0")
                    self.end_headers()
                    return
                self.send_response(206)
                self.send_header("Content-Range", f"bytes {start}-{len(content) - 1}/{len(content)}")
            else:
                self.send_response(200)
            body = content[start:]
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            cut = faults.cuts.pop(0) if faults.cuts else None
            self.wfile.write(body if cut is None else body[:cut])
            self.close_connection = True

        def log_message(self, *arguments: object) -> None:
            """Keep the test output clean."""

    http = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    faults = FaultyServer(f"http://127.0.0.1:{http.server_port}")
    thread = threading.Thread(target=http.serve_forever, kwargs={"poll_interval": 0.01})
    thread.start()
    yield faults
    http.shutdown()
    thread.join()
    http.server_close()


@pytest.fixture
def empty_root(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An existing, empty data folder, and no environment variable that points elsewhere."""
    monkeypatch.delenv("SPIKEDATA_ROOT", raising=False)
    root = tmp_path / "root"
    root.mkdir()
    return root
