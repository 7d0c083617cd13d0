"""Feedback weights that are learned beside the forward weights (Kolen and Pollack)."""

from __future__ import annotations

from collections.abc import Iterator

import torch
from torch import nn

from snn.learning.graph import Graph
from snn.learning.linear_maps import FEEDBACK


def _layers_with_feedback(graph: Graph) -> Iterator[nn.Module]:
    """The layers whose transpose is used: all with weights but those on the input."""
    for edge in graph.edges():
        if edge.source > 0 and edge.weights is not None:
            yield edge.weights.layer


def add_feedback_weights(graph: Graph, seed: int) -> None:
    """Register a parameter `feedback` of the weight's shape on every layer above the first that has none.

    The entries are normal with the standard deviation of the weights. A rule gives them the weights' gradient; with the
    same weight decay, each SGD step shrinks the distance between the two by 1 - lr weight_decay.

    Args:
        graph: the network.
        seed: of the random weights.
    """
    generator = torch.Generator().manual_seed(seed)
    for layer in _layers_with_feedback(graph):
        if FEEDBACK not in layer._parameters:
            weight = layer.get_parameter("weight")
            drawn = torch.randn(weight.shape, generator=generator, dtype=torch.float64) * float(weight.detach().std())
            layer.register_parameter(FEEDBACK, nn.Parameter(drawn.to(weight)))


def has_feedback_weights(graph: Graph) -> bool:
    """Tell whether every layer that needs feedback weights has them."""
    return all(FEEDBACK in layer._parameters for layer in _layers_with_feedback(graph))
