"""Loss definitions, backpropagation through time in chunks, and the learning rate."""

from __future__ import annotations

import math

import pytest
import torch
from torch import nn

from snn.learning import make_rule
from snn.models import SpikingMLP
from snn.training import bptt, sequence_cross_entropy
from snn.training.loss import SequenceLoss, running_scores
from snn.training.recipe import LossOptions, Recipe, RecipeError, ScheduleOptions
from snn.training.schedule import delay_rate_factor, learning_rate_factor

T, B, CLASSES = 7, 5, 3


def cross_entropy(y: torch.Tensor, labels: torch.Tensor, smoothing: float) -> torch.Tensor:
    log_p = y - y.exp().sum(-1, keepdim=True).log()
    target = torch.full_like(y, smoothing / CLASSES)
    target[torch.arange(B), labels] += 1 - smoothing
    return -(target * log_p).sum(-1).mean()


@pytest.mark.parametrize("smoothing", [0.0, 0.3])
def test_losses_follow_their_formula(smoothing: float) -> None:
    y = torch.randn(T, B, CLASSES, dtype=torch.float64)
    labels = torch.arange(B) % CLASSES
    on_mean = cross_entropy(y.mean(0), labels, smoothing)
    on_steps = torch.stack([cross_entropy(step, labels, smoothing) for step in y]).mean()
    torch.testing.assert_close(sequence_cross_entropy(y, labels, "mean", smoothing), on_mean)
    torch.testing.assert_close(sequence_cross_entropy(y, labels, "steps", smoothing), on_steps)
    assert on_steps > on_mean


def test_loss_on_summed_softmax_follows_its_formula() -> None:
    y = 3 * torch.randn(T, B, CLASSES, dtype=torch.float64)
    labels = torch.arange(B) % CLASSES
    summed = (y.exp() / y.exp().sum(-1, keepdim=True)).sum(0)
    torch.testing.assert_close(sequence_cross_entropy(y, labels, "softmax", 0.1), cross_entropy(summed, labels, 0.1))
    loss = SequenceLoss(on="softmax")
    torch.testing.assert_close(loss(y, labels), cross_entropy(summed, labels, 0.0))
    torch.testing.assert_close(loss.scores(y), summed / T)


def test_steps_vote_with_their_softmax_or_their_logits() -> None:
    y = torch.tensor([[[9.0, 0.0]], [[0.0, 2.0]], [[0.0, 2.0]]])
    assert SequenceLoss(on="mean").scores(y).argmax(1).tolist() == [0]
    assert SequenceLoss(on="steps").scores(y).argmax(1).tolist() == [0]
    assert SequenceLoss(on="softmax").scores(y).argmax(1).tolist() == [1]


def test_running_scores_end_with_those_of_the_loss() -> None:
    y = torch.randn(T, B, CLASSES, dtype=torch.float64)
    torch.testing.assert_close(running_scores(y)[2], y[:3].mean(0))
    summed = running_scores(y, "softmax")
    torch.testing.assert_close(summed[2], y[:3].softmax(-1).sum(0))
    torch.testing.assert_close(summed[-1] / T, SequenceLoss(on="softmax").scores(y))


def test_losses_that_do_not_exist_are_refused() -> None:
    with pytest.raises(ValueError, match=r"on must be one of .* got 'sum'"):
        SequenceLoss(on="sum")  # type: ignore[arg-type]
    with pytest.raises(ValueError, match=r"on 'softmax' is for cross_entropy, got 'squared_error'"):
        SequenceLoss("squared_error", "softmax")
    with pytest.raises(RecipeError, match=r"loss.on must be mean or steps with loss.name squared_error"):
        LossOptions("squared_error", "softmax")
    for given in ({"rule": "feedback_alignment"}, {"bptt_steps": 5}, {"rule": {"class": "bp", "chunk_steps": 5}}):
        with pytest.raises(RecipeError, match=r"loss.on must be mean or steps unless the rule is bp over all steps"):
            Recipe(loss=LossOptions(on="softmax"), **given)  # type: ignore[arg-type]


def test_training_reports_the_answers_of_its_loss() -> None:
    network, x, labels = network_and_batch()
    result = make_rule("bp", SequenceLoss(on="softmax"))(network, x, labels, lambda loss: loss.backward())
    torch.testing.assert_close(result.logits, network(x).softmax(-1).mean(0).detach())


def network_and_batch() -> tuple[nn.Module, torch.Tensor, torch.Tensor]:
    torch.manual_seed(3)
    network = SpikingMLP((4,), CLASSES, hidden=(9,), neuron={"class": "LIF", "backend": "reference"}).double()
    return network, 3 * torch.rand(T, B, 4, dtype=torch.float64), torch.arange(B) % CLASSES


def gradients(network: nn.Module) -> list[torch.Tensor]:
    return [parameter.grad.clone() for parameter in network.parameters() if parameter.grad is not None]


def by_rule(chunk_steps: int | None, on: str) -> tuple[torch.Tensor, torch.Tensor, list[torch.Tensor]]:
    network, x, labels = network_and_batch()
    rule = bptt(lambda y, wanted: sequence_cross_entropy(y, wanted, on), chunk_steps)  # type: ignore[arg-type]
    result = rule(network, x, labels, lambda loss: loss.backward())
    assert not result.loss.requires_grad
    assert not result.logits.requires_grad
    return result.loss, result.logits, gradients(network)


