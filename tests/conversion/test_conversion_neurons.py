"""Neurons of converted networks against known answers, a plain loop, and the laws that they keep."""

from __future__ import annotations

import math

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from snn.conversion import SpikingLayer
from snn.conversion.activations import QCFS
from snn.conversion.neurons import burst_if, clipped_burst_if, signed_if, soft_reset_if
from snn.kernels.call import NeuronCall
from snn.kernels.gpu import triton_is_installed
from snn.kernels.operator import run_kernel
from snn.kernels.reference import run_reference

KINDS = {
    "if": (soft_reset_if, {}, {}),
    "burst": (burst_if, {"most": 3.0}, {"highest": 3}),
    "clipped burst": (clipped_burst_if, {"most": 3.0}, {}),
    "signed": (signed_if, {}, {"lowest": -1, "run_bounds": (0, None)}),
}


def layer(kind: str = "if", theta: float | torch.Tensor = 1.0, start: float = 0.5) -> SpikingLayer:
    model, values, bounds = KINDS[kind]
    made = SpikingLayer("relu", model, values, **bounds)  # type: ignore[arg-type]
    made.set_threshold(torch.as_tensor(theta, dtype=torch.float64), start)
    return made


def column(*values: float) -> torch.Tensor:
    return torch.tensor(values, dtype=torch.float64).view(-1, 1, 1)


@pytest.mark.parametrize(
    ("z", "spikes", "membranes"),
    [
        (0.35, [0, 1, 0, 0], [0.85, 0.2, 0.55, 0.9]),
        (0.6, [1, 0, 1, 0], [0.1, 0.7, 0.3, 0.9]),
        (0.999, [1, 1, 1, 1], None),
        (-0.1, [0, 0, 0, 0], None),
    ],
)
def test_constant_input_known_answers(z: float, spikes: list[int], membranes: list[float] | None) -> None:
    neurons = layer()
    found, after = [], []
    for _ in range(4):
        found.append(neurons.sequence(column(z)).item())
        after.append(neurons.membrane.item())
    assert found == spikes
    if membranes is not None:
        assert after == pytest.approx(membranes)


def test_one_layer_with_constant_input_is_qcfs() -> None:
    z = torch.tensor([-0.3, 0.05, 0.1, 0.2, 0.35, 0.5, 0.75, 0.999, 1.4], dtype=torch.float64).view(1, -1)
    mean = layer().sequence(z.expand(4, *z.shape)).mean(0)
    assert mean.flatten().tolist() == [0, 0, 0, 0.25, 0.25, 0.5, 0.75, 1, 1]
    assert torch.equal(mean, QCFS(4, 1.0).double()(z))


@given(st.integers(1, 16), st.integers(-64, 160), st.sampled_from([0.25, 0.5, 2.0, 4.0]))
def test_qcfs_equality_for_dyadic_numbers(steps: int, sixteenths: int, theta: float) -> None:
    z = torch.full((1, 1), theta * (sixteenths + 0.5) / (16 * steps), dtype=torch.float64)
    mean = layer(theta=theta).sequence(z.expand(steps, 1, 1)).sum(0) / steps
    assert torch.allclose(mean, QCFS(steps, theta).double()(z), rtol=1e-12, atol=0)


@pytest.mark.parametrize(
    ("first", "second", "fired", "end"),
    [("10101", "01010", 2, 0.5), ("11100", "00011", 4, -1.5), ("00111", "11000", 1, 1.5)],
)
def test_order_of_arrival_known_answers(first: str, second: str, fired: int, end: float) -> None:
    current = column(*(2.0 * int(a) - 2.0 * int(b) for a, b in zip(first, second, strict=True)))
    neurons = layer()
    assert neurons.sequence(current).sum() == fired
    assert neurons.membrane.item() == end


def test_signed_neuron_takes_spikes_back() -> None:
    current = column(2.0, 2.0, 2.0, -2.0, -2.0, 0.0, 0.0)
    neurons = layer("signed")
    assert neurons.sequence(current).flatten().tolist() == [1, 1, 1, 1, -1, -1, 0]
    assert neurons.membrane.item() == 0.5
    assert layer("signed").sequence(column(-3.0, -3.0)).tolist() == column(0.0, 0.0).tolist()  # nothing to take back


def test_burst_known_answer() -> None:
    neurons = SpikingLayer("relu", burst_if, {"most": 5.0}, highest=5)
    neurons.set_threshold(torch.tensor(1.0, dtype=torch.float64), 0.5)
    assert neurons.sequence(column(1.7, 1.7, 1.7)).flatten().tolist() == [2, 1, 2]
    assert neurons.sequence(column(40.0)).item() == 5  # no more than gamma


