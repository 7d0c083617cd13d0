"""Spike-sparse layers against torch's dense layers."""

import copy
import subprocess
import sys

import numba
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

import snn.layers
from snn.layers import SpikeConv2d, SpikeLinear, conv2d_max_density, linear_max_density, sparse_ops, sparse_products

TOLERANCE = {torch.float32: 1e-5, torch.float64: 1e-12}
DTYPES = pytest.mark.parametrize("dtype", TOLERANCE, ids=["float32", "float64"])
VALUES = pytest.mark.parametrize("values", ["ones", "signed", "integer", "graded"])


def spikes(shape, density, dtype=torch.float32, values="ones", seed=0):
    generator = torch.Generator().manual_seed(seed)
    active = torch.rand(shape, generator=generator) < density
    magnitude = {
        "ones": torch.ones(shape),
        "signed": torch.randint(0, 2, shape, generator=generator) * 2.0 - 1,
        "integer": torch.randint(1, 8, shape, generator=generator).float(),
        "graded": torch.randn(shape, generator=generator, dtype=torch.float64),
    }[values]
    return (active * magnitude).to(dtype)


def pair(kind, *arguments, dtype=torch.float32, max_density=1.0, **options):
    """A sparse layer and the dense layer with the same parameters."""
    sparse_class, dense_class = {"linear": (SpikeLinear, torch.nn.Linear), "conv": (SpikeConv2d, torch.nn.Conv2d)}[kind]
    torch.manual_seed(0)
    dense = dense_class(*arguments, dtype=dtype, **options)
    sparse = sparse_class(*arguments, dtype=dtype, max_density=max_density, **options)
    sparse.load_state_dict(dense.state_dict())
    return sparse, dense


def results(layer, x):
    """Output and gradients of input, weight and bias for a fixed output gradient."""
    x = x.clone().requires_grad_()
    layer.zero_grad()
    y = layer(x)
    y.backward(torch.randn(y.shape, generator=torch.Generator().manual_seed(1), dtype=torch.float64).to(y.dtype))
    return [y.detach(), x.grad, *(parameter.grad for parameter in layer.parameters())]


def assert_same_results(sparse, dense, x, path="sparse"):
    for name, got, expected in zip(
        ("output", "input", "weight", "bias"), results(sparse, x), results(dense, x), strict=False
    ):
        assert got.shape == expected.shape, name
        assert got.stride() == expected.stride(), name
        scale = expected.abs().max().clamp_min(1.0) if expected.numel() else 1.0
        assert ((got - expected).abs() <= TOLERANCE[x.dtype] * scale).all(), name
    if x.numel():
        assert sparse.last_path.name == path


@DTYPES
@VALUES
@pytest.mark.parametrize("sizes", [(128, 64), (63, 1000), (1000, 63), (65, 7), (1, 1)], ids=str)
def test_linear_equals_dense_in_output_and_every_gradient(dtype, values, sizes):
    sparse, dense = pair("linear", *sizes, dtype=dtype)
    assert_same_results(sparse, dense, spikes((1100, sizes[0]), 0.05, dtype, values))
    reason = "all non-zero inputs are 1" if values == "ones" else "non-zero inputs have values"
    assert sizes == (1, 1) or sparse.last_path.reason == reason


@DTYPES
@pytest.mark.parametrize("density", [0.0, 0.01, 1.0])
def test_linear_is_right_at_any_density(dtype, density):
    sparse, dense = pair("linear", 200, 96, dtype=dtype)
    x = spikes((700, 200), density, dtype)
    assert_same_results(sparse, dense, x)
    assert sparse.last_path.density == pytest.approx(float(x.mean()))


@pytest.mark.parametrize("shape", [(100,), (0, 100), (5, 100), (4, 0, 100), (4, 3, 100), (2, 4, 3, 100)], ids=str)
@pytest.mark.parametrize("bias", [True, False])
def test_linear_takes_any_leading_shape(shape, bias):
    sparse, dense = pair("linear", 100, 40, bias=bias)
    assert_same_results(sparse, dense, spikes(shape, 0.1))


@pytest.mark.parametrize("layout", ["transposed", "strided", "expanded", "offset"])
def test_inputs_need_not_be_contiguous(layout):
    x = {
        "transposed": spikes((96, 300), 0.1).t(),
        "strided": spikes((300, 192), 0.1)[:, ::2],
        "expanded": spikes((1, 96), 0.1).expand(300, 96),
        "offset": spikes((300 * 96 + 1,), 0.1)[1:].view(300, 96),
    }[layout]
    sparse, dense = pair("linear", 96, 50)
    expected = [tensor.clone() for tensor in results(dense, x.contiguous())]
    for got, want in zip(results(sparse, x), expected, strict=True):
        torch.testing.assert_close(got, want, rtol=1e-5, atol=1e-4)
    images = x.reshape(4, 75, 12, 8).permute(0, 2, 3, 1)  # channels last
    sparse, dense = pair("conv", 12, 40, 3)
    torch.testing.assert_close(sparse(images), dense(images), rtol=1e-5, atol=1e-5)


