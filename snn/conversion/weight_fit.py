"""Fits the weights of a converted network layer by layer, so that T steps on its own inputs give the source's activations."""

from __future__ import annotations

import copy
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass

import torch
from torch import fx, nn

from snn.conversion.layers import SpikingLayer, Timed
from snn.conversion.network import ConvertedNetwork
from snn.conversion.source import node_kinds
from snn.conversion.visits import put_layer
from snn.errors import UnsupportedError

_WEIGHTED = (nn.Linear, nn.modules.conv._ConvNd)
_EVALUATED = 256
_LOOKS = 8
"""How often the error over all images is measured during a fit, at least."""


@dataclass(frozen=True)
class Fit:
    """How weights are fitted.

    Args:
        iterations: of Adam with a cosine schedule down to 0, for each layer.
        rate: first learning rate.
        batch: images of one iteration.
        seed: of the order of the images.
    """

    iterations: int
    rate: float
    batch: int
    seed: int


@dataclass(frozen=True)
class Fitted:
    """Mean squared error of a layer (summed over channels) before and after its fit."""

    before: float
    after: float

    @property
    def lowered(self) -> bool:
        return self.after < self.before


@dataclass(frozen=True)
class Segment:
    """What lies between the layers with a memory, or the input, and one activation.

    Attributes:
        activation: name of the spiking layer.
        inputs: its inputs by the names of their nodes.
        weighted: names of the layers whose weights belong to this activation: those that no earlier one has.
        graph: from `inputs` to the activation's current.
    """

    activation: str
    inputs: tuple[str, ...]
    weighted: tuple[str, ...]
    graph: fx.Graph


def segments(network: ConvertedNetwork) -> list[Segment]:
    """The segment of every spiking layer, in the order of the network.

    Raises: UnsupportedError with all activations that have no weights of their own.
    """
    body = network.body
    kinds = node_kinds(body.graph)
    modules = {node: body.get_submodule(str(node.target)) for node in body.graph.nodes if node.op == "call_module"}
    owned: set[str] = set()
    found = []
    for node in body.graph.nodes:
        layer = modules.get(node)
        if not isinstance(layer, SpikingLayer):
            continue
        nodes = _before(node.args[0], modules)
        own = [
            str(part.target) for part in nodes if isinstance(modules.get(part), _WEIGHTED) and kinds[part] == "signal"
        ]
        found.append(_segment(layer.name, node, nodes, [name for name in own if name not in owned], modules))
        owned.update(own)
    bare = [segment.activation for segment in found if not segment.weighted]
    if bare:
        raise UnsupportedError(
            f"weights: no weights of their own lie before {', '.join(map(repr, bare))} (a linear layer or convolution that "
            "feeds no earlier activation); put maximum pooling behind its activation, or use weights=0"
        )
    return found


def _before(end: fx.Node, modules: Mapping[fx.Node, nn.Module]) -> set[fx.Node]:
    """The nodes from which `end` is computed, up to the first that has a memory or is the input, those included."""
    found: set[fx.Node] = set()
    waiting = [end]
    while waiting:
        node = waiting.pop()
        if node not in found:
            found.add(node)
            if not _is_border(node, modules):
                waiting += node.all_input_nodes
    return found


def _is_border(node: fx.Node, modules: Mapping[fx.Node, nn.Module]) -> bool:
    return node.op == "placeholder" or isinstance(modules.get(node), Timed)


def _segment(
    name: str, activation: fx.Node, nodes: set[fx.Node], weighted: Sequence[str], modules: Mapping[fx.Node, nn.Module]
) -> Segment:
    graph = fx.Graph()
    copies: dict[fx.Node, fx.Node] = {}
    ordered = [node for node in activation.graph.nodes if node in nodes]
    borders = [node for node in ordered if _is_border(node, modules)]
    for node in borders:
        copies[node] = graph.placeholder(node.name)
    for node in ordered:
        if node not in copies:
            copies[node] = graph.node_copy(node, copies.__getitem__)
    (current,) = activation.all_input_nodes
    graph.output(copies[current])
    in_order = sorted(weighted, key=[str(node.target) for node in ordered].index)
    return Segment(name, tuple(node.name for node in borders), tuple(in_order), graph)


@torch.no_grad()
def mean_inputs(
    network: ConvertedNetwork, segment: Segment, batches: Sequence[torch.Tensor], T: int
) -> list[torch.Tensor]:
    """The inputs [N, ...] of a segment, means over T steps of the converted network as it is now.

    Args:
        batches: images [B, ...]; each batch runs all its T steps at once.
    """
    kept: dict[str, list[torch.Tensor]] = {name: [] for name in segment.inputs}
    images = next(node.name for node in network.body.graph.nodes if node.op == "placeholder")
    with _watched_means(network, segment.inputs, kept):
        for batch in batches:
            network.reset()
            network.run_in_one_chunk(batch, T)
            if images in kept:
                kept[images].append(batch)
    network.reset()
    return [torch.cat(kept[name]) for name in segment.inputs]


