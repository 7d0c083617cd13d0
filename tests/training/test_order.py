"""Batches, their order and their augmentation: functions of seed, epoch and batch, and of nothing else."""

from __future__ import annotations

import pytest
import torch
from tiny_data import TEST, TRAIN, TinyImages

from snn.training.augment import flipped, shifted
from snn.training.data import EvaluationOrder, TrainingOrder, load_splits, training_loader
from snn.training.recipe import DataOptions, RecipeError
from snn.training.seeding import derived_seed, generator_states, set_all_generators


def rows(order: TrainingOrder, epoch: int) -> list[list[int]]:
    order.set_epoch(epoch)
    return [key.rows.tolist() for key in order]


def order(seed: int = 0, process: int = 0, count: int = 1, batch_size: int = 12) -> TrainingOrder:
    return TrainingOrder(100 + torch.arange(TRAIN), batch_size, seed, process, count)


def test_every_image_comes_once_per_epoch() -> None:
    found = [row for batch in rows(order(), 0) for row in batch]
    assert sorted(found) == list(range(100, 100 + TRAIN))
    assert found != sorted(found)


def test_incomplete_batch_is_left_out() -> None:
    assert [len(batch) for batch in rows(order(batch_size=25), 0)] == [25, 25]
    assert len(order(batch_size=25)) == 2


def test_order_depends_on_seed_and_epoch_only() -> None:
    torch.manual_seed(1)
    first = rows(order(), 3)
    torch.manual_seed(2)
    torch.rand(5)
    assert rows(order(), 3) == first
    assert rows(order(), 4) != first
    assert rows(order(seed=1), 3) != first


def test_reading_batches_leaves_the_global_generators_alone() -> None:
    set_all_generators(5)
    before = generator_states()
    splits = load_splits(DataOptions("tiny_data:load", batch_size=12, val_fraction=0.2, shift=1, flip=True), 0)
    for _ in training_loader(splits, DataOptions(batch_size=12, shift=1, flip=True), 0, 0, 1):
        pass
    after = generator_states()
    assert torch.equal(before["torch"], after["torch"])
    assert before["python"] == after["python"]
    assert torch.equal(before["numpy"][1], after["numpy"][1])


@pytest.mark.parametrize("count", [2, 3, 4])
def test_processes_share_the_batches_of_one(count: int) -> None:
    alone = rows(order(), 2)
    shares = [rows(order(process=process, count=count), 2) for process in range(count)]
    for number, batch in enumerate(alone):
        assert sorted(row for share in shares for row in share[number]) == sorted(batch)
        assert {len(share[number]) for share in shares} == {12 // count}


def test_batch_that_cannot_be_shared_is_an_error() -> None:
    with pytest.raises(RecipeError, match=r"data.batch_size must be a multiple of the 5 processes .* got 12"):
        order(count=5)


@pytest.mark.parametrize("count", [1, 2, 4])
def test_evaluation_covers_every_image_once(count: int) -> None:
    shares = [EvaluationOrder(torch.arange(TEST), 4, process, count) for process in range(count)]
    assert sorted(row for share in shares for key in share for row in key.rows.tolist()) == list(range(TEST))


def test_validation_part_is_apart_from_training_and_fixed_by_the_seed() -> None:
    options = DataOptions("tiny_data:load", batch_size=12, val_fraction=0.25)
    splits = load_splits(options, 0)
    assert len(splits.val_rows) == 15
    assert sorted([*splits.val_rows.tolist(), *splits.train_rows.tolist()]) == list(range(TRAIN))
    torch.manual_seed(9)
    assert torch.equal(load_splits(options, 0).val_rows, splits.val_rows)
    assert not torch.equal(load_splits(options, 1).val_rows, splits.val_rows)


def test_loader_gives_the_same_images_with_and_without_workers() -> None:
    def batches(workers: int) -> list[torch.Tensor]:
        options = DataOptions("tiny_data:load", batch_size=12, shift=1, flip=True, workers=workers)
        return [part for batch in training_loader(load_splits(options, 0), options, 0, 0, 1) for part in batch]

    alone, shared = batches(0), batches(2)
    assert len(alone) == 2 * TRAIN // 12
    assert all(map(torch.equal, alone, shared))


def test_shift_moves_each_image_and_fills_with_zero() -> None:
    images = TinyImages("train").images
    moved = shifted(images, 2, torch.Generator().manual_seed(0))
    padded = torch.nn.functional.pad(images, (2, 2, 2, 2))
    places = set()
    for image, source in zip(moved, padded, strict=True):
        found = [
            (down, right)
            for down in range(5)
            for right in range(5)
            if torch.equal(image, source[:, down : down + 4, right : right + 6])
        ]
        assert len(found) == 1
        places.add(found[0])
    assert len(places) > 15
    assert shifted(images, 0, torch.Generator()) is images


def test_flip_mirrors_about_half_of_the_images() -> None:
    images = TinyImages("train").images
    mirrored = flipped(images, torch.Generator().manual_seed(0))
    count = 0
    for image, source in zip(mirrored, images, strict=True):
        count += torch.equal(image, source.flip(2))
        assert torch.equal(image, source) or torch.equal(image, source.flip(2))
    assert 18 <= count <= 42


def test_seeds_of_different_places_differ() -> None:
    paths = [(), (0,), (1,), (0, 0), (0, 1), (1, 0), (0, 0, 0)]
    assert len({derived_seed(seed, *path) for seed in (0, 1, 2**40) for path in paths}) == 21
    assert all(0 <= derived_seed(seed) < 2**63 for seed in range(50))
