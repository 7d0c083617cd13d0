"""Order, shares and parts of the images."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
import torch

from snn.training.data import Batches, EvaluationOrder, TrainingOrder, load_splits, training_loader
from snn.training.errors import RecipeError
from snn.training.recipe import DataOptions

ROWS = torch.arange(100, 203)


def rows_of(order: TrainingOrder, epoch: int) -> list[list[int]]:
    order.set_epoch(epoch)
    return [key.rows.tolist() for key in order]


def order(seed: int = 0, process: int = 0, process_count: int = 1) -> TrainingOrder:
    return TrainingOrder(ROWS, 10, seed, process, process_count)


def test_an_epoch_takes_each_image_at_most_once_in_full_batches() -> None:
    batches = rows_of(order(), 0)
    assert [len(batch) for batch in batches] == [10] * 10 == [10] * len(order())
    used = [row for batch in batches for row in batch]
    assert len(set(used)) == 100
    assert set(used) <= set(ROWS.tolist())


def test_order_depends_on_seed_and_epoch_alone() -> None:
    assert rows_of(order(), 3) == rows_of(order(), 3)
    assert rows_of(order(), 3) != rows_of(order(), 4)
    assert rows_of(order(seed=1), 3) != rows_of(order(), 3)


def test_processes_share_the_batches_of_one_process() -> None:
    whole = rows_of(order(), 2)
    parts = [rows_of(order(process=p, process_count=2), 2) for p in range(2)]
    assert all(sorted(a + b) == sorted(w) for a, b, w in zip(*parts, whole, strict=True))
    with pytest.raises(RecipeError, match=r"data\.batch_size must be a multiple of the 3 processes"):
        order(process_count=3)


@pytest.mark.parametrize("process_count", [1, 2, 3])
def test_evaluation_sees_every_image_once(process_count: int) -> None:
    orders = [EvaluationOrder(ROWS, 16, process, process_count) for process in range(process_count)]
    seen = [row for part in orders for key in part for row in key.rows.tolist()]
    assert sorted(seen) == ROWS.tolist()
    assert [len(list(part)) for part in orders] == [len(part) for part in orders]


def loaded(workers: int, epochs: list[int]) -> Iterator[torch.Tensor]:
    options = DataOptions("digits", batch_size=500, shift=1, flip=True, workers=workers)
    loader = training_loader(load_splits(options, 0), options, 0, 0, 1)
    for epoch in epochs:
        loader.sampler.set_epoch(epoch)
        for images, _ in loader:
            yield images.clone()


def test_worker_processes_change_nothing() -> None:
    here, there = list(loaded(0, [0, 1])), list(loaded(2, [0, 1]))
    assert len(here) == len(there) == 4
    assert all(torch.equal(a, b) for a, b in zip(here, there, strict=True))
    assert not torch.equal(here[0], here[2])


def test_loading_leaves_the_global_generator_alone() -> None:
    before = torch.get_rng_state()
    list(loaded(0, [0]))
    assert torch.equal(torch.get_rng_state(), before)


def test_validation_part_is_set_aside_from_training() -> None:
    options = DataOptions("digits", val_fraction=0.2)
    splits = load_splits(options, 0)
    assert len(splits.val_rows) == round(0.2 * 1437)
    assert sorted([*splits.val_rows.tolist(), *splits.train_rows.tolist()]) == list(range(1437))
    assert torch.equal(load_splits(options, 0).val_rows, splits.val_rows)
    assert not torch.equal(load_splits(options, 1).val_rows, splits.val_rows)
    assert load_splits(DataOptions("digits"), 0).train_rows.tolist() == list(range(1437))


def test_evaluation_images_are_not_augmented() -> None:
    splits = load_splits(DataOptions("digits", shift=2), 0)
    key = next(iter(EvaluationOrder(torch.arange(20), 20, 0, 1)))
    images, labels = Batches(splits.test, 0, False, 0, 0)[key]
    assert torch.equal(images, splits.test.batch(torch.arange(20))[0])
    assert torch.equal(labels, splits.test.labels[:20])


def test_more_images_per_batch_than_there_are_is_an_error() -> None:
    with pytest.raises(RecipeError, match=r"data\.batch_size must be at most the 1437 training images, got 2000"):
        load_splits(DataOptions("digits", batch_size=2000), 0)
