"""MPBN: the equations, its statistics, its gradients and its place in the neuron's kernels."""

from __future__ import annotations

import copy
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch
from spikingjelly.activation_based import functional

import snn
from snn.errors import ShapeError, UnsupportedError
from snn.kernels.trace import trace
from snn.layers import MPBN
from snn.neurons.lif import leaky_integrate_and_fire
from snn.neurons.membrane import COMPARED, charge_alone, with_view

LEAK = {"tau": 4 / 3, "decay_input": False, "v_threshold": 0.5}  # v = v / 4 + x, as in the released code
WITH_NORM: list[tuple[str, dict[str, Any]]] = [
    ("if", {}),
    ("lif", {}),
    ("lif", {"v_reset": None}),
    ("lif", {"v_reset": 0.2, "detach_reset": True}),
    ("plif", {}),
    ("alif", {}),
    ("cuba_lif", {}),
    ("recurrent_lif", {"recurrent": 6}),
]
SHAPES = [((6,), 6), ((6, 5), 6), ((6, 4, 3), 6), ((6, 4, 3), (6, 4, 3)), ((6,), (6,))]


def trained(features: int | tuple[int, ...], dtype: torch.dtype = torch.float64, **arguments: Any) -> MPBN:
    """A norm with both signs of weights and running statistics away from their start."""
    norm = MPBN(features, **arguments).to(dtype)
    with torch.no_grad():
        norm.weight.uniform_(-1.0, 2.0)
        norm.bias.uniform_(-0.3, 0.3)
        norm.running_mean.uniform_(-0.5, 0.5)
        norm.running_var.uniform_(0.2, 2.0)
    return norm


def test_worked_example() -> None:
    norm = MPBN(2)
    norm.load_state_dict(
        {
            "weight": torch.tensor([1.5, -0.8]),
            "bias": torch.tensor([0.2, 0.1]),
            "running_mean": torch.tensor([0.3, 0.4]),
            "running_var": torch.tensor([0.25, 0.16]),
            "num_batches_tracked": torch.tensor(0),
        }
    )
    layer = snn.LIF(**LEAK, step_mode="m", store_v_seq=True, membrane_norm=norm).double().eval()
    x = torch.tensor([0.9, 0.4, -0.2, 0.7], dtype=torch.float64).view(4, 1, 1).expand(4, 1, 2)
    z = layer(x).squeeze(1)
    assert z[:, 0].tolist() == [1, 0, 0, 1]
    assert z[:, 1].tolist() == [0, 0, 1, 0]
    assert layer.v_seq is not None
    torch.testing.assert_close(
        layer.v_seq[:, 0], torch.tensor([[0, 0.9], [0.4, 0.625], [-0.1, 0], [0, 0.7]], dtype=torch.float64)
    )
    values = norm.values(0, 2)
    compared = (
        values["norm_scale"] * torch.tensor([[0.9, 0.9], [0.4, 0.625]], dtype=torch.float64) + values["norm_shift"]
    )
    expected = torch.tensor([[1.999964, -0.899969], [0.499994, -0.349986]], dtype=torch.float64)
    torch.testing.assert_close(compared, expected, atol=5e-7, rtol=0)


@pytest.mark.parametrize("carry", ["raw", "normalised"])
def test_neutral_values_give_the_plain_neuron(carry: Any) -> None:
    norm = MPBN(7, carry=carry)
    norm.running_var.fill_(1 - norm.eps)
    plain = snn.LIF(tau=2.0, step_mode="m").double()
    layer = snn.LIF(tau=2.0, step_mode="m", membrane_norm=norm).double().eval()
    norm.running_var.copy_(torch.tensor(1.0, dtype=torch.float64) - norm.eps)
    x = 2 * torch.randn(20, 30, 7, dtype=torch.float64)
    assert torch.equal(layer(x), plain(x))


@pytest.mark.parametrize("carry", ["raw", "normalised"])
@pytest.mark.parametrize("training", [True, False])
@pytest.mark.parametrize(("name", "arguments"), WITH_NORM, ids=lambda value: value if isinstance(value, str) else "")
def test_kernels_equal_the_reference(name: str, arguments: dict[str, Any], training: bool, carry: Any) -> None:
    norm = trained(6, carry=carry)
    layers = []
    for backend in ("reference", "numba"):
        layer = snn.NEURONS[name](**arguments, step_mode="m", backend=backend, membrane_norm=copy.deepcopy(norm))
        layers.append(layer.double().train(training))
    layers[1].load_state_dict(layers[0].state_dict())
    x = 1.5 * torch.randn(5, 4, 6, dtype=torch.float64)
    cotangent = torch.randn(x.shape, dtype=torch.float64)
    results = []
    for layer in layers:
        given = x.clone().requires_grad_()
        y = layer(given)
        gradients = torch.autograd.grad((y * cotangent).sum(), [given, *layer.parameters()])
        results.append((y, [*gradients, *layer.buffers()]))
    assert 0.02 < results[0][0].mean() < 0.9
    assert torch.equal(results[0][0], results[1][0])
    for reference, ours in zip(results[0][1], results[1][1], strict=True):
        torch.testing.assert_close(ours, reference, rtol=1e-10, atol=1e-12)


