"""Our declared neurons as NIR nodes and back.

A node holds the continuous parameters; its metadata hold the numbers of the declared step, so that the very same step is
built again where the file comes back unchanged and with the same dt.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import numpy as np
import torch

from neuromorphic.compiler.graph import Fire, Shape
from neuromorphic.compiler.nir_data import NodeData
from snn.declaration import NeuronModel
from snn.errors import UnsupportedError
from snn.neurons import IF, LI, LIF, CubaLIF, Neuron
from snn.neurons.cuba import cuba_lif
from snn.neurons.lif import integrate_and_fire, leaky_integrate_and_fire, leaky_integrator, parametric_lif

Fields = tuple[str, dict[str, np.ndarray]]
Write = Callable[[Mapping[str, Any], float, Shape], Fields]


def _full(value: Any, shape: Shape) -> np.ndarray:
    """One value per neuron, in the dtype of the parameter (float64 for plain numbers)."""
    array = np.asarray(value)
    dtype = array.dtype if array.dtype.kind == "f" and array.ndim else np.float64
    return np.broadcast_to(array.reshape(shape if array.size > 1 else ()), shape).astype(dtype)


def _spiking(p: Mapping[str, Any], shape: Shape) -> dict[str, np.ndarray]:
    rest = 0.0 if p["v_reset"] is None else p["v_reset"]
    return {"v_threshold": _full(p["v_threshold"], shape), "v_reset": _full(rest, shape)}


def _write_if(p: Mapping[str, Any], dt: float, shape: Shape) -> Fields:
    return "IF", {"r": _full(1.0 / dt, shape), **_spiking(p, shape)}


def _leaky(tau: np.ndarray, r: np.ndarray, p: Mapping[str, Any], shape: Shape) -> Fields:
    both = _spiking(p, shape)
    return "LIF", {"tau": tau, "r": r, "v_leak": both["v_reset"].copy(), **both}


def _write_lif(p: Mapping[str, Any], dt: float, shape: Shape) -> Fields:
    tau = _full(p["tau"], shape)
    return _leaky(tau * dt, np.ones_like(tau) if p["decay_input"] else tau, p, shape)


def _write_plif(p: Mapping[str, Any], dt: float, shape: Shape) -> Fields:
    rate = _full(p["rate"], shape)
    return _leaky(dt / rate, np.ones_like(rate) if p["decay_input"] else 1.0 / rate, p, shape)


def _write_li(p: Mapping[str, Any], dt: float, shape: Shape) -> Fields:
    tau = _full(p["tau"], shape)
    r = np.ones_like(tau) if p["decay_input"] else tau
    return "LI", {"tau": tau * dt, "r": r, "v_leak": np.zeros_like(tau)}


def _write_cuba(p: Mapping[str, Any], dt: float, shape: Shape) -> Fields:
    c_rate, v_rate = 1.0 - _full(p["c_decay"], shape), 1.0 - _full(p["v_decay"], shape)
    if (c_rate <= 0).any() or (v_rate <= 0).any():
        raise UnsupportedError("a decay of 1 has no time constant in NIR")
    fields = {"tau_syn": dt / c_rate, "tau_mem": dt / v_rate, "r": 1.0 / v_rate, "w_in": 1.0 / c_rate}
    return "CubaLIF", {**fields, "v_leak": np.zeros(shape), **_spiking(p, shape)}


OWN: dict[NeuronModel, tuple[str, Write]] = {
    integrate_and_fire: ("IF", _write_if),
    leaky_integrate_and_fire: ("LIF", _write_lif),
    parametric_lif: ("PLIF", _write_plif),
    leaky_integrator: ("LI", _write_li),
    cuba_lif: ("CubaLIF", _write_cuba),
}
"""Declared models that NIR can express: name in the metadata, and the continuous parameters at a step of dt seconds."""

_CLASSES: dict[str, type[Neuron]] = {"IF": IF, "LIF": LIF, "LI": LI, "CubaLIF": CubaLIF}


def own_node(op: Fire, dt: float, shape: Shape) -> NodeData:
    """The NIR node of a declared neuron.

    Raises:
        UnsupportedError: NIR cannot express it.
    """
    if op.model not in OWN:
        raise UnsupportedError(f"{op.kind or op.model.name} has no NIR form")
    name, write = OWN[op.model]
    kind, fields = write(op.params, dt, shape)
    if op.params.get("v_reset", 0.0) is not None and np.any(np.asarray(op.params.get("v_reset", 0.0))):
        start = "v_reset"
    else:
        start = "zero"
    metadata: dict[str, Any] = {"neuron": name, "dt": dt, "integration": "euler", "start": start}
    if "v_threshold" in op.params:
        metadata |= {
            "reset": "subtract" if op.params["v_reset"] is None else "value",
            "fires_at_threshold": True,
        }
    for key, value in op.params.items():
        if key != "detach_reset" and value is not None:
            metadata[f"step_{key}"] = value.reshape(shape) if isinstance(value, np.ndarray) else value
    return NodeData(kind, fields, metadata)


def own_neuron(node: NodeData, dt: float, shape: Shape) -> Neuron | None:
    """The neuron that `own_node` wrote, or None if the node was not written by it or has been changed since."""
    metadata = {key: _plain(value) for key, value in node.metadata.items()}
    name = metadata.get("neuron")
    model = next((model for model, (known, _) in OWN.items() if known == name), None)
    if model is None or not np.isclose(float(metadata.get("dt", 0.0)), dt, rtol=1e-12):
        return None
    values: dict[str, Any] = {}
    for key in model.params:
        if key == "detach_reset":
            continue
        value = metadata.get(f"step_{key}")
        if value is None and key != "v_reset":
            return None
        values[key] = bool(value) if key == "decay_input" else value
    _, fields = OWN[model][1](values, dt, shape)
    if any(not np.allclose(fields[key], node.fields[key], rtol=1e-6, atol=0.0) for key in fields):
        return None
    given: dict[str, Any] = {
        key: torch.from_numpy(value.copy()) if isinstance(value, np.ndarray) else value for key, value in values.items()
    }
    if name in _CLASSES:
        own: Any = _CLASSES[str(name)]
        made: Neuron = own(**given, step_mode="m")
        return made
    return Neuron(model, given, step_mode="m")


def _plain(value: Any) -> Any:
    if isinstance(value, np.generic) or (isinstance(value, np.ndarray) and value.ndim == 0):
        value = value.item()
    return value.decode("utf8") if isinstance(value, bytes) else value
