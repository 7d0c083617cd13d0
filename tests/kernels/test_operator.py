"""The kernels under torch's transforms: compiled, exported, batched and differentiated per sample, in several processes."""

from __future__ import annotations

import io
from typing import Any

import pytest
import torch
import torch.distributed as dist
import torch.multiprocessing as mp
from members import NEURONS, Member
from spikingjelly.activation_based import surrogate as sj
from torch import nn

import snn
from snn.declaration import find_model
from snn.kernels.call import NeuronCall
from snn.kernels.operator import neuron, neuron_backward, run_kernel
from snn.kernels.reference import run_reference
from snn.kernels.signature import describe, parse
from snn.ops import spike

by_name = pytest.mark.parametrize("member", NEURONS, ids=lambda member: member.name)
KEPT = pytest.mark.parametrize("keep", [False, True], ids=["recomputed", "kept"])


def call_of(layer: snn.Neuron, x: torch.Tensor, start: dict[str, Any] | None = None, **more: Any) -> NeuronCall:
    params = layer.call_params()
    states = layer.model.start(params) | (start or {})
    return NeuronCall(layer.model, x, states, params, layer.surrogate_function, **more)


def network(keep: bool = False) -> nn.Sequential:
    torch.manual_seed(0)
    hidden = snn.LIF(v_threshold=0.3, surrogate_function=sj.ATan(), step_mode="m", learnable=("tau",))
    hidden.keep_states = keep
    return nn.Sequential(nn.Linear(6, 8), hidden, nn.Linear(8, 3), snn.PLIF(v_threshold=0.1, step_mode="m"))


def gradients(net: nn.Module, y: torch.Tensor, x: torch.Tensor) -> list[torch.Tensor]:
    weights = torch.linspace(-1.0, 1.0, y.numel()).view(y.shape)
    return list(torch.autograd.grad((y * weights).sum(), [x, *net.parameters()]))


@KEPT
@by_name
def test_opcheck(member: Member, keep: bool) -> None:
    layer = member.build(backend="numba")
    x = member.currents(3, 2, 5).requires_grad_()
    start = {next(iter(layer.model.state)): torch.full((2, 5), 0.1)}
    call = call_of(layer, x, start, recorded=tuple(layer.model.state)[:1], keep=keep)
    text = describe("numba", call)
    params = [value for value in call.params.values() if isinstance(value, torch.Tensor)]
    tensors = [*start.values(), *params]
    torch.library.opcheck(neuron, (x, tensors, text))
    outputs = neuron(x.detach(), [t.detach() for t in tensors], text)
    kept = outputs[len(outputs) - parse(text).kept_count :]
    arriving = [torch.ones_like(y) for y in outputs[: len(outputs) - len(kept)]]
    detached = [t.detach() for t in tensors]
    torch.library.opcheck(neuron_backward, (x.detach(), detached, kept, [*arriving[:-1], None], text))


@KEPT
def test_compiled_network_equals_eager(keep: bool) -> None:
    net = network(keep)
    x = (2.0 * torch.randn(5, 4, 6)).requires_grad_()
    compiled = torch.compile(net, fullgraph=True, backend="aot_eager")
    y, expected = compiled(x), net(x)
    assert torch.equal(y, expected)
    assert 0 < y.mean() < 1
    for ours, theirs in zip(gradients(net, y, x), gradients(net, expected, x), strict=True):
        torch.testing.assert_close(ours, theirs)


@pytest.mark.slow
def test_compiled_to_machine_code() -> None:
    net = network()
    x = (2.0 * torch.randn(5, 4, 6)).requires_grad_()
    y, expected = torch.compile(net, fullgraph=True)(x), net(x)
    assert (y != expected).float().mean() < 0.02  # its matrix products may round differently
    assert torch.isfinite(torch.cat([g.flatten() for g in gradients(net, y, x)])).all()