def test_weight_and_output_gradient_need_not_be_contiguous():
    sparse, dense = pair("linear", 80, 48)
    for layer in (sparse, dense):
        layer.weight = torch.nn.Parameter(dense.weight.detach().t().contiguous().t())
    x = spikes((300, 80), 0.1)
    for layer in (sparse, dense):
        layer(x).sum().backward()  # the gradient of a sum is an expanded scalar
    torch.testing.assert_close(sparse(x), dense(x), rtol=1e-5, atol=1e-5)
    torch.testing.assert_close(sparse.weight.grad, dense.weight.grad, rtol=1e-5, atol=1e-5)


CONVOLUTIONS = {
    "plain": ((6, 40, 3), {}),
    "padded": ((6, 40, 3), {"padding": 1}),
    "stride, dilation, oblong": ((6, 40, (3, 2)), {"stride": (2, 1), "padding": (1, 2), "dilation": (1, 2)}),
    "groups": ((6, 40, 3), {"groups": 2, "padding": 1}),
    "depthwise": ((6, 6, 3), {"groups": 6}),
    "one tap": ((6, 40, 1), {}),
    "same, odd": ((6, 40, 3), {"padding": "same", "dilation": 2}),
    "same, even": ((6, 40, 4), {"padding": "same"}),
    "valid": ((6, 40, 4), {"padding": "valid"}),
    "circular": ((6, 40, 3), {"padding": 1, "padding_mode": "circular"}),
    "reflect": ((6, 40, 3), {"padding": (2, 1), "padding_mode": "reflect"}),
    "replicate": ((6, 40, 3), {"padding": 1, "padding_mode": "replicate"}),
    "no bias": ((6, 40, 3), {"bias": False}),
}


@DTYPES
@pytest.mark.parametrize("name", CONVOLUTIONS)
@pytest.mark.parametrize("values", ["ones", "graded"])
@pytest.mark.filterwarnings("ignore:Using padding='same'")
def test_conv2d_equals_dense_in_output_and_every_gradient(dtype, name, values):
    arguments, options = CONVOLUTIONS[name]
    sparse, dense = pair("conv", *arguments, dtype=dtype, **options)
    assert_same_results(sparse, dense, spikes((3, 6, 13, 11), 0.1, dtype, values))


@pytest.mark.parametrize("shape", [(6, 9, 8), (0, 6, 9, 8), (1, 6, 3, 3)], ids=str)
@pytest.mark.parametrize("density", [0.0, 0.1, 1.0])
def test_conv2d_takes_single_images_empty_batches_and_any_density(shape, density):
    sparse, dense = pair("conv", 6, 33, 3)
    assert_same_results(sparse, dense, spikes(shape, density))


@settings(max_examples=25, deadline=None)
@given(st.integers(1, 70), st.integers(1, 140), st.integers(1, 70), st.floats(0, 1), st.integers(0, 100), st.booleans())
def test_linear_property(rows, in_features, out_features, density, seed, ones):
    sparse, dense = pair("linear", in_features, out_features, dtype=torch.float64)
    x = spikes((rows, in_features), density, torch.float64, "ones" if ones else "graded", seed)
    assert_same_results(sparse, dense, x)


@settings(max_examples=25, deadline=None)
@given(st.data())
def test_conv2d_property(data):
    def draw(low, high):
        return data.draw(st.integers(low, high))

    groups = draw(1, 3)
    kernel = (draw(1, 3), draw(1, 3))
    options = {
        "stride": (draw(1, 3), draw(1, 3)),
        "padding": (draw(0, 3), draw(0, 3)),
        "dilation": (draw(1, 2), draw(1, 2)),
        "groups": groups,
    }
    channels, out_channels = groups * draw(1, 4), groups * draw(1, 20)
    sparse, dense = pair("conv", channels, out_channels, kernel, dtype=torch.float64, **options)
    shape = (draw(1, 3), channels, draw(5, 9), draw(5, 9))
    assert_same_results(sparse, dense, spikes(shape, data.draw(st.floats(0, 1)), torch.float64, "graded"))


