"""Every generated CPU kernel equals the step function run on tensors."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import nullcontext
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from closeness import assert_close
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from members import NEURONS, SURROGATES, Member
from spikingjelly.activation_based import surrogate as sj

import snn
from snn.kernels import cpu, source_cache

TOLERANCE = {torch.float32: 1e-5, torch.float64: 1e-10}
by_name = pytest.mark.parametrize("member", NEURONS, ids=lambda member: member.name)


def assert_kernel_equals_reference(member: Member, x: torch.Tensor, **arguments: Any) -> None:
    """Output, end states and all gradients (input, starting states, parameters) of one layer on both backends."""
    reference = member.build(backend="reference", **arguments).to(x.dtype)
    kernel = member.build(backend="numba", **arguments).to(x.dtype)
    kernel.load_state_dict(reference.state_dict())
    generator = torch.Generator().manual_seed(1)
    start = {
        name: value + 0.1 * torch.rand(x.shape[1:], generator=generator, dtype=x.dtype)
        for name, value in _numbers(reference.model.start(reference.call_params())).items()
    }
    weights = torch.randn(x.shape, generator=generator, dtype=torch.float64).to(x.dtype)
    results = []
    for layer in (reference, kernel):
        current = x.clone().requires_grad_()
        state = {name: value.clone().requires_grad_() for name, value in start.items()}
        y, end = layer(current, state=state, detach_state=False)
        loss = (y * weights).sum() + sum((0.3 * value).sum() for value in end.values())
        leaves = [current, *state.values(), *layer.parameters()]
        results.append((y, end, torch.autograd.grad(loss, leaves, allow_unused=True)))
    (y_reference, end_reference, g_reference), (y, end, gradients) = results
    assert torch.equal(y, y_reference) or member.name in {"li", "adex", "izhikevich"}
    assert_close(y, y_reference, TOLERANCE[x.dtype])
    for name in end:
        assert_close(end[name], end_reference[name], TOLERANCE[x.dtype])
    for ours, theirs in zip(gradients, g_reference, strict=True):
        if theirs is None:
            assert ours is None or not ours.any()
        else:
            assert_close(ours, theirs, TOLERANCE[x.dtype])


def _numbers(start: dict[str, Any]) -> dict[str, float]:
    return {name: float(value) for name, value in start.items()}


@by_name
@pytest.mark.parametrize("dtype", TOLERANCE, ids=str)
@pytest.mark.parametrize(("steps", "neurons"), [(1, 7), (2, 7), (63, 7)])
def test_default_neuron(member: Member, dtype: torch.dtype, steps: int, neurons: int) -> None:
    assert_kernel_equals_reference(member, member.currents(steps, 3, neurons, dtype=dtype))


@pytest.mark.parametrize("member", [m for m in NEURONS if m.resets], ids=lambda member: member.name)
def test_resets_and_detach(member: Member) -> None:
    for v_reset in member.resets[1:]:
        for detach_reset in (False, True):
            arguments = {"v_reset": v_reset, "detach_reset": detach_reset, "surrogate_function": sj.ATan()}
            assert_kernel_equals_reference(member, member.currents(20, 2, 7, dtype=torch.float64), **arguments)


@pytest.mark.parametrize("surrogate", SURROGATES, ids=lambda s: type(s).__name__)
def test_surrogates(surrogate: torch.nn.Module) -> None:
    for dtype in TOLERANCE:
        lif = Member("lif")
        assert_kernel_equals_reference(lif, lif.currents(20, 2, 7, dtype=dtype), surrogate_function=surrogate)


def test_more_neurons_than_a_block_and_an_odd_tail() -> None:
    for name in ("lif", "alif"):  # without and with a saved array
        member = Member(name)
        assert_kernel_equals_reference(member, member.currents(3, 7, 1403))


@pytest.mark.parametrize("decay_input", [True, False])
def test_values_per_neuron_per_channel_and_scalar_are_learnable(decay_input: bool) -> None:
    x = Member("lif").currents(12, 2, 3, 4, 5, dtype=torch.float64)
    generator = torch.Generator().manual_seed(2)
    for shape in [(), (1,), (3, 1, 1), (4, 5), (3, 4, 5), (4, 1), (3, 1, 5)]:
        tau = 1.5 + torch.rand(shape, generator=generator, dtype=torch.float64)
        threshold = 0.5 + torch.rand(shape, generator=generator, dtype=torch.float64)
        assert_kernel_equals_reference(
            Member("lif"), x, tau=tau, v_threshold=threshold, decay_input=decay_input, learnable=("tau", "v_threshold")
        )


def test_learnable_reset_is_also_the_starting_state() -> None:
    x = Member("lif").currents(9, 2, 3, dtype=torch.float64)
    gradients = []
    for backend in ("reference", "numba"):
        v_reset = torch.tensor([-0.2, 0.0, 0.1], dtype=torch.float64)
        layer = snn.LIF(v_reset=v_reset, learnable=("v_reset",), step_mode="m", backend=backend).double()
        (gradient,) = torch.autograd.grad((layer(x) * x).sum(), layer.v_reset)
        gradients.append(gradient)
    assert_close(gradients[1], gradients[0], 1e-10)
    assert gradients[0].abs().min() > 0


def test_gradients_of_recorded_states() -> None:
    results = []
    for backend in ("reference", "numba"):
        layer = snn.LIF(step_mode="m", store_v_seq=True, backend=backend).double()
        x = Member("lif").currents(15, 2, 7, dtype=torch.float64).requires_grad_()
        y = layer(x)
        assert layer.v_seq is not None
        (gradient,) = torch.autograd.grad((y.cumsum(0) + layer.v_seq**2).sum(), x)
        results.append((y, layer.v_seq, gradient))
    for ours, theirs in zip(*results, strict=True):
        assert_close(ours, theirs, 1e-10)


def test_static_input_is_read_in_place_and_gives_the_same() -> None:
    image = Member("lif").currents(3, 5, dtype=torch.float64).requires_grad_()
    layer = snn.LIF(step_mode="m")
    repeated = layer(image.expand(6, 3, 5))
    copied = layer(image.expand(6, 3, 5).clone())
    assert torch.equal(repeated, copied)
    weights = torch.randn(6, 3, 5, dtype=torch.float64)
    (g_repeated,) = torch.autograd.grad((repeated * weights).sum(), image)
    (g_copied,) = torch.autograd.grad((copied * weights).sum(), image)
    torch.testing.assert_close(g_repeated, g_copied, rtol=1e-12, atol=0)


def test_inputs_that_are_not_contiguous() -> None:
    x = Member("lif").currents(4, 5, 6).transpose(1, 2)
    assert torch.equal(snn.LIF(step_mode="m", backend="numba")(x), snn.LIF(step_mode="m", backend="reference")(x))


def test_bfloat16_runs_in_float32_and_comes_back() -> None:
    x = Member("lif").currents(4, 5, 6).bfloat16()
    y = snn.LIF(step_mode="m", backend="numba")(x)
    assert y.dtype == torch.bfloat16
    assert torch.equal(y, snn.LIF(step_mode="m", backend="reference")(x))


def test_thread_count_changes_nothing() -> None:
    x = Member("plif").currents(20, 4, 5000).requires_grad_()
    results = []
    threads = torch.get_num_threads()
    try:
        for count in (1, 2, 3):
            torch.set_num_threads(count)
            layer = snn.PLIF(init_tau=torch.full((5000,), 2.5), step_mode="m", backend="numba")
            y = layer(x)
            results.append((y.detach(), *torch.autograd.grad((y * x).sum(), [x, layer.w])))
    finally:
        torch.set_num_threads(threads)
    for other in results[1:]:
        assert all(torch.equal(a, b) for a, b in zip(results[0], other, strict=True))


def test_scratch_and_outputs_hold_no_unwritten_cell(monkeypatch: pytest.MonkeyPatch) -> None:
    def filled(shape: Any, dtype: torch.dtype) -> torch.Tensor:
        return torch.empty(shape, dtype=dtype).fill_(float("nan"))

    def filled_array(shape: Any, dtype: Any) -> Any:
        return torch.full(shape if isinstance(shape, tuple) else (shape,), float("nan")).numpy().astype(dtype)

    monkeypatch.setattr(cpu.memory, "empty", filled)
    monkeypatch.setattr(cpu.memory, "scratch", lambda size, dtype: nullcontext(filled_array(size, dtype)))
    monkeypatch.setattr(cpu, "np", SimpleNamespace(**{**vars(cpu.np), "empty": filled_array}))
    for member in NEURONS:
        x = member.currents(5, 2, 7).requires_grad_()
        y = member.build(backend="numba")(x)
        assert torch.isfinite(y).all()
        assert torch.isfinite(torch.autograd.grad(y.sum(), x)[0]).all()


def test_second_derivatives_are_refused() -> None:
    x = Member("lif").currents(3, 2, 2).requires_grad_()
    (first,) = torch.autograd.grad(snn.LIF(step_mode="m", backend="numba")(x).sum(), x, create_graph=True)
    with pytest.raises(snn.UnsupportedError, match="second derivatives"):
        first.sum().backward()


@pytest.fixture(scope="module")
def interpreted() -> Iterator[None]:
    """Runs the generated text as plain Python: slow, but without a compilation for each combination."""

    def load(name: str, text: str) -> Any:
        module = source_cache.load_source(name, text)
        return SimpleNamespace(
            **{kind: getattr(module, kind).py_func for kind in ("forward", "backward") if hasattr(module, kind)}
        )

    patch = pytest.MonkeyPatch()
    patch.setattr(cpu, "load_source", load)
    patch.setattr(cpu, "_kernels", {})
    yield
    patch.undo()


@settings(
    max_examples=150, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow]
)
@given(data=st.data())
def test_every_model_surrogate_reset_and_detach(interpreted: None, data: st.DataObject) -> None:
    member = data.draw(st.sampled_from(NEURONS), "neuron")
    arguments: dict[str, Any] = {}
    if not member.fixed_surrogate:
        arguments["surrogate_function"] = data.draw(st.sampled_from(SURROGATES), "surrogate")
    if member.resets:
        arguments["v_reset"] = data.draw(st.sampled_from(member.resets), "v_reset")
    if member.detaches:
        arguments["detach_reset"] = data.draw(st.booleans(), "detach_reset")
    dtype = data.draw(st.sampled_from(list(TOLERANCE)), "dtype")
    steps = data.draw(st.integers(1, 6), "T")
    x = member.currents(steps, 1, 7, dtype=dtype, seed=data.draw(st.integers(0, 2**31), "seed"))
    assert_kernel_equals_reference(member, x, **arguments)
