"""Temporal-difference operators: each step they send by how much their result for the input so far has changed.

The sum of what they send is then the function of the sum of what they received, whatever the order and for any
function, which a rate cannot give.
"""

from __future__ import annotations

import math

import torch
from torch import nn
from torch.nn import functional as F

from snn.conversion.layers import Timed
from snn.errors import ShapeError, UnsupportedError


class _Sums:
    """Running sums over steps of one signal, continued from call to call."""

    def __init__(self) -> None:
        self.value: torch.Tensor | None = None

    def add(self, x: torch.Tensor, layer: str) -> tuple[torch.Tensor, torch.Tensor]:
        """(sums before each step, sums with each step), both like x [T, B, ...]."""
        before = torch.zeros_like(x[0]) if self.value is None else self.value
        if before.shape != x.shape[1:]:
            raise ShapeError(
                f"{layer}: its memory has shape {tuple(before.shape)}, one step of the input has {tuple(x.shape[1:])}; "
                "call reset() between batches"
            )
        sums = torch.cat([before.unsqueeze(0), x]).cumsum(0)
        self.value = sums[-1]
        return sums[:-1], sums[1:]


class TemporalDifference(Timed):
    """Any function of one or more signals: sends f(X) - f(X of the step before), with X the sums of the inputs so far.

    The first step sends f(X) whole, so that what f gives for zero input is sent once.

    Args:
        function: module on [B, ...] signals, without memory of its own and without randomness.
    Input: one sequence [T, B, ...] per signal. Returns: [T, B, ...].
    Raises: ShapeError for another batch without a reset.
    Source: SpikeZIP-TF (You et al., ICML 2024) and STA (Jiang et al., ICLR 2024) for softmax, LayerNorm and GELU;
        spike max pooling of SpikeZIP-TF is the same with f = max pool.

    >>> pool = TemporalDifference(nn.MaxPool1d(2))
    >>> pool.sequence(torch.tensor([[1.0, 0], [0, 1], [0, 1], [1, 0]]).view(4, 1, 1, 2)).flatten().tolist()
    [1.0, 0.0, 1.0, 0.0]
    """

    def __init__(self, function: nn.Module) -> None:
        super().__init__()
        self.function = function
        self.reset()

    def reset(self) -> None:
        self._sums: list[_Sums] = []
        self._result: torch.Tensor | None = None

    def sequence(self, *x: torch.Tensor) -> torch.Tensor:
        if not self._sums:
            self._sums = [_Sums() for _ in x]
        if self._result is not None and not any(bool(part.any()) for part in x):
            return torch.zeros_like(self._result).expand(len(x[0]), *self._result.shape)
        name = f"TemporalDifference of {type(self.function).__name__}"
        inputs = [sums.add(part, name)[1].flatten(0, 1) for sums, part in zip(self._sums, x, strict=True)]
        results = self.function(*inputs).unflatten(0, x[0].shape[:2])
        before = torch.zeros_like(results[:1]) if self._result is None else self._result.unsqueeze(0)
        self._result = results[-1].clone()
        return results.diff(dim=0, prepend=before)


class DeltaProduct(Timed):
    """Product of two signals, by what arrives: sends A b + a B', with A the sum of a with this step, B' of b without.

    This is A B - A' B', written so that a step without input costs nothing. In the other usual form it is
    A b + a B - a b with both sums up to this step.

    Args:
        matrix: True for the matrix product a @ b, False for the elementwise one (with broadcasting).
    Input: two sequences [T, B, ...]. Returns: [T, B, ...].

    >>> q, k = torch.tensor([1.0, 0.0, -1.0]).view(3, 1), torch.tensor([2.0, 1.0, 0.0]).view(3, 1)
    >>> DeltaProduct().sequence(q, k).flatten().tolist()
    [2.0, 1.0, -3.0]
    """

    def __init__(self, matrix: bool = False) -> None:
        super().__init__()
        self.matrix = matrix
        self.reset()

    def reset(self) -> None:
        self._a, self._b = _Sums(), _Sums()

    def sequence(self, *x: torch.Tensor) -> torch.Tensor:
        a, b = x
        product = torch.matmul if self.matrix else torch.mul
        _, with_this = self._a.add(a, "DeltaProduct")
        without_this, _ = self._b.add(b, "DeltaProduct")
        y: torch.Tensor = product(with_this, b) + product(a, without_this)
        return y

    def extra_repr(self) -> str:
        return f"matrix={self.matrix}"