def test_compiled_streaming_carries_its_state() -> None:
    layer, twin = snn.LIF(tau=3.0), snn.LIF(tau=3.0)
    compiled = torch.compile(layer, fullgraph=True, backend="aot_eager")
    x = torch.rand(4, 2, 3)
    assert torch.equal(torch.stack([compiled(step) for step in x]), torch.stack([twin(step) for step in x]))
    assert torch.equal(layer.v, twin.v)


def test_exported_program_is_saved_and_runs_on_other_batches() -> None:
    net = network().eval()
    x = 2.0 * torch.randn(5, 4, 6)
    batch = torch.export.Dim("batch", min=2, max=64)
    program = torch.export.export(net, (x,), dynamic_shapes=({1: batch},))
    file = io.BytesIO()
    torch.export.save(program, file)
    file.seek(0)
    loaded = torch.export.load(file).module()
    for current in (x, 2.0 * torch.randn(5, 9, 6)):
        assert torch.equal(loaded(current), net(current))


@KEPT
@by_name
def test_vmap_over_samples_equals_one_batch(member: Member, keep: bool) -> None:
    layer = member.build(backend="numba")
    layer.keep_states = keep
    x = member.currents(4, 3, 7)
    samples = torch.vmap(lambda sample: layer(sample), in_dims=1, out_dims=1)(x)
    assert torch.equal(samples, layer(x))


@KEPT
def test_gradients_of_each_sample(keep: bool) -> None:
    layer = snn.LIF(tau=2.5, v_threshold=torch.tensor([1.0, 0.8, 1.2]), learnable=("tau", "v_threshold"), step_mode="m")
    layer.keep_states = keep
    x, start = Member("lif").currents(6, 4, 3), torch.rand(4, 3)
    values = {name: value.detach() for name, value in layer.named_parameters()}

    def loss(params: dict[str, torch.Tensor], sample: torch.Tensor, v: torch.Tensor) -> torch.Tensor:
        y, state = torch.func.functional_call(layer, params, (sample,), {"state": {"v": v}, "detach_state": False})
        return (y.cumsum(0) ** 2).sum() + state["v"].sum()

    derivative = torch.func.grad(loss, argnums=(0, 1, 2))
    each = torch.vmap(derivative, in_dims=(None, 1, 0), out_dims=(0, 1, 0))(values, x, start)
    for b in range(x.shape[1]):
        alone = derivative(values, x[:, b], start[b])
        for name in values:
            torch.testing.assert_close(each[0][name][b], alone[0][name])
        torch.testing.assert_close(each[1][:, b], alone[1])
        torch.testing.assert_close(each[2][b], alone[2])


def test_vmap_over_parameters_and_shared_input() -> None:
    x = Member("lif").currents(5, 4, 3)
    taus = torch.tensor([1.5, 2.0, 4.0])

    def run(tau: torch.Tensor) -> torch.Tensor:
        layer = snn.LIF(step_mode="m")
        params = layer.call_params() | {"tau": tau}
        call = NeuronCall(layer.model, x, layer.model.start(params), params, layer.surrogate_function)
        return run_kernel("numba", call).output

    expected = torch.stack([snn.LIF(tau=float(tau), step_mode="m")(x) for tau in taus])
    assert torch.equal(torch.vmap(run)(taus), expected)


@by_name
def test_kept_states_give_the_gradients_of_recomputed_ones(member: Member) -> None:
    results = []
    x = member.currents(7, 3, 7).requires_grad_()
    for keep in (False, True):
        torch.manual_seed(0)
        layer = member.build(backend="numba")
        layer.keep_states = keep
        state = {name: torch.full((3, 7), float(v)) for name, v in layer.model.start(layer.call_params()).items()}
        state = {name: value.requires_grad_() for name, value in state.items()}
        y, end = layer(x, state=state, detach_state=False)
        loss = (y * torch.arange(7.0).view(7, 1, 1)).sum() + sum(value.sum() for value in end.values())
        leaves = [x, *state.values(), *layer.parameters()]
        results.append([y, *end.values(), *torch.autograd.grad(loss, leaves, allow_unused=True)])
    for recomputed, kept in zip(*results, strict=True):
        assert (recomputed is None and kept is None) or torch.equal(recomputed, kept)


