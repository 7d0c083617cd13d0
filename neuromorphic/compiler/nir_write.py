"""From a torch module to a NIR graph."""

from __future__ import annotations

import re
import warnings
from dataclasses import dataclass, field, fields
from typing import Any

import numpy as np
import torch
from torch import nn

from neuromorphic.compiler.fold import NIR_RULES, folded, split_delays
from neuromorphic.compiler.graph import (
    Add,
    Affine,
    Conv,
    Delay,
    Dense,
    Fire,
    Input,
    Layer,
    LayerGraph,
    Pool,
    Shape,
    Take,
)
from neuromorphic.compiler.nir_data import NodeData
from neuromorphic.compiler.nir_layers import StackedLinear
from neuromorphic.compiler.nir_module import NIRNetwork
from neuromorphic.compiler.nir_neurons import NIRNeuron
from neuromorphic.compiler.nir_own import own_node
from neuromorphic.compiler.trace import fresh_copy, layer_graph
from snn.errors import UnsupportedError
from snn.layers.delay import DelayedLinear
from snn.neurons.recurrent import RecurrentLIF


@dataclass
class _Writing:
    """Nodes and edges so far."""

    graph: LayerGraph
    modules: dict[str, nn.Module]
    dt: float
    nodes: dict[str, Any] = field(default_factory=dict)
    warned: list[str] = field(default_factory=list)

    def sources(self, name: str) -> list[str]:
        """The layers with nodes whose outputs a layer's value is the sum of."""
        layer = self.graph.layers[name]
        if isinstance(layer.op, Add) or layer.late:
            return [source for item in layer.inputs for source in self.sources(item)]
        return [name]


def to_nir(module: nn.Module, dt_ms: float, example_input: torch.Tensor | None = None) -> Any:
    """The NIR graph of a network; `nir.write(path, graph)` stores it.

    Normalisation is folded into weights. Each node's metadata hold what NIR cannot say (dt, kind of reset, order of the
    update, firing at or above the threshold), so that `from_nir` builds a network with the same spikes; other programs
    read the continuous parameters, which give the same update by Euler's method at this dt.

    Args:
        module: a network that `compile` takes.
        dt_ms: length of one step; time constants of the graph are seconds.
        example_input: [T, B, ...] or [B, ...]; not needed where the first layer is a Linear or the module came from NIR.
    Returns: a `nir.NIRGraph`.
    Raises:
        UnsupportedError: a layer that NIR cannot express, by name.
        ValueError: dt_ms <= 0, or an example input is needed.
        ImportError: the nir library is not installed.
    """
    if not dt_ms > 0:
        raise ValueError(f"dt_ms must be > 0, got {dt_ms}")
    copied = fresh_copy(module)
    graph = split_delays(folded(layer_graph(copied, _example(copied, example_input)), NIR_RULES))
    writing = _Writing(graph, dict(copied.named_modules()), dt_ms * 1e-3)
    names = _node_names(copied, graph)
    for layer in graph:
        if isinstance(layer.op, Add) or layer.late or layer.name.endswith(".recurrent"):
            continue
        writing.nodes[names[layer.name]] = _node(writing, layer)
    edges = _edges(writing, names)
    output = graph.layers[graph.output]
    writing.nodes[_free("output", writing.nodes)] = _nir_node(NodeData("Output", {"shape": np.array(output.shape)}))
    out = list(writing.nodes)[-1]
    edges += [(names[source], out) for source in writing.sources(graph.output)]
    if len(set(edges)) < len(edges):
        twice = sorted({edge for edge in edges if edges.count(edge) > 1})
        raise UnsupportedError(f"NIR export: {twice} would be joined twice, which NIR cannot say")
    if writing.warned:
        warnings.warn(
            f"NIR has no reset by subtraction; layers {writing.warned} carry it in their metadata only, and other programs "
            "will reset them to a value",
            stacklevel=2,
        )
    metadata = {"dt": writing.dt, "producer": "spikeloop", "integration": "euler"}
    return _library().NIRGraph(nodes=writing.nodes, edges=edges, metadata=metadata)


def _library() -> Any:
    try:
        import nir
    except ImportError as error:
        raise ImportError("NIR export needs the nir library; install it with: pip install 'spikeloop[nir]'") from error
    return nir


def _example(module: nn.Module, given: torch.Tensor | None) -> torch.Tensor:
    if given is not None:
        return given
    dtype = next((p.dtype for p in module.parameters()), torch.get_default_dtype())
    if isinstance(module, NIRNetwork):
        return torch.zeros(1, 1, *module.input_shape, dtype=dtype)
    weighted = (nn.Linear, nn.Conv1d, nn.Conv2d, DelayedLinear)
    first = next((layer for layer in module.modules() if isinstance(layer, weighted)), None)
    if isinstance(first, DelayedLinear):
        return torch.zeros(1, 1, first.in_features, dtype=dtype)
    if not isinstance(first, nn.Linear):
        raise ValueError("to_nir: the shape of the input is unknown; pass example_input=")
    from neuromorphic.compiler.trace import runs_over_time

    return torch.zeros(*([1, 1] if runs_over_time(module) else [1]), first.in_features, dtype=dtype)


