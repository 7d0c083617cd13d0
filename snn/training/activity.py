"""Spikes, operations, energy and membrane traffic of every layer of a network for one number of steps."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import nn

from snn.neurons import Neuron
from snn.training.spike_rates import memory_layers

MAC_PJ, AC_PJ = 4.6, 0.9  # 32-bit floats at 45 nm, Horowitz, ISSCC 2014


def ann_energy_pj(macs: Sequence[float]) -> float:
    """Energy of an ANN's multiply-accumulates in pJ per input."""
    return MAC_PJ * sum(macs)


def snn_energy_pj(macs: Sequence[float], rates: Sequence[float | None], T: int) -> float:
    """Energy of the same layers as a spiking network in pJ per input: 4.6 T M for None, else 0.9 r M.

    Args:
        macs: multiply-accumulates M of each layer in one step.
        rates: spikes per input neuron r of each layer, summed over T; None for a layer that reads values, not spikes.
        T: number of steps.

    >>> ann_energy_pj([100, 900]) / snn_energy_pj([100, 900], [None, 0.0], T=1)
    10.0
    """
    pairs = zip(macs, rates, strict=True)
    return sum(MAC_PJ * T * M if rate is None else AC_PJ * rate * M for M, rate in pairs)


@dataclass
class LayerActivity:
    """One layer of weights and the neurons behind it, per input.

    Attributes:
        layer: name of the weights.
        macs: multiply-accumulates in one step.
        input_spikes: spikes per input neuron, summed over T; None where values come in.
        energy_pj: by `snn_energy_pj`.
        neurons: number of neurons behind the weights, 0 for a readout.
        spikes_per_neuron: of these, summed over T; None for layers that send values.
        threshold: their mean threshold; None where they have none.
        leak: mean share of the membrane that is kept; None where that is no number of its own.
        membrane_accesses: reads and writes of membranes between steps, 2 (T - 1) per neuron.
    """

    layer: str
    macs: int
    input_spikes: float | None
    energy_pj: float
    neurons: int = 0
    spikes_per_neuron: float | None = None
    threshold: float | None = None
    leak: float | None = None
    membrane_accesses: int = 0


@dataclass(frozen=True)
class Activity:
    """Layers in the order in which they run, and their sums.

    Attributes:
        T: number of steps.
        layers: one entry for each layer of weights.
    """

    T: int
    layers: tuple[LayerActivity, ...]

    @property
    def energy_pj(self) -> float:
        """Of all layers, per input."""
        return sum(layer.energy_pj for layer in self.layers)

    @property
    def ann_over_snn(self) -> float:
        """Energy of an ANN with these layers over the energy here."""
        return ann_energy_pj([layer.macs for layer in self.layers]) / self.energy_pj

    @property
    def spikes_per_neuron(self) -> float | None:
        """Over all neurons that spike, summed over T; None without such neurons."""
        spiking = [
            (layer.spikes_per_neuron, layer.neurons) for layer in self.layers if layer.spikes_per_neuron is not None
        ]
        if not spiking:
            return None
        return sum(spikes * count for spikes, count in spiking) / sum(count for _, count in spiking)


class _Watch:
    """Sums over batches of what passes the layers of one network."""

    def __init__(self, network: nn.Module) -> None:
        self.spiking = memory_layers(network)
        self.weights = {n: m for n, m in network.named_modules() if isinstance(m, nn.Linear | nn.modules.conv._ConvNd)}
        self.order: list[str] = []
        self.macs: dict[str, int] = {}
        self.sums: dict[str, list[float]] = {}
        self.reads_spikes: dict[str, bool] = {}
        self.behind: dict[str, str] = {}
        self.counts: dict[str, int] = {}
        self.spikes_arrive = False
        self.whole: dict[str, bool] = {}

    def add(self, key: str, x: torch.Tensor) -> None:
        total = self.sums.setdefault(key, [0.0, 0.0])
        total[0] += float(x.abs().sum(dtype=torch.float64))
        total[1] += x.numel()

    def weighted(self, name: str) -> Any:
        def hook(module: Any, inputs: tuple[torch.Tensor, ...], output: torch.Tensor) -> None:
            if name not in self.macs:
                self.order.append(name)
                per_output = module.weight[0].numel()
                self.macs[name] = output[0].numel() * per_output if output.dim() > 2 else module.weight.numel()
            self.reads_spikes[name] = self.reads_spikes.get(name, True) and self.spikes_arrive
            self.add(f"in {name}", inputs[0].detach())

        return hook

    def neurons(self, name: str) -> Any:
        def hook(module: nn.Module, inputs: Any, output: Any) -> None:
            z = (output[0] if isinstance(output, tuple) else output).detach()
            if name not in self.counts:
                self.counts[name] = z[0, 0].numel()
                self.behind[self.order[-1]] = name
            self.spikes_arrive = self.whole[name] = self.whole.get(name, True) and bool((z == z.round()).all())
            self.add(f"out {name}", z)

        return hook

    def mean(self, key: str) -> float:
        total, count = self.sums[key]
        return total / count


def measure_activity(network: nn.Module, batches: Iterable[torch.Tensor]) -> Activity:
    """Run a network in evaluation and count what each layer does, per input.

    Args:
        network: maps [T, B, ...] to logits; its weights are nn.Linear and convolutions.
        batches: inputs [T, B, ...] of equal T. Layers behind spiking neurons pay an addition per spike; the first layer, and
            layers behind neurons that send values, a multiply-accumulate per weight and step. A network without neurons
            is an ANN: T counts as 1.
    Returns: the table.
    Raises: ValueError without batches, or if a batch has another T.
    """
    watch = _Watch(network)
    handles = [module.register_forward_hook(watch.weighted(name)) for name, module in watch.weights.items()]
    handles += [module.register_forward_hook(watch.neurons(name)) for name, module in watch.spiking.items()]
    was_training = network.training
    network.eval()
    T = 0
    try:
        with torch.no_grad():
            for x in batches:
                if T not in (0, len(x)):
                    raise ValueError(f"measure_activity: all batches must have {T} steps, got {len(x)}")
                T = len(x)
                watch.spikes_arrive = False
                network(x)
    finally:
        network.train(was_training)
        for handle in handles:
            handle.remove()
    if T == 0:
        raise ValueError("measure_activity: no batches")
    T = T if watch.spiking else 1
    return Activity(T, tuple(_layer(watch, name, T) for name in watch.order))


def _layer(watch: _Watch, name: str, T: int) -> LayerActivity:
    rate = watch.mean(f"in {name}") * T if watch.reads_spikes[name] else None
    macs = watch.macs[name]
    found = LayerActivity(name, macs, rate, snn_energy_pj([macs], [rate], T))
    if (behind := watch.behind.get(name)) is not None:
        layer = watch.spiking[behind]
        found.neurons = watch.counts[behind]
        found.spikes_per_neuron = watch.mean(f"out {behind}") * T if watch.whole[behind] else None
        found.membrane_accesses = 2 * (T - 1) * found.neurons
        params = layer.call_params() if isinstance(layer, Neuron) else {}
        found.threshold, found.leak = _mean(params.get("v_threshold")), _mean(params.get("leak"))
    return found


def _mean(value: Any) -> float | None:
    return None if value is None else float(torch.as_tensor(value).detach().double().mean())
