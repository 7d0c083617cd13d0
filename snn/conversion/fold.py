"""Batch normalisation of a traced network goes into the weights before it, or becomes a map per channel."""

from __future__ import annotations

import copy
from typing import Any

import torch
from torch import fx, nn

from snn.conversion.functions import ChannelAffine

_CONV = (nn.Conv1d, nn.Conv2d, nn.Conv3d)
_TRANSPOSED = (nn.ConvTranspose1d, nn.ConvTranspose2d, nn.ConvTranspose3d)


def fold_batch_norms(network: fx.GraphModule) -> list[tuple[str, str, str]]:
    """Replaces every batch normalisation by what it computes in evaluation.

    Directly behind a convolution or linear layer that feeds nothing else, W' = g W and b' = g (b - mean) + beta with
    g = gamma / sqrt(var + eps), in float64. Elsewhere (before a padded convolution, whose border would change) it
    becomes a `ChannelAffine`.

    Returns: (layer, line, reason) of each that has no running statistics.
    """
    problems = []
    for node in list(network.graph.nodes):
        if node.op != "call_module":
            continue
        norm = network.get_submodule(str(node.target))
        if not isinstance(norm, nn.modules.batchnorm._BatchNorm):
            continue
        if norm.running_mean is None or norm.running_var is None:
            reason = "batch normalisation without running statistics depends on the other samples; train with them"
            problems.append((str(node.target), node.meta.get("where", ""), reason))
            continue
        scale, shift = affine_terms(norm)
        before = node.args[0]
        folded = _folded(network, before, scale, shift)
        if folded is not None:
            _put(network, str(before.target), folded)
            node.replace_all_uses_with(before)
            network.graph.erase_node(node)
        else:
            dtype = norm.running_mean.dtype
            _put(network, str(node.target), ChannelAffine(scale.to(dtype), shift.to(dtype)))
    return problems


def affine_terms(norm: Any) -> tuple[torch.Tensor, torch.Tensor]:
    """scale, shift [C] in float64 of a batch normalisation in evaluation."""
    mean, variance = norm.running_mean.double(), norm.running_var.double()
    scale = torch.rsqrt(variance + norm.eps)
    if norm.weight is not None:
        scale = scale * norm.weight.double()
    shift = -mean * scale
    return scale, shift if norm.bias is None else shift + norm.bias.double()


def _folded(network: fx.GraphModule, node: fx.Node, scale: torch.Tensor, shift: torch.Tensor) -> nn.Module | None:
    """The layer of `node` with the map in its weights, or None where that cannot be done."""
    if node.op != "call_module" or len(node.users) > 1:
        return None
    layer = network.get_submodule(str(node.target))
    if not isinstance(layer, (*_CONV, *_TRANSPOSED, nn.Linear)):
        return None
    transposed = isinstance(layer, _TRANSPOSED)
    if transposed and layer.groups != 1:
        return None
    weight = layer.weight
    outputs = weight.shape[1] if transposed else weight.shape[0]
    if outputs != len(scale):
        return None
    shape = [1] * weight.dim()
    shape[1 if transposed else 0] = outputs
    new = copy.copy(layer)
    new._parameters = dict(layer._parameters)
    new.weight = nn.Parameter((weight.double() * scale.view(shape)).to(weight.dtype), requires_grad=False)
    bias = shift if layer.bias is None else layer.bias.double() * scale + shift
    new.bias = nn.Parameter(bias.to(weight.dtype), requires_grad=False)
    return new


def _put(network: nn.Module, name: str, module: nn.Module) -> None:
    parent, _, own = name.rpartition(".")
    setattr(network.get_submodule(parent), own, module.eval())