def _node_names(module: nn.Module, graph: LayerGraph) -> dict[str, str]:
    """A NIR name for each layer: NIR's own where the module came from NIR, else that of the torch module."""
    known = module.names if isinstance(module, NIRNetwork) else {}
    names: dict[str, str] = {}
    taken: set[str] = set()
    for layer in graph:
        name = known.get(layer.name.removeprefix("layers."), layer.name)
        name = re.sub(r"[/\s]", "_", name)
        while name in taken:
            name += "_"
        taken.add(name)
        names[layer.name] = name
    return names


def _free(name: str, taken: Any) -> str:
    while name in taken:
        name += "_"
    return name


def _edges(writing: _Writing, names: dict[str, str]) -> list[tuple[str, str]]:
    edges: list[tuple[str, str]] = []
    for layer in writing.graph:
        if isinstance(layer.op, Add) or layer.late or isinstance(layer.op, Input):
            continue
        own = isinstance(writing.modules.get(layer.name), RecurrentLIF)
        for item in layer.inputs:
            sources = writing.sources(item)
            if own:  # its feedback is inside its sub-graph
                sources = [source for source in sources if source != layer.name]
            edges += [(names[source], names[layer.name]) for source in sources]
    return edges


def _node(writing: _Writing, layer: Layer) -> Any:
    try:
        module = writing.modules.get(layer.name)
        if isinstance(module, RecurrentLIF):
            return _recurrent(writing, layer)
        return _nir_node(_data(writing, layer))
    except UnsupportedError as error:
        before = ", ".join(repr(name) for name in layer.inputs)
        raise UnsupportedError(f"NIR export: {layer}: {error}; the graph stops behind {before}") from error


def _data(writing: _Writing, layer: Layer) -> NodeData:
    op, shapes = layer.op, writing.graph.layers
    if isinstance(op, Input):
        return NodeData("Input", {"shape": np.array(layer.shape)})
    before = shapes[layer.inputs[0]].shape
    if isinstance(op, Dense):
        module = writing.modules.get(layer.name)
        if isinstance(module, StackedLinear):
            bias = torch.zeros(module.weight.shape[:-1]) if module.bias is None else module.bias
            return NodeData("Affine", {"weight": module.weight.detach().numpy(), "bias": bias.detach().numpy()})
        if op.bias is None:
            return NodeData("Linear", {"weight": op.weight})
        return NodeData("Affine", {"weight": op.weight, "bias": op.bias})
    if isinstance(op, Conv):
        return _conv(op, before)
    if isinstance(op, Pool):
        return _pool(op, before)
    if isinstance(op, Affine):
        return _affine(op, before)
    if isinstance(op, Delay):
        return NodeData("Delay", {"delay": (op.steps * writing.dt).reshape(before)})
    if isinstance(op, Take):
        return _flatten(op, layer, before)
    if isinstance(op, Fire):
        return _neuron(writing, layer, op)
    raise UnsupportedError(f"{type(op).__name__} has no NIR form")


def _conv(op: Conv, before: Shape) -> NodeData:
    one_axis = len(before) == 2
    bias = np.zeros(op.weight.shape[0], op.weight.dtype) if op.bias is None else op.bias
    if one_axis:
        fields = {"input_shape": before[1], "weight": op.weight[:, :, 0]}
        numbers = {"stride": op.stride[1], "padding": op.padding[1], "dilation": op.dilation[1]}
        return NodeData("Conv1d", {**fields, **numbers, "groups": op.groups, "bias": bias})
    pairs = {"stride": op.stride, "padding": op.padding, "dilation": op.dilation}
    return NodeData(
        "Conv2d", {"input_shape": before[1:], "weight": op.weight, **pairs, "groups": op.groups, "bias": bias}
    )


def _pool(op: Pool, before: Shape) -> NodeData:
    if len(before) != 3:
        raise UnsupportedError("pooling along one axis has no NIR form")
    whole = op.kernel[0] * op.kernel[1]
    if not (np.isclose(op.factor, 1.0) or np.isclose(op.factor * whole, 1.0)):
        raise UnsupportedError(f"pooling times {op.factor:g} has no NIR form")
    kind = "SumPool2d" if np.isclose(op.factor, 1.0) else "AvgPool2d"
    pairs = {"kernel_size": op.kernel, "stride": op.stride, "padding": op.padding}
    return NodeData(kind, {key: np.array(value) for key, value in pairs.items()})