@pytest.mark.parametrize("on", ["mean", "steps"])
@pytest.mark.parametrize("chunk_steps", [T, T + 1, 100])
def test_chunks_of_all_steps_are_the_whole(chunk_steps: int, on: str) -> None:
    whole, truncated = by_rule(None, on), by_rule(chunk_steps, on)
    assert torch.equal(whole[0], truncated[0])
    assert torch.equal(whole[1], truncated[1])
    assert all(map(torch.equal, whole[2], truncated[2]))


@pytest.mark.parametrize("on", ["mean", "steps"])
@pytest.mark.parametrize("chunk_steps", [1, 2, 3, 6])
def test_chunks_equal_a_loop_by_hand(chunk_steps: int, on: str) -> None:
    network, x, labels = network_and_batch()
    layers = network.stack.layers
    v = torch.zeros(B, 9, dtype=torch.float64)
    total = torch.zeros((), dtype=torch.float64)
    logits = []
    for first in range(0, T, chunk_steps):
        v = v.detach()
        chunk = []
        for t in range(first, min(first + chunk_steps, T)):
            i = layers["linear1"](x[t])
            z, state = layers["neuron1"](i.unsqueeze(0), state={"v": v}, detach_state=False)
            v = state["v"]
            chunk.append(layers["readout"](z[0]))
        y = torch.stack(chunk)
        total = total + sequence_cross_entropy(y, labels, on) * len(chunk) / T  # type: ignore[arg-type]
        logits.append(y.detach())
    total.backward()
    loss, mean_logits, found = by_rule(chunk_steps, on)
    torch.testing.assert_close(loss, total.detach())
    torch.testing.assert_close(mean_logits, torch.cat(logits).mean(0))
    for one, two in zip(found, gradients(network), strict=True):
        torch.testing.assert_close(one, two)
    assert any(not torch.allclose(a, b) for a, b in zip(found, by_rule(None, on)[2], strict=True)), "it does truncate"


def test_loss_per_step_keeps_its_value_in_chunks() -> None:
    torch.testing.assert_close(by_rule(2, "steps")[0], by_rule(None, "steps")[0])
    assert by_rule(2, "mean")[0] > by_rule(None, "mean")[0]


def test_chunks_of_no_step_are_refused() -> None:
    with pytest.raises(ValueError, match="chunk_steps must be >= 1 or None, got 0"):
        bptt(sequence_cross_entropy, 0)


def test_cosine_with_warm_up() -> None:
    options = ScheduleOptions("cosine", final_fraction=0.1)
    factors = [learning_rate_factor(step, 14, 4, options) for step in range(16)]
    assert factors[:4] == [0.25, 0.5, 0.75, 1.0]
    for step in range(4, 15):
        assert factors[step] == pytest.approx(0.1 + 0.45 * (1 + math.cos(math.pi * (step - 4) / 10)))
    assert factors[4] == 1.0
    assert factors[9] == pytest.approx(0.55)
    assert factors[14] == factors[15] == pytest.approx(0.1)


def test_constant_with_warm_up() -> None:
    options = ScheduleOptions("constant")
    assert [learning_rate_factor(step, 4, 2, options) for step in range(5)] == [0.5, 1, 1, 1, 1]


def test_one_cycle_is_that_of_torch() -> None:
    count, lr = 2000, 1e-3
    parameter = nn.Parameter(torch.zeros(1))
    optimizer = torch.optim.Adam([parameter], lr)
    torchs = torch.optim.lr_scheduler.OneCycleLR(optimizer, 5 * lr, total_steps=count)
    options = ScheduleOptions("one_cycle", peak_factor=5.0)
    for step in range(count - 1):
        ours = lr * learning_rate_factor(step, count, 0, options)
        assert ours == pytest.approx(
            optimizer.param_groups[0]["lr"], rel=0.02, abs=lr / 100
        )  # torch's is a step shorter
        optimizer.step()
        torchs.step()
    assert learning_rate_factor(count, count, 0, options) == pytest.approx(5 / 25 / 1e4)


@pytest.mark.parametrize("count", [1, 2, 3, 7])
def test_short_one_cycles_learn(count: int) -> None:
    options = ScheduleOptions("one_cycle", peak_factor=5.0)
    factors = [learning_rate_factor(step, count, 0, options) for step in range(count)]
    assert factors[0] == pytest.approx(0.2)
    assert count == 1 or max(factors) > 2.0


def test_delays_follow_a_cosine_beside_one_cycle() -> None:
    options = ScheduleOptions("one_cycle", peak_factor=5.0)
    assert [delay_rate_factor(step, 4, 0, options) for step in range(5)] == pytest.approx(
        [(1 + math.cos(math.pi * step / 4)) / 2 for step in range(5)]
    )
    cosine = ScheduleOptions("cosine", warmup_epochs=1)
    for step in range(6):
        assert delay_rate_factor(step, 5, 2, cosine) == learning_rate_factor(step, 5, 2, cosine)


def test_one_cycle_refuses_what_it_cannot_use() -> None:
    with pytest.raises(RecipeError, match=r"schedule.warmup_epochs must be 0 with one_cycle"):
        ScheduleOptions("one_cycle", warmup_epochs=1)
    with pytest.raises(RecipeError, match=r"schedule.peak_factor must be > 0, got 0"):
        ScheduleOptions("one_cycle", peak_factor=0)


def test_warm_up_over_the_whole_run() -> None:
    assert learning_rate_factor(3, 4, 4, ScheduleOptions()) == 1.0
    assert learning_rate_factor(4, 4, 4, ScheduleOptions()) in (0.0, 1.0)