@pytest.mark.parametrize("kind", ["linear", "conv"])
def test_gradcheck(kind):
    if kind == "linear":
        layer, x = SpikeLinear(4, 3, dtype=torch.float64, max_density=1.0), spikes((3, 4), 0.5, torch.float64, "graded")
    else:
        layer = SpikeConv2d(1, 2, 2, dtype=torch.float64, max_density=1.0)
        x = spikes((2, 1, 3, 2), 0.5, torch.float64, "graded")

    def run(weight, bias):
        return torch.func.functional_call(layer, {"weight": weight, "bias": bias}, (x,))

    assert torch.autograd.gradcheck(run, (layer.weight, layer.bias))
    dense = torch.rand_like(x).add_(0.5).requires_grad_()  # numerical differences need inputs away from zero
    assert torch.autograd.gradcheck(layer, (dense,))
    assert layer.last_path.name == "sparse"


@DTYPES
@pytest.mark.parametrize("kind", ["linear", "conv"])
def test_thread_count_changes_no_bit(kind, dtype):
    if kind == "linear":
        layer, x = SpikeLinear(300, 70, dtype=dtype, max_density=1.0), spikes((1500, 300), 0.05, dtype, "graded")
    else:
        layer, x = SpikeConv2d(8, 40, 3, dtype=dtype, max_density=1.0), spikes((5, 8, 14, 14), 0.1, dtype, "graded")
    most = numba.get_num_threads()
    try:
        runs = []
        for threads in {1, min(2, most), most}:
            numba.set_num_threads(threads)
            runs.append(results(layer, x))
    finally:
        numba.set_num_threads(most)
    for other in runs[1:]:
        assert all(torch.equal(a, b) for a, b in zip(runs[0], other, strict=True))


@pytest.mark.parametrize("kind", ["linear", "conv"])
def test_how_the_work_is_split_changes_no_bit(kind, monkeypatch):
    """Stands in for machines with more threads than this one."""
    layer = SpikeLinear(300, 70, max_density=1.0) if kind == "linear" else SpikeConv2d(8, 40, 3, max_density=1.0)
    x = spikes((1500, 300) if kind == "linear" else (5, 8, 14, 14), 0.05, values="graded")
    expected = results(layer, x)
    for threads in (1, 3, 7):
        monkeypatch.setattr(sparse_products, "_thread_count", lambda threads=threads: threads)
        assert all(torch.equal(a, b) for a, b in zip(expected, results(layer, x), strict=True))


@pytest.mark.parametrize("kind", ["linear", "conv"])
def test_state_dict_and_class_are_torchs(kind):
    arguments = (20, 10) if kind == "linear" else (20, 10, 3)
    sparse, dense = pair(kind, *arguments)
    assert isinstance(sparse, type(dense))
    torch.manual_seed(3)
    fresh = type(sparse)(*arguments)
    torch.manual_seed(3)
    same = type(dense)(*arguments)
    assert list(fresh.state_dict()) == list(same.state_dict())
    assert all(torch.equal(fresh.state_dict()[key], same.state_dict()[key]) for key in same.state_dict())
    dense.load_state_dict(fresh.state_dict())
    assert torch.equal(dense.weight, fresh.weight)
    copied = copy.deepcopy(sparse)
    assert torch.equal(copied.weight, sparse.weight)
    assert repr(sparse).startswith(("SpikeLinear(in_features=20", "SpikeConv2d(20, 10"))


@pytest.mark.parametrize("kind", ["linear", "conv"])
def test_a_weight_changed_in_place_is_seen(kind):
    sparse, dense = pair(kind, *((64, 48) if kind == "linear" else (4, 48, 3)))
    x = spikes((200, 64) if kind == "linear" else (3, 4, 8, 8), 0.1)
    optimizers = [torch.optim.Adam(layer.parameters(), lr=0.1) for layer in (sparse, dense)]
    for _ in range(3):
        assert_same_results(sparse, dense, x)
        for optimizer in optimizers:
            optimizer.step()
    with torch.no_grad():
        sparse.weight.data.fill_(1.0)
        sparse.bias.data.fill_(0.0)
    expected = x.sum(1) if kind == "linear" else None
    if expected is not None:
        torch.testing.assert_close(sparse(x)[:, 5], expected)


