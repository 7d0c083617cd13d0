"""Feedforward network of delayed linear layers for sequences."""

from collections.abc import Sequence
from typing import Any, Literal

import torch
from spikingjelly.activation_based import layer as sj_layer
from torch import nn

from snn.layers.delay import DelayedLinear, Kind
from snn.layers.delay_positions import Delays, Kernel, round_delays
from snn.models.neuron_choice import NeuronChoice, make_neuron
from snn.models.sizes import positive_sizes
from snn.models.stack import NOT_CARRIED, NotCarried, Stack, StackState


class SpikingDelayNet(nn.Module):
    """Delayed linear layers with neurons between them, and a delayed readout into leaky integrators.

    Each hidden layer: delayed linear -> batch normalisation over time and batch -> neuron -> dropout (one choice for all
    steps). Readout: delayed linear -> leaky integrator with time constant `readout_tau`, whose value is the logits.
    In evaluation all delays are whole steps.

    Args:
        input_shape: (T, channels) or (channels,).
        classes: number of logits.
        hidden: neurons of each hidden layer.
        max_delay: longest delay of every layer, in steps.
        kind: "synaptic", "axonal" or "dendritic" delays.
        kernel: "gaussian" or "two-tap".
        delays: "learned", or kept as they start: "random" whole steps, or "none", all zero.
        neuron: name in `snn`, {"class": name, **arguments}, or a function that makes a layer of neurons.
        dropout: share of hidden spikes set to zero in training.
        readout_tau: time constant of the readout in steps, > 1.
    Input: [T, B, channels].
    Returns: logits [T, B, classes]; with `state=` also the states, see `Stack`.
    Source: Hammouamri et al., Learning Delays in Spiking Neural Networks using DCLS, ICLR 2024.

    >>> SpikingDelayNet(input_shape=(30, 14), classes=5, hidden=(8,), max_delay=6)(torch.zeros(30, 2, 14)).shape
    torch.Size([30, 2, 5])
    """

    def __init__(
        self,
        input_shape: Sequence[int],
        classes: int,
        hidden: Sequence[int] = (256, 256),
        max_delay: int = 24,
        kind: Kind = "synaptic",
        kernel: Kernel = "gaussian",
        delays: Literal["learned", "random", "none"] = "learned",
        neuron: NeuronChoice = "LIF",
        dropout: float = 0.0,
        readout_tau: float = 2.0,
    ) -> None:
        super().__init__()
        if delays not in ("learned", "random", "none"):
            raise ValueError(f"delays must be 'learned', 'random' or 'none', got {delays!r}")
        layers: dict[str, nn.Module] = {}
        features = input_shape[-1]
        for number, size in enumerate(positive_sizes("hidden", hidden), start=1):
            layers[f"delayed{number}"] = DelayedLinear(features, size, max_delay, kind, kernel)
            layers[f"norm{number}"] = nn.BatchNorm1d(size)
            layers[f"neuron{number}"] = make_neuron(neuron, size)
            if dropout:
                layers[f"dropout{number}"] = sj_layer.Dropout(dropout, step_mode="m")
            features = size
        layers["readout"] = DelayedLinear(features, classes, max_delay, kind, kernel)
        layers["integrator"] = make_neuron({"class": "LI", "tau": readout_tau, "decay_input": False})
        self.stack = Stack(layers)
        if delays == "none":
            self.stack.apply(_without_delay)
        if delays != "learned":
            round_delays(self.stack)

    def forward(self, x: torch.Tensor, state: StackState | NotCarried | None = NOT_CARRIED) -> Any:
        return self.stack(x, state)


def _without_delay(module: nn.Module) -> None:
    if isinstance(module, Delays):
        nn.init.zeros_(module.delay)
