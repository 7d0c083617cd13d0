"""The source network of a conversion: the traced ANN in one canonical form."""

from __future__ import annotations

import copy
import operator
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import fx, nn

from snn.conversion.canonical_forms import canonical_forms
from snn.conversion.fold import fold_batch_norms
from snn.conversion.functions import (
    LAYER_OF,
    PRODUCTS,
    QUOTIENTS,
    SIZE_ATTRIBUTES,
    SIZES,
    LayerForm,
    Product,
    Quotient,
)
from snn.conversion.trace import trace_network
from snn.errors import UnsupportedError

_REMOVED = (nn.Identity, nn.modules.dropout._DropoutNd)
_HEADS = (nn.Softmax, nn.LogSoftmax)
_CHECKS = (torch._assert,)


@dataclass(frozen=True)
class Problem:
    """What keeps a network from being converted: the layer, the line of the user's model, and what to write instead."""

    layer: str
    where: str
    reason: str

    def __str__(self) -> str:
        return f"{self.layer!r}{f' (at {self.where})' if self.where else ''}: {self.reason}"


@dataclass
class Source:
    """The canonical network.

    Attributes:
        network: functions with a meaning of their own have become layers, each call has a layer of its own, batch
            normalisation is folded or a `ChannelAffine`, dropout and a softmax at the end are gone.
        notes: what a user should know about these changes.
        problems: calls that have no canonical form.
    """

    network: fx.GraphModule
    notes: list[str] = field(default_factory=list)
    problems: list[Problem] = field(default_factory=list)


def source_network(ann: nn.Module) -> Source:
    """The canonical form of `ann` in evaluation, on a copy.

    Every layer's name is its path in `ann`, or the path of the code that calls a function, a dot, and the function's
    name; further calls get "_2", "_3", ...

    Raises:
        UnsupportedError: the network cannot be traced.
    """
    source = Source(trace_network(ann))
    graph = source.network.graph
    _write_to_new_tensors(source.network)
    kinds = node_kinds(graph)
    names = _Names(source.network)
    for node in list(graph.nodes):
        if node.op == "call_module":
            _own_layer(node, source, names)
        elif node.op in ("call_function", "call_method"):
            if node.target in _CHECKS:
                graph.erase_node(node)
            elif kinds[node] == "signal":
                _layer_of_call(node, source, names, kinds)
    _drop_head(source)
    source.problems += [Problem(*problem) for problem in fold_batch_norms(source.network)]
    source.problems += [Problem(*problem) for problem in canonical_forms(source.network)]
    graph.eliminate_dead_code()
    source.network.delete_all_unused_submodules()
    graph.lint()
    source.network.recompile()
    return source


_IN_PLACE = {operator.iadd: operator.add, operator.isub: operator.sub, operator.imul: operator.mul}
_IN_PLACE[operator.itruediv] = operator.truediv


def _write_to_new_tensors(network: fx.GraphModule) -> None:
    """Makes calls return new tensors instead of changing their operand; what read the operand later reads the result.

    Views of the operand are not followed; `convert` compares the outcome with the network.
    """
    order = {node: number for number, node in enumerate(network.graph.nodes)}
    changing = [node for node in network.graph.nodes if _changes_operand(node, network)]
    for node in changing:
        operand = node.args[0]
        for reader in list(operand.users):
            if order[reader] > order[node]:
                reader.replace_input_with(operand, node)
        if node.op == "call_module":
            layer: Any = network.get_submodule(str(node.target))
            layer.inplace = False
        elif node.op == "call_method":
            node.target = node.target.rstrip("_")
        else:
            node.target = _IN_PLACE.get(node.target, node.target)


def _changes_operand(node: fx.Node, network: fx.GraphModule) -> bool:
    if not node.args or not isinstance(node.args[0], fx.Node):
        return False
    if node.op == "call_module":
        return getattr(network.get_submodule(str(node.target)), "inplace", False) is True
    if node.op == "call_method":
        return str(node.target).endswith("_") and not str(node.target).endswith("__")
    if node.op == "call_function":
        asked = node.kwargs.get("inplace") is True
        return asked or node.target in _IN_PLACE or getattr(node.target, "__name__", "").endswith("_")
    return False


def node_kinds(graph: fx.Graph) -> dict[fx.Node, str]:
    """For each node "signal" (depends on the input's values), "size" (on its shape) or "constant"."""
    kinds: dict[fx.Node, str] = {}
    for node in graph.nodes:
        inputs = {kinds[other] for other in node.all_input_nodes}
        asks = (node.op == "call_method" and node.target in SIZES) or (
            node.op == "call_function" and node.target is getattr and node.args[1] in SIZE_ATTRIBUTES
        )
        if node.op in ("placeholder", "output"):
            kinds[node] = "signal"
        elif asks:
            kinds[node] = "size"
        elif "signal" in inputs:
            kinds[node] = "constant" if _only_shape_is_used(node) else "signal"
        elif node.op == "get_attr" or "constant" in inputs or node.op == "call_module":
            kinds[node] = "constant"
        else:
            kinds[node] = "size" if inputs else "constant"
    return kinds


_MADE_LIKE = frozenset({"new_zeros", "new_ones", "new_full", "new_empty", "zeros_like", "ones_like", "full_like"})


def _only_shape_is_used(node: fx.Node) -> bool:
    name = node.target if isinstance(node.target, str) else getattr(node.target, "__name__", "")
    return node.op in ("call_function", "call_method") and name in _MADE_LIKE


