"""Every generated GPU kernel equals the step function run on tensors.

Where there is no CUDA device the same kernels run in Triton's interpreter on CPU tensors: blocks of 16 neurons, and two
of them at a time in kernels that keep values aside, so that 35 neurons meet an odd tail and a second round.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from dataclasses import replace
from functools import partial
from itertools import product
from typing import Any

import pytest
import torch
from closeness import assert_close
from members import NEURONS, SURROGATES, Member
from spikingjelly.activation_based import surrogate as sj

import snn
from snn.kernels import gpu
from snn.kernels.call import NeuronCall, NeuronResult
from snn.kernels.operator import run_kernel
from snn.kernels.plan import plan_run
from snn.kernels.reference import run_reference
from snn.kernels.signature import describe, parse

pytestmark = pytest.mark.skipif(
    not gpu.triton_is_installed(), reason="Triton is not installed; on Linux: pip install triton"
)
run_gpu = partial(run_kernel, "triton")
DEVICE = "cuda" if torch.cuda.is_available() else "cpu"
TOLERANCE = {torch.float32: 1e-5, torch.float64: 1e-10}
by_name = pytest.mark.parametrize("member", NEURONS, ids=lambda member: member.name)


@pytest.fixture(scope="module", autouse=True)
def _interpreter() -> Iterator[None]:
    """Triton reads the variable when a generated file is loaded, which no other module's tests do in this process."""
    with pytest.MonkeyPatch.context() as patch:
        if DEVICE == "cpu":
            patch.setenv("TRITON_INTERPRET", "1")
        yield


def call_of(layer: snn.Neuron, x: torch.Tensor, start: dict[str, Any] | None = None, *recorded: str) -> NeuronCall:
    params = layer.call_params()
    states = layer.model.start(params) | (start or {})
    return NeuronCall(layer.model, x, states, params, layer.surrogate_function, recorded)


def starting_states(layer: snn.Neuron, x: torch.Tensor) -> dict[str, torch.Tensor]:
    """A different value for every neuron, near the model's own start."""
    near = {name: float(value) for name, value in layer.model.start(layer.call_params()).items()}
    return {
        name: (value + 0.1 * torch.rand(x.shape[1:], dtype=torch.float64)).to(x).requires_grad_()
        for name, value in near.items()
    }


def gradients_of(result: NeuronResult, leaves: list[torch.Tensor], weights: torch.Tensor) -> list[torch.Tensor | None]:
    loss = (result.output * weights).sum() + sum((0.3 * value).sum() for value in result.states.values())
    loss = loss + sum((value**2).sum() for value in result.sequences.values())
    return list(torch.autograd.grad(loss, leaves, allow_unused=True))


def assert_kernel_equals_reference(member: Member, x: torch.Tensor, *recorded: str, **arguments: Any) -> None:
    """Spikes, end states, recorded sequences and all gradients (input, starting states, parameters)."""
    layer = member.build(**arguments).to(DEVICE, x.dtype)
    x = x.to(DEVICE).requires_grad_()
    start = starting_states(layer, x)
    weights = torch.randn(x.shape, dtype=torch.float64).to(x)
    leaves = [x, *start.values(), *layer.parameters()]
    results = []
    for backend in ("reference", "triton"):
        result = layer.run_steps(backend, call_of(layer, x, start, *recorded))
        results.append((result, gradients_of(result, leaves, weights)))
    (reference, g_reference), (ours, gradients) = results
    assert torch.equal(ours.output, reference.output)
    for theirs, own in ((reference.states, ours.states), (reference.sequences, ours.sequences)):
        assert own.keys() == theirs.keys()
        for name in own:
            assert_close(own[name], theirs[name], TOLERANCE[x.dtype])
    for gradient, expected in zip(gradients, g_reference, strict=True):
        if expected is None:
            assert gradient is None or not gradient.any()
        else:
            assert gradient is not None
            assert_close(gradient, expected, TOLERANCE[x.dtype])


@by_name
@pytest.mark.parametrize("dtype", TOLERANCE, ids=str)
@pytest.mark.parametrize("steps", [1, 2, 7])
def test_default_neuron(member: Member, dtype: torch.dtype, steps: int) -> None:
    assert_kernel_equals_reference(member, member.currents(steps, 5, 7, dtype=dtype), *member_states(member)[:1])


