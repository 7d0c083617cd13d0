"""How far the updates of a rule point the way of the gradient, layer by layer."""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import nn

from snn.errors import ShapeError
from snn.learning.rule import CreditRule
from snn.learning.rules import make_rule
from snn.models import AnalogMLP, AnalogVGG, SpikingConvNet, SpikingMLP, SpikingVGG, Stack
from snn.training.bptt import Rule

_TIME_FIRST = (AnalogMLP, AnalogVGG, SpikingConvNet, SpikingMLP, SpikingVGG, Stack)


class Alignment(NamedTuple):
    """A rule's update of one layer beside its gradient, weights and bias together.

    Attributes:
        cosine: of the angle between the two, in [-1, 1]; 1 if both are zero, 0 if only one is.
        norm_ratio: norm of the update over that of the gradient; 1 if both are zero, infinite if only the gradient is.
    """

    cosine: float
    norm_ratio: float


def gradient_alignment(
    net: nn.Module, rule: str | type[CreditRule] | Rule, x: torch.Tensor, y: torch.Tensor
) -> dict[str, Alignment]:
    """Compare a rule's update with the gradient of its loss on one batch; the network and its gradients are left alone.

    Only a rule with feedback weights of its own adds them to a network that has none. Both see the same dropout masks and
    encodings: the random generators are set back between them.

    Args:
        net: the network. One that takes a time axis (`snn.models`) gets one of length 1 if x has none.
        rule: name in `RULES`, class in `RULES` (both with their defaults), or a rule.
        x: input [T, B, ...], or [B, ...] for a network without a time axis.
        y: labels, int64 [B].
    Returns: name of each layer with trained parameters -> `Alignment`, in the order of the network.
    Raises: UnsupportedError naming the layer that the rule cannot train; ShapeError if x and y do not fit.

    >>> _ = torch.manual_seed(0)
    >>> net = nn.Sequential(nn.Linear(6, 8), nn.ReLU(), nn.Linear(8, 3))
    >>> found = gradient_alignment(net, "dfa", torch.rand(4, 6), torch.tensor([0, 1, 2, 0]))
    >>> list(found), round(found["2"].cosine, 6), found["0"].cosine < 1
    (['0', '2'], 1.0, True)
    """
    made = _made(rule)
    batch = _fitted(net, x, y)
    if isinstance(made, CreditRule):
        made.prepare(net, len(batch) if isinstance(net, _TIME_FIRST) else 1)
    reference = make_rule("bp", made.loss if isinstance(made, CreditRule) else None)
    kept = {parameter: parameter.grad for parameter in net.parameters()}
    buffers = {name: value.clone() for name, value in net.named_buffers()}
    try:
        update = _gradients(net, made, batch, y, buffers)
        gradient = _gradients(net, reference, batch, y, buffers)
    finally:
        for parameter, grad in kept.items():
            parameter.grad = grad
    return {name: _compare(update[name], gradient[name]) for name in gradient}


def _made(rule: str | type[CreditRule] | Rule) -> Rule:
    if isinstance(rule, str):
        return make_rule(rule)
    return rule() if isinstance(rule, type) else rule


def _fitted(net: nn.Module, x: torch.Tensor, y: torch.Tensor) -> torch.Tensor:
    B = len(y)
    if isinstance(net, _TIME_FIRST):
        if x.dim() >= 2 and x.shape[1] == B:
            return x
        if len(x) == B:
            return x.unsqueeze(0)
        raise ShapeError(f"gradient_alignment: x must be [T, {B}, ...] for {B} labels, got {tuple(x.shape)}")
    if B not in x.shape[:2]:
        raise ShapeError(f"gradient_alignment: x must be [{B}, ...] for {B} labels, got {tuple(x.shape)}")
    return x


def _gradients(
    net: nn.Module, rule: Rule, x: torch.Tensor, y: torch.Tensor, buffers: dict[str, torch.Tensor]
) -> dict[str, torch.Tensor]:
    for parameter in net.parameters():
        parameter.grad = None
    with torch.random.fork_rng(devices=[x.device] if x.is_cuda else []), torch.enable_grad():
        rule(net, x, y, lambda loss: loss.backward())
    with torch.no_grad():
        for name, value in net.named_buffers():
            if name in buffers:
                value.copy_(buffers[name])
    found = {}
    for name, module in net.named_modules():
        own = [p for key, p in module.named_parameters(recurse=False) if p.requires_grad and key != "feedback"]
        if own:
            parts = [torch.zeros_like(p) if p.grad is None else p.grad for p in own]
            found[name] = torch.cat([part.flatten() for part in parts]).double()
    return found


def _compare(update: torch.Tensor, gradient: torch.Tensor) -> Alignment:
    ours, true = float(update.norm()), float(gradient.norm())
    if ours == 0.0 and true == 0.0:
        return Alignment(1.0, 1.0)
    if ours == 0.0 or true == 0.0:
        return Alignment(0.0, 0.0 if ours == 0.0 else float("inf"))
    return Alignment(float(update @ gradient) / (ours * true), ours / true)
