"""The delay network and the residual network with membrane norms, and what training does for them."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import nn

from snn.layers import MPBN, DelayedLinear, annealed_sigma
from snn.models import SpikingDelayNet, SpikingResNet
from snn.models.stack import Stack
from snn.training.build import build_optimizer
from snn.training.encoding import encoded
from snn.training.recipe import EncodingOptions, RecipeError


def test_delay_net_learns_all_its_parameters() -> None:
    net = SpikingDelayNet((20, 12), 4, hidden=(10, 8), max_delay=5, dropout=0.2)
    y = net((torch.rand(20, 6, 12) < 0.3).float())
    assert y.shape == (20, 6, 4)
    y.square().mean().backward()
    assert all(p.grad is not None and bool(p.grad.abs().sum() > 0) for p in net.parameters())
    assert sum(isinstance(module, DelayedLinear) for module in net.modules()) == 3


def test_delay_net_carries_its_state() -> None:
    net = SpikingDelayNet((20, 12), 4, hidden=(10,), max_delay=5).double().eval()
    x = (torch.rand(20, 3, 12) < 0.3).double()
    whole = net(x)
    state, parts = None, []
    for piece in x.split(7):
        y, state = net(piece, state=state)
        parts.append(y)
    torch.testing.assert_close(torch.cat(parts), whole)


def test_dropout_keeps_its_choice_over_time() -> None:
    net = SpikingDelayNet((20, 12), 4, hidden=(50,), max_delay=2, dropout=0.5)
    assert isinstance(net.stack, Stack)
    y = net.stack.layers["dropout1"](torch.ones(6, 2, 50))
    assert bool((y == y[0]).all())
    assert set(y.unique().tolist()) == {0.0, 2.0}


def test_delays_get_their_own_learning_rate() -> None:
    net = SpikingDelayNet((20, 12), 4, hidden=(10,), max_delay=5)
    optimizer = build_optimizer({"class": "Adam", "lr": 0.002, "weight_decay": 0.1, "delay_lr_factor": 50}, net)
    found = [(group["lr"], group["weight_decay"]) for group in optimizer.param_groups]
    assert found == [(0.002, 0.1), (0.002, 0.0), (0.1, 0.0)]
    weights, norms, delays = (group["params"] for group in optimizer.param_groups)
    layers = net.stack.layers
    assert {id(p) for p in weights} == {id(layers[name].weight) for name in ("delayed1", "readout")}
    assert {id(p) for p in norms} == {id(layers["norm1"].weight), id(layers["norm1"].bias)}
    assert {id(p) for p in delays} == {id(layers[name].positions.delay) for name in ("delayed1", "readout")}
    default = build_optimizer({"class": "Adam"}, net)
    assert [group["lr"] for group in default.param_groups] == pytest.approx([0.001, 0.001, 0.1])
    with pytest.raises(RecipeError, match="delay_lr_factor"):
        build_optimizer({"class": "Adam", "delay_lr_factor": 50}, nn.Linear(2, 2))


def test_sequences_are_turned_time_first() -> None:
    words = torch.rand(3, 7, 5)
    x = encoded(words, EncodingOptions("sequence", 7), seed=0)
    assert torch.equal(x[2, 1], words[1, 2])
    longer = encoded(words, EncodingOptions("sequence", 9), seed=0)
    assert torch.equal(longer[:7], x)
    assert longer.shape == (9, 3, 5)
    assert not longer[7:].any()
    with pytest.raises(ValueError, match=r"encoding.steps must be at least the 7 steps"):
        encoded(words, EncodingOptions("sequence", 6), seed=0)
    with pytest.raises(ValueError, match=r"at least the missing steps .* shape \(3, 7\)"):
        encoded(words[..., 0], EncodingOptions("sequence", 8), seed=0)


@pytest.mark.parametrize("delays", ["random", "none"])
def test_delays_may_stay_as_they_start(delays: Any) -> None:
    net = SpikingDelayNet((20, 12), 4, hidden=(10,), max_delay=5, delays=delays)
    start = [layer.delays().clone() for layer in net.modules() if isinstance(layer, DelayedLinear)]
    assert all(bool((delay == delay.round()).all()) for delay in start)
    assert bool((start[0] == 0).all()) == (delays == "none")
    optimizer = build_optimizer({"class": "Adam", "weight_decay": 0.1, "delay_lr_factor": 100}, net)
    assert [group["weight_decay"] for group in optimizer.param_groups] == [0.1, 0.0]
    x = (torch.rand(20, 6, 12) < 0.3).float()
    before = net(x)
    net(x).square().mean().backward()
    optimizer.step()
    assert not torch.equal(net(x), before)
    after = [layer.delays() for layer in net.modules() if isinstance(layer, DelayedLinear)]
    assert all(map(torch.equal, start, after))
    with pytest.raises(ValueError, match="delays must be 'learned', 'random' or 'none', got 'fixed'"):
        SpikingDelayNet((20, 12), 4, delays="fixed")  # type: ignore[arg-type]


def test_training_anneals_and_clamps() -> None:
    from snn.training.lightning_import import import_lightning

    lightning = import_lightning()
    from snn.training.bptt import bptt
    from snn.training.loss import sequence_cross_entropy
    from snn.training.module import Parts, TrainingModule

    net = SpikingDelayNet((10, 6), 3, hidden=(5,), max_delay=4)
    seen: list[float] = []
    net.register_forward_hook(lambda *_: seen.append(net.stack.layers["delayed1"].positions.sigma))
    parts = Parts(
        net,
        bptt(sequence_cross_entropy),
        sequence_cross_entropy,
        None,
        lambda x, seed: encoded(x, EncodingOptions("sequence", 10), seed),
        lambda network: build_optimizer({"class": "Adam", "lr": 0.05}, network),
        lambda step, count, per_epoch, of_delays: 0.5 if of_delays else 1.0,
        None,
        0,
        {},
    )
    data = [((torch.rand(8, 10, 6) < 0.3).float(), torch.randint(0, 3, (8,)))] * 2
    trainer = lightning.Trainer(
        max_epochs=4, logger=False, enable_checkpointing=False, enable_progress_bar=False, accelerator="cpu"
    )
    module = TrainingModule(parts)
    trainer.fit(module, torch.utils.data.DataLoader(data, batch_size=None))
    rates = [group["lr"] for group in trainer.optimizers[0].param_groups]
    assert rates == pytest.approx([0.05, 0.05, 2.5])
    assert seen == pytest.approx([annealed_sigma(epoch, 4, 4) for epoch in range(4) for _ in range(2)])
    for layer in ("delayed1", "readout"):
        delay = net.stack.layers[layer].positions.delay
        assert 0 <= float(delay.detach().min()) <= float(delay.detach().max()) <= 4


@pytest.mark.parametrize("norm", [None, "channel", "element"])
def test_resnet(norm: str | None) -> None:
    net = SpikingResNet((3, 16, 16), 5, channels=(4, 8), blocks=(1, 2), membrane_norm=norm)  # type: ignore[arg-type]
    image = torch.rand(6, 3, 16, 16)
    y = net(image.unsqueeze(0).expand(3, *image.shape))
    assert y.shape == (3, 6, 5)
    y.sum().backward()
    assert all(p.grad is not None for p in net.parameters())
    count = sum(isinstance(module, MPBN) for module in net.modules())
    assert count == (0 if norm is None else 7)
    net.eval()
    repeated = net(image.unsqueeze(0).expand(3, *image.shape))
    torch.testing.assert_close(repeated, net(image.repeat(3, 1, 1, 1, 1)), rtol=1e-4, atol=1e-5)


def test_resnet_names_what_is_wrong() -> None:
    with pytest.raises(ValueError, match="membrane_norm must be"):
        SpikingResNet((3, 8, 8), 2, membrane_norm="batch")  # type: ignore[arg-type]
    with pytest.raises(ValueError, match="blocks must have one number per stage"):
        SpikingResNet((3, 8, 8), 2, channels=(4, 8), blocks=(1,))
    with pytest.raises(ValueError, match=r"input_shape must be \(C, H, W\)"):
        SpikingResNet((3, 8), 2)
    with pytest.raises(ValueError, match="cannot be halved 2 times"):
        SpikingResNet((3, 6, 6), 2, channels=(4, 4, 4))
