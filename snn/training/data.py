"""Images of a recipe, in batches whose order and augmentation depend only on (seed, epoch, batch)."""

import importlib
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple, Protocol

import torch
from torch.utils.data import DataLoader, Dataset, Sampler

from snn.errors import closest
from snn.training.augment import flipped, shifted
from snn.training.recipe import DataOptions, RecipeError
from snn.training.seeding import AUGMENT, ORDER, SPLIT, derived_seed, generator


class Images(Protocol):
    """What training needs of a data set; spikedata's sets and your own look like this."""

    labels: torch.Tensor  # int64 [N]
    classes: Sequence[str]
    shape: tuple[int, ...]  # of one input
    source: str  # where the data come from, written to metrics.json

    def batch(self, indices: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """Return inputs float [B, *shape] and labels int64 [B]."""
        ...


@dataclass(frozen=True)
class Splits:
    """Images of a run and which of them belong to which part."""

    train: Images
    test: Images
    train_rows: torch.Tensor  # int64, positions in `train`
    val_rows: torch.Tensor  # int64, positions in `train`; empty without a validation part

    @property
    def input_shape(self) -> tuple[int, ...]:
        return tuple(self.train.shape)

    @property
    def class_count(self) -> int:
        return len(self.train.classes)


def load_splits(options: DataOptions, seed: int) -> Splits:
    """Read the data set of a recipe and set the validation part aside.

    Raises: RecipeError if there is no such data set, if its files are missing or if a part is too small.
    """
    load = _loader(options.name)
    try:
        train, test = (load(split, options.root) for split in ("train", "test"))
    except (ValueError, ImportError, OSError) as error:
        raise RecipeError(f"data.name {options.name!r}: {error}") from error
    count = len(train.labels)
    order = torch.randperm(count, generator=generator(seed, SPLIT))
    if options.train_images is not None:
        if options.train_images > count:
            raise RecipeError(f"data.train_images must be at most {count}, got {options.train_images}")
        count = options.train_images
        order = order[:count]
    val_count = round(count * options.val_fraction)
    rows = order.sort().values if val_count == 0 else order
    if options.val_fraction > 0 and val_count == 0:
        raise RecipeError(f"data.val_fraction {options.val_fraction} of {count} training images is less than one image")
    splits = Splits(train, test, rows[val_count:], rows[:val_count].sort().values)
    if len(splits.train_rows) < options.batch_size:
        raise RecipeError(
            f"data.batch_size must be at most the {len(splits.train_rows)} training images, got {options.batch_size}"
        )
    return splits


def _loader(name: str) -> Callable[[str, str | None], Any]:
    if ":" in name:
        module, _, function = name.partition(":")
        try:
            return getattr(importlib.import_module(module), function)
        except (ImportError, AttributeError, ValueError, TypeError) as error:
            raise RecipeError(f"data.name {name!r}: cannot be imported: {error}") from error
    try:
        import spikedata
    except ImportError as error:
        raise RecipeError("data.name: needs spikedata; install it with: pip install 'spikeloop[train]'") from error
    if name not in spikedata.DATASETS:
        hint = closest(name, spikedata.DATASETS)
        raise RecipeError(f"data.name: unknown {name!r}{hint} (or package.module:function of your own)")
    return lambda split, root: spikedata.load(name, split=split, root=root)


class BatchKey(NamedTuple):
    """One batch of one epoch: the positions of its images, and its place for the random generators."""

    epoch: int
    number: int  # over all processes
    rows: torch.Tensor  # int64 [B]


class TrainingOrder(Sampler[BatchKey]):
    """Batches of one process: a new permutation per epoch, the same cut on any number of processes.

    The last incomplete batch of an epoch is left out, so that every optimiser step averages batch_size images.

    Args:
        rows: positions that may be used, int64 [N].
        batch_size: images per batch over all processes.
        seed: of the run.
        process: index of this process.
        process_count: number of processes; must divide batch_size.
    """

    def __init__(self, rows: torch.Tensor, batch_size: int, seed: int, process: int, process_count: int) -> None:
        if batch_size % process_count:
            raise RecipeError(
                f"data.batch_size must be a multiple of the {process_count} processes that share it, got {batch_size}"
            )
        self.rows = rows
        self.batch_size = batch_size
        self.seed = seed
        self.process = process
        self.process_count = process_count
        self.epoch = 0

    def set_epoch(self, epoch: int) -> None:
        """Choose the epoch of the next iteration; Lightning calls it."""
        self.epoch = epoch

    def __len__(self) -> int:
        return len(self.rows) // self.batch_size

    def __iter__(self) -> Iterator[BatchKey]:
        order = torch.randperm(len(self.rows), generator=generator(self.seed, ORDER, self.epoch))
        for number in range(len(self)):
            batch = order[number * self.batch_size : (number + 1) * self.batch_size]
            yield BatchKey(self.epoch, number, self.rows[batch[self.process :: self.process_count]])


class EvaluationOrder(Sampler[BatchKey]):
    """All given images once, in order, each in one process."""

    def __init__(self, rows: torch.Tensor, batch_size: int, process: int, process_count: int) -> None:
        self.chunks = rows[process::process_count].split(batch_size)

    def __len__(self) -> int:
        return len(self.chunks)

    def __iter__(self) -> Iterator[BatchKey]:
        for number, rows in enumerate(self.chunks):
            yield BatchKey(0, number, rows)


class Batches(Dataset[tuple[torch.Tensor, torch.Tensor]]):
    """Maps a batch key to images and labels, augmented as the options say."""

    def __init__(self, images: Images, shift: int, flip: bool, seed: int, process: int) -> None:
        self.images = images
        self.shift = shift
        self.flip = flip
        self.seed = seed
        self.process = process

    def __getitem__(self, key: BatchKey) -> tuple[torch.Tensor, torch.Tensor]:
        inputs, labels = self.images.batch(key.rows)
        if self.shift or self.flip:
            draw = generator(self.seed, AUGMENT, key.epoch, key.number, self.process)
            inputs = shifted(inputs, self.shift, draw)
            if self.flip:
                inputs = flipped(inputs, draw)
        return inputs, labels


def training_loader(
    splits: Splits, options: DataOptions, seed: int, process: int, process_count: int
) -> DataLoader[Any]:
    """Return the batches of one process, a new order in every epoch."""
    order = TrainingOrder(splits.train_rows, options.batch_size, seed, process, process_count)
    return _data_loader(Batches(splits.train, options.shift, options.flip, seed, process), order, options.workers, seed)


def evaluation_loader(
    images: Images, rows: torch.Tensor, options: DataOptions, seed: int, process: int, process_count: int
) -> DataLoader[Any]:
    """Return the share of one process of the given images, unchanged and in order."""
    # Without gradients a batch takes far less memory, and larger ones are faster.
    order = EvaluationOrder(rows, max(options.batch_size, 500), process, process_count)
    return _data_loader(Batches(images, 0, False, seed, process), order, options.workers, seed)


def _data_loader(batches: Batches, order: Sampler[BatchKey], workers: int, seed: int) -> DataLoader[Any]:
    # The sampler yields whole batches, so the loader neither groups nor stacks. Its own generator only seeds the
    # workers' global generators; without one it would draw from the run's.
    own = torch.Generator().manual_seed(derived_seed(seed, ORDER))
    return DataLoader(
        batches, batch_size=None, sampler=order, num_workers=workers, persistent_workers=workers > 0, generator=own
    )
