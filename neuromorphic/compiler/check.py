"""Comparison of an event network with the torch network that it came from."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from types import SimpleNamespace
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch import nn

from neuromorphic.compiler.graph import Fire, Layer
from neuromorphic.compiler.neurons import fire, is_neuron
from neuromorphic.compiler.trace import fresh_copy, runs_over_time
from snn.kernels.trace import is_switch
from snn.ops import fire_with

if TYPE_CHECKING:
    from neuromorphic.compiler.event_network import EventNetwork


@dataclass(frozen=True)
class Difference:
    """The first entry in which a layer differs.

    Attributes:
        step, sample, place: where; the place is flat in the layer's shape.
        torch, event: the two values.
        margin: torch's distance from firing there, h - threshold in units of the membrane; NaN where unknown. What is
            near zero is a tie that the order of summation decides.
    """

    step: int
    sample: int
    place: int
    torch: float
    event: float
    margin: float


@dataclass(frozen=True)
class LayerCheck:
    """One layer: entries compared, non-zero entries in torch, entries that differ, and the first of them."""

    name: str
    entries: int
    spikes: int
    different: int
    first: Difference | None


@dataclass(frozen=True)
class CheckReport:
    """The comparison of all layers of neurons and of the output.

    Attributes:
        layers: in the order of the network.
        output_difference: largest difference of the outputs.
        predictions: outputs whose largest entry (of the mean over time) was compared.
        predictions_equal: how many agree.
        exact: the output must agree to rounding only where the last layer sums; True where it agreed that far.
    """

    layers: tuple[LayerCheck, ...]
    output_difference: float
    predictions: int
    predictions_equal: int
    exact: bool

    @property
    def equal(self) -> bool:
        """Every spike equal, and the outputs up to rounding."""
        return self.exact and all(layer.different == 0 for layer in self.layers)

    @property
    def agreement(self) -> float:
        """Share of equal entries over all layers of neurons; 1 without neurons."""
        entries = sum(layer.entries for layer in self.layers)
        return 1.0 - sum(layer.different for layer in self.layers) / entries if entries else 1.0

    @property
    def spike_agreement(self) -> float:
        """1 - (differing entries / torch's spikes) over all layers: the share of spikes that agree."""
        spikes = sum(layer.spikes for layer in self.layers)
        different = sum(layer.different for layer in self.layers)
        return 1.0 - different / spikes if spikes else float(different == 0)

    def first_difference(self) -> str:
        """The first layer that differs, in words; "" if none does."""
        for layer in self.layers:
            if layer.first is not None:
                at = layer.first
                return (
                    f"layer {layer.name!r}: {layer.different} of {layer.entries} entries differ, first at step {at.step}, "
                    f"sample {at.sample}, place {at.place}: torch {at.torch:g}, events {at.event:g}, "
                    f"margin {at.margin:.3g}"
                )
        return "" if self.exact else f"the outputs differ by {self.output_difference:.3g}"

    def __str__(self) -> str:
        lines = [f"{'layer':32s} {'entries':>12s} {'spikes':>12s} {'different':>10s}"]
        lines += [f"{own.name:32s} {own.entries:12d} {own.spikes:12d} {own.different:10d}" for own in self.layers]
        lines.append(
            f"equal spikes {100 * self.spike_agreement:.5f} %, equal predictions {self.predictions_equal} of "
            f"{self.predictions}, largest difference of outputs {self.output_difference:.3g}"
        )
        return "\n".join([*lines, *([self.first_difference()] if not self.equal else [])])


def compare(network: EventNetwork, module: nn.Module, x: Any) -> CheckReport:
    """Spikes of each layer and outputs, event network against torch on the same sequences [T, B, ...].

    The torch network is copied to the CPU in the event network's dtype; `module` is left as it is.

    Raises:
        ValueError: the module has not the layers of neurons that the network was compiled from.
    """
    kind = torch.float64 if network.dtype == "float64" else torch.float32
    sequence = torch.as_tensor(x).to(kind)
    output, spikes = network.spikes(sequence)
    typed = fresh_copy(module).to(kind)
    wanted, currents, expected = torch_spikes(typed, sequence)
    layers = network.graph.neurons()
    if missing := [layer.name for layer in layers if layer.name not in wanted]:
        raise ValueError(f"check: the module has no neurons {missing}; it has {sorted(wanted)}")
    checks = []
    for layer in layers:
        own = replace(layer, op=fire(typed.get_submodule(layer.name), layer.shape, layer.name))
        checks.append(_check(own, wanted[layer.name], spikes[layer.name], currents[layer.name]))
    ours, theirs = torch.as_tensor(output).double(), expected.double()
    difference = float((ours - theirs).abs().max())
    scale = max(1.0, float(theirs.abs().max()))
    tolerance = 1e-9 if network.dtype == "float64" else 1e-3
    batch = ours.shape[0 if network.machine.lowered.reduce is not None else 1]
    in_time = network.machine.lowered.reduce is None
    flat = [(y.mean(0) if in_time else y).reshape(batch, -1).argmax(1) for y in (ours, theirs)]
    return CheckReport(
        tuple(checks), difference, batch, int((flat[0] == flat[1]).sum()), difference <= tolerance * scale
    )


def torch_spikes(
    network: nn.Module, x: torch.Tensor
) -> tuple[dict[str, np.ndarray], dict[str, np.ndarray], torch.Tensor]:
    """Output and input [T, B, ...] of every layer of neurons by name, and the network's output, for x [T, B, ...]."""
    sent: dict[str, list[torch.Tensor]] = {}
    received: dict[str, list[torch.Tensor]] = {}
    over_time = runs_over_time(network)
    with torch.no_grad(), _listening(network, sent, received):
        output = network(x) if over_time else torch.stack([network(step) for step in x])
    output = output[0] if isinstance(output, tuple) else output
    joined = [{name: torch.cat(parts).numpy() for name, parts in found.items()} for found in (sent, received)]
    return joined[0], joined[1], output


@contextmanager
def _listening(
    network: nn.Module, sent: dict[str, list[torch.Tensor]], received: dict[str, list[torch.Tensor]]
) -> Iterator[None]:
    handles = []
    for name, module in network.named_modules():
        if not is_neuron(module):
            continue

        def keep(module: nn.Module, args: Any, output: Any, name: str = name or "network") -> None:
            result = output[0] if isinstance(output, tuple) else output
            single = getattr(module, "step_mode", "m") == "s"
            for found, tensor in ((sent, result), (received, args[0])):
                found.setdefault(name, []).append(tensor.detach().unsqueeze(0) if single else tensor.detach())

        handles.append(module.register_forward_hook(keep))
    try:
        yield
    finally:
        for handle in handles:
            handle.remove()


def _check(layer: Layer, wanted: np.ndarray, found: np.ndarray, current: np.ndarray) -> LayerCheck:
    T, B = found.shape[:2]
    a, b = wanted.reshape(T, B, -1), found.reshape(T, B, -1)
    # What is not a spike but a membrane agrees up to rounding.
    binary = bool(((a == 0) | (a == 1)).all())
    different = a != b if binary else ~np.isclose(a, b, rtol=1e-4, atol=1e-5)
    first = None
    if different.any():
        step, sample, place = (int(number) for number in np.argwhere(different)[0])
        margin = firing_margin(layer, current.reshape(T, B, -1)[: step + 1, sample, place], place)
        first = Difference(step, sample, place, float(a[step, sample, place]), float(b[step, sample, place]), margin)
    return LayerCheck(layer.name, a.size, int(np.count_nonzero(a)), int(different.sum()), first)


def firing_margin(layer: Layer, currents: np.ndarray, place: int) -> float:
    """How far one neuron is from firing at the last of the given steps, h - threshold, in float64; NaN if it cannot."""
    op = layer.op
    assert isinstance(op, Fire)

    def own(value: Any) -> Any:
        if is_switch(value):
            return value
        return torch.tensor(float(np.asarray(value).reshape(-1)[place if np.ndim(value) else 0]), dtype=torch.float64)

    margins: list[float] = []

    def noted(u: torch.Tensor) -> torch.Tensor:
        margins.append(float(u))
        return (u >= 0).to(u.dtype)

    params = SimpleNamespace(**{name: own(value) for name, value in op.params.items()})
    state = {name: own(value) for name, value in op.model.start(op.params).items()}
    with fire_with(noted):
        for current in currents:
            margins.clear()
            _, state = op.model.step(
                torch.tensor(float(current), dtype=torch.float64), SimpleNamespace(**state), params
            )
    return margins[0] if margins else float("nan")
