"""NIR graphs as plain data, read from a file or from objects of the `nir` library, checked and flattened.

The reader is our own: it takes files of every version of the format (without v_reset, with names as bytes or text) and
does not depend on the version of the library.
"""

from __future__ import annotations

import warnings
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from snn.errors import UnsupportedError, closest

FIELDS: dict[str, tuple[tuple[str, ...], tuple[str, ...]]] = {
    "Input": (("shape",), ()),
    "Output": (("shape",), ()),
    "Affine": (("weight", "bias"), ()),
    "Linear": (("weight",), ()),
    "Scale": (("scale",), ()),
    "Conv1d": (("weight", "stride", "padding", "dilation", "groups", "bias"), ("input_shape",)),
    "Conv2d": (("weight", "stride", "padding", "dilation", "groups", "bias"), ("input_shape",)),
    "SumPool2d": (("kernel_size", "stride", "padding"), ()),
    "AvgPool2d": (("kernel_size", "stride", "padding"), ()),
    "Delay": (("delay",), ()),
    "Flatten": (("start_dim", "end_dim"), ("input_type",)),
    "Threshold": (("threshold",), ()),
    "I": (("r",), ()),
    "LI": (("tau", "r", "v_leak"), ()),
    "IF": (("r", "v_threshold"), ("v_reset",)),
    "LIF": (("tau", "r", "v_leak", "v_threshold"), ("v_reset",)),
    "CubaLI": (("tau_syn", "tau_mem", "r", "v_leak"), ("w_in",)),
    "CubaLIF": (("tau_syn", "tau_mem", "r", "v_leak", "v_threshold"), ("w_in", "v_reset")),
}
"""Node types with their required and optional fields; "NIRGraph" is the nineteenth."""

NEURONS = ("I", "LI", "IF", "LIF", "CubaLI", "CubaLIF", "Threshold")
PORT = "port"
"""Type of what is left of a sub-graph's Input and Output after flattening: it hands its input on."""


@dataclass
class NodeData:
    """One node: its type, stored fields and metadata."""

    type: str
    fields: dict[str, Any] = field(default_factory=dict)
    metadata: dict[str, Any] = field(default_factory=dict)


@dataclass
class GraphData:
    """Nodes by name, edges without repetition, metadata of the whole."""

    nodes: dict[str, NodeData]
    edges: list[tuple[str, str]]
    metadata: dict[str, Any] = field(default_factory=dict)

    def sources(self, name: str) -> list[str]:
        """Nodes with an edge to `name`, in the order of the edges."""
        return [source for source, target in self.edges if target == name]


def read_graph(source: Any) -> GraphData:
    """The flat graph of a file or of a `nir.NIRGraph`.

    Raises:
        FileNotFoundError: there is no such file.
        ValueError: not a NIR graph, an unknown node type or field, an edge to a node that does not exist, a value that
            is not finite; the text names the node.
    """
    if isinstance(source, str | Path):
        return flattened(_from_file(Path(source)))
    if hasattr(source, "nodes") and hasattr(source, "edges"):
        return flattened(_from_object(source))
    raise TypeError(f"expected a path or a nir.NIRGraph, got a {type(source).__name__}")


def _from_file(path: Path) -> GraphData:
    import h5py

    if not path.is_file():
        raise FileNotFoundError(f"no NIR file {path}")
    try:
        with h5py.File(path, "r") as file:
            if "node" not in file:
                raise ValueError(f"{path} is not a NIR file: it has no group 'node'")
            node = _node(_plain(file["node"]), str(path))
    except OSError as error:
        raise ValueError(f"{path} is not a NIR file: {error}") from error
    if not isinstance(node, GraphData):
        raise ValueError(f"{path} holds a {node.type}, not a graph")
    return node


def _plain(group: Any) -> dict[str, Any]:
    import h5py

    return {name: _plain(item) if isinstance(item, h5py.Group) else _text(item[()]) for name, item in group.items()}


def _text(value: Any) -> Any:
    return value.decode("utf8") if isinstance(value, bytes) else value


def _node(values: Mapping[str, Any], name: str) -> NodeData | GraphData:
    if "type" not in values:
        raise ValueError(f"NIR node {name!r} has no type; a name with '/' cannot be stored in a NIR file")
    kind = str(_text(values["type"]))
    metadata = dict(values.get("metadata", {}))
    if kind == "NIRGraph":
        nodes = {key: _node(item, key) for key, item in values["nodes"].items()}
        edges = [(str(_text(a)), str(_text(b))) for a, b in np.asarray(values["edges"]).reshape(-1, 2)]
        return GraphData(nodes, edges, metadata)  # type: ignore[arg-type]
    return _checked(
        kind, {key: item for key, item in values.items() if key not in ("type", "metadata")}, metadata, name
    )