def member_states(member: Member) -> list[str]:
    return list(member.build().model.state)


@pytest.mark.parametrize("member", [m for m in NEURONS if m.resets], ids=lambda member: member.name)
def test_resets_detach_and_surrogates(member: Member) -> None:
    some = [sj.ATan(), sj.PiecewiseQuadratic(), snn.surrogate.Gaussian()]
    for v_reset, detach_reset, surrogate in product(member.resets, (False, True), some):
        arguments = {"v_reset": v_reset, "detach_reset": detach_reset, "surrogate_function": surrogate}
        assert_kernel_equals_reference(member, member.currents(3, 3, 7), **arguments)


@pytest.mark.parametrize("member", [m for m in NEURONS if not m.resets and not m.analog], ids=lambda m: m.name)
def test_detach_and_surrogates_of_neurons_with_one_reset(member: Member) -> None:
    some = [{}] if member.fixed_surrogate else [{"surrogate_function": s} for s in (sj.Sigmoid(), sj.SuperSpike())]
    switches = [{"detach_reset": value} for value in (False, True)] if member.detaches else [{}]
    for switch, surrogate in product(switches, some):
        assert_kernel_equals_reference(member, member.currents(4, 3, 7), **switch, **surrogate)


@pytest.mark.parametrize("surrogate", SURROGATES, ids=lambda s: type(s).__name__)
def test_surrogates(surrogate: torch.nn.Module) -> None:
    for dtype in TOLERANCE:
        lif = Member("lif")
        assert_kernel_equals_reference(lif, lif.currents(5, 2, 7, dtype=dtype), surrogate_function=surrogate)


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16], ids=str)
@by_name
def test_half_precision_input_with_float32_states(member: Member, dtype: torch.dtype) -> None:
    layer = member.build().to(DEVICE)
    x = member.currents(4, 5, 7, dtype=dtype).to(DEVICE)
    results = []
    for run, current in ((run_reference, x.float().requires_grad_()), (run_gpu, x.requires_grad_())):
        result = run(call_of(layer, current, {}, *member_states(member)))
        loss = 1024 * result.output.float().sum()  # AdEx's gradients are denormal numbers of float16 otherwise
        results.append((result, torch.autograd.grad(loss, current)[0]))
    (reference, g_reference), (ours, gradient) = results
    assert ours.output.dtype == gradient.dtype == dtype
    one_digit = torch.finfo(dtype).eps  # Triton's interpreter cuts digits off where a GPU rounds
    if member.analog:
        assert_close(ours.output.float(), reference.output, one_digit)
    else:
        assert torch.equal(ours.output.float(), reference.output)
    for name in member_states(member):
        assert_close(ours.states[name], reference.states[name], 1e-5)
        assert_close(ours.sequences[name], reference.sequences[name], 1e-5)
        assert ours.states[name].dtype == ours.sequences[name].dtype == torch.float32
    assert_close(gradient.float(), g_reference, one_digit)


@pytest.mark.parametrize("decay_input", [True, False])
def test_values_per_neuron_per_channel_and_scalar_are_learnable(decay_input: bool) -> None:
    for dtype, shape in product(TOLERANCE, [(), (1,), (3, 1, 1), (4, 5), (3, 4, 5), (4, 1), (3, 1, 5)]):
        x = Member("lif").currents(3, 2, 3, 4, 5, dtype=dtype)
        tau, threshold = (lowest + torch.rand(shape, dtype=dtype) for lowest in (1.5, 0.5))
        assert_kernel_equals_reference(
            Member("lif"), x, tau=tau, v_threshold=threshold, decay_input=decay_input, learnable=("tau", "v_threshold")
        )


def test_one_learnable_and_one_fixed_value_per_channel_beside_kept_values() -> None:
    x = Member("alif").currents(4, 2, 3, 7)
    beta = 0.1 + torch.rand(3, 1)
    assert_kernel_equals_reference(Member("alif"), x, beta=beta, tau=1.5 + torch.rand(7), learnable=("beta", "tau_a"))


