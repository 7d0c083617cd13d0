"""Recycled memory is never in two tensors at once and stays below its limit."""

from __future__ import annotations

import copy
import gc
import pickle
import threading

import pytest
import torch

from snn.kernels import memory

SIZE = (memory.SMALLEST // 4,)


@pytest.fixture(autouse=True)
def _empty_store() -> None:
    gc.collect()
    memory.release()


def test_freed_memory_serves_the_next_tensor() -> None:
    first = memory.empty(SIZE, torch.float32)
    address = first.data_ptr()
    del first
    assert memory.empty(SIZE, torch.float32).data_ptr() == address


def test_memory_in_use_is_not_given_out_again() -> None:
    first = memory.empty(SIZE, torch.float32).fill_(1.0)
    view = first[10:20]
    del first
    second = memory.empty(SIZE, torch.float32).fill_(2.0)
    assert view.eq(1.0).all()
    assert second.eq(2.0).all()


def test_a_tensor_saved_for_backward_keeps_its_memory() -> None:
    x = memory.empty(SIZE, torch.float32).fill_(3.0).requires_grad_()
    y = (x * x).sum()
    other = [memory.empty(SIZE, torch.float32).fill_(5.0) for _ in range(3)]
    assert torch.autograd.grad(y, x)[0].eq(6.0).all()
    assert len(other) == 3


def test_shape_dtype_and_alignment() -> None:
    for dtype in (torch.float32, torch.float64):
        tensor = memory.empty((3, 7, 99991), dtype)
        assert tensor.shape == (3, 7, 99991)
        assert tensor.dtype == dtype
        assert tensor.is_contiguous()
        assert tensor.data_ptr() % memory.ALIGNMENT == 0


def test_small_tensors_are_ordinary() -> None:
    assert memory.empty((3,), torch.float32).resize_(5).shape == (5,)


def test_idle_memory_is_bounded_and_can_be_released(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(memory, "IDLE_LIMIT", 3 * memory.SMALLEST)
    tensors = [memory.empty(SIZE, torch.float32) for _ in range(8)]
    del tensors
    gc.collect()
    assert memory.release() == 3 * memory.SMALLEST
    assert memory.release() == 0


def test_copies_and_pickles() -> None:
    tensor = memory.empty(SIZE, torch.float32).fill_(4.0)
    assert torch.equal(copy.deepcopy(tensor), tensor)
    assert torch.equal(pickle.loads(pickle.dumps(tensor)), tensor)


def test_threads_do_not_share_a_block() -> None:
    wrong: list[int] = []

    def work(value: int) -> None:
        for _ in range(50):
            tensor = memory.empty(SIZE, torch.float32).fill_(float(value))
            if not tensor.eq(float(value)).all():
                wrong.append(value)

    workers = [threading.Thread(target=work, args=(value,)) for value in range(4)]
    for worker in workers:
        worker.start()
    for worker in workers:
        worker.join()
    assert not wrong


class _Interrupted:
    """A block during whose look-up another one comes back, as a collection of garbage may bring it."""

    def __init__(self, store: memory._Store, returned: object) -> None:
        self.store, self.returned = store, returned

    @property
    def nbytes(self) -> int:
        if self.returned is not None:
            returned, self.returned = self.returned, None
            self.store.give_back(returned)  # type: ignore[arg-type]
        return 8


def test_a_block_may_come_back_during_a_look_up() -> None:
    store = memory._Store()
    for _ in range(3):
        store.blocks.append(_Interrupted(store, memory._aligned(16)))  # type: ignore[arg-type]
    assert store.take(64).nbytes == 64
    assert len(store.blocks) == 6
