"""The layer around a neuron: state, step modes, backends, errors, SpikingJelly's conventions."""

from __future__ import annotations

import copy
import io
import pickle
import warnings
from typing import Any

import pytest
import torch
from members import NEURONS, Member
from spikingjelly.activation_based import functional, monitor
from spikingjelly.activation_based import layer as sj_layer
from spikingjelly.activation_based.base import MemoryModule, to_functional_forward
from torch import nn

import snn
from snn.ops import select, spike

by_name = pytest.mark.parametrize("member", NEURONS, ids=lambda member: member.name)


@snn.neuron_model(state={"v": 0.0}, params={"leak": 0.9, "v_threshold": 1.0})
def written_by_a_user(x: Any, s: Any, p: Any) -> Any:
    v = p.leak * s.v + x
    z = spike(v - p.v_threshold)
    return z, {"v": select(z, 0.0, v)}


@snn.neuron_model(state={"v": 0.0}, params={"v_threshold": 1.0})
def untraceable(x: Any, s: Any, p: Any) -> Any:
    v = torch.nn.functional.softplus(s.v + x)
    return spike(v - p.v_threshold), {"v": v * 0.5}


@by_name
def test_all_steps_at_once_equal_single_steps(member: Member) -> None:
    x = member.currents(12, 3, 7)
    many, single = member.build(), member.build(step_mode="s")
    single.load_state_dict(many.state_dict())
    assert torch.equal(many(x), torch.stack([single(x_t) for x_t in x]))


@by_name
def test_a_run_cut_in_two_equals_one_run(member: Member) -> None:
    x = member.currents(12, 3, 7)
    layer = member.build()
    first, state = layer(x[:5], state=None)
    second, end = layer(x[5:], state=state)
    assert torch.equal(torch.cat([first, second]), layer(x))
    assert all(torch.equal(end[name], getattr(layer, name)) for name in end)


@by_name
def test_batch_rows_do_not_meet(member: Member) -> None:
    x = member.currents(12, 3, 7)
    layer = member.build()
    together = layer(x)
    alone = torch.cat([layer(x[:, row : row + 1]) for row in range(3)], dim=1)
    torch.testing.assert_close(together, alone, rtol=1e-6, atol=1e-6)


@by_name
def test_every_multi_step_call_starts_fresh(member: Member) -> None:
    x = member.currents(12, 3, 7)
    layer = member.build()
    assert torch.equal(layer(x), layer(x))


@by_name
def test_copies_and_pickles_run_the_same(member: Member) -> None:
    x = member.currents(6, 3, 7)
    layer = member.build()
    y = layer(x)
    assert torch.equal(copy.deepcopy(layer)(x), y)
    assert torch.equal(pickle.loads(pickle.dumps(layer))(x), y)
    buffer = io.BytesIO()
    torch.save(layer.state_dict(), buffer)
    buffer.seek(0)
    other = member.build()
    other.load_state_dict(torch.load(buffer))
    assert torch.equal(other(x), y)


def test_streaming_keeps_state_until_reset() -> None:
    layer = snn.IF(step_mode="s")
    x = torch.full((1, 1), 0.6)
    assert [layer(x).item() for _ in range(4)] == [0.0, 1.0, 0.0, 1.0]
    layer(x)
    functional.reset_net(nn.Sequential(layer))
    assert layer.v == 0.0
    assert [layer(x).item() for _ in range(2)] == [0.0, 1.0]


def test_streaming_backpropagates_through_steps_and_detach_net_cuts() -> None:
    x = Member("lif").currents(6, 2, 3).requires_grad_()
    layer = snn.LIF(step_mode="s")
    y = torch.stack([layer(x_t) for x_t in x])
    (through,) = torch.autograd.grad(y[-1].sum(), x, retain_graph=True)
    assert through[0].abs().sum() > 0
    layer.reset()
    for x_t in x[:-1]:
        layer(x_t)
    functional.detach_net(layer)
    (cut,) = torch.autograd.grad(layer(x[-1]).sum(), x)
    assert cut[:-1].abs().sum() == 0
    assert cut[-1].abs().sum() > 0