def _affine(op: Affine, before: Shape) -> NodeData:
    if op.shift is None or not op.shift.any():
        return NodeData("Scale", {"scale": op.scale.reshape(before)})
    if len(before) == 1:
        return NodeData("Affine", {"weight": np.diag(op.scale), "bias": op.shift})
    scale, shift = op.scale.reshape(before[0], -1), op.shift.reshape(before[0], -1)
    if len(before) == 3 and (scale == scale[:, :1]).all() and (shift == shift[:, :1]).all():
        own = Conv(scale[:, :1].reshape(-1, 1, 1, 1), shift[:, 0], groups=before[0])
        return _conv(own, before)
    raise UnsupportedError("a shift of its own for each element has no NIR form")


def _flatten(op: Take, layer: Layer, before: Shape) -> NodeData:
    if len(layer.inputs) > 1:
        raise UnsupportedError("a concatenation has no NIR form")
    if op.index is not None:
        raise UnsupportedError("a permutation or slice has no NIR form")
    for first in range(len(before)):
        for last in range(first, len(before)):
            merged = (*before[:first], int(np.prod(before[first : last + 1])), *before[last + 1 :])
            if merged == layer.shape:
                end = -1 if last == len(before) - 1 else last
                values = {"start_dim": first, "end_dim": end, "input_type": {"input": np.array(before)}}
                return NodeData("Flatten", values)
    raise UnsupportedError(f"a reshape from {before} to {layer.shape} has no NIR form")


def _neuron(writing: _Writing, layer: Layer, op: Fire) -> NodeData:
    module = writing.modules.get(layer.name)
    if isinstance(module, NIRNeuron):
        stored = {key: module.field(key).numpy() for key in module.fields}
        policy = module.policy
        metadata: dict[str, Any] = {"integration": policy.integration, "reset": policy.reset, "dt": policy.dt}
        metadata["fires_at_threshold"] = policy.fires_at_threshold
        if policy.input is not None:
            metadata["input"] = policy.input
        if not np.isclose(policy.dt, writing.dt, rtol=1e-12):
            raise UnsupportedError(
                f"it was made for dt = {policy.dt * 1e3:g} ms and is exported at {writing.dt * 1e3:g} ms"
            )
        return NodeData(module.kind, stored, metadata)
    data = own_node(op, writing.dt, layer.shape)
    if data.metadata.get("reset") == "subtract":
        writing.warned.append(layer.name)
    return data


def _recurrent(writing: _Writing, layer: Layer) -> Any:
    """The sub-graph input -> lif <-> w_rec, lif -> output."""
    op = layer.op
    assert isinstance(op, Fire)
    module: Any = writing.modules[layer.name]
    plain = Fire(_without_feedback(op), op.params, op.form, op.surrogate_values, op.kind)
    lif = own_node(plain, writing.dt, layer.shape)
    if lif.metadata.get("reset") == "subtract":
        writing.warned.append(layer.name)
    feedback = writing.graph.layers[f"{layer.name}.recurrent"]
    inner = _Writing(writing.graph, {}, writing.dt)
    nir = _library()
    shape = np.array(layer.shape)
    nodes = {
        "input": _nir_node(NodeData("Input", {"shape": shape})),
        "lif": _nir_node(lif),
        "w_rec": _nir_node(_data(inner, Layer(feedback.name, feedback.op, (layer.name,), feedback.shape))),
        "output": _nir_node(NodeData("Output", {"shape": shape})),
    }
    del module
    edges = [("input", "lif"), ("lif", "w_rec"), ("w_rec", "lif"), ("lif", "output")]
    return nir.NIRGraph(nodes=nodes, edges=edges)


def _without_feedback(op: Fire) -> Any:
    from snn.neurons.lif import leaky_integrate_and_fire

    return leaky_integrate_and_fire


def _nir_node(data: NodeData) -> Any:
    """The library's object; a field that this version of the library has not is kept in the metadata."""
    nir = _library()
    if data.type == "Input":
        return nir.Input(input_type={"input": data.fields["shape"]})
    if data.type == "Output":
        return nir.Output(output_type={"output": data.fields["shape"]})
    if not hasattr(nir, data.type):
        raise UnsupportedError(f"the installed nir library has no {data.type}")
    kind = getattr(nir, data.type)
    accepted = {entry.name for entry in fields(kind)}
    values = {key: value for key, value in data.fields.items() if key in accepted}
    metadata = {key: _storable(value) for key, value in data.metadata.items()}
    for key in sorted(set(data.fields) - set(values)):
        if np.any(data.fields[key]):
            metadata[key] = data.fields[key]
    if "metadata" in accepted and metadata:
        values["metadata"] = metadata
    return kind(**values)


def _storable(value: Any) -> Any:
    return value if not isinstance(value, np.generic) else value.item()
