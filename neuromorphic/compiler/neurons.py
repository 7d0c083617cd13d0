"""From a torch module of neurons to its declared step with plain numbers."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import numpy as np
import torch
from spikingjelly.activation_based import neuron as sj
from torch import nn

from neuromorphic.compiler.graph import Fire, Shape
from snn.declaration import NeuronModel
from snn.errors import ShapeError, UnsupportedError
from snn.kernels.graph import Node, TraceError
from snn.kernels.lower import forward_step
from snn.kernels.trace import is_switch, trace
from snn.neurons import Neuron
from snn.neurons.cuba import cuba_lif
from snn.neurons.lif import integrate_and_fire, leaky_integrate_and_fire, parametric_lif
from snn.neurons.membrane import with_view
from snn.surrogate import ClosedForm, closed_form

PLAIN = ClosedForm("none", lambda u, **_: u, ())
"""The spike u >= 0 of a neuron whose surrogate is not looked at; its derivative is never asked for."""


def _reset(module: Any) -> dict[str, Any]:
    return {"v_threshold": module.v_threshold, "v_reset": module.v_reset, "detach_reset": module.detach_reset}


def _sj_lif(module: Any) -> tuple[NeuronModel, dict[str, Any]]:
    return leaky_integrate_and_fire, {"tau": module.tau, "decay_input": module.decay_input, **_reset(module)}


def _sj_plif(module: Any) -> tuple[NeuronModel, dict[str, Any]]:
    return parametric_lif, {"rate": module.w.sigmoid(), "decay_input": module.decay_input, **_reset(module)}


def _sj_cuba(module: Any) -> tuple[NeuronModel, dict[str, Any]]:
    return cuba_lif, {"c_decay": module.c_decay, "v_decay": module.v_decay, **_reset(module)}


SPIKINGJELLY: dict[type[nn.Module], Callable[[Any], tuple[NeuronModel, dict[str, Any]]]] = {
    sj.IFNode: lambda module: (integrate_and_fire, _reset(module)),
    sj.LIFNode: _sj_lif,
    sj.ParametricLIFNode: _sj_plif,
    sj.CUBALIFNode: _sj_cuba,
}
"""SpikingJelly's neurons that have a declared step with the same arithmetic: exact classes, since a subclass may differ."""


def is_neuron(module: nn.Module) -> bool:
    """True for a layer of neurons that can be compiled."""
    return isinstance(module, Neuron) or type(module) in SPIKINGJELLY


def fire(module: nn.Module, shape: Shape, name: str) -> Fire:
    """The declared step of a neuron module over a feature shape.

    Raises:
        UnsupportedError: the step or the surrogate cannot be traced; the text names the layer.
        ShapeError: a parameter does not broadcast against the features.
    """
    if isinstance(module, Neuron):
        model, given = _declared(module, shape, name)
    else:
        model, given = SPIKINGJELLY[type(module)](module)
    surrogate: Any = module.surrogate_function
    form = closed_form(surrogate)
    if form is None:
        raise UnsupportedError(f"layer {name!r}: surrogate {type(surrogate).__name__} has no closed form")
    values = {key: float(getattr(surrogate, key)) for key in form.params}
    params = {key: plain_value(key, value, shape, name) for key, value in given.items()}
    return checked(Fire(model, params, form, values, type(module).__name__), name)


def _declared(module: Neuron, shape: Shape, name: str) -> tuple[NeuronModel, dict[str, Any]]:
    """The neuron's model and parameters, with its membrane norm as it is in evaluation."""
    norm = module.membrane_norm
    if norm is None:
        return module.model, module.call_params()
    if norm.step_count is not None:
        raise UnsupportedError(f"layer {name!r}: a membrane norm with values per step is not supported")
    return with_view(module.model, norm.view), {**module.call_params(), **norm.values(0, len(shape) + 1)}


def checked(op: Fire, name: str) -> Fire:
    """The same `op`, once its step has been traced.

    Raises:
        UnsupportedError: the step cannot be traced; the text names the layer.
    """
    try:
        trace(op.model, op.params)
    except TraceError as error:
        raise UnsupportedError(f"layer {name!r}: {error}") from error
    return op


def plain_value(key: str, value: Any, shape: Shape, name: str) -> Any:
    """A switch, a float, or a flat array with one value per neuron."""
    if is_switch(value):
        return value
    array = np.asarray(value.detach().cpu() if isinstance(value, torch.Tensor) else value)
    if array.size == 1:
        return array.reshape(()).item()
    try:
        return np.ascontiguousarray(np.broadcast_to(array, shape)).reshape(-1)
    except ValueError:
        raise ShapeError(
            f"layer {name!r}: parameter {key!r} of shape {array.shape} does not broadcast against neurons {shape}"
        ) from None


def fires_binary(op: Fire) -> bool:
    """True where the output of the step can only be 0 or 1."""
    step = trace(op.model, op.params)
    return _is_binary(forward_step(step, op.form).output)


def _is_binary(node: Node) -> bool:
    if node.op == "const":
        return node.value in (0.0, 1.0)
    if node.op == "where":
        return _is_binary(node.args[1]) and _is_binary(node.args[2])
    if node.op == "mul":
        return all(map(_is_binary, node.args))
    if node.op == "sub":  # 1 - spike
        return node.args[0].op == "const" and node.args[0].value == 1.0 and _is_binary(node.args[1])
    return False


def start_values(op: Fire) -> Mapping[str, Any]:
    """The starting value of each state: a float, or a flat array with one value per neuron."""
    return op.model.start(op.params)
