"""Whether a converted network equals a quantised one: by its structure, and checked on data neuron by neuron."""

from __future__ import annotations

import copy
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import fx, nn

from snn.conversion.activations import QuantAct, step_counts
from snn.conversion.layers import SpikingLayer, Timed
from snn.conversion.network import ConvertedNetwork
from snn.conversion.quantised_recurrent import spike_unit
from snn.conversion.recurrent import SpikingRecurrent, inner_steps
from snn.conversion.temporal_difference import (
    DeltaProduct,
    SpikingAttention,
    SpikingMultiheadAttention,
    TemporalDifference,
)
from snn.conversion.visits import put_layer
from snn.errors import ShapeError
from snn.neurons.tracer import bipolar_with_tracer, settled_after, unsettled_steps

_EXACT_AT_ONCE = (
    TemporalDifference,
    DeltaProduct,
    SpikingAttention,
    SpikingMultiheadAttention,
)


@dataclass(frozen=True)
class Exactness:
    """What the structure of a converted network guarantees.

    Attributes:
        exact: the settled read-out is that of the quantised network, for every input.
        T: steps after which nothing is sent any more, whatever the input; None if not exact.
        settled: for each layer with neurons the last step in which it may send.
        inner: for each recurrent layer the inner steps per element that are enough; missing where it has no bound.
        reason: why it is exact, or the first layer that is not.
    """

    exact: bool
    T: int | None
    settled: Mapping[str, int]
    inner: Mapping[str, int]
    reason: str

    def __str__(self) -> str:
        if not self.exact:
            return f"not exact: {self.reason}"
        inner = "".join(f", {steps} inner steps per element in {name!r}" for name, steps in self.inner.items())
        return f"exact for T >= {self.T}{inner}: {self.reason}"


def exactness(network: ConvertedNetwork) -> Exactness:
    """What is guaranteed by structure alone.

    Input and biases arrive in step 1. A neuron with tracer whose last input arrives in step a is silent after
    `settled_after(lo, hi, a)` and has then sent the quantiser of its whole input; what lies between is linear or a
    temporal difference, which pass sums on in the same step. By induction over the layers all sums are those of the
    quantised network. A recurrent layer does the same within each element of its sequence, by induction over those.
    """
    if network.coding != "sum":
        return Exactness(False, None, {}, {}, f"coding {network.coding!r} approximates values by rates")
    arrival: dict[fx.Node, int] = {}
    settled: dict[str, int] = {}
    inner: dict[str, int] = {}
    for node in network.body.graph.nodes:
        last = max((arrival[source] for source in node.all_input_nodes), default=1)
        layer = network.body.get_submodule(str(node.target)) if node.op == "call_module" else None
        if isinstance(layer, SpikingLayer):
            if layer.neuron.model is not bipolar_with_tracer:
                reason = f"layer {layer.name!r} has neurons {layer.neuron.model.name!r} without a tracer"
                return Exactness(False, None, {}, {}, reason)
            last = settled[layer.name] = int(settled_after(*_bounds(layer), last))
        elif isinstance(layer, SpikingRecurrent):
            bound = inner_steps(layer.cell, layer.wiring)
            if layer.most_steps is not None and (bound is None or bound > layer.most_steps):
                reason = (
                    f"layer {layer.name!r} may need {bound or 'any number of'} inner steps, it has {layer.most_steps}"
                )
                return Exactness(False, None, {}, {}, reason)
            if bound is not None:
                inner[layer.name] = bound
        elif isinstance(layer, Timed) and not isinstance(layer, _EXACT_AT_ONCE):
            return Exactness(False, None, {}, {}, f"layer {node.target!r} ({type(layer).__name__}) is an approximation")
        arrival[node] = last
    reason = "every neuron settles at the quantiser of its whole input, all else passes sums on"
    return Exactness(True, max(arrival.values()), settled, inner, reason)


class Settled(nn.Module):
    """What a layer of neurons with tracer has sent in all when it is silent: a quantiser of the sum of its input."""

    step: torch.Tensor
    start: torch.Tensor

    def __init__(self, layer: SpikingLayer) -> None:
        super().__init__()
        self.lo, self.hi = _bounds(layer)
        self.register_buffer("step", layer.threshold.clone())
        self.register_buffer("start", layer.neuron.v_start.clone())

    def forward(self, u: torch.Tensor) -> torch.Tensor:
        return step_counts(u, self.step, self.lo, self.hi, self.start) * self.step