def _from_object(graph: Any) -> GraphData:
    nodes: dict[str, Any] = {}
    for name, node in graph.nodes.items():
        if hasattr(node, "nodes") and hasattr(node, "edges"):
            nodes[name] = _from_object(node)
            continue
        kind = type(node).__name__
        required, optional = FIELDS.get(kind, ((), ()))
        values = {key: getattr(node, key) for key in (*required, *optional) if getattr(node, key, None) is not None}
        if kind in ("Input", "Output"):
            types = node.input_type if kind == "Input" else node.output_type
            values = {"shape": next(iter(types.values()), None)}
        if kind == "Flatten" and node.input_type is not None:
            values["input_type"] = node.input_type.get("input")
        nodes[name] = _checked(kind, values, dict(getattr(node, "metadata", {}) or {}), name)
    edges = [(str(_text(a)), str(_text(b))) for a, b in graph.edges]
    return GraphData(nodes, edges, dict(getattr(graph, "metadata", {}) or {}))


def _checked(kind: str, values: dict[str, Any], metadata: dict[str, Any], name: str) -> NodeData:
    if kind not in FIELDS:
        raise ValueError(f"NIR node {name!r}: unknown type {kind!r}{closest(kind, FIELDS)}")
    required, optional = FIELDS[kind]
    if missing := [key for key in required if key not in values and not (key == "shape")]:
        raise ValueError(f"NIR node {name!r} ({kind}): fields {missing} are missing")
    found: dict[str, Any] = {}
    for key in (*required, *optional):
        if values.get(key) is None:
            continue
        value = _text(values[key])
        if not isinstance(value, str):
            value = np.array(value.detach().cpu().numpy() if hasattr(value, "detach") else value)
            if value.dtype.kind == "f" and not np.isfinite(value).all():
                raise ValueError(f"NIR node {name!r} ({kind}): {key} must be finite")
        found[key] = value
    if kind in NEURONS:
        _same_shapes(found, metadata, name, kind)
    return NodeData(kind, found, metadata)


def _same_shapes(found: dict[str, Any], metadata: dict[str, Any], name: str, kind: str) -> None:
    """Fills in v_reset and w_in, and brings single numbers to the shape of the population."""
    if kind in ("IF", "LIF", "CubaLIF") and "v_reset" not in found:
        found["v_reset"] = np.asarray(metadata.get("v_reset", np.zeros_like(found["v_threshold"])))
    if kind in ("CubaLI", "CubaLIF") and "w_in" not in found:
        found["w_in"] = np.ones_like(found["tau_syn"])
    shape = np.broadcast_shapes(*(value.shape for value in found.values()))
    for key, value in found.items():
        if value.shape != shape:
            if value.size != 1:
                raise ValueError(f"NIR node {name!r} ({kind}): {key} has shape {value.shape}, the others {shape}")
            found[key] = np.broadcast_to(value, shape).copy()


def flattened(graph: GraphData) -> GraphData:
    """The graph with sub-graphs dissolved: their nodes are called "sub.node", their ports hand on what comes.

    Raises:
        ValueError: an edge names a node that does not exist.
    """
    nodes: dict[str, NodeData] = {}
    edges: list[tuple[str, str]] = []
    entries: dict[str, str] = {}
    exits: dict[str, str] = {}
    for name, node in graph.nodes.items():
        if not isinstance(node, GraphData):
            nodes[name] = node
            continue
        inner = flattened(node)
        ports = {kind: [key for key, item in inner.nodes.items() if item.type == kind] for kind in ("Input", "Output")}
        if len(ports["Input"]) != 1 or len(ports["Output"]) != 1:
            raise UnsupportedError(f"NIR sub-graph {name!r}: one Input and one Output are supported, got {ports}")
        for key, item in inner.nodes.items():
            is_port = item.type in ("Input", "Output")
            nodes[f"{name}.{key}"] = NodeData(PORT, {}, item.metadata) if is_port else item
        edges += [(f"{name}.{a}", f"{name}.{b}") for a, b in inner.edges]
        entries[name], exits[name] = f"{name}.{ports['Input'][0]}", f"{name}.{ports['Output'][0]}"
    for source, target in graph.edges:
        edge = (exits.get(source, source), entries.get(target, target))
        if missing := [name for name in edge if name not in nodes]:
            raise ValueError(f"NIR edge {(source, target)}: no node {missing[0]!r}")
        edges.append(edge)
    unique = list(dict.fromkeys(edges))
    if len(unique) < len(edges):
        repeated = sorted({edge for edge in edges if edges.count(edge) > 1})
        warnings.warn(f"NIR: edges {repeated} are given more than once and taken once", stacklevel=3)
    return GraphData(nodes, unique, graph.metadata)
