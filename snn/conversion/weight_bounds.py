"""Thresholds from the weights alone: the greatest drive that any input could give."""

from __future__ import annotations

import operator
from typing import Any

import torch
from torch import fx, nn

from snn.conversion.functions import LINEAR, ChannelAffine
from snn.conversion.network import ConvertedNetwork
from snn.conversion.pooling import is_max_pool
from snn.conversion.recipe import is_affine, upper_bound
from snn.conversion.source import call_name, function_name, node_kinds
from snn.errors import UnsupportedError

Interval = tuple[torch.Tensor, torch.Tensor]
"""Least and greatest value: numbers, or [C] per channel."""

_SUMS = frozenset({"add", "iadd", "sub", "isub", "subtract"})
_JOINS = frozenset({"cat", "concat", "concatenate", "stack", "hstack", "vstack"})


def weight_thresholds(
    network: ConvertedNetwork, input_range: tuple[float, float], channelwise: bool
) -> dict[str, torch.Tensor]:
    """For each spiking layer the greatest value that its activation can take for inputs in the range.

    Intervals are carried through the source network, one for each layer and channel; positive weights meet the upper
    ends, negative ones the lower ends.

    Args:
        input_range: least and greatest value of the input.
        channelwise: a threshold [C, 1, 1] per channel where the activation follows a convolution, [C] after a linear
            layer.
    Raises: UnsupportedError for a function whose result has no bound here.
    Source: model-based normalisation of Diehl et al., IJCNN 2015, which has no negative ends.
    """
    graph, source = network.source.graph, network.source
    kinds = node_kinds(graph)
    layers = network.layers()
    like = next(source.parameters())
    found: dict[str, torch.Tensor] = {}
    intervals: dict[fx.Node, Interval] = {}
    dims: dict[fx.Node, int] = {}
    for node in graph.nodes:
        if node.op == "placeholder":
            low, high = (torch.tensor(end, dtype=torch.float64) for end in input_range)
            intervals[node] = low, high
        elif kinds[node] == "signal" and node.op != "output":
            inputs = [intervals[other] for other in node.all_input_nodes if kinds[other] == "signal"]
            if node.op == "call_module":
                module = source.get_submodule(str(node.target))
                intervals[node], dims[node] = _through_layer(module, inputs[0], _dims(node, dims), str(node.target))
                if node.target in layers:
                    high = intervals[node][1]
                    found[str(node.target)] = _threshold(high, channelwise, dims[node], like)
            else:
                intervals[node], dims[node] = _through_call(node, inputs, source, kinds), _dims(node, dims)
    return found


def _dims(node: fx.Node, dims: dict[fx.Node, int]) -> int:
    """Dimensions after the channel, as far as they are known."""
    return max((dims[other] for other in node.all_input_nodes if other in dims), default=0)


def _threshold(high: torch.Tensor, channelwise: bool, dims: int, like: torch.Tensor) -> torch.Tensor:
    most = high.max()
    most = most if most > 0 else torch.ones_like(most)
    if not channelwise or high.dim() == 0:
        return most.to(like)
    return torch.where(high > 0, high, most).view(-1, *(1 for _ in range(dims))).to(like)


def _through_layer(module: nn.Module, before: Interval, dims: int, name: str) -> tuple[Interval, int]:
    low, high = before
    if isinstance(module, nn.Linear | nn.modules.conv._ConvNd):
        return _weighted(module, low, high), 0 if isinstance(module, nn.Linear) else len(module.kernel_size)
    if isinstance(module, ChannelAffine):
        ends = [module.scale.double() * end + module.shift.double() for end in (low, high)]
        return (torch.minimum(*ends), torch.maximum(*ends)), dims
    bound = upper_bound(module)
    if bound is not None:
        return (low.clamp(0.0, bound), high.clamp(0.0, bound)), dims
    if isinstance(module, nn.Flatten | nn.Unflatten):
        return (low.min(), high.max()), 0
    if is_affine(module) or is_max_pool(module):
        return (low.clamp(max=0.0), high.clamp(min=0.0)), dims
    raise UnsupportedError(f"threshold='model': {name!r} ({type(module).__name__}) has no bound by weights")


