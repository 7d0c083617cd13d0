"""Spikes per neuron and step of every spiking layer, counted while the network runs."""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch
from spikingjelly.activation_based import layer as sj_layer
from spikingjelly.activation_based.base import MemoryModule
from torch import nn


def sum_dtype(device: torch.device) -> torch.dtype:
    """Return the type for long sums: float64, which Apple's devices do not have."""
    return torch.float32 if device.type == "mps" else torch.float64


def memory_layers(network: nn.Module) -> dict[str, nn.Module]:
    """Return the outermost layers with memory, by a short name: the part of the path that tells them apart.

    Dropout, whose memory is its mask, is not among them: it would count the spikes of the layer before it again.
    """
    found: dict[str, nn.Module] = {}
    for path, module in network.named_modules():
        inside = any(path.startswith(f"{outer}.") for outer in found)
        if isinstance(module, MemoryModule) and not isinstance(module, sj_layer.Dropout) and not inside:
            found[path] = module
    paths = [path.split(".") for path in found]
    shared = 0
    while paths and all(len(path) > shared + 1 and path[shared] == paths[0][shared] for path in paths):
        shared += 1
    return {".".join(path[shared:]): module for path, module in zip(paths, found.values(), strict=True)}


class SpikeCounter:
    """Counts spikes of a network's layers between `counting` calls; bipolar spikes count by magnitude.

    A layer whose output is not whole numbers, such as a leaky integrator, is left out.
    """

    def __init__(self, network: nn.Module) -> None:
        self.layers = memory_layers(network)
        self.reset()

    def reset(self) -> None:
        """Forget all counts."""
        self._sums: dict[str, torch.Tensor] = {}
        self._sizes: dict[str, int] = {}
        self._silent: set[str] = set()

    @contextmanager
    def counting(self) -> Iterator[None]:
        """Count what the network does inside the block."""
        handles = [layer.register_forward_hook(self._hook(name)) for name, layer in self.layers.items()]
        try:
            yield
        finally:
            for handle in handles:
                handle.remove()

    def _hook(self, name: str) -> Any:
        def count(module: nn.Module, inputs: Any, output: Any) -> None:
            z = (output[0] if isinstance(output, tuple) else output).detach()
            if name not in self._silent and not bool((z == z.round()).all()):
                self._silent.add(name)
                self._sums.pop(name, None)
            if name in self._silent:
                return
            self._sums[name] = self._sums.get(name, 0) + z.abs().sum(dtype=sum_dtype(z.device))
            self._sizes[name] = self._sizes.get(name, 0) + z.numel()

        return count

    def totals(self) -> dict[str, tuple[float, int]]:
        """Return spikes and neuron-steps of each spiking layer."""
        return {name: (float(self._sums[name]), self._sizes[name]) for name in self._sums}