def test_fake_tensors_run_nothing() -> None:
    from torch._subclasses.fake_tensor import FakeTensorMode

    with FakeTensorMode():
        y = snn.ALIF(step_mode="m", backend="numba")(torch.empty(1000, 1000, 1000))
    assert y.shape == (1000, 1000, 1000)


def test_a_signature_names_its_model_and_is_found_again() -> None:
    layer = snn.LIF(tau=torch.tensor([2.0, 3.0]), v_reset=None, step_mode="m")
    call = call_of(layer, torch.zeros(3, 1, 2), recorded=("v",))
    known = parse(describe("numba", call))
    assert known.step.model is layer.model is find_model("snn.neurons.lif:leaky_integrate_and_fire")
    assert known.step.switches == {"decay_input": True, "v_reset": None, "detach_reset": False}
    assert (known.scalars, known.param_names) == ({"v_threshold": 1.0}, ("tau",))
    assert (known.start_values, known.recorded, known.learnable) == ({"v": 0.0}, ("v",), ())


def test_two_models_of_one_name_are_told_apart() -> None:
    def declared(scale: float) -> snn.NeuronModel:
        @snn.neuron_model(state={"v": 0.0}, params={"v_threshold": 1.0})
        def twin(x: Any, s: Any, p: Any) -> Any:
            v = s.v + x * scale
            z = spike(v - p.v_threshold)
            return z, {"v": v - z}

        return twin

    x = torch.full((3, 2), 0.4)
    for scale in (1.0, 3.0):
        layer = snn.Neuron(declared(scale), step_mode="m", backend="numba")
        call = call_of(layer, x)
        assert torch.equal(layer(x), run_reference(call).output)


def test_unknown_model_is_named() -> None:
    with pytest.raises(LookupError, match="nowhere"):
        find_model("nowhere.at_all:lif")
    with pytest.raises(LookupError, match="not_there"):
        find_model("snn.neurons.lif:not_there")


def _one_process(rank: int, file: str, results: Any) -> None:
    dist.init_process_group("gloo", init_method=f"file://{file}", rank=rank, world_size=2)
    torch.set_num_threads(1)
    net = nn.parallel.DistributedDataParallel(network())
    torch.manual_seed(1)
    x = 2.0 * torch.randn(5, 8, 6)
    net(x[:, rank * 4 : rank * 4 + 4]).sum().backward()
    results[rank] = [parameter.grad.clone() for parameter in net.parameters()]
    dist.destroy_process_group()


def test_data_parallel_gradients_are_those_of_the_whole_batch(tmp_path: Any) -> None:
    with mp.Manager() as manager:
        results = manager.dict()
        mp.spawn(_one_process, (str(tmp_path / "meeting"), results), nprocs=2)
        shared = dict(results)
    net = network()
    torch.manual_seed(1)
    net(2.0 * torch.randn(5, 8, 6)).sum().backward()
    for k, parameter in enumerate(net.parameters()):
        assert parameter.grad is not None
        torch.testing.assert_close(shared[0][k], shared[1][k])
        torch.testing.assert_close(2.0 * shared[0][k], parameter.grad)


def test_compiled_neuron_that_cannot_be_traced_runs_on_the_reference() -> None:
    @snn.neuron_model(state={"v": 0.0}, params={"v_threshold": 1.0})
    def cubic(x: Any, s: Any, p: Any) -> Any:
        v = 0.5 * s.v + x**3
        z = spike(v - p.v_threshold)
        return z, {"v": v - z}

    layer = snn.Neuron(cubic, step_mode="m")
    layer._warned = True
    x = 1.5 * torch.rand(4, 2, 3)
    compiled = torch.compile(layer, backend="aot_eager")
    assert torch.equal(compiled(x), run_reference(call_of(layer, x)).output)