@pytest.mark.parametrize("kind", ["linear", "conv"])
def test_threshold_decides_the_path_and_says_so(kind):
    arguments = (64, 48) if kind == "linear" else (4, 48, 3)
    x = spikes((500, 64) if kind == "linear" else (3, 4, 20, 20), 0.1)
    density = float((x != 0).double().mean())
    for limit, path, reason in (
        (density + 1e-6, "sparse", "all non-zero inputs are 1"),
        (density - 1e-6, "dense", "input is denser than max_density"),
        (0.0, "dense", "dense is faster at this shape at any density"),
    ):
        sparse, dense = pair(kind, *arguments, max_density=limit)
        assert sparse.last_path is None
        assert_same_results(sparse, dense, x, path)
        assert sparse.last_path.reason == reason
        assert sparse.last_path.max_density == limit
        assert sparse.last_path.density == (pytest.approx(density) if limit else None)


def test_default_threshold_follows_the_shape():
    layer = SpikeLinear(512, 512)
    layer(spikes((8000, 512), 0.05))
    assert layer.last_path.name == "sparse"
    assert layer.last_path.max_density == linear_max_density(8000, 512, 512)
    layer(spikes((16, 512), 0.05))
    assert layer.last_path.name == "dense"
    deep = SpikeConv2d(64, 64, 3)
    deep(spikes((16, 64, 20, 20), 0.05))
    assert deep.last_path.name == "sparse"
    assert deep.last_path.max_density == conv2d_max_density(16 * 18 * 18, 64 * 9, 64)
    first = SpikeConv2d(1, 32, 3)
    first(spikes((8, 1, 28, 28), 0.05))
    assert first.last_path.name == "dense"


def test_what_the_kernels_lack_takes_the_dense_product_and_says_why():
    layer = SpikeLinear(64, 48, dtype=torch.bfloat16)
    x = spikes((100, 64), 0.1, torch.bfloat16)
    assert torch.equal(layer(x), torch.nn.functional.linear(x, layer.weight, layer.bias))
    assert layer.last_path.name == "dense"
    assert "bfloat16" in layer.last_path.reason
    layer = SpikeConv2d(4, 8, 3, device="meta")
    assert layer(torch.empty(1, 4, 8, 8, device="meta")).shape == (1, 8, 6, 6)
    assert "meta" in layer.last_path.reason
    layer = SpikeLinear(64, 48)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        assert layer(spikes((100, 64), 0.1)).dtype == torch.bfloat16
    assert layer.last_path.reason == "autocast is on"


def test_inputs_that_are_not_finite_are_not_lost():
    sparse, dense = pair("linear", 70, 40)
    x = spikes((50, 70), 0.1)
    x[3, 5], x[7, 69] = float("nan"), float("inf")
    torch.testing.assert_close(sparse(x), dense(x), equal_nan=True, rtol=1e-5, atol=1e-5)


def test_gradients_that_nobody_needs_are_not_computed():
    sparse, _ = pair("linear", 64, 48)
    x = spikes((100, 64), 0.1).requires_grad_()
    sparse.weight.requires_grad_(False)
    sparse(x).sum().backward()
    assert sparse.weight.grad is None
    assert sparse.bias.grad is not None
    assert x.grad is not None


