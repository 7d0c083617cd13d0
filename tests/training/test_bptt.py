"""Truncated backpropagation through time against a loop written by hand."""

from __future__ import annotations

from functools import partial

import pytest
import torch
from torch import nn

import snn
from snn.models import SpikingMLP
from snn.training.bptt import StepResult, bptt
from snn.training.loss import sequence_cross_entropy


def network() -> SpikingMLP:
    torch.manual_seed(1)
    return SpikingMLP((6,), 3, hidden=(12,), neuron={"class": "LIF", "tau": 3.0}).double()


X = torch.randn(7, 5, 6, dtype=torch.float64, generator=torch.Generator().manual_seed(2)) * 2
LABELS = torch.tensor([0, 1, 2, 1, 0])


def gradients(net: nn.Module) -> list[torch.Tensor]:
    return [p.grad.clone() for p in net.parameters() if p.grad is not None]


def trained(on: str, chunk_steps: int | None) -> tuple[StepResult, list[torch.Tensor]]:
    net = network()
    rule = bptt(partial(sequence_cross_entropy, on=on), chunk_steps)
    result = rule(net, X, LABELS, lambda loss: loss.backward())
    return result, gradients(net)


def by_hand(on: str, chunk_steps: int) -> tuple[torch.Tensor, list[torch.Tensor]]:
    """The chunks' losses in one graph: a linear layer, the neurons with detached state between chunks, a readout."""
    net = network()
    layers = net.stack.layers
    neuron = snn.LIF(tau=3.0, step_mode="m", backend="reference")
    state, total = None, torch.zeros((), dtype=torch.float64)
    for start in range(0, len(X), chunk_steps):
        chunk = X[start : start + chunk_steps]
        z, state = neuron(layers["linear1"](chunk), state=state)
        state = {name: value.detach() for name, value in state.items()}
        y = layers["readout"](z)
        losses = (
            [nn.functional.cross_entropy(y.mean(0), LABELS) * len(chunk)]
            if on == "mean"
            else [nn.functional.cross_entropy(step, LABELS) for step in y]
        )
        total = total + sum(losses) / len(X)
    total.backward()
    return total.detach(), gradients(net)


@pytest.mark.parametrize("on", ["mean", "steps"])
@pytest.mark.parametrize("chunk_steps", [7, 8])
def test_chunks_as_long_as_the_sequence_are_full_backpropagation(on: str, chunk_steps: int) -> None:
    full, truncated = trained(on, None), trained(on, chunk_steps)
    assert torch.equal(full[0].loss, truncated[0].loss)
    assert all(torch.equal(a, b) for a, b in zip(full[1], truncated[1], strict=True))


@pytest.mark.parametrize("on", ["mean", "steps"])
@pytest.mark.parametrize("chunk_steps", [1, 3, 5])
def test_chunks_equal_a_loop_by_hand(on: str, chunk_steps: int) -> None:
    result, found = trained(on, chunk_steps)
    loss, expected = by_hand(on, chunk_steps)
    torch.testing.assert_close(result.loss, loss)
    for a, b in zip(found, expected, strict=True):
        torch.testing.assert_close(a, b)
    full = trained(on, None)[1]
    assert not torch.allclose(found[0], full[0], rtol=1e-3)  # the cut paths mattered


def test_states_are_carried_so_logits_do_not_depend_on_the_chunks() -> None:
    torch.testing.assert_close(trained("mean", 2)[0].logits, trained("mean", None)[0].logits)


def test_chunked_mean_loss_lies_between_the_mean_loss_and_the_loss_per_step() -> None:
    mean, chunked, steps = (trained(*args)[0].loss for args in (("mean", None), ("mean", 3), ("steps", None)))
    assert mean < chunked < steps
    torch.testing.assert_close(trained("mean", 1)[0].loss, steps)


def test_the_graph_of_a_chunk_is_freed_before_the_next_begins() -> None:
    alive = 0
    most = 0

    def counted(logits: torch.Tensor, labels: torch.Tensor) -> torch.Tensor:
        nonlocal alive, most
        alive += 1
        most = max(most, alive)
        return sequence_cross_entropy(logits, labels)

    def backward(loss: torch.Tensor) -> None:
        nonlocal alive
        loss.backward()
        alive -= 1

    bptt(counted, 2)(network(), X, LABELS, backward)
    assert most == 1


def test_chunks_below_one_step_are_refused() -> None:
    with pytest.raises(ValueError, match="chunk_steps must be >= 1"):
        bptt(sequence_cross_entropy, 0)
