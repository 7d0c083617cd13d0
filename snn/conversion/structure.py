"""Builds the converted network of a recipe from an ANN, without thresholds; names everything that stands in the way."""

from __future__ import annotations

import copy

from torch import fx, nn

from snn.conversion.activations import QCFS
from snn.conversion.functions import ADDITIVE, LINEAR
from snn.conversion.layers import SpikingLayer, Timed
from snn.conversion.network import ConvertedNetwork
from snn.conversion.recipe import Recipe, is_affine, unsupported
from snn.conversion.source import Problem, call_name, function_name, node_kinds, problem, source_network
from snn.conversion.visits import put_layer
from snn.errors import UnsupportedError

_MATRIX = frozenset({"matmul", "mm", "bmm"})


def build(ann: nn.Module, recipe: Recipe, T: int) -> ConvertedNetwork:
    """The converted network of `recipe`, its thresholds unset.

    Raises:
        UnsupportedError: with every layer and call that has no form, by name and line; or nothing was replaced.
        ValueError: T < 1.
    """
    if not isinstance(T, int) or isinstance(T, bool) or T < 1:
        raise ValueError(f"T must be a positive whole number of steps, got {T!r}")
    source = source_network(ann)
    body = _sharing_copy(source.network)
    named = {found.layer for found in source.problems}
    problems = source.problems + [found for found in _replace(body, recipe) if found.layer not in named]
    if problems:
        listed = "\n".join(f"  {item}" for item in problems)
        count = "1 layer stands" if len(problems) == 1 else f"{len(problems)} layers stand"
        raise UnsupportedError(
            f"convert: {count} in the way of recipe {recipe.name!r} for {type(ann).__name__}:\n{listed}"
        )
    if not any(isinstance(module, Timed) for module in body.modules()):
        raise UnsupportedError(f"convert: {type(ann).__name__} has no activation that could become a layer of neurons")
    body.recompile()
    network = ConvertedNetwork(source.network, body, recipe.coding, T, source.notes, recipe.preparation(T))
    return network.eval()


def _sharing_copy(network: fx.GraphModule) -> fx.GraphModule:
    """A copy over the same weights, so that a saved network holds them once."""
    tensors = [*network.parameters(), *network.buffers()]
    return copy.deepcopy(network, {id(tensor): tensor for tensor in tensors})


def _replace(body: fx.GraphModule, recipe: Recipe) -> list[Problem]:
    """Puts the recipe's layers in; returns what it refuses."""
    kinds = node_kinds(body.graph)
    moving: set[fx.Node] = set()
    problems = []
    for node in body.graph.nodes:
        if node.op in ("placeholder", "output") or kinds[node] != "signal":
            continue
        after_memory = recipe.coding == "sum" or any(source in moving for source in node.all_input_nodes)
        if node.op == "call_module":
            module = body.get_submodule(str(node.target))
            try:
                made = recipe.replacement(str(node.target), module)
            except UnsupportedError as error:
                if after_memory or _must_be_replaced(module):
                    problems.append(problem(node, str(error)))
                    moving.add(node)
                continue
            if made is not None:
                if isinstance(made, SpikingLayer) or after_memory:
                    put_layer(body, str(node.target), made)
            elif after_memory and not is_affine(module):
                problems.append(problem(node, str(unsupported(module))))
            module = body.get_submodule(str(node.target))
            if after_memory or isinstance(module, Timed):
                moving.add(node)
        elif after_memory:
            moving.add(node)
            reason = _not_linear(node, kinds)
            if reason:
                problems.append(problem(node, reason))
    return problems


def _must_be_replaced(module: nn.Module) -> bool:
    """True for activations and recurrent layers, which may not stay even before the first neurons."""
    return type(module).__module__ in (nn.ReLU.__module__, nn.GRU.__module__, QCFS.__module__)


def _not_linear(node: fx.Node, kinds: dict[fx.Node, str]) -> str:
    """Why sums over time do not pass through this call, or ""."""
    signals = [other for other in node.all_input_nodes if kinds[other] == "signal"]
    if node.target in ADDITIVE:
        return ""
    if len(signals) == 1 and (node.target in LINEAR or function_name(node) in _MATRIX):
        return "" if _is_dividend(node, signals[0]) else "a quotient by a signal is not linear; use recipe='td'"
    if len(signals) == 1 and node.target is getattr:
        return ""
    return f"{call_name(node).rpartition('.')[2]} is not known to be linear in its input; use a layer that is, or recipe='td'"


def _is_dividend(node: fx.Node, signal: fx.Node) -> bool:
    return "div" not in function_name(node) or node.args[0] is signal