def _weighted(module: Any, low: torch.Tensor, high: torch.Tensor) -> Interval:
    """The ends after a sum with weights; zeros from padding belong to the interval."""
    low, high = low.clamp(max=0.0), high.clamp(min=0.0)
    weight = module.weight.double()
    if getattr(module, "transposed", False):
        groups = module.groups
        weight = weight.unflatten(0, (groups, -1)).transpose(1, 2).flatten(0, 1)
    per_group = weight.shape[1]
    weight = weight.flatten(2).unsqueeze(-1) if weight.dim() > 2 else weight.view(*weight.shape, 1, 1)
    positive, negative = (weight.clamp(min=0.0).sum((2, 3)), weight.clamp(max=0.0).sum((2, 3)))  # [out, in per group]

    def spread(end: torch.Tensor) -> torch.Tensor:
        """[out, in per group]"""
        inputs = per_group * getattr(module, "groups", 1)
        if end.dim() == 0 or len(end) != inputs:
            extreme = end.min() if end is low else end.max()
            return extreme.expand(len(weight), per_group)
        groups = inputs // per_group
        return end.view(groups, per_group).repeat_interleave(len(weight) // groups, 0)

    highs, lows = spread(high), spread(low)
    bias = 0.0 if module.bias is None else module.bias.double()
    greatest = (positive * highs + negative * lows).sum(1) + bias
    least = (positive * lows + negative * highs).sum(1) + bias
    return least, greatest


def _through_call(node: fx.Node, inputs: list[Interval], source: fx.GraphModule, kinds: dict[fx.Node, str]) -> Interval:
    name = function_name(node)
    lows, highs = [low for low, _ in inputs], [high for _, high in inputs]
    if name in _JOINS:
        return torch.stack([low.min() for low in lows]).min(), torch.stack([high.max() for high in highs]).max()
    if name in _SUMS and len(inputs) == 2:
        lows, highs = _broadcast(lows), _broadcast(highs)
        if name in ("add", "iadd"):
            return lows[0] + lows[1], highs[0] + highs[1]
        return lows[0] - highs[1], highs[0] - lows[1]
    if name in _SUMS | {"mul", "imul", "multiply", "div", "truediv", "itruediv"} and len(inputs) == 1:
        constant = _constant(node, source)
        if constant is not None and isinstance(node.args[0], fx.Node) and kinds[node.args[0]] == "signal":
            operation = {"subtract": operator.sub, "multiply": operator.mul, "div": operator.truediv}.get(name)
            operation = operation or getattr(operator, name)
            ends = [operation(lows[0], constant), operation(highs[0], constant)]
            return torch.minimum(*ends), torch.maximum(*ends)
    elif node.target in LINEAR and len(inputs) == 1 and name not in ("sum", "matmul", "neg"):
        return lows[0].min().clamp(max=0.0), highs[0].max().clamp(min=0.0)
    raise UnsupportedError(f"threshold='model': {call_name(node)!r} has no bound by weights; use data-based thresholds")


def _constant(node: fx.Node, source: fx.GraphModule) -> float | None:
    other = node.args[1]
    if isinstance(other, int | float):
        return float(other)
    if isinstance(other, fx.Node) and other.op == "get_attr":
        value = operator.attrgetter(str(other.target))(source)
        return float(value) if value.numel() == 1 else None
    return None


def _broadcast(ends: list[torch.Tensor]) -> list[torch.Tensor]:
    """Ends per channel where both have them, else single numbers that hold for all channels."""
    if ends[0].shape == ends[1].shape:
        return ends
    if ends[0].dim() == 0 or ends[1].dim() == 0:
        return list(torch.broadcast_tensors(*ends))
    raise UnsupportedError("threshold='model': a sum of signals with different numbers of channels has no bound here")