def quantised_form(network: ConvertedNetwork, trainable: bool = False) -> fx.GraphModule:
    """The quantised network that an exact conversion settles at, as an ordinary network.

    Args:
        network: with neurons that have a tracer.
        trainable: gives it weights of its own and `QuantAct` in place of the neurons, ready to be trained; convert it
            again afterwards. False shares the weights.
    """
    tensors = [*network.body.parameters(), *network.body.buffers()]
    form = copy.deepcopy(network.body, {} if trainable else {id(tensor): tensor for tensor in tensors})
    for node in form.graph.nodes:
        layer = form.get_submodule(str(node.target)) if node.op == "call_module" else None
        if isinstance(layer, SpikingLayer):
            put_layer(form, str(node.target), _quantiser(layer) if trainable else Settled(layer))
        elif isinstance(layer, Timed):
            put_layer(form, str(node.target), copy.deepcopy(network.source.get_submodule(str(node.target))))
    form.delete_all_unused_submodules()
    return form.train().requires_grad_() if trainable else form.eval()


def _bounds(layer: SpikingLayer) -> tuple[int, int]:
    lo, hi = layer.run_bounds
    assert lo is not None
    assert hi is not None
    return lo, hi


def _quantiser(layer: SpikingLayer) -> QuantAct:
    lo, hi = _bounds(layer)
    quantiser = QuantAct(hi - lo + 1, signed=lo < 0, per_channel=layer.threshold.dim() > 0)
    quantiser.lo, quantiser.hi = lo, hi
    quantiser.to(layer.threshold).set_step(layer.threshold)
    return quantiser


@dataclass(frozen=True)
class Offender:
    """The first value that differs.

    Attributes:
        layer: its name; "read-out" for the output.
        index: place in the layer's output, the sample first; in a recurrent layer then the element and the unit.
        step: number of steps that had passed; in a recurrent layer inner steps of the longest element.
        got, wanted: the value of the spiking network and of the quantised one.
    """

    layer: str
    index: tuple[int, ...]
    step: int
    got: float
    wanted: float

    def __str__(self) -> str:
        place = ", ".join(map(str, self.index))
        return f"{self.layer!r}[{place}] is {self.got:.9g} after {self.step} steps instead of {self.wanted:.9g}"


@dataclass(frozen=True)
class ExactCheck:
    """A comparison on data.

    Attributes:
        max_error: largest difference of the read-outs, 0.0 if they are equal in every bit.
        wrong_counts: neurons whose spike count is not that of the quantiser.
        same_predictions: share of samples with the same largest output.
        last_event: the last step in which anything was sent.
        settled: nothing was left to send.
        spikes: of all neurons, of either sign; in recurrent layers those of all inner steps.
        offender: the first layer's first differing neuron, else the first differing output; None if there is none.
        guarantee: what the structure promises.
    """

    max_error: float
    wrong_counts: int
    same_predictions: float
    last_event: int
    settled: bool
    spikes: int
    offender: Offender | None
    guarantee: Exactness

    @property
    def exact(self) -> bool:
        """The read-outs are equal in every bit."""
        return self.max_error == 0.0

    def __str__(self) -> str:
        state = "settled" if self.settled else "not settled"
        found = f"{state} after step {self.last_event}, largest error {self.max_error:.3g}"
        return f"{found}; {self.guarantee}" if self.offender is None else f"{found}; {self.offender}"


