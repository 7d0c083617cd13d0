"""Speech Commands from an archive of its layout: words, splits, bands, damage, interruption and download."""

from __future__ import annotations

import hashlib
import io
import os
import subprocess
import sys
import tarfile
import wave
from pathlib import Path

import h5py
import numpy as np
import pytest
import torch

from spikedata import DataError, speech_commands
from spikedata.download import RemoteFile

WORDS = ("yes", "bed", "zero")
TONES = {"yes": 400, "bed": 900, "zero": 2000}
SPEAKERS = ("0a1b", "2c3d", "4e5f", "6a7b")
VALID, TEST = "yes/2c3d_nohash_0.wav", "zero/4e5f_nohash_0.wav"
COUNTS = {"train": 10, "valid": 1, "test": 1}


def wav(values: np.ndarray, rate: int = 16_000, channels: int = 1) -> bytes:
    out = io.BytesIO()
    with wave.open(out, "wb") as file:
        file.setnchannels(channels)
        file.setsampwidth(2)
        file.setframerate(rate)
        file.writeframes(np.asarray(values, "<i2").tobytes())
    return out.getvalue()


def members() -> dict[str, bytes]:
    found = {"README.md": b"words", "_background_noise_/hum.wav": wav(np.ones(50_000))}
    noise = np.random.default_rng(0)  # and so no archive of a few bytes
    for number, speaker in enumerate(SPEAKERS):
        length = 16_000 - 3000 * number
        for word in WORDS:
            sound = 8000 * np.sin(2 * np.pi * TONES[word] * np.arange(length) / 16_000) + noise.normal(0, 20, length)
            found[f"{word}/{speaker}_nohash_0.wav"] = wav(sound)
    # the lists come among the recordings
    middle = list(found.items())
    lists = {"testing_list.txt": f"{TEST}\n".encode(), "validation_list.txt": f"{VALID}\n".encode()}
    return dict([*middle[:5], *lists.items(), *middle[5:]])


def packed(content: dict[str, bytes]) -> bytes:
    out = io.BytesIO()
    with tarfile.open(fileobj=out, mode="w:gz") as archive:
        for name, data in content.items():
            entry = tarfile.TarInfo(f"./{name}")
            entry.size = len(data)
            archive.addfile(entry, io.BytesIO(data))
    return out.getvalue()


@pytest.fixture
def small(monkeypatch: pytest.MonkeyPatch) -> bytes:
    """An archive of twelve recordings that passes for the original."""
    monkeypatch.setattr(speech_commands, "COUNTS", COUNTS)
    return known(monkeypatch, packed(members()))


def known(monkeypatch: pytest.MonkeyPatch, data: bytes, *urls: str) -> bytes:
    checksum = f"sha256:{hashlib.sha256(data).hexdigest()}"
    monkeypatch.setattr(speech_commands, "ARCHIVE", RemoteFile("speech_commands_v0.02.tar.gz", urls, checksum))
    return data


def put(root: Path, data: bytes) -> Path:
    path = root / "speech_commands" / "speech_commands_v0.02.tar.gz"
    path.parent.mkdir(exist_ok=True)
    path.write_bytes(data)
    return path


def test_archive_becomes_bands(small: bytes, empty_root: Path) -> None:
    put(empty_root, small)
    path = speech_commands.prepare(empty_root, download=False)
    assert path == empty_root / "speech_commands" / "speech_commands_v0.02_mel140.h5"
    splits = {split: speech_commands.load(split, str(empty_root)) for split in COUNTS}
    assert {split: len(words.labels) for split, words in splits.items()} == COUNTS
    assert splits["train"].shape == (101, 140)
    assert len(splits["train"].classes) == 35
    assert splits["valid"].labels.tolist() == [speech_commands.CLASSES.index("yes")]
    assert splits["test"].labels.tolist() == [speech_commands.CLASSES.index("zero")]
    x, labels = splits["train"].batch(torch.arange(10))
    assert x.dtype == torch.float32
    names = [speech_commands.CLASSES[label] for label in labels.tolist()]
    assert sorted(names) == ["bed"] * 4 + ["yes"] * 3 + ["zero"] * 3
    for frames, name in zip(x, names, strict=True):  # every recording lies beside its own label
        loudest = int(frames[30].argmax())
        corners = np.linspace(*(2595 * np.log10(1 + np.array([50, 4000]) / 700)), 142)
        assert abs(loudest + 1 - np.searchsorted(corners, 2595 * np.log10(1 + TONES[name] / 700))) <= 3
    assert 0 <= float(x.min()) < 1e-6
    assert 1.0 < float(x.max()) < 1.4
    assert bool((x[:, 99:].amax((1, 2)) < 0.3).sum() == 7), "shorter recordings end in silence"


