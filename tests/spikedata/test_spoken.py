"""Spoken-word sequences: files, binning, and the stand-ins whose classes differ in timing alone."""

from __future__ import annotations

from pathlib import Path

import h5py
import numpy as np
import pytest
import torch

from spikedata import DataError, spoken

STAND_INS = {"shd": spoken.shd_stand_in, "ssc": spoken.ssc_stand_in, "sc": spoken.speech_commands_stand_in}


@pytest.mark.parametrize("name", STAND_INS)
def test_stand_ins_have_the_shape_and_repeat(name: str) -> None:
    train, test = STAND_INS[name]("train", None), STAND_INS[name]("test", None)
    assert train.shape == test.shape == (101 if name == "sc" else 100, 140)
    assert len(train.classes) == (20 if name == "shd" else 35)
    assert train.labels.bincount().min() >= 57
    x, labels = train.batch(torch.tensor([5, 0]))
    assert x.shape == (2, *train.shape)
    assert x.dtype == torch.float32
    assert labels.tolist() == [train.labels[5], train.labels[0]]
    assert torch.equal(STAND_INS[name]("train", None).batch(torch.tensor([5, 0]))[0], x)
    with pytest.raises(DataError, match="'valid'"):
        STAND_INS[name]("valid", None)


def test_classes_of_a_stand_in_differ_in_timing_alone() -> None:
    words = spoken.shd_stand_in("train", None)
    counts = words.frames.float().sum(1)
    spread = counts.std(0) / len(words.labels) ** 0.5
    for label in range(3):
        own = counts[words.labels == label].mean(0)
        error = spread * (len(words.labels) / (words.labels == label).sum()) ** 0.5
        assert bool(((own - counts.mean(0)).abs() < 5 * error).all())


@pytest.mark.parametrize("name", ["shd", "ssc"])
def test_groups_of_a_stand_in_take_turns_in_the_order_of_the_class(name: str) -> None:
    words = STAND_INS[name]("train", None)
    active = words.frames.float().unflatten(2, (7, 20)).sum(3)  # [N, T, groups]
    assert 3000 < float(active.sum((1, 2)).mean()) < 6000, "spikes per word"
    assert float(((active > 10).sum(2) > 1).float().mean()) < 1e-3, "one group at a time"
    order = active.argmax(1).argsort(1)
    for label in range(len(words.classes)):
        own = order[words.labels == label]
        assert bool((own == own.mode(0).values).float().mean() > 0.999)
    assert len(
        {tuple(order[words.labels == label].mode(0).values.tolist()) for label in range(len(words.classes))}
    ) == (len(words.classes))
    first = active.argmax(1).amin(1)
    assert int(first.max() - first.min()) >= 10, "words start at different steps"


def test_files_are_binned(tmp_path: Path) -> None:
    (tmp_path / "shd").mkdir()
    with h5py.File(tmp_path / "shd" / "shd_train.h5", "w") as file:
        kind = h5py.vlen_dtype(np.float16), h5py.vlen_dtype(np.uint16)
        times = file.create_dataset("spikes/times", (2,), kind[0])
        units = file.create_dataset("spikes/units", (2,), kind[1])
        times[0], units[0] = np.array([0.5, 0.50390625, 0.5234375], np.float16), np.array([0, 4, 699], np.uint16)
        times[1], units[1] = np.array([0.1, 1.3], np.float16), np.array([7, 8], np.uint16)
        file["labels"] = np.array([3, 19], np.uint16)
    words = spoken.shd("train", str(tmp_path))
    assert words.labels.tolist() == [3, 19]
    assert words.frames[0].nonzero().tolist() == [[0, 0], [2, 139]]
    assert words.frames[0, 0, 0] == 2
    assert words.frames[1].nonzero().tolist() == [[0, 1]]
    with pytest.raises(DataError, match=r"shd_test.h5.*zenkelab"):
        spoken.shd("test", str(tmp_path))
    with h5py.File(tmp_path / "shd" / "shd_test.h5", "w") as file:
        file["other"] = np.zeros(1)
    with pytest.raises(DataError, match="expected spikes/times"):
        spoken.shd("test", str(tmp_path))


def test_an_empty_word() -> None:
    assert spoken.binned(np.zeros(0), np.zeros(0)).sum() == 0
