"""Thresholds of DIET neurons found inside the spiking network, and layers that do not fire."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import torch
from torch import nn
from torch.utils.hooks import RemovableHandle

from snn.neurons.diet import DIET
from snn.training.stage_options import CalibrationOptions

FALLBACK = 0.1  # where no current is positive, as in the published code
DEAD_RATE = 1e-3
REVIVED_RATE = 0.1


def percentile(values: torch.Tensor, p: float) -> float:
    """The element with rank 1 + round(p / 100 (n - 1)) of all n values, counted from the smallest.

    >>> percentile(torch.arange(1.0, 11.0), 90.0)
    9.0
    """
    if not 0 <= p <= 100:
        raise ValueError(f"percentile: p must lie in [0, 100], got {p}")
    flat = values.flatten()
    rank = 1 + round(0.01 * p * (flat.numel() - 1))
    return float(flat.kthvalue(rank).values)


def diet_layers(network: nn.Module) -> dict[str, DIET]:
    """The DIET layers of a network by their dotted names."""
    return {name: module for name, module in network.named_modules() if isinstance(module, DIET)}


def initialise_thresholds(network: nn.Module, x: torch.Tensor, options: CalibrationOptions) -> dict[str, float]:
    """Set every DIET threshold from the currents that reach the layer, with leak 1, and return the values.

    The network runs once over the sequence. As each layer is reached, the percentile of its currents is taken in each
    step, over all neurons and images and negative values too; the largest of them is its threshold, and only then does
    the layer fire. So every layer sees the spikes of layers whose thresholds are set already. A layer whose largest
    percentile is not positive gets 0.1.

    Args:
        network: maps [T, B, ...] to logits; leaks are set to 1.
        x: input [T, B, ...] over the steps of the calibration. All T steps of the largest layer are in memory.
        options: percentile, scale and scale_biases.
    Returns: threshold of each layer, by name.
    Raises: ValueError if the network has no DIET layer.
    Source: Chowdhury et al., ECCV 2022 (released code), which goes through the whole network once for every layer.
    """
    found: dict[str, float] = {}
    handles = [] if not options.scale_biases else _scaling_biases(network, lambda: math.prod(found.values()))

    def set_one(name: str, layer: DIET, current: torch.Tensor) -> None:
        largest = max(percentile(step, options.percentile) for step in current)
        found[name] = options.scale * (largest if largest > 0 else FALLBACK)
        layer.set_threshold(found[name])
        with torch.no_grad():
            layer.leak.fill_(1.0)

    try:
        _visit(network, x, set_one)
    finally:
        for handle in handles:
            handle.remove()
    return found


def _scaling_biases(network: nn.Module, divisor: Callable[[], float]) -> list[RemovableHandle]:
    """Divide the bias of each layer of weights by the divisor of the moment in which the layer runs."""

    def before(module: nn.Module, inputs: Any) -> None:
        if isinstance(module.bias, torch.Tensor):
            module.bias.div_(divisor())

    weighted = [module for module in network.modules() if isinstance(module, nn.Linear | nn.modules.conv._ConvNd)]
    return [module.register_forward_pre_hook(before) for module in weighted]


@dataclass(frozen=True)
class Revived:
    """What was done about one layer that did not fire.

    Attributes:
        rate: spikes per neuron and step before.
        threshold: before.
        new_rate: after.
        new_threshold: after; the same where no threshold can make the layer fire.
    """

    rate: float
    threshold: float
    new_rate: float
    new_threshold: float


def firing_rates(network: nn.Module, x: torch.Tensor) -> dict[str, float]:
    """Spikes per neuron and step of every DIET layer on the input [T, B, ...]."""
    rates: dict[str, float] = {}
    _visit(network, x, lambda name, layer, current: rates.update({name: _rate(layer, current)}))
    return rates


def silent_gradients(
    network: nn.Module, x: torch.Tensor, labels: torch.Tensor, loss: Callable[..., torch.Tensor]
) -> list[str]:
    """Names of weights [out, in, ...] whose gradient on one batch is exactly zero, so that training cannot start."""
    network.zero_grad()
    loss(network(x), labels).backward()
    weights = {name: p for name, p in network.named_parameters() if p.dim() > 1 and p.requires_grad}
    silent = [name for name, p in weights.items() if p.grad is None or not bool(p.grad.any())]
    network.zero_grad()
    return silent


def revive(network: nn.Module, x: torch.Tensor) -> dict[str, Revived]:
    """Lower the threshold of each layer that fires less than 0.001 spikes per neuron and step until it reaches 0.1.

    In the order of the layers, so that each is judged by the spikes that reach it now. The threshold is the largest of
    the currents' percentiles, from high to low, that gives the rate.

    Args:
        network: maps [T, B, ...] to logits.
        x: input [T, B, ...] over the steps of the training that follows.
    Returns: the layers that were changed or could not be, by name; empty if all fire.
    """
    changed: dict[str, Revived] = {}

    def judge(name: str, layer: DIET, current: torch.Tensor) -> None:
        rate, before = _rate(layer, current), float(layer.threshold.detach().mean())
        if rate >= DEAD_RATE:
            return
        new_rate = rate
        for p in (99.0, 97.5, 95.0, 92.5, 90.0, 85.0, 80.0, 70.0, 60.0, 50.0, 40.0, 30.0, 20.0, 10.0):
            value = max(percentile(step, p) for step in current)
            if not 0 < value < before:
                continue
            layer.set_threshold(value)
            new_rate = _rate(layer, current)
            if new_rate >= REVIVED_RATE:
                break
        changed[name] = Revived(rate, before, new_rate, float(layer.threshold.detach().mean()))

    _visit(network, x, judge)
    return changed


def _rate(layer: DIET, current: torch.Tensor) -> float:
    spikes, _ = layer(current, state=None)
    return float(spikes.mean())


def _visit(network: nn.Module, x: torch.Tensor, act: Callable[[str, DIET, torch.Tensor], None]) -> None:
    """Run the network in evaluation, calling `act` with each DIET layer's current just before the layer runs."""
    layers = diet_layers(network)
    if not layers:
        raise ValueError(f"{type(network).__name__} has no DIET layer whose threshold could be set")
    was_training = network.training
    network.eval()
    try:
        with torch.no_grad(), _before_each(layers, act):
            network(x)
    finally:
        network.train(was_training)


@contextmanager
def _before_each(layers: dict[str, DIET], act: Callable[[str, DIET, torch.Tensor], None]) -> Iterator[None]:
    running = False

    def hook(name: str) -> Any:
        def before(layer: DIET, inputs: tuple[torch.Tensor, ...]) -> None:
            nonlocal running
            if running:  # the layer is called by `act` itself
                return
            running = True
            try:
                act(name, layer, inputs[0])
            finally:
                running = False

        return before

    handles = [layer.register_forward_pre_hook(hook(name)) for name, layer in layers.items()]
    try:
        yield
    finally:
        for handle in handles:
            handle.remove()