@pytest.mark.parametrize(("shape", "features"), SHAPES, ids=str)
def test_training_matches_torch_batch_norm_step_by_step(shape: tuple[int, ...], features: Any) -> None:
    layer = snn.LIF(**LEAK, step_mode="m", membrane_norm=MPBN(features)).double()
    count = 6 if isinstance(features, int) else torch.Size(features).numel()
    theirs = torch.nn.BatchNorm1d(count, dtype=torch.float64)
    with torch.no_grad():
        theirs.weight.copy_(torch.rand(count))
        theirs.bias.copy_(torch.rand(count))
        layer.membrane_norm.weight.copy_(theirs.weight.view(layer.membrane_norm.shape))
        layer.membrane_norm.bias.copy_(theirs.bias.view(layer.membrane_norm.shape))
    x = torch.randn(4, 8, *shape, dtype=torch.float64, requires_grad=True)
    surrogate = layer.surrogate_function
    v = torch.zeros(8, *shape, dtype=torch.float64)
    expected = []
    for x_t in x:
        h = 0.25 * v + x_t
        flat = h.reshape(8, count, -1)
        z = surrogate(theirs(flat).view(h.shape) - 0.5)
        expected.append(z)
        v = h * (1 - z)
    y = layer(x)
    assert torch.equal(y, torch.stack(expected))
    cotangent = torch.randn(x.shape, dtype=torch.float64)
    (g_expected,) = torch.autograd.grad((torch.stack(expected) * cotangent).sum(), x)
    (g,) = torch.autograd.grad((y * cotangent).sum(), x)
    torch.testing.assert_close(g, g_expected, rtol=1e-9, atol=1e-11)
    norm = layer.membrane_norm
    torch.testing.assert_close(norm.running_mean.flatten(), theirs.running_mean)
    torch.testing.assert_close(norm.running_var.flatten(), theirs.running_var)
    assert norm.num_batches_tracked == theirs.num_batches_tracked == 4


def test_running_mean_follows_the_closed_form() -> None:
    norm = MPBN(3)
    layer = snn.IF(v_threshold=1e9, step_mode="m", membrane_norm=norm).double()
    norm.running_mean.fill_(2.0)
    x = torch.randn(4, 9, 3, dtype=torch.float64)
    layer(x)
    means = x.cumsum(0).mean(1)
    weights = torch.tensor([0.0729, 0.081, 0.09, 0.1], dtype=torch.float64)
    torch.testing.assert_close(norm.running_mean, 0.6561 * 2.0 + weights @ means)


def test_statistics_per_step() -> None:
    norm = MPBN(5, steps=3, momentum=1.0)
    layer = snn.IF(v_threshold=1e9, step_mode="m", membrane_norm=norm).double()
    x = torch.randn(3, 40, 5, dtype=torch.float64)
    layer(x)
    h = x.cumsum(0)
    torch.testing.assert_close(norm.running_mean, h.mean(1))
    torch.testing.assert_close(norm.running_var, h.var(1))
    layer = snn.LIF(**LEAK, step_mode="m", membrane_norm=trained(5, steps=3)).double().eval()
    outputs = []
    for backend in ("reference", "numba"):
        layer.backend = backend
        outputs.append(layer(x))
    assert torch.equal(*outputs)
    with pytest.raises(ValueError, match="all 3 steps"):
        layer(x[:2])
    layer.step_mode = "s"
    with pytest.raises(ValueError, match="all 3 steps"):
        layer(x[0])


def test_evaluation_does_not_depend_on_the_batch() -> None:
    layer = snn.LIF(**LEAK, step_mode="m", membrane_norm=trained(6)).double().eval()
    x = torch.randn(4, 10, 6, 3, 3, dtype=torch.float64)
    whole = layer(x)
    assert torch.equal(whole[:, 3:5], layer(x[:, 3:5]))
    order = torch.randperm(10)
    layer.train()
    torch.testing.assert_close(copy.deepcopy(layer)(x[:, order]), layer(x)[:, order])


def test_single_steps_equal_all_steps() -> None:
    x = torch.randn(5, 8, 6, dtype=torch.float64)
    for training in (True, False):
        layer = snn.LIF(**LEAK, step_mode="m", membrane_norm=trained(6)).double().train(training)
        other = copy.deepcopy(layer)
        other.step_mode = "s"
        assert torch.equal(layer(x), torch.stack([other(x_t) for x_t in x]))
        torch.testing.assert_close(layer.membrane_norm.running_mean, other.membrane_norm.running_mean)
        functional.reset_net(other)


