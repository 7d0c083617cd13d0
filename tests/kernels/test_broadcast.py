"""Layouts read the value that torch's broadcasting would give to each neuron."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

import snn
from snn.kernels.broadcast import kernel_layout


@given(st.data())
def test_layout_equals_broadcasting(data: st.DataObject) -> None:
    step_shape = tuple(data.draw(st.lists(st.integers(1, 4), min_size=1, max_size=4), "step"))
    rank = data.draw(st.integers(0, len(step_shape)), "rank")
    tail = step_shape[len(step_shape) - rank :]
    shape = tuple(data.draw(st.sampled_from([1, size])) for size in tail)
    value = torch.arange(1.0, 1.0 + torch.Size(shape).numel()).reshape(shape)
    layout = kernel_layout("tau", value, torch.Size(step_shape))
    n = torch.arange(torch.Size(step_shape).numel())
    read = layout.values[(n // layout.inner) % layout.values.numel()].reshape(step_shape)
    assert torch.equal(read, value.expand(step_shape))


def test_channels_are_not_copied() -> None:
    value = torch.rand(5, 1, 1)
    layout = kernel_layout("tau", value, torch.Size((2, 5, 3, 3)))
    assert layout.values.data_ptr() == value.data_ptr()
    assert layout.inner == 9


def test_gradients_sum_over_what_shares_a_value() -> None:
    layout = kernel_layout("tau", torch.rand(5, 1, 1), torch.Size((2, 5, 3, 3)))
    lanes = torch.rand(90)
    torch.testing.assert_close(
        layout.gradient(lanes, torch.Size((5, 1, 1))), lanes.view(2, 5, 9).sum((0, 2)).view(5, 1, 1)
    )


def test_wrong_shape_names_parameter_and_both_shapes() -> None:
    with pytest.raises(snn.ShapeError, match=r"'tau' has shape \(4,\).*\(2, 3\)"):
        kernel_layout("tau", torch.rand(4), torch.Size((2, 3)))
