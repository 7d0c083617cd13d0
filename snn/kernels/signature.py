"""Everything about a neuron call that is not a tensor, as an object and as the text that torch's operators carry."""

from __future__ import annotations

import functools
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch

from snn.declaration import NeuronModel, find_model
from snn.kernels.call import NeuronCall
from snn.kernels.graph import TraceError
from snn.kernels.trace import TracedStep, is_switch, trace
from snn.surrogate import ClosedForm, closed_form, form_named


@dataclass(frozen=True)
class Signature:
    """A call without its tensors.

    The tensors of a call are x, then `start_names`, then `param_names`; those of its result are the output, the end
    state of every state, the recorded sequences, and the kept values.

    Attributes:
        backend: "numba" or "triton".
        step: the traced step, its switches fixed.
        form, surrogate_values: the surrogate and its numbers in the order of `form.params`.
        start_values: states that start at a number; start_names: those that start at a tensor.
        scalars: parameters that are numbers; param_names: those that are tensors.
        learnable: those of the latter whose gradient will be wanted.
        recorded: states whose whole sequence is returned.
        keep: the forward pass returns what the backward pass reads again, instead of recomputing it there.
    """

    backend: str
    step: TracedStep
    form: ClosedForm
    surrogate_values: tuple[float, ...]
    start_values: Mapping[str, float]
    start_names: tuple[str, ...]
    scalars: Mapping[str, float]
    param_names: tuple[str, ...]
    learnable: tuple[str, ...]
    recorded: tuple[str, ...]
    keep: bool

    @property
    def states(self) -> tuple[str, ...]:
        """Names of the states in declaration order."""
        return tuple(self.step.new_states)

    @functools.cached_property
    def kept_count(self) -> int:
        """How many values per neuron and step a forward pass with `keep` returns."""
        from snn.kernels.lower import backward_step  # brings networkx

        return len(backward_step(self.step, self.form, self.learnable).kept_apart) if self.keep else 0

    def split(self, tensors: Sequence[torch.Tensor]) -> tuple[dict[str, torch.Tensor], dict[str, torch.Tensor]]:
        """Starting states and parameters by name."""
        count = len(self.start_names)
        starts, params = tensors[:count], tensors[count:]
        return dict(zip(self.start_names, starts, strict=True)), dict(zip(self.param_names, params, strict=True))


def describe(backend: str, call: NeuronCall) -> str:
    """The text of a call's signature: backend, model, parameters, starting states, surrogate, learnable, recorded, keep.

    Written so that torch.compile can follow it; "*" stands for a tensor.

    Raises:
        ValueError: the surrogate has no closed form (`snn.surrogate.CLOSED_FORMS` lists those that have).
    """
    form = closed_form(call.surrogate)
    if form is None:
        raise ValueError(f"surrogate {type(call.surrogate).__name__} has no closed form for a kernel")
    grad = torch.is_grad_enabled()
    learnable = [
        name
        for name in call.model.params
        if grad and isinstance(call.params[name], torch.Tensor) and call.params[name].requires_grad
    ]
    surrogate = [float(getattr(call.surrogate, name)) for name in form.params]
    pieces = [
        backend,
        call.model.key,
        _items(call.params, list(call.model.params)),
        _items(call.states, list(call.model.state)),
        form.name,
        "[" + ", ".join([_number(value) for value in surrogate]) + "]",
        ",".join(learnable),
        ",".join(call.recorded),
        "keep" if call.keep else "",
    ]
    return "|".join(pieces)


_SWITCHES = {None: "null", True: "true", False: "false"}
_NOT_FINITE = {"inf": "Infinity", "-inf": "-Infinity", "nan": "NaN"}


def _items(values: Mapping[str, Any], names: list[str]) -> str:
    shown = []
    for name in names:
        value = values[name]
        if isinstance(value, torch.Tensor):
            text = '"*"'
        elif is_switch(value):
            text = _SWITCHES[value]
        else:
            text = _number(value)
        shown.append(f'"{name}": {text}')
    return "{" + ", ".join(shown) + "}"


def _number(value: Any) -> str:
    text = repr(float(value))
    return _NOT_FINITE.get(text, text)


@functools.lru_cache(maxsize=4096)
def parse(text: str) -> Signature:
    """The signature with this text.

    Raises:
        LookupError: the model is not declared in this process.
        TraceError: the neuron cannot be traced.
    """
    backend, key, params, states, form, surrogate, learnable, recorded, keep = text.split("|")
    values, starts = json.loads(params), json.loads(states)
    switches = {name: value for name, value in values.items() if is_switch(value)}
    return Signature(
        backend=backend,
        step=traced_step(find_model(key), tuple(switches.items())),
        form=form_named(form),
        surrogate_values=tuple(json.loads(surrogate)),
        start_values={name: value for name, value in starts.items() if value != "*"},
        start_names=tuple(name for name, value in starts.items() if value == "*"),
        scalars={name: value for name, value in values.items() if value != "*" and name not in switches},
        param_names=tuple(name for name, value in values.items() if value == "*"),
        learnable=tuple(learnable.split(",")) if learnable else (),
        recorded=tuple(recorded.split(",")) if recorded else (),
        keep=bool(keep),
    )


@functools.lru_cache(maxsize=4096)
def traced_step(model: NeuronModel, switches: tuple[tuple[str, Any], ...]) -> TracedStep:
    """The trace of `model` under these switches, made once.

    Raises:
        TraceError: the model cannot be traced.
    """
    return trace(model, dict(switches))


def obstacle_to_trace(model_key: str, switches: str) -> str | None:
    """Why the model with this key cannot be traced under the switches (`switches_of`), or None."""
    return _obstacle_to_trace(model_key, switches)


# What torch.compiler.assume_constant_result does; that one would import the whole compiler together with this package.
obstacle_to_trace._dynamo_marked_constant = True  # type: ignore[attr-defined]


@functools.lru_cache(maxsize=4096)
def _obstacle_to_trace(model_key: str, switches: str) -> str | None:
    try:
        traced_step(find_model(model_key), tuple(json.loads(switches).items()))
    except TraceError as error:
        return str(error)
    return None


def switches_of(model: NeuronModel, params: Mapping[str, Any]) -> str:
    """Text of the parameters that are fixed while the step is traced."""
    return _items(params, [name for name in model.params if is_switch(params[name])])
