"""Direct feedback alignment: the error of the output, projected at random onto every hidden layer."""

from __future__ import annotations

import weakref
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, ClassVar

import torch
from torch import nn

from snn.errors import UnsupportedError
from snn.learning.feedback_alignment import FEEDBACK_STREAM
from snn.learning.given_gradients import inject
from snn.learning.rule import CreditRule, as_sequence
from snn.neurons.dyadic import DyadicReLU
from snn.training.bptt import Backward, StepResult
from snn.training.seeding import generator
from snn.training.spike_rates import memory_layers

_ACTIVATIONS = (
    nn.ReLU,
    nn.LeakyReLU,
    nn.Hardtanh,
    nn.Tanh,
    nn.Sigmoid,
    nn.ELU,
    nn.GELU,
    nn.SiLU,
    nn.Softplus,
    DyadicReLU,
)


@dataclass(frozen=True)
class DirectFeedbackOptions:
    """Args:
    gain: standard deviation of the projection times the root of the layer's size; 0 trains the last block only.
    seed: of the random projections.
    """

    gain: float = 1.0
    seed: int = 0

    def __post_init__(self) -> None:
        if not 0 <= self.gain < float("inf"):
            raise ValueError(f"dfa: gain must be >= 0, got {self.gain}")


class DirectFeedbackAlignment(CreditRule):
    """Direct feedback alignment: dl/dz of each hidden layer of neurons is replaced by B e, e = dl/dlogits.

    B [neurons, classes] is fixed and normal with standard deviation gain / sqrt(neurons). The error enters after the
    activation (or spiking neuron), whose own derivative, and everything back to the layer of neurons before, autograd
    supplies; the last block receives its true gradient.

    Attributes:
        projections: name of a layer of neurons -> B [classes, neurons], made when first needed from the seed and the
            layer's name; entries may be replaced.
    Networks: any with at least one hidden layer of neurons; spiking ones take the error of each step.
    Source: Nøkland, NeurIPS 2016; Launay et al., NeurIPS 2020, for the place at which the error enters.
    """

    Options: ClassVar[type] = DirectFeedbackOptions

    def __init__(self, loss: Any = None, options: Any = None) -> None:
        super().__init__(loss, options)
        self.projections: dict[str, torch.Tensor] = {}
        self._hidden: weakref.WeakKeyDictionary[nn.Module, set[str]] = weakref.WeakKeyDictionary()

    def prepare(self, network: nn.Module, steps: int = 1) -> None:
        if not _neurons(network):
            raise UnsupportedError(
                f"dfa: {type(network).__name__} has no hidden layer of neurons (ReLU, Tanh, ..., or a spiking one)"
            )

    def __call__(self, network: nn.Module, x: torch.Tensor, labels: torch.Tensor, backward: Backward) -> StepResult:
        self.prepare(network)
        if network not in self._hidden:
            self._hidden[network] = hidden_neurons(network, x)
        with _cut_after(network, self._hidden[network]) as outputs:
            logits = network(x)
        sequence = as_sequence(logits)
        value = self.loss(sequence, labels)
        (errors,) = torch.autograd.grad(value, logits, retain_graph=True)
        errors = errors.reshape(-1, errors.shape[-1])  # [T * B, classes]
        gradients = {}
        for name, z in outputs.items():
            projection = self._projection(name, errors.shape[1], z.numel() // len(errors)).to(errors)
            gradients[z] = (errors @ projection).view(z.shape).to(z.dtype)
        backward(inject(value, gradients))
        return StepResult(value.detach(), sequence.detach().mean(0))

    def _projection(self, name: str, classes: int, neuron_count: int) -> torch.Tensor:
        known = self.projections.get(name)
        if known is None or known.shape != (classes, neuron_count):
            draw = generator(self.options.seed, FEEDBACK_STREAM, *name.encode())
            known = torch.randn(classes, neuron_count, generator=draw) * (self.options.gain / neuron_count**0.5)
            self.projections[name] = known
        return known


def _neurons(network: nn.Module) -> dict[str, nn.Module]:
    spiking = set(memory_layers(network).values())
    return {
        name: module
        for name, module in network.named_modules()
        if isinstance(module, _ACTIVATIONS) or module in spiking
    }


def hidden_neurons(network: nn.Module, x: torch.Tensor) -> set[str]:
    """Return the names of the layers of neurons that some layer with weights follows, seen in one pass over x.

    Neurons after the last weights, such as an integrating readout, are part of the output.
    """
    order: list[str] = []
    neurons = _neurons(network)
    inside = {child for module in neurons.values() for child in module.modules()}
    weighted = {
        name: module
        for name, module in network.named_modules()
        if module not in inside and any(p.dim() >= 2 for p in module.parameters(recurse=False))
    }
    handles = [
        module.register_forward_hook(lambda *_, name=name: order.append(name))
        for name, module in {**neurons, **weighted}.items()
    ]
    was_training = network.training
    network.eval()
    try:
        with torch.no_grad():
            network(x)
    finally:
        network.train(was_training)
        for handle in handles:
            handle.remove()
    last = max((place for place, name in enumerate(order) if name in weighted), default=-1)
    return {name for name in order[: max(last, 0)] if name in neurons}


@contextmanager
def _cut_after(network: nn.Module, names: set[str]) -> Iterator[dict[str, torch.Tensor]]:
    """Within the block, the output of each named layer reaches the next one detached; yields the attached ones."""
    outputs: dict[str, torch.Tensor] = {}

    def hook(name: str) -> Any:
        def cut(module: nn.Module, given: Any, z: Any) -> Any:
            if not isinstance(z, torch.Tensor):
                raise UnsupportedError(f"dfa: {name!r} ({type(module).__name__}) returns more than its output")
            if name in outputs:
                raise UnsupportedError(f"dfa: {name!r} ({type(module).__name__}) is called more than once")
            outputs[name] = z
            return z.detach()

        return cut

    modules = dict(network.named_modules())
    handles = [modules[name].register_forward_hook(hook(name)) for name in names]
    try:
        yield outputs
    finally:
        for handle in handles:
            handle.remove()