class BiasOnce(Timed):
    """A linear layer that adds its bias in the first step alone, so that the sum over steps holds it once."""

    def __init__(self, layer: nn.Linear) -> None:
        super().__init__()
        self.layer = layer
        self.reset()

    def reset(self) -> None:
        self._started = False

    def sequence(self, *x: torch.Tensor) -> torch.Tensor:
        (signal,) = x
        y = F.linear(signal, self.layer.weight)
        if self.layer.bias is not None and not self._started:
            y[0] += self.layer.bias
        self._started = True
        return y


class _MaskedSoftmax(nn.Module):
    """Softmax over the last dimension of scores [..., L, S], of which a causal mask hides those with S > L."""

    def __init__(self, is_causal: bool) -> None:
        super().__init__()
        self.is_causal = is_causal

    def forward(self, scores: torch.Tensor) -> torch.Tensor:
        if self.is_causal:
            seen = torch.ones(scores.shape[-2:], dtype=torch.bool, device=scores.device).tril()
            scores = scores.masked_fill(~seen, -math.inf)
        return scores.softmax(-1)


class SpikingAttention(Timed):
    """softmax(q k' scale) v of three signals: two delta products around a temporal-difference softmax.

    Args:
        is_causal: True hides later positions.
        scale: factor before the softmax; None takes 1 / sqrt(size of a query).
    Input: q [T, B, ..., L, E], k [T, B, ..., S, E], v [T, B, ..., S, D]. Returns: [T, B, ..., L, D].
    """

    def __init__(self, is_causal: bool = False, scale: float | None = None) -> None:
        super().__init__()
        self.scale = scale
        self.scores = DeltaProduct(matrix=True)
        self.weights = TemporalDifference(_MaskedSoftmax(is_causal))
        self.values = DeltaProduct(matrix=True)

    def reset(self) -> None:
        for part in (self.scores, self.weights, self.values):
            part.reset()

    def sequence(self, *x: torch.Tensor) -> torch.Tensor:
        q, k, v = x
        scale = 1.0 / math.sqrt(q.shape[-1]) if self.scale is None else self.scale
        scores = self.scores.sequence(q * scale, k.transpose(-2, -1))
        return self.values.sequence(self.weights.sequence(scores), v)


class SpikingMultiheadAttention(Timed):
    """`nn.MultiheadAttention` on signals: projections with their bias once, and `SpikingAttention` per head.

    Args:
        attention: batch_first, without dropout in use, without bias_k, bias_v and added zeros; it is read, not kept.
        is_causal: True hides later positions.
    Input: query, key, value [T, B, L or S, features]. Returns: [T, B, L, embed_dim].
    Raises: UnsupportedError for an attention layer outside this.
    """

    def __init__(self, attention: nn.MultiheadAttention, is_causal: bool = False) -> None:
        super().__init__()
        if not attention.batch_first:
            raise UnsupportedError(
                "MultiheadAttention must be made with batch_first=True: the first dimension is batch"
            )
        if attention.bias_k is not None or attention.add_zero_attn:
            raise UnsupportedError("MultiheadAttention with add_bias_kv or add_zero_attn is not supported")
        self.heads = attention.num_heads
        if attention._qkv_same_embed_dim:
            weights = attention.in_proj_weight.chunk(3)
        else:
            weights = (attention.q_proj_weight, attention.k_proj_weight, attention.v_proj_weight)
        biases = (None, None, None) if attention.in_proj_bias is None else attention.in_proj_bias.chunk(3)
        self.query, self.key, self.value = (
            BiasOnce(_linear(weight, bias)) for weight, bias in zip(weights, biases, strict=True)
        )
        self.out = BiasOnce(_linear(attention.out_proj.weight, attention.out_proj.bias))
        self.attention = SpikingAttention(is_causal)

    def reset(self) -> None:
        for part in (self.query, self.key, self.value, self.out, self.attention):
            part.reset()

    def sequence(self, *x: torch.Tensor) -> torch.Tensor:
        projections = (self.query, self.key, self.value)
        signals = [
            projection.sequence(part).unflatten(-1, (self.heads, -1)).transpose(-3, -2)  # [T, B, heads, L, E]
            for projection, part in zip(projections, x, strict=True)
        ]
        mixed = self.attention.sequence(*signals)
        return self.out.sequence(mixed.transpose(-3, -2).flatten(-2))


