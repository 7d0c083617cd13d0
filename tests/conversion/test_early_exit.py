"""Read-outs that answer as soon as they are clear."""

from __future__ import annotations

import pytest
import torch

from snn.conversion.early_exit import early_exit, exit_steps
from snn.errors import ShapeError


def looped_steps(readouts: torch.Tensor, margin: float, first: int) -> list[int]:
    found = []
    for image in range(readouts.shape[1]):
        for step in range(1, len(readouts) + 1):
            best, second = sorted(readouts[step - 1, image].tolist(), reverse=True)[:2]
            if step == len(readouts) or (step >= first and best - second >= margin):
                found.append(step)
                break
    return found


@pytest.mark.parametrize("margin", [0.0, 0.3, 1.0, 100.0])
@pytest.mark.parametrize("first", [1, 3, 7])
def test_steps_are_those_of_a_plain_search(margin: float, first: int) -> None:
    readouts = torch.randn(7, 40, 5, generator=torch.Generator().manual_seed(3))
    assert exit_steps(readouts, margin, first).tolist() == looped_steps(readouts, margin, first)


def test_a_lead_of_just_the_margin_is_enough() -> None:
    readouts = torch.tensor([[1.0, 0.75], [1.0, 0.5], [2.0, 0.0]]).unsqueeze(1)
    assert exit_steps(readouts, 0.5).tolist() == [2]


def test_accuracy_is_that_of_the_answers_given_and_batches_add_up() -> None:
    draw = torch.Generator().manual_seed(0)
    readouts, labels = torch.randn(5, 30, 4, generator=draw), torch.randint(4, (30,), generator=draw)
    steps = looped_steps(readouts, 0.8, 1)
    right = [int(readouts[s - 1, i].argmax()) == int(labels[i]) for i, s in enumerate(steps)]
    found = early_exit([(readouts[:, :11], labels[:11]), (readouts[:, 11:], labels[11:])], 0.8)
    assert found.accuracy == sum(right) / 30
    assert found.mean_steps == pytest.approx(sum(steps) / 30)
    assert found.distribution == tuple(steps.count(step) for step in range(1, 6))
    assert found.to_dict()["distribution"] == list(found.distribution)


def test_wrong_arguments_are_named() -> None:
    readouts = torch.zeros(3, 2, 4)
    with pytest.raises(ShapeError, match=r"readouts must be \[T, B, classes >= 2\], got shape \(3, 4\)"):
        exit_steps(readouts[:, 0], 1.0)
    with pytest.raises(ShapeError, match="classes >= 2"):
        exit_steps(readouts[..., :1], 1.0)
    with pytest.raises(ValueError, match="margin must be >= 0, got -1"):
        exit_steps(readouts, -1.0)
    with pytest.raises(ValueError, match="margin must be >= 0, got nan"):
        exit_steps(readouts, float("nan"))
    with pytest.raises(ValueError, match=r"first must lie in \[1, 3\], got 4"):
        exit_steps(readouts, 1.0, first=4)
    with pytest.raises(ValueError, match="there are no images"):
        early_exit([], 1.0)