def test_learnable_reset_is_also_the_starting_state() -> None:
    gradients = []
    x = Member("lif").currents(5, 2, 3).to(DEVICE)
    for run in (run_reference, run_gpu):
        v_reset = torch.tensor([-0.2, 0.0, 0.1])
        layer = snn.LIF(v_reset=v_reset, learnable=("v_reset",), step_mode="m").to(DEVICE)
        (gradient,) = torch.autograd.grad((run(call_of(layer, x)).output * x).sum(), layer.v_reset)
        gradients.append(gradient)
    assert_close(gradients[1], gradients[0], 1e-5)
    assert gradients[0].abs().min() > 0


@by_name
def test_starting_at_numbers_and_gradients_of_the_output_alone(member: Member) -> None:
    layer = member.build().to(DEVICE)
    x = member.currents(4, 5, 7).to(DEVICE).requires_grad_()
    results = [layer.run_steps(backend, call_of(layer, x)).output for backend in ("reference", "triton")]
    assert torch.equal(*results)
    expected, gradient = (torch.autograd.grad(y.sum(), x)[0] for y in results)
    assert_close(gradient, expected, 1e-5)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16], ids=str)
@by_name
def test_kept_states_give_the_gradients_of_recomputed_ones(member: Member, dtype: torch.dtype) -> None:
    layer = member.build(**({"learnable": ("tau",)} if member.name == "lif" else {}))
    layer = layer.to(DEVICE)
    x = member.currents(4, 5, 7, dtype=dtype).to(DEVICE).requires_grad_()
    weights = torch.linspace(-1.0, 1.0, x.numel(), device=DEVICE).view(x.shape)
    results = []
    for keep in (False, True):
        start = starting_states(layer, torch.zeros(1, 5, 7, device=DEVICE)) if not results else results[0][0]
        call = call_of(layer, x, start, *member_states(member)[:1])
        result = run_gpu(replace(call, keep=keep))
        loss = (result.output.float() * weights).sum() + sum(value.sum() for value in result.states.values())
        loss = loss + sum(0.1 * value.sum() for value in result.sequences.values())
        leaves = [x, *start.values(), *layer.parameters()]
        results.append((start, result, torch.autograd.grad(loss, leaves, allow_unused=True)))
    (_, recomputed, expected), (_, kept, gradients) = results
    assert torch.equal(kept.output, recomputed.output)
    assert any(gradient is not None and gradient.any() for gradient in gradients)
    for ours, theirs in zip(gradients, expected, strict=True):
        assert (ours is None and theirs is None) or torch.equal(ours, theirs)


@pytest.mark.parametrize("used", ["sequences", "states"])
def test_gradients_where_the_output_is_not_used(used: str) -> None:
    layer = snn.ALIF(step_mode="m").to(DEVICE)
    x = Member("alif").currents(4, 5, 7).to(DEVICE).requires_grad_()
    gradients = []
    for run in (run_reference, run_gpu):
        values = getattr(run(call_of(layer, x, {}, "a", "v")), used)
        gradients.append(torch.autograd.grad((values["v"] ** 2).sum(), x)[0])
    assert_close(gradients[1], gradients[0], 1e-5)


def test_static_input_is_read_in_place_and_gives_the_same() -> None:
    image = Member("lif").currents(3, 7).to(DEVICE).requires_grad_()
    layer = snn.LIF(step_mode="m").to(DEVICE)
    weights = torch.randn(5, 3, 7).to(DEVICE)
    outputs = [run_gpu(call_of(layer, x)).output for x in (image.expand(5, 3, 7), image.expand(5, 3, 7).clone())]
    assert torch.equal(*outputs)
    repeated, copied = (torch.autograd.grad((y * weights).sum(), image)[0] for y in outputs)
    assert torch.equal(repeated, copied)
    signature = parse(describe("triton", call_of(layer, image)))
    plan = plan_run(signature, image.shape, {}, torch.float32)
    values, _ = gpu._inputs(plan, image.detach().expand(5, 3, 7), {})
    assert (values["x"].data_ptr(), values["x_stride"]) == (image.data_ptr(), 0)