def function_name(node: fx.Node) -> str:
    """The name of the called function, without underscores around it."""
    target = node.target
    return (target if isinstance(target, str) else getattr(target, "__name__", str(target))).strip("_")


def call_name(node: fx.Node) -> str:
    """What messages call a node: its layer's name, or the path of its code and the function."""
    if node.op == "call_module":
        return str(node.target)
    path = node.meta.get("path", "")
    return f"{path}.{function_name(node)}" if path else function_name(node)


def problem(node: fx.Node, reason: str) -> Problem:
    """A problem of this call."""
    return Problem(call_name(node), node.meta.get("where", ""), reason)


class _Names:
    """Gives names of layers that are not taken yet."""

    def __init__(self, network: fx.GraphModule) -> None:
        self.taken = {str(node.target) for node in network.graph.nodes if node.op in ("call_module", "get_attr")}
        self.taken |= {name for name, _ in network.named_modules()}

    def new(self, wanted: str) -> str:
        name, number = wanted, 1
        while name in self.taken:
            number += 1
            name = f"{wanted}_{number}"
        self.taken.add(name)
        return name


def _own_layer(node: fx.Node, source: Source, names: _Names) -> None:
    """Gives a second call of a layer its own layer with the same weights, and removes what does nothing."""
    module = source.network.get_submodule(str(node.target))
    if isinstance(module, _REMOVED):
        node.replace_all_uses_with(node.all_input_nodes[0])
        source.network.graph.erase_node(node)
        return
    earlier = [
        other for other in source.network.graph.nodes if other.op == "call_module" and other.target == node.target
    ]
    if earlier[0] is not node:
        _set_layer(node, source, names.new(str(node.target)), _sharing_copy(module))


def _sharing_copy(module: nn.Module) -> nn.Module:
    """A copy of a layer with the same parameters and buffers."""
    tensors = [*module.parameters(), *module.buffers()]
    copied: nn.Module = copy.deepcopy(module, {id(tensor): tensor for tensor in tensors})
    return copied


def _set_layer(
    node: fx.Node, source: Source, name: str, module: nn.Module, inputs: list[fx.Node] | None = None
) -> None:
    source.network.add_submodule(name, module.eval())
    node.op, node.target = "call_module", name
    if inputs is not None:
        node.args, node.kwargs = tuple(inputs), {}


def _layer_of_call(node: fx.Node, source: Source, names: _Names, kinds: dict[fx.Node, str]) -> None:
    signals = [item for item in node.args if isinstance(item, fx.Node) and kinds[item] == "signal"]
    if len(signals) == 2 and node.target in PRODUCTS | QUOTIENTS:
        module: nn.Module | None = Product() if node.target in PRODUCTS else Quotient()
        inputs = signals
    elif node.target is operator.pow or node.target in ("square", "pow", torch.square, torch.pow):
        exponent = node.args[1] if len(node.args) > 1 else 2
        if exponent != 2 or not signals:
            source.problems.append(problem(node, f"a power {exponent!r} is not supported"))
            return
        module, inputs = Product(), [signals[0], signals[0]]
    elif node.target in LAYER_OF:
        found = _built(node, source, LAYER_OF[node.target], kinds)
        if found is None:
            return
        module, inputs = found
    else:
        return
    if module is None:
        node.replace_all_uses_with(inputs[0])
        source.network.graph.erase_node(node)
        return
    _set_layer(node, source, names.new(call_name(node)), module, inputs)


def _built(
    node: fx.Node, source: Source, form: LayerForm, kinds: dict[fx.Node, str]
) -> tuple[nn.Module | None, list[fx.Node]] | None:
    """The layer and its inputs, or None after noting a problem."""
    given = {**dict(zip(form.names, node.args, strict=False)), **node.kwargs}
    inputs = [given.pop(name, given.get("self")) for name in form.names[: form.signals]]
    if not all(isinstance(item, fx.Node) and kinds[item] == "signal" for item in inputs):
        if node.target in _LINEAR_WITH_CONSTANT:
            return None
        source.problems.append(problem(node, "all of its operands must be signals of the network"))
        return None
    try:
        settings = {name: _value(item, source.network) for name, item in given.items()}
        return form.build(**settings), inputs  # type: ignore[return-value]
    except (UnsupportedError, TypeError) as error:
        source.problems.append(problem(node, str(error)))
        return None


_LINEAR_WITH_CONSTANT = frozenset({torch.matmul, torch.mm, operator.matmul, "matmul", "mm", torch.bmm, "bmm"})


def _value(item: Any, network: nn.Module) -> Any:
    """An argument's value: numbers as they are, weights from the network."""
    if isinstance(item, tuple | list):
        return type(item)(_value(part, network) for part in item)
    if not isinstance(item, fx.Node):
        return item
    if item.op != "get_attr":
        raise UnsupportedError(f"its argument {item.name!r} must be a number or a parameter of the network")
    return operator.attrgetter(str(item.target))(network)


def _drop_head(source: Source) -> None:
    """Removes a softmax at the end, which does not change which class is largest."""
    (output,) = (node for node in source.network.graph.nodes if node.op == "output")
    last = output.args[0]
    if last.op == "call_module" and isinstance(source.network.get_submodule(str(last.target)), _HEADS):
        source.notes.append(f"the softmax {str(last.target)!r} at the end was left out: the read-out is its input")
        output.args = (last.args[0],)
