"""Neurons against published numbers, closed forms and SpikingJelly."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import pytest
import torch
from members import Member
from spikingjelly.activation_based import functional
from spikingjelly.activation_based import neuron as sj_neuron
from spikingjelly.activation_based import surrogate as sj

import snn

PAIRS = [
    (snn.IF, sj_neuron.IFNode, {}),
    (snn.LIF, sj_neuron.LIFNode, {"tau": 2.0}),
    (snn.LIF, sj_neuron.LIFNode, {"tau": 3.7, "decay_input": False}),
    (snn.PLIF, sj_neuron.ParametricLIFNode, {"init_tau": 2.7}),
    (snn.PLIF, sj_neuron.ParametricLIFNode, {"init_tau": 2.7, "decay_input": False}),
    (snn.BipolarIF, sj_neuron.TernaryIFNode, {}),
]


@pytest.mark.parametrize("backend", ["reference", "numba"])
@pytest.mark.parametrize("v_reset", [0.0, 0.25, None])
@pytest.mark.parametrize("detach_reset", [False, True])
@pytest.mark.parametrize(("ours", "theirs", "arguments"), PAIRS, ids=lambda value: getattr(value, "__name__", None))
def test_spikes_are_spikingjellys_bit_for_bit(
    ours: Any, theirs: Any, arguments: dict[str, Any], detach_reset: bool, v_reset: float | None, backend: str
) -> None:
    arguments = {**arguments, "v_reset": v_reset, "detach_reset": detach_reset, "step_mode": "m"}
    a = ours(**arguments, surrogate_function=sj.ATan(), backend=backend)
    b = theirs(**arguments, surrogate_function=sj.ATan())
    assert set(a.state_dict()) == set(b.state_dict())
    x = Member("lif").currents(40, 3, 50)
    xa, xb = x.clone().requires_grad_(), x.clone().requires_grad_()
    ya, yb = a(xa), b(xb)
    assert torch.equal(ya, yb)
    weights = torch.randn_like(x)
    ga = torch.autograd.grad((ya * weights).sum(), [xa, *a.parameters()])
    gb = torch.autograd.grad((yb * weights).sum(), [xb, *b.parameters()])
    for p, q in zip(ga, gb, strict=True):
        torch.testing.assert_close(p, q, rtol=1e-5, atol=1e-5 * q.abs().max().item())


def test_cuba_and_multi_spike_equal_spikingjelly() -> None:
    x = Member("lif").currents(40, 3, 50)
    for v_reset in (0.0, None):
        theirs = sj_neuron.CUBALIFNode(v_reset=v_reset)
        functional.set_step_mode(theirs, "m")
        assert torch.equal(snn.CubaLIF(v_reset=v_reset, step_mode="m")(x), theirs(x))
    assert torch.equal(snn.MultiSpikeLIF(step_mode="m")(x), sj_neuron.ILIFNode(step_mode="m")(x))


def spike_times_ms(layer: snn.Neuron, current: float, duration_ms: float, dt_ms: float) -> list[float]:
    steps = round(duration_ms / dt_ms)
    spikes = layer(torch.full((steps, 1), current, dtype=torch.float64)).flatten()
    return [(k + 1) * dt_ms for k in spikes.nonzero().flatten().tolist()]


def test_izhikevich_regular_spiking_times() -> None:
    times = spike_times_ms(snn.Izhikevich(dt_ms=0.1, step_mode="m"), 10.0, 170.0, 0.1)
    assert times == pytest.approx([3.4, 27.1, 72.2, 117.3, 162.4])


@pytest.mark.parametrize("backend", ["reference", "numba"])
def test_adex_times_are_those_of_a_fine_integration(backend: str) -> None:
    times = spike_times_ms(snn.AdEx(dt_ms=0.01, step_mode="m", backend=backend), 1000.0, 60.0, 0.01)
    assert times == pytest.approx([11.8, 21.5, 33.0, 47.1], abs=0.4)


def test_adex_late_times_need_the_clipped_adaptation() -> None:
    times = spike_times_ms(snn.AdEx(dt_ms=0.01, step_mode="m"), 1000.0, 180.0, 0.01)
    assert times == pytest.approx([11.8, 21.5, 33.0, 47.1, 64.8, 86.9, 114.1, 145.3, 179.0], abs=0.4)


def test_subthreshold_lif_is_the_geometric_series() -> None:
    layer = snn.LIF(tau=4.0, step_mode="m", store_v_seq=True).double()
    layer(torch.full((10, 1), 0.5, dtype=torch.float64))
    assert layer.v_seq is not None
    expected = [0.5 * (1.0 - 0.75**k) for k in range(1, 11)]
    assert layer.v_seq.flatten().tolist() == pytest.approx(expected, rel=1e-14)


def test_soft_reset_keeps_excess() -> None:
    layer = snn.IF(v_reset=None, step_mode="m", store_v_seq=True)
    layer(torch.tensor([1.75, 0.0]).view(2, 1))
    assert layer.v_seq is not None
    assert layer.v_seq.flatten().tolist() == [0.75, 0.75]


def test_if_rate_is_the_input_over_the_threshold() -> None:
    x = torch.linspace(0.0, 1.0, 33, dtype=torch.float64).expand(1000, 33)
    rate = snn.IF(v_reset=None, step_mode="m")(x).mean(0)
    assert (rate - x[0]).abs().max() <= 1e-3


def test_alif_threshold_follows_its_equation() -> None:
    beta, tau_a, tau = 0.7, 5.0, 2.0
    x = torch.full((30,), 2.5, dtype=torch.float64)
    v = a = 0.0
    expected = []
    for current in x.tolist():
        h = v + (current - v) / tau
        z = float(h >= 1.0 + beta * a)
        v, a = (0.0 if z else h), math.exp(-1.0 / tau_a) * a + z
        expected.append(z)
    assert snn.ALIF(tau, tau_a, beta, step_mode="m")(x.view(30, 1)).flatten().tolist() == expected
    assert 0 < sum(expected) < 30


def test_recurrent_lif_feeds_back_the_spikes_of_the_step_before() -> None:
    layer = snn.RecurrentLIF(4, step_mode="m").double()
    x = Member("lif").currents(12, 3, 4, dtype=torch.float64)
    weight = layer.recurrent.weight.detach().numpy()
    v, z = np.zeros((3, 4)), np.zeros((3, 4))
    expected = []
    for x_t in x.numpy():
        h = v + (x_t + z @ weight.T - v) / 2.0
        z = (h >= 1.0).astype(float)
        v = np.where(z > 0, 0.0, h)
        expected.append(z)
    assert np.array_equal(layer(x).detach().numpy(), np.stack(expected))


def test_recurrent_lif_takes_a_convolution() -> None:
    layer = snn.RecurrentLIF(torch.nn.Conv2d(2, 2, 3, padding=1, bias=False), step_mode="m")
    assert layer(torch.rand(3, 2, 2, 5, 5)).shape == (3, 2, 2, 5, 5)


def test_truth_of_the_nir_paper() -> None:
    """One LIF, tau 2.5 ms, step 0.1 ms, r 1, threshold 0.1, soft reset: spikes at rows 460, 510, 710 and 760."""
    times = [60, 220, 270, 310, 320, 350, 370, *range(400, 420, 10), *range(430, 540, 10), *range(670, 690, 10)]
    times += [690, 700, 710, 720, 730, 740, 750, 760, 770, 780, 840, 850]
    x = torch.zeros(1000, 1, dtype=torch.float64)
    x[times] = 1.0
    spikes = snn.LIF(tau=25.0, v_threshold=0.1, v_reset=None, step_mode="m")(x)
    assert spikes.flatten().nonzero().flatten().tolist() == [460, 510, 710, 760]