@pytest.mark.parametrize("kind", ["linear", "conv"])
@pytest.mark.parametrize("max_density", [1.0, 0.05])
def test_compiles_without_graph_breaks(kind, max_density):
    torch._dynamo.reset()
    sparse, dense = pair(kind, *((64, 48) if kind == "linear" else (4, 48, 3)), max_density=max_density)
    compiled = torch.compile(sparse, fullgraph=True, backend="aot_eager")
    for rows in (40, 60):
        x = spikes((rows, 64) if kind == "linear" else (rows // 10, 4, 9, 8), 0.1)
        for got, expected in zip(results(compiled, x), results(dense, x), strict=True):
            torch.testing.assert_close(got, expected, rtol=1e-5, atol=1e-4)
        assert sparse.last_path.name == ("sparse" if max_density == 1 else "dense")


@pytest.mark.parametrize("kind", ["linear", "conv"])
def test_exports(kind):
    sparse, dense = pair(kind, *((64, 48) if kind == "linear" else (4, 48, 3)))
    x = spikes((40, 64) if kind == "linear" else (2, 4, 9, 8), 0.1)
    program = torch.export.export(sparse, (x,))
    torch.testing.assert_close(program.module()(x), dense(x), rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("max_density", [1.0, 0.01], ids=["sparse", "dense"])
@pytest.mark.parametrize("values", ["ones", "graded"])
def test_operators_pass_opcheck(max_density, values):
    weight = torch.randn(10, 70, requires_grad=True)
    bias = torch.randn(10, requires_grad=True)
    x = spikes((33, 70), 0.1, values=values)
    torch.library.opcheck(sparse_ops.sparse_linear, (x.clone().requires_grad_(), weight, bias, max_density))
    _, bits, status = sparse_ops.sparse_linear(x, weight.detach(), None, max_density)
    torch.library.opcheck(sparse_ops.sparse_linear_weight_gradient, (torch.randn(33, 10), x, bits, status, x.shape[1]))
    images = spikes((2, 4, 9, 8), 0.1, values=values)
    kernel = torch.randn(6, 2, 3, 3, requires_grad=True)
    geometry = ([2, 1], [1, 0], [1, 2], 2)
    image_arguments = (images.clone().requires_grad_(), kernel, torch.randn(6, requires_grad=True))
    torch.library.opcheck(sparse_ops.sparse_conv2d, (*image_arguments, *geometry, max_density))
    y, bits, status = sparse_ops.sparse_conv2d(images, kernel.detach(), None, *geometry, max_density)
    gradient_arguments = (torch.randn_like(y), images, images.shape, kernel.detach(), bits, status, *geometry)
    torch.library.opcheck(sparse_ops.sparse_conv2d_weight_gradient, gradient_arguments)


@pytest.mark.parametrize("kind", ["linear", "conv"])
@pytest.mark.parametrize("values", ["ones", "graded"])
def test_the_input_is_kept_as_bits_where_it_is_spikes(kind, values):
    sparse, dense = pair(kind, *((640, 48) if kind == "linear" else (4, 48, 3)), max_density=1.0)
    x = spikes((400, 640) if kind == "linear" else (2, 4, 32, 32), 0.1, values=values).requires_grad_()
    kept = []
    with torch.autograd.graph.saved_tensors_hooks(lambda t: kept.append(t.shape) or t, lambda t: t):
        y = sparse(x)
    assert (torch.Size(x.shape) in kept) == (values == "graded")
    gradient = torch.randn_like(y)
    ours = torch.autograd.grad(y, [x, *sparse.parameters()], gradient)
    theirs = torch.autograd.grad(dense(x), [x, *dense.parameters()], gradient)
    for p, q in zip(ours, theirs, strict=True):
        torch.testing.assert_close(p, q, rtol=1e-4, atol=1e-4)


def test_errors_name_the_layer_what_came_and_what_is_accepted():
    linear, conv = SpikeLinear(8, 4), SpikeConv2d(3, 4, 3)
    with pytest.raises(ValueError, match=r"SpikeLinear: input must be \[\.\.\., 8\].*got shape \(2, 7\)"):
        linear(torch.zeros(2, 7))
    with pytest.raises(ValueError, match=r"SpikeLinear.*got shape \(\)"):
        linear(torch.zeros(()))
    with pytest.raises(
        TypeError, match=r"SpikeLinear: input must have the weight's dtype torch.float32, got torch.int64"
    ):
        linear(torch.zeros(2, 8, dtype=torch.int64))
    with pytest.raises(TypeError, match=r"SpikeConv2d.*torch.float32, got torch.float64"):
        conv(torch.zeros(1, 3, 8, 8, dtype=torch.float64))
    with pytest.raises(ValueError, match=r"SpikeConv2d: input must be \[\.\.\., 3, H, W\].*got shape \(1, 2, 8, 8\)"):
        conv(torch.zeros(1, 2, 8, 8))
    with pytest.raises(ValueError, match=r"SpikeConv2d: input must be .* got shape \(3, 8\)"):
        conv(torch.zeros(3, 8))
    with pytest.raises(
        ValueError, match=r"SpikeConv2d: input of \(2, 8\) pixels .* smaller than the kernel of \(3, 3\)"
    ):
        conv(torch.zeros(1, 3, 2, 8))
    for make in (lambda d: SpikeLinear(8, 4, max_density=d), lambda d: SpikeConv2d(3, 4, 3, max_density=d)):
        with pytest.raises(ValueError, match=r"Spike\w+: max_density must be in \[0, 1\] or None, got 5"):
            make(5)


def test_public_names():
    assert sorted(snn.layers.__all__) == [
        "AnnealedStep",
        "DelayedConv1d",
        "DelayedConv2d",
        "DelayedLinear",
        "FoldReport",
        "FoldedLayer",
        "FoldedThreshold",
        "MPBN",
        "Path",
        "SpikeConv2d",
        "SpikeLinear",
        "anneal_sigma",
        "anneal_steps",
        "annealed_bounds",
        "annealed_sigma",
        "clamp_delays",
        "conv2d_max_density",
        "delay_parameter_groups",
        "fold_mpbn",
        "integer_threshold",
        "linear_max_density",
        "round_delays",
    ]


def test_import_does_not_load_numba():
    code = "import sys, snn.layers; sys.exit(any(name.split('.')[0] in ('numba', 'llvmlite') for name in sys.modules))"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
