"""The IDX parser against files written here."""

import gzip
import struct
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays
from idx_writer import idx_bytes

from spikedata import DataError
from spikedata.formats.idx import parse_idx, read_content

ORIGIN = Path("some-idx3-ubyte")


@given(arrays.arrays(np.uint8, arrays.array_shapes(min_dims=1, max_dims=3, min_side=0, max_side=6)))
def test_written_array_is_read_again(array: np.ndarray) -> None:
    read = parse_idx(idx_bytes(array), array.ndim, ORIGIN)
    assert read.dtype == np.uint8
    assert np.array_equal(read, array)


def test_sizes_are_big_endian() -> None:
    data = bytes.fromhex("00000803 00000001 00000002 00000102") + bytes(516)
    assert parse_idx(data, 3, ORIGIN).shape == (1, 2, 258)


@given(st.integers(0, 15))
def test_every_shorter_file_is_refused(length: int) -> None:
    data = idx_bytes(np.zeros((1, 0, 0)))
    with pytest.raises(DataError, match="some-idx3-ubyte"):
        parse_idx(data[:length], 3, ORIGIN)


@pytest.mark.parametrize(("change", "state"), [(-1, "truncated"), (1, "longer than it should be")])
def test_length_must_match_the_header(change: int, state: str) -> None:
    data = idx_bytes(np.zeros((2, 3, 4)))
    data = data + b"\0" if change > 0 else data[:-1]
    with pytest.raises(DataError, match=rf"{40 + change} bytes.*shape \(2, 3, 4\)\) asks for 40: the file is {state}"):
        parse_idx(data, 3, ORIGIN)


@pytest.mark.parametrize("magic", [0x00000801, 0x00000D03, 0x03080000, 0x1F8B0803])
def test_wrong_magic_number_is_named(magic: int) -> None:
    with pytest.raises(DataError, match=f"magic number is 0x{magic:08x}, expected 0x00000803"):
        parse_idx(struct.pack(">4I", magic, 0, 0, 0), 3, ORIGIN)


@pytest.mark.parametrize("name", ["file", "file.gz"])
def test_gzip_shows_in_the_content_not_in_the_name(name: str, tmp_path: Path) -> None:
    path = tmp_path / name
    for written in (b"plain", gzip.compress(b"plain")):
        path.write_bytes(written)
        assert read_content(path) == b"plain"


@pytest.mark.parametrize("kept", [2, 10, 40, -1])
def test_truncated_gzip_names_the_file(kept: int, tmp_path: Path) -> None:
    path = tmp_path / "images.gz"
    path.write_bytes(gzip.compress(np.random.default_rng(0).bytes(500))[:kept])
    with pytest.raises(DataError, match=r"images\.gz: the gzip stream is truncated or damaged"):
        read_content(path)


def test_damaged_gzip_names_the_file(tmp_path: Path) -> None:
    data = bytearray(gzip.compress(np.random.default_rng(0).bytes(500)))
    data[300] ^= 1
    path = tmp_path / "images.gz"
    path.write_bytes(data)
    with pytest.raises(DataError, match=r"images\.gz: the gzip stream is truncated or damaged"):
        read_content(path)