@torch.no_grad()
def verify_exact(
    quantised: nn.Module, network: ConvertedNetwork, batch: torch.Tensor, T: int | None = None
) -> ExactCheck:
    """Runs a converted network beside the quantised one and compares every neuron's count and the read-out.

    Args:
        quantised: the network that was converted, or `quantised_form(network)`; put into evaluation for the call.
        network: with coding "sum".
        batch: inputs [B, ...].
        T: most steps; None takes the guaranteed number, or the network's T if there is none.
    Raises:
        ValueError: the network has coding "rate".
    """
    if network.coding != "sum":
        raise ValueError(f"verify_exact: a network with coding {network.coding!r} is never exact; use measure")
    guarantee = exactness(network)
    recurrent = {layer.name: layer for layer in network.timed() if isinstance(layer, SpikingRecurrent)}
    form = quantised_form(network)
    wanted_layers, _ = _layer_outputs(form, {*network.layers(), *recurrent}, batch)
    wanted = _evaluated(quantised, batch)
    with network.record() as records:
        got, last_event, settled = settle(network, batch, T or guarantee.T or network.T)
        if recurrent:
            got = _every_inner_step(network, recurrent, batch, max(1, last_event))
        sums = {name: record.output_sum for name, record in records.items()}
        spikes = sum(int(record.events.sum()) for record in records.values())
    if got.shape != wanted.shape:
        raise ShapeError(f"verify_exact: the read-out is {tuple(got.shape)}, the quantised one {tuple(wanted.shape)}")
    compared = [_Compared(name, sums[name], layer.threshold, last_event) for name, layer in network.layers().items()]
    for name, layer in recurrent.items():
        assert layer.last_run is not None
        settled &= layer.last_run.settled
        spikes += layer.last_run.spikes
        value = spike_unit(layer.cell.quantisers[layer.cell.states[0]]).value
        compared.append(_Compared(name, layer.last_run.output, value, max(layer.last_run.steps)))
    order = [str(node.target) for node in network.body.graph.nodes]
    offender, wrong = None, 0
    for part in sorted(compared, key=lambda part: order.index(part.name)):
        differs = ((part.got - wanted_layers[part.name]) / part.value).round() != 0
        wrong += int(differs.sum())
        if offender is None and bool(differs.any()):
            offender = _first(part.name, differs, part.got, wanted_layers[part.name], part.steps)
    error = (got - wanted).abs().max().item()
    if offender is None and error > 0:
        offender = _first("read-out", got != wanted, got, wanted, last_event)
    same = (got.argmax(1) == wanted.argmax(1)).double().mean().item()
    return ExactCheck(error, wrong, same, last_event, settled, spikes, offender, guarantee)


@dataclass(frozen=True)
class _Compared:
    """A layer's sums, the value of one of its spikes, and the steps that it had."""

    name: str
    got: torch.Tensor
    value: Any
    steps: int


def _every_inner_step(
    network: ConvertedNetwork, recurrent: Mapping[str, SpikingRecurrent], batch: torch.Tensor, steps: int
) -> torch.Tensor:
    """The read-out after so many steps, with all inner steps of the recurrent layers run one by one."""
    before = {layer: layer.stepwise for layer in recurrent.values()}
    try:
        for layer in before:
            layer.stepwise = True
        return network(batch, steps)
    finally:
        for layer, stepwise in before.items():
            layer.stepwise = stepwise


def _evaluated(network: nn.Module, batch: torch.Tensor) -> torch.Tensor:
    """The output in evaluation mode; every module's own mode is as before afterwards."""
    modes = {module: module.training for module in network.modules()}
    try:
        output: torch.Tensor = network.eval()(batch)
    finally:
        for module, mode in modes.items():
            module.training = mode
    return output


def settle(network: ConvertedNetwork, x: torch.Tensor, most: int) -> tuple[torch.Tensor, int, bool]:
    """Runs until no layer sends anything, `most` steps at most.

    A step in which nothing is sent and nothing comes leaves every state as it is, so all later steps are the same.

    Returns: read-out, last step in which something was sent, whether nothing is left to send anywhere.
    """
    plan = network._execution
    network.reset()
    total = torch.zeros((), dtype=x.dtype, device=x.device)
    for done in range(most):
        current = x.unsqueeze(0) if done == 0 else torch.zeros_like(x).unsqueeze(0)
        total = total + plan.chunk({}, current, 1, driven=done == 0)[0]
        if not plan.last_step_sent:
            return total, done, True
    return total, most, owed_steps(network) == 0


def owed_steps(network: ConvertedNetwork) -> int:
    """The most spikes that a neuron with tracer still owes for what has reached it; 0 if the whole network is silent."""
    owed = 0
    for layer in network.layers().values():
        if layer.neuron.model is bipolar_with_tracer:
            state: Any = layer.neuron
            left = unsettled_steps(state.total, state.count, state.theta, state.lo, state.hi, state.v_start)
            owed = max(owed, int(left.max().item()))
    return owed


def _first(name: str, differs: torch.Tensor, got: torch.Tensor, wanted: torch.Tensor, step: int) -> Offender:
    index = tuple(differs.nonzero()[0].tolist())
    return Offender(name, index, step, got[index].item(), wanted[index].item())


def _layer_outputs(
    form: fx.GraphModule, names: set[str], batch: torch.Tensor
) -> tuple[dict[str, torch.Tensor], torch.Tensor]:
    """The outputs of the named layers, and the network's."""
    seen: dict[str, torch.Tensor] = {}

    def keep(name: str):  # type: ignore[no-untyped-def]
        return lambda module, inputs, output: seen.__setitem__(name, output)

    handles = [form.get_submodule(name).register_forward_hook(keep(name)) for name in names]
    try:
        return seen, form(batch)
    finally:
        for handle in handles:
            handle.remove()