def test_evaluation_is_one_kernel_over_all_steps(monkeypatch: pytest.MonkeyPatch) -> None:
    from snn.neurons import membrane

    calls = []
    monkeypatch.setattr(membrane, "run", lambda backend, call: calls.append(call.x.shape) or run(backend, call))
    run = __import__("snn.kernels.backend", fromlist=["run"]).run
    layer = snn.LIF(**LEAK, step_mode="m", membrane_norm=trained(6)).double().eval()
    layer(torch.randn(7, 2, 6, dtype=torch.float64))
    assert calls == [(7, 2, 6)]


def test_carried_membrane_is_raw_or_normalised() -> None:
    x = 0.2 * torch.ones(2, 4, 3, dtype=torch.float64)
    for carry, expected in (("raw", 0.2 * 0.25 + 0.2), ("normalised", None)):
        norm = trained(3, carry=carry)
        layer = snn.LIF(
            tau=4 / 3, decay_input=False, v_threshold=1e9, step_mode="m", store_v_seq=True, membrane_norm=norm
        )
        layer.double().eval()(x)
        values = norm.values(0, 2)
        first = values["norm_scale"] * 0.2 + values["norm_shift"]
        second = values["norm_scale"] * (0.25 * first + 0.2) + values["norm_shift"]
        target = torch.full_like(first, expected) if expected else second
        torch.testing.assert_close(layer.v_seq[1, 0], target)


def test_rate_at_start_is_that_of_a_gaussian_in_every_layer() -> None:
    for spread, shift in ((0.3, 1.0), (5.0, -2.0)):
        layer = snn.LIF(**LEAK, step_mode="m", membrane_norm=MPBN(4))
        z = layer(shift + spread * torch.randn(1, 20_000, 4))
        assert abs(float(z.detach().mean()) - 0.3085) < 0.005


def test_reduced_precision_keeps_statistics_in_float32() -> None:
    layer = snn.LIF(**LEAK, step_mode="m", membrane_norm=MPBN(4))
    x = torch.randn(3, 16, 4).bfloat16()
    z = layer(x)
    assert z.dtype == torch.bfloat16
    other = snn.LIF(**LEAK, step_mode="m", membrane_norm=MPBN(4))
    assert torch.equal(z.float(), other(x.float()))
    assert torch.equal(layer.membrane_norm.running_var, other.membrane_norm.running_var)


def test_wrapped_models_trace_and_keep_the_step() -> None:
    model = with_view(leaky_integrate_and_fire, COMPARED)
    assert model is with_view(leaky_integrate_and_fire, COMPARED)
    step = trace(model, {**model.params})
    assert {"norm_scale", "norm_shift"} <= set(step.values)
    assert "norm_scale" not in repr(step.new_states["v"].args[2])
    charge = trace(charge_alone(leaky_integrate_and_fire), leaky_integrate_and_fire.params)
    assert charge.new_states["v"].op == "state"


def test_statistics_survive_a_large_common_value() -> None:
    layer = snn.IF(v_threshold=1e9, step_mode="m", membrane_norm=MPBN(2, momentum=1.0))
    layer(1000.0 + 0.1 * torch.randn(1, 5000, 2, 3))
    assert bool(((layer.membrane_norm.running_var - 0.01).abs() < 5e-4).all())


def test_gradients_do_not_depend_on_the_number_of_threads() -> None:
    x = torch.randn(3, 40, 8, 16, 16)
    before = torch.get_num_threads()
    results = []
    for count in (1, 3):
        torch.set_num_threads(count)
        given = x.clone().requires_grad_()
        layer = snn.LIF(**LEAK, step_mode="m", membrane_norm=MPBN(8))
        layer(given).square().sum().backward()
        results.append([given.grad, layer.membrane_norm.weight.grad, layer.membrane_norm.running_var])
    torch.set_num_threads(before)
    for one, three in zip(*results, strict=True):
        assert torch.equal(one, three)


@pytest.mark.parametrize(("name", "arguments"), [("lif", {"v_reset": None}), ("alif", {}), ("cuba_lif", {})])
def test_one_pass_equals_two_runs(name: str, arguments: dict[str, Any], monkeypatch: pytest.MonkeyPatch) -> None:
    from snn.neurons import membrane

    x = (1.5 * torch.randn(4, 6, 6, dtype=torch.float64)).requires_grad_()
    start = snn.NEURONS[name](**arguments, step_mode="m", membrane_norm=trained(6)).double()
    runs = []
    for eager in (True, False):
        monkeypatch.setattr(membrane, "is_eager", lambda _, eager=eager: eager)
        layer = copy.deepcopy(start)
        y = layer(x)
        runs.append([y, *torch.autograd.grad((y * x.detach()).sum(), [x, *layer.parameters()]), *layer.buffers()])
    assert torch.equal(runs[0][0], runs[1][0])
    for one, two in zip(*runs, strict=True):
        torch.testing.assert_close(one, two, rtol=1e-10, atol=1e-12)