def test_returned_state_is_detached_unless_asked() -> None:
    x = Member("lif").currents(6, 2, 3).requires_grad_()
    layer = snn.LIF(step_mode="m")
    _, state = layer(x, state=None)
    assert not state["v"].requires_grad
    _, state = layer(x, state=None, detach_state=False)
    (gradient,) = torch.autograd.grad(state["v"].sum(), x)
    assert gradient.abs().sum() > 0


def test_changed_batch_size_names_layer_and_shapes() -> None:
    net = nn.Sequential(nn.Linear(4, 4), nn.Sequential(snn.LIF(step_mode="s")))
    net(torch.rand(102, 4))
    with pytest.raises(snn.ShapeError, match=r"LIF '1\.0': state 'v' has shape \(102, 4\).*\(101, 4\).*reset_net"):
        net(torch.rand(101, 4))
    layer = snn.LIF(step_mode="m")
    _, state = layer(torch.rand(3, 1, 4), state=None)
    with pytest.raises(snn.ShapeError, match=r"LIF: state 'v' has shape \(1, 4\).*\(2, 4\)"):
        layer(torch.rand(3, 2, 4), state=state)


@pytest.mark.parametrize(
    ("call", "error", "text"),
    [
        (lambda: snn.LIF(tau=1.0), ValueError, r"LIF: tau must be > 1 step, got 1\.0"),
        (lambda: snn.LIF(tau=torch.tensor([2.0, 0.5])), ValueError, r"LIF: tau must be > 1 step, got 0\.5"),
        (lambda: snn.LIF(tau=float("nan")), ValueError, "tau must be > 1"),
        (lambda: snn.PLIF(init_tau=0.9), ValueError, "init_tau"),
        (lambda: snn.CubaLIF(c_decay=1.5), ValueError, r"c_decay must lie in \[0, 1\], got 1\.5"),
        (lambda: snn.ALIF(tau_a=0.0), ValueError, "tau_a must be > 0"),
        (lambda: snn.BipolarIF(v_threshold=-1.0), ValueError, "v_threshold must be > 0"),
        (lambda: snn.BipolarIF(v_reset=2.0), ValueError, "between the thresholds"),
        (lambda: snn.MultiSpikeLIF(surrogate_function=nn.Identity()), TypeError, "MultiLevelSpikeCount, got Identity"),
        (lambda: snn.AdEx(c_m=0.0), ValueError, "c_m must be > 0"),
        (lambda: snn.Izhikevich(dt_ms=-0.1), ValueError, "dt_ms must be > 0 ms"),
        (lambda: snn.LIF(backend="cuda"), ValueError, "backend must be one of"),
        (lambda: snn.LIF(step_mode="x"), ValueError, "step_mode"),
        (lambda: snn.LIF(learnable=("taau",)), TypeError, "no parameter 'taau'; did you mean 'tau'"),
        (lambda: snn.LIF(v_reset=None, learnable=("v_reset",)), ValueError, "switch"),
        (
            lambda: snn.LIF(step_mode="m")(torch.rand(3)),
            snn.ShapeError,
            r'\[T, B, \.\.\.\] in step mode "m", got shape \(3,\)',
        ),
        (lambda: snn.LIF(step_mode="m")(torch.rand(0, 3)), snn.ShapeError, r"got shape \(0, 3\)"),
        (lambda: snn.LIF()(torch.ones(3, dtype=torch.int64)), TypeError, "floating-point tensor, got torch.int64"),
        (lambda: snn.LIF()([1.0]), TypeError, "got list"),
        (
            lambda: snn.LIF(step_mode="m")(torch.rand(2, 3), state={"w": torch.rand(3)}),
            ValueError,
            r"\['v'\], got \['w'\]",
        ),
        (lambda: snn.LIF(tau=torch.full((5,), 2.0), step_mode="m")(torch.rand(2, 3, 4)), snn.ShapeError, "'tau'"),
        (lambda: snn.LIF(backend="triton")(torch.rand(2, 3)), snn.UnsupportedError, "triton"),
    ],
)
def test_bad_input_is_named(call: Any, error: type[Exception], text: str) -> None:
    with pytest.raises(error, match=text):
        call()


