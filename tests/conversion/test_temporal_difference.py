"""Temporal-difference operators: known answers, and the sum of outputs against the function of the sum of inputs."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
import torch.nn.functional as F
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn

import snn
from snn.conversion.temporal_difference import (
    FUNCTIONS,
    DeltaProduct,
    SpikingAttention,
    SpikingMultiheadAttention,
    TemporalDifference,
    ValueEncoder,
    check_function,
)


def test_max_pool_difference_by_hand() -> None:
    """Streams 1,0,0,1 and 0,1,1,0: sent 1,0,1,0, in sum the larger total 2; the maximum of each step would give 4."""
    streams = torch.tensor([[1.0, 0], [0, 1], [0, 1], [1, 0]]).view(4, 1, 1, 1, 2)
    layer = TemporalDifference(nn.MaxPool2d((1, 2)))
    assert layer.sequence(streams).flatten().tolist() == [1.0, 0.0, 1.0, 0.0]
    assert F.max_pool2d(streams.flatten(0, 1), (1, 2)).sum() == 4


def test_delta_product_by_hand() -> None:
    q, k = torch.tensor([1.0, 0.0, -1.0]).view(3, 1), torch.tensor([2.0, 1.0, 0.0]).view(3, 1)
    assert DeltaProduct().sequence(q, k).flatten().tolist() == [2.0, 1.0, -3.0]


def test_value_encoder_by_hand() -> None:
    layer = ValueEncoder(0.5)
    sent = layer.sequence(torch.tensor([1.3, -0.2, 0.0, 0.45]).view(4, 1))
    assert sent.flatten().tolist() == [1.0, 0.0, 0.0, 0.5]
    assert layer.rest is not None
    assert layer.rest.item() == pytest.approx(0.05, abs=1e-6)
    layer.reset()  # what is left is rounded towards 0 on both sides
    assert layer.sequence(torch.tensor([-0.3, -0.3, -1.0, 0.3]).view(4, 1)).flatten().tolist() == [0.0, -0.5, -1.0, 0.0]


LAYERS: list[nn.Module] = [
    nn.LayerNorm(12), nn.GroupNorm(3, 6), nn.RMSNorm(12), nn.GELU(), nn.SiLU(), nn.Mish(), nn.ELU(), nn.SELU(), nn.CELU(),
    nn.Softplus(), nn.ReLU(), nn.ReLU6(), nn.LeakyReLU(), nn.Hardtanh(), nn.Hardswish(), nn.Hardsigmoid(), nn.Tanh(),
    nn.Sigmoid(), nn.Softmax(-1), nn.LogSoftmax(-1), nn.MaxPool1d(2), nn.AdaptiveMaxPool1d(3),
]  # fmt: skip


@pytest.mark.parametrize("layer", LAYERS, ids=lambda layer: type(layer).__name__)
def test_the_sum_of_outputs_is_the_function_of_the_sum(layer: nn.Module) -> None:
    streams = torch.randn(9, 4, 6, 12)
    wanted = layer(streams.double().sum(0)) if not list(layer.parameters()) else layer(streams.sum(0)).double()
    difference = TemporalDifference(layer)
    cut = torch.cat([difference.sequence(streams[:4]), difference.sequence(streams[4:])])
    scale = wanted.abs().max()
    assert ((cut.double().sum(0) - wanted).abs().max() / scale).item() < 2e-6
    difference.reset()
    assert torch.allclose(difference.sequence(streams), cut, atol=1e-6)
    assert not difference.sequence(torch.zeros(3, 4, 6, 12)).any()


def test_every_accepted_function_is_tested() -> None:
    tested = {type(layer) for layer in LAYERS}
    pools = {nn.MaxPool2d, nn.MaxPool3d, nn.AdaptiveMaxPool2d, nn.AdaptiveMaxPool3d}
    assert tested | pools == set(FUNCTIONS)


@settings(max_examples=40, deadline=None)
@given(st.integers(1, 6), st.integers(0, 2**31 - 1), st.booleans(), st.integers(1, 5))
def test_dyadic_products_are_exact_for_every_split_of_a_run(T: int, seed: int, matrix: bool, cut: int) -> None:
    generator = torch.Generator().manual_seed(seed)
    a = torch.randint(-8, 9, (T, 2, 3, 4), generator=generator).double() / 4
    b = torch.randint(-8, 9, (T, 2, 4, 5) if matrix else (T, 2, 3, 1), generator=generator).double() / 8
    layer = DeltaProduct(matrix)
    outputs = torch.cat([layer.sequence(a[i : i + cut], b[i : i + cut]) for i in range(0, T, cut)])
    product: Callable[..., torch.Tensor] = torch.matmul if matrix else torch.mul
    assert torch.equal(outputs.sum(0), product(a.sum(0), b.sum(0)))
    sums = product(a.cumsum(0), b.cumsum(0))
    assert torch.equal(outputs, sums.diff(dim=0, prepend=torch.zeros_like(sums[:1])))


@pytest.mark.parametrize("is_causal", [False, True])
def test_attention_sums_to_torchs(is_causal: bool) -> None:
    q, k, v = (torch.randn(7, 2, 3, 5, 8, dtype=torch.float64) for _ in range(3))
    layer = SpikingAttention(is_causal)
    total = torch.cat([layer.sequence(q[:3], k[:3], v[:3]), layer.sequence(q[3:], k[3:], v[3:])]).sum(0)
    wanted = F.scaled_dot_product_attention(q.sum(0), k.sum(0), v.sum(0), is_causal=is_causal)
    assert torch.allclose(total, wanted, atol=1e-12)
    layer.reset()
    assert torch.allclose(layer.sequence(q, k, v).sum(0), wanted, atol=1e-12)


@pytest.mark.parametrize("arguments", [{}, {"bias": False}, {"kdim": 6, "vdim": 10}], ids=str)
def test_multihead_attention_sums_to_torchs(arguments: dict[str, int]) -> None:
    attention = nn.MultiheadAttention(12, 3, batch_first=True, **arguments).double().eval()  # type: ignore[arg-type]
    for bias in (attention.in_proj_bias, attention.out_proj.bias):
        if bias is not None:
            nn.init.normal_(bias)
    query = torch.randn(4, 2, 5, 12, dtype=torch.float64)
    key = torch.randn(4, 2, 7, arguments.get("kdim", 12), dtype=torch.float64)
    value = torch.randn(4, 2, 7, arguments.get("vdim", 12), dtype=torch.float64)
    layer = SpikingMultiheadAttention(attention)
    for _ in range(2):
        layer.reset()
        total = layer.sequence(query, key, value).sum(0)
        wanted, _ = attention(query.sum(0), key.sum(0), value.sum(0))
        assert torch.allclose(total, wanted, atol=1e-12)
    layer.reset()  # and when the run is cut: biases come once
    parts = [layer.sequence(query[i:j], key[i:j], value[i:j]) for i, j in ((0, 1), (1, 4))]
    assert torch.allclose(torch.cat(parts).sum(0), wanted, atol=1e-12)


def test_the_encoder_keeps_less_than_a_step() -> None:
    x = torch.randn(50, 3, 4, dtype=torch.float64)
    layer = ValueEncoder(0.25).double()
    sent = torch.cat([layer.sequence(x[:20]), layer.sequence(x[20:])])
    assert torch.equal(sent / 0.25, (sent / 0.25).round())
    assert ((sent.cumsum(0) - x.cumsum(0)).abs() < 0.25 + 1e-12).all()


def test_refusals_say_what_to_change() -> None:
    with pytest.raises(snn.UnsupportedError, match="batch_first=True"):
        SpikingMultiheadAttention(nn.MultiheadAttention(8, 2))
    with pytest.raises(snn.UnsupportedError, match="add_bias_kv or add_zero_attn"):
        SpikingMultiheadAttention(nn.MultiheadAttention(8, 2, add_bias_kv=True, batch_first=True))
    with pytest.raises(snn.UnsupportedError, match="add_bias_kv or add_zero_attn"):
        SpikingMultiheadAttention(nn.MultiheadAttention(8, 2, add_zero_attn=True, batch_first=True))
    with pytest.raises(snn.UnsupportedError, match="return_indices=False"):
        check_function(nn.MaxPool2d(2, return_indices=True))
    with pytest.raises(ValueError, match="step must be > 0"):
        ValueEncoder(0.0)


def test_another_batch_without_reset_is_refused() -> None:
    layer = TemporalDifference(nn.GELU())
    layer.sequence(torch.randn(2, 3, 4))
    with pytest.raises(snn.ShapeError, match=r"\(3, 4\).*\(5, 4\); call reset"):
        layer.sequence(torch.randn(2, 5, 4))
