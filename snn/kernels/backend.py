"""Picks the backend of a neuron call, and can say why."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, NamedTuple

import torch

from snn.declaration import NeuronModel
from snn.errors import UnsupportedError
from snn.kernels.call import NeuronCall, NeuronResult
from snn.kernels.operator import run_kernel
from snn.kernels.reference import run_reference
from snn.kernels.signature import obstacle_to_trace, switches_of
from snn.surrogate import closed_form

BACKENDS = ("auto", "reference", "numba", "triton")


class Choice(NamedTuple):
    """A backend's name and why it was taken."""

    backend: str
    reason: str


def obstacle_to_kernel(model: NeuronModel, params: Mapping[str, Any], surrogate: object) -> str | None:
    """Why no kernel can be generated for this neuron, or None."""
    if closed_form(surrogate) is None:
        return f"surrogate {type(surrogate).__name__} has no closed form or is switched to its smooth primitive"
    return obstacle_to_trace(model.key, switches_of(model, params))


def choose(
    requested: str, model: NeuronModel, params: Mapping[str, Any], surrogate: object, device: torch.device
) -> Choice:
    """The backend for tensors on `device`.

    Raises:
        UnsupportedError: a backend was asked for by name and cannot run this neuron there; the text says why.
    """
    if requested == "reference":
        return Choice("reference", "asked for")
    kernel = requested if requested != "auto" else "triton" if device.type == "cuda" else "numba"
    obstacle = _obstacle_on(kernel, device) or obstacle_to_kernel(model, params, surrogate)
    if obstacle is None:
        tensors = "CUDA" if kernel == "triton" else "CPU"
        return Choice(kernel, "asked for" if requested == kernel else f"{tensors} tensors, {model.name!r} was traced")
    if requested == kernel:
        raise UnsupportedError(f"backend {kernel!r}: {obstacle}")
    return Choice("reference", obstacle)


def _obstacle_on(kernel: str, device: torch.device) -> str | None:
    """Why no kernel of this kind can run on tensors of `device`, or None."""
    if kernel == "numba":
        return None if device.type == "cpu" else f"tensors are on {device}, Numba kernels need them on the CPU"
    from snn.kernels.gpu import obstacle_on

    return obstacle_on(device)


def run(backend: str, call: NeuronCall) -> NeuronResult:
    """Runs the call on the named backend, "reference", "numba" or "triton"."""
    if backend == "reference":
        return run_reference(call)
    return run_kernel(backend, call)