def test_a_users_neuron_of_ten_lines_gets_a_kernel() -> None:
    x = Member("lif").currents(20, 3, 7).requires_grad_()
    results = []
    for backend in ("reference", "numba"):
        layer = snn.Neuron(
            written_by_a_user, {"leak": torch.full((7,), 0.8)}, learnable=("leak",), step_mode="m", backend=backend
        )
        y = layer(x)
        results.append((y, *torch.autograd.grad(y.sum(), [x, layer.leak])))
    for ours, theirs in zip(*results, strict=True):
        torch.testing.assert_close(ours, theirs, rtol=1e-5, atol=1e-5)


def test_an_untraceable_neuron_runs_on_the_reference_path_and_says_so() -> None:
    layer = snn.Neuron(untraceable, step_mode="m")
    x = torch.rand(4, 2, 3)
    with pytest.warns(UserWarning, match=r"reference path: neuron 'untraceable' cannot be traced.*softplus"):
        y = layer(x)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert torch.equal(layer(x), y)  # once is enough
    assert layer.chosen_backend(x).backend == "reference"
    with pytest.raises(snn.UnsupportedError, match="softplus"):
        snn.Neuron(untraceable, step_mode="m", backend="numba")(x)


def test_chosen_backend_says_why() -> None:
    x = torch.rand(2, 3)
    assert snn.LIF().chosen_backend(x) == ("numba", "CPU tensors, 'leaky_integrate_and_fire' was traced")
    assert snn.LIF(backend="reference").chosen_backend(x).reason == "asked for"
    smooth = snn.LIF()
    smooth.surrogate_function.set_spiking_mode(False)
    assert "primitive" in smooth.chosen_backend(x).reason
    on_meta = snn.LIF().chosen_backend(torch.empty(2, 3, device="meta"))
    assert on_meta.backend == "reference"
    assert "meta" in on_meta.reason


def test_spikingjelly_tools_work_on_our_layers() -> None:
    net = nn.Sequential(sj_layer.Linear(4, 5), snn.LIF(), sj_layer.Linear(5, 2), snn.IF())
    functional.set_step_mode(net, "m")
    assert all(layer.step_mode == "m" for layer in net)
    assert all(isinstance(net[k], MemoryModule) for k in (1, 3))
    record = monitor.OutputMonitor(net, snn.LIF)
    x = torch.rand(6, 3, 4)
    y = net(x)
    assert record.records[0].shape == (6, 3, 5)
    functional.reset_net(net)
    assert net[1].v == 0.0
    assert torch.equal(net(x), y)


def test_functional_forward_of_spikingjelly() -> None:
    layer = snn.LIF(step_mode="m")
    x = Member("lif").currents(6, 2, 3)
    (y,), states = to_functional_forward(layer)((x,), (torch.zeros(2, 3),))
    assert torch.equal(y, layer(x))
    assert torch.equal(states[0], layer.v)


def test_store_v_seq_ends_at_the_state() -> None:
    layer = snn.LIF(step_mode="m", store_v_seq=True)
    layer(Member("lif").currents(6, 2, 3))
    assert layer.v_seq is not None
    assert torch.equal(layer.v_seq[-1], layer.v)
    layer.reset()
    assert layer.v_seq is None


def test_moving_a_layer_moves_its_state() -> None:
    layer = snn.LIF(tau=torch.tensor([2.0, 3.0]), step_mode="s")
    layer(torch.rand(4, 2))
    layer.double()
    assert layer.v.dtype == layer.tau.dtype == torch.float64


def test_learnable_time_constants_train() -> None:
    layer = snn.LIF(tau=5.0, learnable=("tau",), step_mode="m")
    x = Member("lif").currents(30, 8, 16)
    target = snn.LIF(tau=2.0, step_mode="m")(x).mean()
    before = abs((layer(x).mean() - target).item())
    optimiser = torch.optim.Adam(layer.parameters(), 0.05)
    for _ in range(150):
        optimiser.zero_grad()
        loss = (layer(x).mean() - target) ** 2
        loss.backward()
        optimiser.step()
    assert abs((layer(x).mean() - target).item()) < 0.1 * before


def test_repr_shows_parameters() -> None:
    text = repr(snn.LIF(tau=torch.full((3,), 2.0)))
    assert "tau=tensor(3,)" in text
    assert "v_threshold=1.0" in text
