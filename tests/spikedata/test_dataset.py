"""The data set object: access one by one, in batches, through a DataLoader and in worker processes."""

import pickle

import pytest
import torch
from torch.utils.data import DataLoader, Subset

from spikedata import DatasetSpec, ImageDataset


def no_reader(split: str, root: object, download: bool) -> tuple[torch.Tensor, torch.Tensor, str]:
    raise AssertionError("not read in these tests")


SPEC = DatasetSpec("made", "made up", (2, 3, 4), 200, ("a", "b", "c"), {"train": 30, "test": 7}, no_reader)


def made(split: str = "train") -> ImageDataset:
    count = SPEC.counts[split]
    generator = torch.Generator().manual_seed(1)
    pixels = torch.randint(0, 201, (count, *SPEC.shape), generator=generator, dtype=torch.uint8)
    return ImageDataset(SPEC, split, pixels, torch.arange(count) % 3, "made")


def test_fields_come_from_the_spec() -> None:
    data = made("test")
    assert (data.name, data.split, data.shape, data.classes) == ("made", "test", (2, 3, 4), ("a", "b", "c"))
    assert (len(data), data.source) == (7, "made")


def test_item_is_a_scaled_image_and_an_integer() -> None:
    data = made()
    image, label = data[4]
    assert image.dtype == torch.float32
    assert torch.equal(image, data.pixels[4].float() / 200)
    assert (label, type(label)) == (1, int)
    assert torch.equal(data[-1][0], data[29][0])


def test_images_are_all_items() -> None:
    data = made()
    assert torch.equal(data.images, torch.stack([image for image, _ in data]))
    assert data.images is data.images


def test_items_equal_item_by_item() -> None:
    data, positions = made(), [5, 0, 5, 29, -1]
    several = data.__getitems__(positions)
    assert len(several) == 5
    for (image, label), position in zip(several, positions, strict=True):
        assert torch.equal(image, data[position][0])
        assert (label, type(label)) == (data[position][1], int)


@pytest.mark.parametrize("indices", [[3, 1, 3], (3, 1, 3), torch.tensor([3, 1, 3])])
def test_batch_accepts_sequences_and_tensors(indices: torch.Tensor | list[int]) -> None:
    data = made()
    images, labels = data.batch(indices)
    assert torch.equal(images, torch.stack([data[3][0], data[1][0], data[3][0]]))
    assert labels.tolist() == [0, 1, 0]
    assert labels.dtype == torch.int64


def test_batch_accepts_a_slice_and_leaves_the_pixels_alone() -> None:
    data = made()
    before = data.pixels.clone()
    images, labels = data.batch(slice(10, 20))
    images.zero_()
    assert labels.tolist() == data.labels[10:20].tolist()
    assert torch.equal(data.pixels, before)


@pytest.mark.parametrize("index", [30, -31])
def test_index_outside_is_an_index_error(index: int) -> None:
    with pytest.raises(IndexError):
        made()[index]
    with pytest.raises(IndexError):
        made().batch([index])


def test_item_takes_one_position_only() -> None:
    with pytest.raises(TypeError, match="integer"):
        made()[0:1]  # type: ignore[index]


def test_pickle_keeps_all_but_the_float_copy() -> None:
    data = made()
    assert data.images is not None
    again = pickle.loads(pickle.dumps(data))
    assert "images" not in vars(again)
    assert torch.equal(again.pixels, data.pixels)
    assert torch.equal(again.labels, data.labels)
    assert repr(again) == repr(data)


@pytest.mark.parametrize("worker_count", [0, 1])
def test_data_loader_gives_batches_in_order(worker_count: int) -> None:
    data = made()
    loader = DataLoader(
        data, batch_size=8, num_workers=worker_count, multiprocessing_context="spawn" if worker_count else None
    )
    batches = list(loader)
    assert [len(labels) for _, labels in batches] == [8, 8, 8, 6]
    assert torch.equal(torch.cat([images for images, _ in batches]), data.images)
    assert torch.equal(torch.cat([labels for _, labels in batches]), data.labels)


def test_subset_is_fetched_in_batches() -> None:
    data = made()
    images, labels = next(iter(DataLoader(Subset(data, [9, 8, 7]), batch_size=3)))
    assert torch.equal(images, data.batch([9, 8, 7])[0])
    assert labels.tolist() == [0, 2, 1]


def test_tensors_that_do_not_fit_are_refused() -> None:
    pixels, labels = torch.zeros(7, 2, 3, 4, dtype=torch.uint8), torch.zeros(7, dtype=torch.int64)
    for wrong in (pixels[:6], pixels[:, :1], pixels.float()):
        with pytest.raises(ValueError, match=r"made test: pixels must be uint8 \(7, 2, 3, 4\), got"):
            ImageDataset(SPEC, "test", wrong, labels, "made")
    for wrong in (labels[:6], labels.int()):
        with pytest.raises(ValueError, match=r"made test: labels must be int64 \(7,\), got"):
            ImageDataset(SPEC, "test", pixels, wrong, "made")
    for wrong in (labels + 3, labels - 1):
        with pytest.raises(ValueError, match="labels must be 0 to 2, got"):
            ImageDataset(SPEC, "test", pixels, wrong, "made")
    with pytest.raises(ValueError, match="pixels must be at most 200, got 201"):
        ImageDataset(SPEC, "test", pixels + 201, labels, "made")
