"""How many steps pass before the deepest layer of a converted network has something to say."""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch

from snn.conversion.layers import SpikingLayer
from snn.conversion.network import ConvertedNetwork
from snn.conversion.thresholds import observe, rows_of


def firing_delay(network: ConvertedNetwork, batches: Sequence[torch.Tensor]) -> int:
    """Estimate of the step in which the last layer's most active channel fires first.

    A layer needs (theta - v(0)) / a steps for its first spike, with a the mean activation of its most active channel;
    along a path these times add up, and the longest path counts.

    Args:
        batches: calibration inputs [B, ...].
    Source: after `estimate_delay_start` of SpikingJelly 2.0, which adds the times of all layers.
    """
    totals: dict[str, torch.Tensor] = {}
    counts: dict[str, int] = {}

    def see(name: str, activations: torch.Tensor) -> None:
        rows = rows_of(activations, channelwise=True)
        totals[name] = totals.get(name, rows.new_zeros(len(rows))) + rows.sum(1)
        counts[name] = counts.get(name, 0) + rows.shape[1]

    observe(network, batches, list(network.layers()), see)
    times = {}
    for name, layer in network.layers().items():
        activity = (totals[name] / counts[name]).max().item()
        wait = (layer.threshold - layer.initial).mean().item()
        times[name] = wait / activity if activity > 0 else 0.0
    return math.ceil(_longest_path(network, times))


def _longest_path(network: ConvertedNetwork, times: dict[str, float]) -> float:
    arrival: dict[object, float] = {}
    for node in network.body.graph.nodes:
        before = max((arrival[source] for source in node.all_input_nodes), default=0.0)
        own = 0.0
        if node.op == "call_module":
            layer = network.body.get_submodule(str(node.target))
            own = times[layer.name] if isinstance(layer, SpikingLayer) else 0.0
        arrival[node] = before + own
    return max(arrival.values())