class ValueEncoder(Timed):
    """Turns real values into whole numbers of steps: sends n step with n = trunc(u / step), and keeps u - n step.

    The sum of what was sent differs from that of what came by less than one step.

    Args:
        step: value of one event, > 0; nan until it is set.
    Source: the encoder of STA (Jiang et al., ICLR 2024), as SpikingJelly has it behind its operators.

    >>> ValueEncoder(0.5).sequence(torch.tensor([1.3, -0.2, 0.0, 0.45]).view(4, 1)).flatten().tolist()
    [1.0, 0.0, 0.0, 0.5]
    """

    step: torch.Tensor

    def __init__(self, step: float = math.nan) -> None:
        super().__init__()
        if step <= 0:
            raise ValueError(f"ValueEncoder: step must be > 0, got {step}")
        self.register_buffer("step", torch.tensor(float(step)))
        self.reset()

    def reset(self) -> None:
        self.rest: torch.Tensor | None = None

    def sequence(self, *x: torch.Tensor) -> torch.Tensor:
        (signal,) = x
        if bool(self.step.isnan()):
            raise ValueError("ValueEncoder: the step is not set; calibrate the network or load its state_dict")
        rest = torch.zeros_like(signal[0]) if self.rest is None else self.rest
        sent = []
        for current in signal:
            held = rest + current
            sent.append((held / self.step).trunc() * self.step)
            rest = held - sent[-1]
        self.rest = rest
        return torch.stack(sent)


class Encoded(Timed):
    """An operator with a `ValueEncoder` behind it."""

    def __init__(self, operator: Timed) -> None:
        super().__init__()
        self.operator = operator
        self.encoder = ValueEncoder()

    def reset(self) -> None:
        self.operator.reset()
        self.encoder.reset()

    def sequence(self, *x: torch.Tensor) -> torch.Tensor:
        return self.encoder.sequence(self.operator.sequence(*x))


def _linear(weight: torch.Tensor, bias: torch.Tensor | None) -> nn.Linear:
    layer = nn.Linear(weight.shape[1], weight.shape[0], bias=bias is not None, device="meta")
    layer.weight = nn.Parameter(weight.detach().clone(), requires_grad=False)
    if bias is not None:
        layer.bias = nn.Parameter(bias.detach().clone(), requires_grad=False)
    return layer


FUNCTIONS: tuple[type[nn.Module], ...] = (
    nn.LayerNorm, nn.GroupNorm, nn.RMSNorm, nn.GELU, nn.SiLU, nn.Mish, nn.ELU, nn.SELU, nn.CELU, nn.Softplus, nn.ReLU,
    nn.ReLU6, nn.LeakyReLU, nn.Hardtanh, nn.Hardswish, nn.Hardsigmoid, nn.Tanh, nn.Sigmoid, nn.Softmax, nn.LogSoftmax,
    nn.MaxPool1d, nn.MaxPool2d, nn.MaxPool3d, nn.AdaptiveMaxPool1d, nn.AdaptiveMaxPool2d, nn.AdaptiveMaxPool3d,
)  # fmt: skip
"""Layers that a `TemporalDifference` may hold: functions of their one input alone, row by row of the batch."""


def check_function(layer: nn.Module) -> None:
    """Refuses a layer whose form has no temporal difference.

    Raises:
        UnsupportedError: it returns indices besides values.
    """
    if getattr(layer, "return_indices", False):
        raise UnsupportedError("it returns indices, which have no sum over steps; make it with return_indices=False")