def test_clipped_burst_catches_up_but_not_beyond_one_spike_per_step() -> None:
    current = column(9.0, 0.0, -9.0, 0.0, 0.0, 5.0, 9.0)
    assert layer("clipped burst").sequence(current).flatten().tolist() == [1, 1, 0, 0, 0, 3, 2]


@given(st.lists(st.floats(-8, 8), min_size=1, max_size=12), st.floats(0.1, 3.0))
def test_burst_count_is_the_floor_between_its_bounds(values: list[float], theta: float) -> None:
    neurons = layer("burst", theta)
    v = 0.5 * theta
    for value in values:
        count = neurons.sequence(column(value)).item() / theta
        exact = min(max(math.floor((v + value) / theta), 0), 3)
        assert round(count) == pytest.approx(exact, abs=1 if abs((v + value) / theta % 1 - 1) < 1e-9 else 0)
        v = neurons.membrane.item()


@pytest.mark.parametrize("kind", KINDS)
def test_charge_is_kept(kind: str) -> None:
    generator = torch.Generator().manual_seed(1)
    current = torch.randn(37, 3, 5, 2, generator=generator, dtype=torch.float64) + 0.2
    theta = torch.rand(5, 1, generator=generator, dtype=torch.float64) + 0.3
    neurons = layer(kind, theta)
    neurons.start_recording(True)
    for part in current.split([1, 20, 16]):
        neurons.sequence(part)
    record = neurons.record
    assert record is not None
    assert record.steps == 37
    torch.testing.assert_close(record.input_sum, current.sum(0))
    balance = record.output_sum + record.membrane - record.initial - record.input_sum
    assert balance.abs().max() < 1e-12
    low, high = neurons.count_bounds(37)
    counts = record.output_sum / theta
    assert (counts.round() - counts).abs().max() < 1e-9
    assert low - 1e-9 <= counts.min()
    assert counts.max() <= high + 1e-9


@pytest.mark.parametrize("kind", KINDS)
def test_thresholds_per_channel_equal_a_loop_over_channels(kind: str) -> None:
    current = torch.randn(9, 4, 3, 6, generator=torch.Generator().manual_seed(2), dtype=torch.float64) + 0.3
    theta = torch.tensor([0.4, 1.0, 2.5], dtype=torch.float64)
    together = layer(kind, theta.view(3, 1)).sequence(current)
    for channel in range(3):
        assert torch.equal(together[:, :, channel], layer(kind, theta[channel]).sequence(current[:, :, channel]))


@pytest.mark.parametrize("kind", KINDS)
def test_kernel_equals_the_reference(kind: str) -> None:
    current = torch.randn(20, 4, 3, 7, generator=torch.Generator().manual_seed(3), dtype=torch.float64) * 2
    neurons = layer(kind, torch.tensor([0.4, 1.0, 2.5], dtype=torch.float64).view(3, 1))
    assert neurons.neuron.chosen_backend(current).backend == "numba"
    fused = neurons.sequence(current)
    neurons.reset()
    neurons.neuron.backend = "reference"
    assert torch.equal(neurons.sequence(current), fused)


@pytest.mark.skipif(not triton_is_installed(), reason="Triton is not installed; on Linux: pip install triton")
@pytest.mark.parametrize("kind", KINDS)
def test_gpu_kernel_equals_the_reference(kind: str, monkeypatch: pytest.MonkeyPatch) -> None:
    device = "cuda" if torch.cuda.is_available() else "cpu"
    if device == "cpu":
        monkeypatch.setenv("TRITON_INTERPRET", "1")
    current = torch.randn(9, 2, 3, 5, generator=torch.Generator().manual_seed(3), dtype=torch.float64) * 2
    neuron = layer(kind, torch.tensor([0.4, 1.0, 2.5], dtype=torch.float64).view(3, 1)).neuron.to(device)
    params = neuron.call_params()
    call = NeuronCall(neuron.model, current.to(device), neuron.model.start(params), params, neuron.surrogate_function)
    ours, wanted = run_kernel("triton", call), run_reference(call)
    assert torch.equal(ours.output, wanted.output)
    assert all(torch.equal(ours.states[name], value) for name, value in wanted.states.items())


def test_membrane_run_shows_membranes_before_the_reset() -> None:
    counts, h = layer(theta=2.0).membrane_run(column(1.0, 0.5, 2.0))
    assert counts.flatten().tolist() == [1, 0, 1]
    assert h.flatten().tolist() == [1.0, 0.25, 1.25]


def test_bad_thresholds_are_refused() -> None:
    for bad in (0.0, -1.0, math.nan, math.inf):
        with pytest.raises(ValueError, match="'relu': every threshold must be positive and finite"):
            layer(theta=bad)
    with pytest.raises(RuntimeError, match="'relu' has not run"):
        layer().membrane  # noqa: B018