class _Watched(Timed):
    """A layer whose mean outputs are kept."""

    def __init__(self, layer: Timed, kept: list[torch.Tensor]) -> None:
        super().__init__()
        self.layer, self.kept = layer, kept

    def sequence(self, *x: torch.Tensor) -> torch.Tensor:
        output = self.layer.sequence(*x)
        self.kept.append(output.mean(0))
        return output

    def reset(self) -> None:
        self.layer.reset()


@contextmanager
def _watched_means(
    network: ConvertedNetwork, names: Sequence[str], kept: Mapping[str, list[torch.Tensor]]
) -> Iterator[None]:
    found = {
        str(node.target): (network.body.get_submodule(str(node.target)), kept[node.name])
        for node in network.body.graph.nodes
        if node.name in names and node.op == "call_module"
    }
    layers = {target: (layer, means) for target, (layer, means) in found.items() if isinstance(layer, Timed)}
    for target, (layer, means) in layers.items():
        put_layer(network.body, target, _Watched(layer, means))
    try:
        yield
    finally:
        for target, (layer, _) in layers.items():
            put_layer(network.body, target, layer)


def clip_floor(current: torch.Tensor, layer: SpikingLayer, T: int) -> torch.Tensor:
    """The mean output of T steps on a current [B, ...] that is the same in each: theta clip(floor((T x + v0) / theta)) / T.

    The gradient passes the floor and is 0 where the clip holds.
    """
    theta, (lowest, highest) = layer.threshold, layer.count_bounds(T)
    position = (T * current.detach() + layer.initial) / theta
    given = position.floor().clamp(lowest, highest) * theta / T
    passed = current * ((position > lowest) & (position < highest))
    return given + (passed - passed.detach())


def squared_error(output: torch.Tensor, wanted: torch.Tensor) -> torch.Tensor:
    """Squares summed over channels, mean over images and places."""
    return (output - wanted).square().sum(1).mean()


@torch.enable_grad()
def fit_weights(
    network: ConvertedNetwork,
    segment: Segment,
    inputs: Sequence[torch.Tensor],
    wanted: torch.Tensor,
    T: int,
    fit: Fit,
) -> Fitted:
    """Fits the weights of one segment, in copies that belong to the converted network alone.

    Args:
        network: its source network keeps its weights.
        inputs: of the segment, [N, ...] each, see `mean_inputs`.
        wanted: the source's activations [N, ...].
        T: steps of a run.
    Returns: the errors over all N images. It is measured `_LOOKS` times on the way, and the weights are those of the least
        error, which may be those before the fit.
    """
    layer = network.layers()[segment.activation]
    weights = {name: _own_weight(network, name) for name in segment.weighted}
    trainable = {name: weight.requires_grad for name, weight in weights.items()}
    current = fx.GraphModule(network.body, segment.graph)

    def error(rows: torch.Tensor) -> torch.Tensor:
        return squared_error(clip_floor(current(*(part[rows] for part in inputs)), layer, T), wanted[rows])

    before = _over_all(error, len(wanted))
    best, best_weights = before, _copied(weights)
    for weight in weights.values():
        weight.requires_grad_(True)
    optimizer = torch.optim.Adam(weights.values(), lr=fit.rate)
    schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, fit.iterations)
    for done, rows in enumerate(_row_batches(len(wanted), fit), 1):
        optimizer.zero_grad()
        error(rows).backward(inputs=list(weights.values()))
        optimizer.step()
        schedule.step()
        if done % max(1, fit.iterations // _LOOKS) == 0 or done == fit.iterations:
            reached = _over_all(error, len(wanted))
            if reached < best:
                best, best_weights = reached, _copied(weights)
    for name, weight in weights.items():
        weight.grad = None
        weight.requires_grad_(trainable[name])
        weight.data.copy_(best_weights[name])
    return Fitted(before, best)


def _copied(weights: Mapping[str, nn.Parameter]) -> dict[str, torch.Tensor]:
    return {name: weight.detach().clone() for name, weight in weights.items()}


def _own_weight(network: ConvertedNetwork, name: str) -> nn.Parameter:
    """The weight of a copy of the layer, which takes its place in the converted network; the rest is still shared."""
    layer = network.body.get_submodule(name)
    shared = {id(value): value for value in (*layer.parameters(), *layer.buffers()) if value is not layer.weight}
    own = copy.deepcopy(layer, shared)
    put_layer(network.body, name, own)
    weight = own.weight
    assert isinstance(weight, nn.Parameter)
    return weight


@torch.no_grad()
def _over_all(error: Callable[[torch.Tensor], torch.Tensor], count: int) -> float:
    parts = torch.arange(count).split(_EVALUATED)
    return sum(float(error(rows)) * len(rows) for rows in parts) / count


def _row_batches(count: int, fit: Fit) -> Iterator[torch.Tensor]:
    """As many batches of row numbers as iterations: every image once before one comes again."""
    generator = torch.Generator().manual_seed(fit.seed)
    done = 0
    while done < fit.iterations:
        for rows in torch.randperm(count, generator=generator).split(fit.batch)[: fit.iterations - done]:
            yield rows
            done += 1