def test_bands_equal_those_of_single_recordings(
    small: bytes, empty_root: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(speech_commands, "AT_ONCE", 5)
    put(empty_root, small)
    speech_commands.prepare(empty_root)
    sound = speech_commands.samples(members()[TEST], "test")
    expected = speech_commands.bands(sound[None])
    words = speech_commands.load("test", str(empty_root))
    np.testing.assert_allclose(words.frames[0].float(), expected[0], atol=1e-3)


def test_unpacked_folder_equals_the_archive(small: bytes, empty_root: Path, tmp_path: Path) -> None:
    put(empty_root, small)
    speech_commands.prepare(empty_root)
    other = tmp_path / "other"
    for name, data in members().items():
        file = other / "speech_commands_v0.02" / name
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_bytes(data)
    speech_commands.prepare(other, download=False)
    for split in COUNTS:
        one, two = (speech_commands.load(split, str(root)) for root in (empty_root, other))
        order = [words.frames.float().sum((1, 2)).argsort() for words in (one, two)]
        assert torch.equal(one.labels[order[0]], two.labels[order[1]])
        assert torch.equal(one.frames[order[0]], two.frames[order[1]])


def test_archive_is_downloaded_and_continued(server, empty_root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(speech_commands, "COUNTS", COUNTS)
    data = known(monkeypatch, packed(members()), server.url("archive"))
    server.files["archive"] = data
    server.cuts = [len(data) // 2, None]
    assert speech_commands.main(["--root", str(empty_root)]) == 0
    assert server.ranges[0] is None
    assert server.ranges[1].startswith("bytes=")
    assert len(speech_commands.load("train", str(empty_root)).labels) == 10
    assert speech_commands.main(["--root", str(empty_root)]) == 0
    assert len(server.ranges) == 2, "what is there is not made again"


def test_missing_data_name_the_command_and_the_stand_in(empty_root: Path, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(
        DataError, match=r"python -m spikedata.speech_commands --root .*spoken:speech_commands_stand_in"
    ):
        speech_commands.load("train", str(empty_root))
    with pytest.raises(DataError, match=r"one of 'train', 'valid', 'test', got 'validation'"):
        speech_commands.load("validation", str(empty_root))
    assert speech_commands.main(["--root", str(empty_root), "--no-download"]) == 2
    assert "speech_commands_v0.02.tar.gz" in capsys.readouterr().err


def test_altered_archive_is_refused(small: bytes, empty_root: Path) -> None:
    put(empty_root, small[:-100])
    with pytest.raises(DataError, match="sha256"):
        speech_commands.prepare(empty_root)
    assert not list(empty_root.rglob("*.h5"))


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({VALID: None}, "'yes/2c3d_nohash_0.wav' of a list is missing"),
        ({"bed/0a1b_nohash_0.wav": None}, r"'train': 9.*expected .*'train': 10"),
        ({VALID: wav(np.ones(10), rate=8000)}, r"yes/2c3d_nohash_0.wav: must have 1 channel.* got \(1, 2, 8000\)"),
        ({VALID: wav(np.ones(10), channels=2)}, r"must have 1 channel.* got \(2, 2, 16000\)"),
        ({VALID: b"RIFF"}, "yes/2c3d_nohash_0.wav: not a whole WAV file"),
        ({VALID: wav(np.ones(1000))[:-500]}, "ends after 1500 of 2000 bytes"),
    ],
)
def test_what_is_wrong_is_named_and_nothing_is_left(
    change: dict[str, bytes | None], message: str, empty_root: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(speech_commands, "COUNTS", COUNTS)
    content = {name: data for name, data in (members() | change).items() if data is not None}
    put(empty_root, known(monkeypatch, packed(content)))
    with pytest.raises(DataError, match=message):
        speech_commands.prepare(empty_root)
    assert {path.name for path in (empty_root / "speech_commands").iterdir()} == {
        "speech_commands_v0.02.tar.gz",
        "speech_commands_v0.02_mel140.h5.lock",
    }


def test_killed_while_writing_leaves_no_file(small: bytes, empty_root: Path) -> None:
    put(empty_root, small)
    code = f"""
import os, sys
from spikedata import speech_commands
from spikedata.download import RemoteFile
speech_commands.COUNTS = {COUNTS!r}
speech_commands.ARCHIVE = RemoteFile({speech_commands.ARCHIVE.name!r}, (), {speech_commands.ARCHIVE.checksum!r})
speech_commands.AT_ONCE = 4
made = speech_commands.bands
speech_commands.bands = lambda recordings: made(recordings) if len(done.append(0) or done) < 3 else os._exit(9)
done = []
speech_commands.prepare({str(empty_root)!r})
"""
    ended = subprocess.run([sys.executable, "-c", code], env={**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)})
    assert ended.returncode == 9
    assert not (empty_root / "speech_commands" / speech_commands.BANDS_FILE).exists()
    speech_commands.prepare(empty_root)
    assert len(speech_commands.load("train", str(empty_root)).labels) == 10
    assert not list(empty_root.rglob("*.tmp"))


def test_damaged_file_of_bands_is_refused(small: bytes, empty_root: Path) -> None:
    put(empty_root, small)
    path = speech_commands.prepare(empty_root)
    whole = path.read_bytes()
    path.write_bytes(whole[: len(whole) // 2])
    with pytest.raises(DataError, match="delete it and make it anew"):
        speech_commands.load("train", str(empty_root))
    path.write_bytes(whole)
    with h5py.File(path, "r+") as file:
        file.attrs["classes"] = ["yes", "no"]
    with pytest.raises(DataError, match="another layout"):
        speech_commands.load("train", str(empty_root))


def test_recordings_are_cut_to_a_second() -> None:
    values = np.arange(20_000) % 30_000
    found = speech_commands.samples(wav(values), "long")
    np.testing.assert_array_equal(found, values[:16_000].astype(np.float32) / 32768)
    short = speech_commands.samples(wav(values[:5]), "short")
    assert short.shape == (16_000,)
    assert not short[5:].any()
