"""scikit-learn's digits and their split."""

import hashlib

import numpy as np
import pytest
import torch
from sklearn import datasets

import spikedata
from spikedata.digits import held_out_positions


def test_split_is_stratified_and_complete(digits_test: spikedata.ImageDataset) -> None:
    train = spikedata.load("digits", "train")
    assert (len(train), len(digits_test)) == (1437, 360)
    test_counts, train_counts = (torch.bincount(part.labels, minlength=10) for part in (digits_test, train))
    share = test_counts / (test_counts + train_counts)
    assert ((share - 360 / 1797).abs() < 1 / 170).all()
    together = torch.cat([train.pixels, digits_test.pixels]).flatten(1)
    original = torch.from_numpy(datasets.load_digits().data).to(torch.uint8)
    assert sorted(together.tolist()) == sorted(original.tolist())


def test_split_never_changes(digits_test: spikedata.ImageDataset) -> None:
    positions = held_out_positions(datasets.load_digits().target, 360)
    assert positions[:8].tolist() == [7, 11, 15, 16, 17, 18, 24, 29]
    assert (
        hashlib.sha256(positions.astype("<u4").tobytes()).hexdigest()
        == "b80fcae95fd0feafcecb69bbdb1076d1b306f36e382b0efee18ec6105811d484"
    )
    assert digits_test.labels.tolist() == datasets.load_digits().target[positions].tolist()


def test_intensities_are_sixteenths(digits_test: spikedata.ImageDataset) -> None:
    assert digits_test.images.shape == (360, 1, 8, 8)
    assert digits_test.images.min() == 0
    assert digits_test.images.max() == 1
    assert torch.equal(digits_test.images * 16, digits_test.pixels.float())


def test_shares_follow_the_largest_remainder() -> None:
    labels = np.repeat([0, 1, 2], [5, 3, 2])  # exact shares of 4: 2.0, 1.2, 0.8
    assert np.bincount(labels[held_out_positions(labels, 4)]).tolist() == [2, 1, 1]


def test_other_digits_are_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    features, labels = datasets.load_digits(return_X_y=True)
    features[0, 0] += 1
    monkeypatch.setattr(datasets, "load_digits", lambda return_X_y: (features, labels))
    with pytest.raises(spikedata.DataError, match="sha256 of the content is"):
        spikedata.load("digits", "test")
