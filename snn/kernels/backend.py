"""Picks the backend of a neuron call, and can say why."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, NamedTuple

import torch

from snn.declaration import NeuronModel
from snn.errors import UnsupportedError
from snn.kernels.call import NeuronCall, NeuronResult
from snn.kernels.graph import TraceError
from snn.kernels.reference import run_reference
from snn.surrogate import closed_form

BACKENDS = ("auto", "reference", "numba", "triton")


class Choice(NamedTuple):
    """A backend's name and why it was taken."""

    backend: str
    reason: str


def obstacle_to_kernel(model: NeuronModel, params: Mapping[str, Any], surrogate: object) -> str | None:
    """Why no kernel can be generated for this neuron, or None."""
    from snn.kernels.cpu import kernels_for

    if closed_form(surrogate) is None:
        return f"surrogate {type(surrogate).__name__} has no closed form or is switched to its smooth primitive"
    try:
        kernels_for(model, params)
    except TraceError as error:
        return str(error)
    return None


def choose(
    requested: str, model: NeuronModel, params: Mapping[str, Any], surrogate: object, device: torch.device
) -> Choice:
    """The backend for tensors on `device`.

    Raises:
        UnsupportedError: a backend was asked for by name and cannot run this neuron there; the text says why.
    """
    if requested == "reference":
        return Choice("reference", "asked for")
    if requested == "triton":
        raise UnsupportedError("backend 'triton': this version generates no GPU kernels; use 'auto' or 'reference'")
    if device.type != "cpu":
        obstacle: str | None = f"tensors are on {device}, kernels are generated for the CPU"
    else:
        obstacle = obstacle_to_kernel(model, params, surrogate)
    if obstacle is None:
        return Choice("numba", "asked for" if requested == "numba" else f"CPU tensors, {model.name!r} was traced")
    if requested == "numba":
        raise UnsupportedError(f"backend 'numba': {obstacle}")
    return Choice("reference", obstacle)


def run(backend: str, call: NeuronCall) -> NeuronResult:
    """Runs the call on the named backend, "reference" or "numba"."""
    if backend == "reference":
        return run_reference(call)
    from snn.kernels.cpu import run_cpu

    return run_cpu(call)