def test_inputs_that_are_not_contiguous_and_inputs_without_neurons() -> None:
    layer = snn.LIF(step_mode="m").to(DEVICE)
    x = Member("lif").currents(4, 5, 6).transpose(1, 2).to(DEVICE)
    assert torch.equal(run_gpu(call_of(layer, x)).output, run_reference(call_of(layer, x)).output)
    assert run_gpu(call_of(layer, x[:, :0])).output.shape == (4, 0, 5)


def test_no_gradient_is_prepared_where_none_is_asked_for() -> None:
    layer = snn.LIF(tau=2.0, learnable=("tau",), step_mode="m").to(DEVICE)
    with torch.no_grad():
        assert not run_gpu(call_of(layer, torch.ones(3, 2, 2, device=DEVICE))).output.requires_grad


def test_the_same_bits_as_the_kernels_of_the_cpu() -> None:
    for name in ("adex", "alif"):  # with exp in the step and in the surrogate; both keep values aside
        member = next(m for m in NEURONS if m.name == name)
        layer = member.build()
        x = member.currents(7, 5, 7).requires_grad_()
        on_cpu = run_kernel("numba", call_of(layer, x))
        (g_cpu,) = torch.autograd.grad(on_cpu.output.sum(), x)
        current = x.detach().to(DEVICE).requires_grad_()
        on_gpu = run_gpu(call_of(layer.to(DEVICE), current))
        (g_gpu,) = torch.autograd.grad(on_gpu.output.sum(), current)
        assert torch.equal(on_gpu.output.cpu(), on_cpu.output)
        assert all(torch.equal(on_gpu.states[state].cpu(), value) for state, value in on_cpu.states.items())
        assert torch.equal(g_gpu.cpu(), g_cpu)


def test_scratch_and_outputs_hold_no_unwritten_cell(monkeypatch: pytest.MonkeyPatch) -> None:
    empty = torch.empty

    def filled(*size: Any, **options: Any) -> torch.Tensor:
        return empty(*size, **options).fill_(float("nan"))

    monkeypatch.setattr(torch, "empty", filled)
    for member in NEURONS:
        layer = member.build().to(DEVICE)
        x = member.currents(4, 5, 7).to(DEVICE).requires_grad_()
        start = starting_states(layer, x)
        result = layer.run_steps("triton", call_of(layer, x, start, "v"))
        gradients = gradients_of(result, [x, *start.values(), *layer.parameters()], torch.ones_like(x))
        tensors = [result.output, *result.states.values(), *result.sequences.values(), *gradients]
        assert all(torch.isfinite(tensor).all() for tensor in tensors if tensor is not None)


def test_second_derivatives_are_refused() -> None:
    layer = snn.LIF(step_mode="m").to(DEVICE)
    x = Member("lif").currents(3, 2, 2).to(DEVICE).requires_grad_()
    (first,) = torch.autograd.grad(run_gpu(call_of(layer, x)).output.sum(), x, create_graph=True)
    with pytest.raises(snn.UnsupportedError, match="second derivatives"):
        first.sum().backward()


@pytest.mark.skipif(DEVICE == "cpu", reason="needs a CUDA device")
def test_nothing_waits_for_the_device() -> None:
    layer = snn.PLIF(step_mode="m", backend="triton").cuda()
    x = Member("plif").currents(8, 16, 128).cuda().requires_grad_()
    layer(x).sum().backward()  # compiles and chooses block sizes
    torch.cuda.set_sync_debug_mode("error")
    try:
        layer(x).sum().backward()
    finally:
        torch.cuda.set_sync_debug_mode("default")


@pytest.mark.skipif(DEVICE == "cpu", reason="needs a CUDA device")
def test_more_neurons_than_a_grid_keeps_values_for() -> None:
    for name in ("lif", "alif"):
        member = Member(name)
        assert_kernel_equals_reference(member, member.currents(3, 1_234_567))


@pytest.mark.skipif(DEVICE == "cuda", reason="the kernels run on the CUDA device here")
def test_cpu_tensors_are_refused_outside_the_interpreter(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("TRITON_INTERPRET")
    with pytest.raises(snn.UnsupportedError, match="tensors are on cpu, Triton kernels need them on a CUDA device"):
        run_gpu(call_of(snn.LIF(step_mode="m"), torch.ones(2, 3)))
    assert "TRITON_INTERPRET" not in os.environ
