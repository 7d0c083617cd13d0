"""When the GPU kernels are chosen, and what is said where they cannot be."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from spikingjelly.activation_based import surrogate as sj

import snn
from snn.kernels import gpu
from snn.kernels.backend import choose
from snn.kernels.gpu_source import CONFIGS

CUDA = torch.device("cuda")
LIF = snn.LIF()


def choice(requested: str = "auto", surrogate: Any = LIF.surrogate_function, device: torch.device = CUDA) -> Any:
    return choose(requested, LIF.model, LIF.call_params(), surrogate, device)


@pytest.fixture
def _a_device(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(gpu, "triton_is_installed", lambda: True)
    monkeypatch.setattr(torch.cuda, "get_device_capability", lambda device: (9, 0))


@pytest.mark.usefixtures("_a_device")
def test_cuda_tensors_take_the_kernels() -> None:
    assert choice() == ("triton", "CUDA tensors, 'leaky_integrate_and_fire' was traced")
    assert choice("triton") == ("triton", "asked for")
    assert choice("reference").backend == "reference"


@pytest.mark.usefixtures("_a_device")
def test_a_surrogate_without_closed_form_takes_the_reference_and_says_so() -> None:
    smooth = sj.Sigmoid(spiking=False)
    assert choice(surrogate=smooth).backend == "reference"
    assert "closed form" in choice(surrogate=smooth).reason
    with pytest.raises(snn.UnsupportedError, match="backend 'triton': surrogate Sigmoid has no closed form"):
        choice("triton", surrogate=smooth)


@pytest.mark.usefixtures("_a_device")
def test_an_untraceable_neuron_takes_the_reference_and_says_so() -> None:
    @snn.neuron_model(state={"v": 0.0}, params={})
    def branching(x: Any, s: Any, p: Any) -> tuple[Any, dict[str, Any]]:
        v = s.v + x
        return (v, {"v": v}) if v > 0 else (x, {"v": x})

    chosen = choose("auto", branching, {}, LIF.surrogate_function, CUDA)
    assert chosen.backend == "reference"
    assert "branch" in chosen.reason


@pytest.mark.parametrize("requested", ["numba", "triton"])
def test_a_kernel_for_another_device_is_refused(requested: str) -> None:
    device = CUDA if requested == "numba" else torch.device("cpu")
    with pytest.raises(snn.UnsupportedError, match=rf"backend '{requested}': tensors are on {device}"):
        choice(requested, device=device)


def test_a_missing_triton_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(gpu, "triton_is_installed", lambda: False)
    assert choice().backend == "reference"
    assert "Triton is not installed" in choice().reason
    with pytest.raises(snn.UnsupportedError, match="backend 'triton': Triton is not installed"):
        choice("triton")


def test_a_device_that_triton_does_not_know_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(gpu, "triton_is_installed", lambda: True)
    monkeypatch.setattr(torch.cuda, "get_device_capability", lambda device: (6, 1))
    monkeypatch.setattr(torch.version, "hip", None)
    assert choice() == ("reference", "Triton needs compute capability 7.0, cuda has 6.1")


def test_every_configuration_gives_each_thread_a_neuron() -> None:
    assert all(block >= 32 * warps for block, warps in CONFIGS)
