"""Changes of form of a traced network that leave what it computes as it is, made before an exact conversion."""

from __future__ import annotations

import operator
from typing import Any

import torch
from torch import fx, nn

from snn.conversion.activations import QCFS, QuantAct


class Attention(nn.Module):
    """The output of a multi-head attention layer alone, without its weights."""

    def __init__(self, attention: nn.MultiheadAttention) -> None:
        super().__init__()
        self.attention = attention

    def forward(self, query: torch.Tensor, key: torch.Tensor, value: torch.Tensor) -> torch.Tensor:
        y: torch.Tensor = self.attention(query, key, value, need_weights=False)[0]
        return y


def canonical_forms(network: fx.GraphModule) -> list[tuple[str, str, str]]:
    """Both changes below; returns the problems of the second."""
    absorb_rectifiers(network)
    return take_attention_outputs(network)


def absorb_rectifiers(network: fx.GraphModule) -> None:
    """Removes a ReLU behind an unsigned quantiser, or one that only unsigned quantisers read: they give no negatives."""
    for node in list(network.graph.nodes):
        if not _calls(network, node, nn.ReLU) or not node.users:
            continue
        if _is_unsigned(network, node.args[0]) or all(_is_unsigned(network, user) for user in node.users):
            node.replace_all_uses_with(node.args[0])
            network.graph.erase_node(node)


def _is_unsigned(network: fx.GraphModule, node: fx.Node) -> bool:
    if node.op != "call_module":
        return False
    layer = network.get_submodule(str(node.target))
    return isinstance(layer, QCFS | QuantAct) and layer.lo == 0


def take_attention_outputs(network: fx.GraphModule) -> list[tuple[str, str, str]]:
    """Makes each `nn.MultiheadAttention`, which gives a pair, a layer that gives its output.

    Returns: (layer, line, reason) of each whose call has no such form.
    """
    problems = []
    for node in list(network.graph.nodes):
        if not _calls(network, node, nn.MultiheadAttention):
            continue
        for user in [user for user in node.users if not user.users and user.target is operator.getitem]:
            network.graph.erase_node(user)  # output, _ = attention(...)
        reason = _attention_problem(node)
        if reason:
            problems.append((str(node.target), node.meta.get("where", ""), reason))
            continue
        signals = _attention_signals(node)
        layer: Any = network.get_submodule(str(node.target))
        parent, _, own = str(node.target).rpartition(".")
        setattr(network.get_submodule(parent), own, Attention(layer).eval())
        for user in list(node.users):
            user.replace_all_uses_with(node)
            network.graph.erase_node(user)
        node.args, node.kwargs = tuple(signals), {}
    return problems


def _calls(network: fx.GraphModule, node: fx.Node, kind: type[nn.Module]) -> bool:
    return node.op == "call_module" and isinstance(network.get_submodule(str(node.target)), kind)


def _attention_signals(node: fx.Node) -> list[Any]:
    given = {**dict(zip(("query", "key", "value"), node.args, strict=False)), **node.kwargs}
    return [given[name] for name in ("query", "key", "value")]


def _attention_problem(node: fx.Node) -> str:
    """Why the call has no plain form, or ""."""
    refused = {name: value for name, value in node.kwargs.items() if name in ("key_padding_mask", "attn_mask")}
    if any(value is not None for value in (*refused.values(), *node.args[3:])) or node.kwargs.get("is_causal"):
        return "masks of MultiheadAttention are not supported; use F.scaled_dot_product_attention(..., is_causal=True)"
    if any(user.target is not operator.getitem or user.args[1] != 0 for user in node.users):
        return "only the output of MultiheadAttention can be converted, not its weights; take attention(...)[0]"
    return ""
