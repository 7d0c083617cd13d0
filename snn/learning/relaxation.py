"""Relaxation of a network with feedback from every layer to the one below: the states of contrastive learning."""

from __future__ import annotations

from collections.abc import Callable

import torch

from snn.learning.graph import Graph
from snn.learning.linear_maps import Gradients

Nudge = Callable[[torch.Tensor], torch.Tensor]


def layer_weights(graph: Graph, feedback: float) -> list[float]:
    """Return feedback^(L - k) for each layer k = 0..L: how strongly the output acts on it."""
    return [feedback ** (graph.top - k) for k in range(graph.top + 1)]


def relax(
    graph: Graph, states: list[torch.Tensor], feedback: float, sweeps: int, nudge: Nudge | None = None
) -> list[torch.Tensor]:
    """Update all layers from the bottom to the top, `sweeps` times, and return their states.

        z_k = f(a_k + feedback W^T z_{k+1}),  a_k = W z_{k-1} + b;  output z_L = a_L - nudge(a_L)

    At rest the states are stationary in sum_k feedback^(k - L) E_k, E_k = G(z_k) - z_k a_k. Maxima are routed at the
    current state of the layer below.

    Args:
        graph: the network.
        states: to start from, [B, ...] for each layer; layer 0 is the input and stays.
        feedback: > 0; small values leave the states near those of the forward pass.
        sweeps: number of sweeps; each carries a change of the output one layer down.
        nudge: shift of the output, [B, classes] -> [B, classes]; None for the free phase.
    """
    states = list(states)
    for _ in range(sweeps):
        for k in range(1, graph.top + 1):
            a = graph.input_of(k, states)
            if k == graph.top:
                states[k] = a if nudge is None else a - nudge(a)
                continue
            for edge in graph.layers[k].outgoing:
                _, saved = edge.forward(states[k])
                a = a + edge.transposed(states[edge.target], saved) * feedback ** (edge.target - k)
            states[k] = graph.layers[k].activation.f(a)
    return states


def add_correlations(
    graph: Graph, states: list[torch.Tensor], scale: torch.Tensor | float, feedback: float, gradients: Gradients
) -> None:
    """Add -scale / (feedback^(L - k) B) z_k z_{k-1}^T of every layer with weights.

    Args:
        graph: the network.
        states: of each layer.
        scale: one number, or one for each sample, [B].
        feedback: as in `relax`.
        gradients: receive the result.
    """
    B = len(states[0])
    weights = layer_weights(graph, feedback)
    for edge in graph.edges():
        z = states[edge.target]
        factor = scale if isinstance(scale, float) else scale.view(-1, *[1] * (z.dim() - 1))
        _, saved = edge.forward(states[edge.source])
        edge.collect(z * (factor * (-1.0 / (weights[edge.target] * B))), saved, states[edge.source], gradients)