def test_second_derivatives() -> None:
    x = torch.randn(2, 5, 3, dtype=torch.float64, requires_grad=True)
    layer = snn.LIF(step_mode="m", backend="numba", membrane_norm=MPBN(3)).double()
    (first,) = torch.autograd.grad(layer(x).sum(), x, create_graph=True)
    with pytest.raises(UnsupportedError, match="use backend='reference'"):
        first.sum().backward()
    layer.backend = "reference"
    (first,) = torch.autograd.grad((layer(x) * x.detach()).sum(), x, create_graph=True)
    (second,) = torch.autograd.grad(first.square().sum(), x)
    assert second.abs().max() > 0


def test_bad_input_is_named() -> None:
    with pytest.raises(ValueError, match="carry must be 'raw' or 'normalised', got 'both'"):
        MPBN(3, carry="both")  # type: ignore[arg-type]
    with pytest.raises(ValueError, match="features must be"):
        MPBN(0)
    with pytest.raises(ValueError, match="momentum must be in"):
        MPBN(3, momentum=0.0)
    with pytest.raises(ValueError, match="eps must be > 0"):
        MPBN(3, eps=0.0)
    with pytest.raises(ValueError, match="steps must be"):
        MPBN(3, steps=0)
    layer = snn.LIF(step_mode="m", membrane_norm=MPBN(3))
    with pytest.raises(ShapeError, match=r"\[T, B, 3, \.\.\.\], got shape \(2, 4, 5\)"):
        layer(torch.zeros(2, 4, 5))
    with pytest.raises(ValueError, match="batch of 1"):
        layer(torch.zeros(2, 1, 3))
    with pytest.raises(ShapeError, match=r"\[T, B, 3, 2, 2\]"):
        snn.LIF(step_mode="m", membrane_norm=MPBN((3, 2, 2)))(torch.zeros(2, 4, 3, 2, 3))
    with pytest.raises(UnsupportedError, match="'izhikevich' does not"):
        snn.Neuron(snn.Izhikevich().model, membrane_norm=MPBN(3))


PROCESS = """
import sys, torch
import torch.distributed as dist
import snn
from snn.layers import MPBN
rank, store, half = int(sys.argv[1]), sys.argv[2], sys.argv[3] == "uneven"
dist.init_process_group("gloo", init_method=f"file://{store}", rank=rank, world_size=2)
torch.manual_seed(0)
x = torch.randn(3, 10, 4, 2, dtype=torch.float64)
cut = 7 if half else 5
part = x[:, :cut] if rank == 0 else x[:, cut:]
part = part.clone().requires_grad_()
layer = snn.LIF(step_mode="m", membrane_norm=MPBN(4)).double()
torch.manual_seed(1)
weights = torch.randn(x.shape, dtype=torch.float64)
y = layer(part)
(y * (weights[:, :cut] if rank == 0 else weights[:, cut:])).sum().backward()
dist.all_reduce(layer.membrane_norm.weight.grad)
torch.save((y.detach(), part.grad, layer.membrane_norm.weight.grad, dict(layer.named_buffers())), f"{store}.{rank}")
"""


@pytest.mark.parametrize("split", ["even", "uneven"])
def test_two_processes_share_their_statistics(tmp_path: Path, split: str) -> None:
    store = tmp_path / "store"
    command = [sys.executable, "-c", PROCESS]
    processes = [subprocess.Popen([*command, str(rank), str(store), split]) for rank in (0, 1)]
    assert [process.wait(timeout=120) for process in processes] == [0, 0]
    parts = [torch.load(f"{store}.{rank}") for rank in (0, 1)]
    torch.manual_seed(0)
    x = torch.randn(3, 10, 4, 2, dtype=torch.float64, requires_grad=True)
    layer = snn.LIF(step_mode="m", membrane_norm=MPBN(4)).double()
    torch.manual_seed(1)
    weights = torch.randn(x.shape, dtype=torch.float64)
    y = layer(x)
    (y * weights).sum().backward()
    assert torch.equal(torch.cat([part[0] for part in parts], 1), y)
    torch.testing.assert_close(torch.cat([part[1] for part in parts], 1), x.grad, rtol=1e-9, atol=1e-11)
    torch.testing.assert_close(parts[0][2], layer.membrane_norm.weight.grad, rtol=1e-9, atol=1e-11)
    for part in parts:
        for name, value in layer.named_buffers():
            torch.testing.assert_close(part[3][name], value, rtol=1e-9, atol=1e-11)
