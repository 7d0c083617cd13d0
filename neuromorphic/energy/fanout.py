"""How many products each entry of an input takes part in, and the sum of that over the non-zero entries.

Exact for stride, padding, dilation and groups: the fan-out of an input position is a product over the spatial axes, so
one small map per layer and input shape is enough and no convolution with ones is needed.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from math import prod

import numpy as np
import numpy.typing as npt
import torch
from numba import njit, prange
from torch import nn

from neuromorphic.energy.counts import Events

Integers = npt.NDArray[np.int64]


@dataclass(frozen=True, eq=False)
class FanOut:
    """Products per input entry.

    Attributes:
        every: int64 [P], zero weights included, the same for each of the C channels.
        nonzero: int64 [C, P], zero weights left out.
        dense: sum over all entries of `every`, padding left out.
        dense_padded: the same with padding positions counted.
        weights: how many weights are not zero.
        is_full: no weight is zero, so `nonzero` equals `every` for each channel.
    """

    every: Integers
    nonzero: Integers
    dense: int
    dense_padded: int
    weights: int
    is_full: bool


def linear_fanout(weight: torch.Tensor) -> FanOut:
    """Fan-out of a linear layer's inputs; weight [out, in]."""
    out_count, in_count = weight.shape
    every = np.full(in_count, out_count, dtype=np.int64)
    dense, weights = in_count * out_count, int(torch.count_nonzero(weight))
    full = weights == weight.numel()
    nonzero = every if full else _array(weight.ne(0).sum(0))
    return FanOut(every, nonzero.reshape(1, in_count), dense, dense, weights, full)


def conv_fanout(
    layer: nn.modules.conv._ConvNd, weight: torch.Tensor, size: Sequence[int], out: Sequence[int]
) -> FanOut:
    """Fan-out of the inputs of a convolution or transposed convolution.

    Args:
        layer: for its stride, padding, dilation, groups and padding mode.
        weight: [Cout, Cin / groups, *kernel]; transposed [Cin, Cout / groups, *kernel].
        size, out: spatial size of input and output.
    """
    axes = [_axis_taps(layer, axis, size[axis], out[axis]) for axis in range(len(size))]
    groups, kernel = layer.groups, weight.shape[2:]
    present = weight.ne(0)
    if layer.transposed:
        out_per_group, in_channels = weight.shape[1], weight.shape[0]
        taps = present.sum(1)
        dense_padded = in_channels * prod(size) * out_per_group * prod(kernel)
    else:
        out_per_group, in_channels = weight.shape[0] // groups, weight.shape[1] * groups
        taps = present.unflatten(0, (groups, out_per_group)).sum(1).flatten(0, 1)
        dense_padded = weight.shape[0] * prod(out) * weight.shape[1] * prod(kernel)
    every = np.array(out_per_group, dtype=np.int64)
    nonzero = _array(taps)  # [Cin, *kernel]
    weights = int(nonzero.sum())
    for reached in axes:
        every = np.multiply.outer(every, reached.sum(0))
        # The kernel axis in front of the spatial ones done so far becomes the last, spatial, one.
        nonzero = np.tensordot(nonzero, reached, axes=([1], [0]))
    dense = in_channels * int(every.sum())
    full = weights == weight.numel()
    return FanOut(every.reshape(-1), nonzero.reshape(in_channels, -1), dense, dense_padded, weights, full)


def _axis_taps(layer: nn.modules.conv._ConvNd, axis: int, size: int, out: int) -> Integers:
    """How often kernel tap k meets input position i along one axis, int64 [kernel, size]."""
    kernel, stride, dilation = layer.kernel_size[axis], layer.stride[axis], layer.dilation[axis]
    before, after = padding_pairs(layer)[axis]
    taps = np.arange(kernel)[:, None] * dilation
    if layer.transposed:
        reached = np.arange(size)[None, :] * stride + taps - before
        return ((reached >= 0) & (reached < out)).astype(np.int64)
    padded = taps + np.arange(out)[None, :] * stride  # [kernel, out], positions in the padded input
    source = _source_positions(layer.padding_mode, size, before, after)[padded]
    counts = np.zeros((kernel, size), dtype=np.int64)
    tap, _ = np.nonzero(source >= 0)
    np.add.at(counts, (tap, source[source >= 0]), 1)
    return counts


def _source_positions(mode: str, size: int, before: int, after: int) -> Integers:
    """Input position that each position of the padded axis copies; -1 where the padding is zero."""
    inside = torch.arange(size, dtype=torch.float64)
    if mode == "zeros":
        return np.concatenate([np.full(before, -1), np.arange(size), np.full(after, -1)]).astype(np.int64)
    padded = nn.functional.pad(inside.view(1, 1, size), (before, after), mode=mode)
    return padded.view(-1).numpy().astype(np.int64)


def padding_pairs(layer: nn.modules.conv._ConvNd) -> tuple[tuple[int, int], ...]:
    """Padding (before, after) of each spatial axis, "same" and "valid" spelled out."""
    if layer.padding == "valid":
        return tuple((0, 0) for _ in layer.kernel_size)
    if layer.padding == "same":
        totals = [d * (k - 1) for d, k in zip(layer.dilation, layer.kernel_size, strict=True)]
        return tuple((total // 2, total - total // 2) for total in totals)
    return tuple((int(p), int(p)) for p in layer.padding)


def events(x: torch.Tensor, fanout: FanOut) -> tuple[Events, Events, Events]:
    """Non-zero entries and products of each row: (entries, products, products without zero weights), int64 [R].

    Args:
        x: [R, C, P] with the C and P of `fanout`.
    """
    channels, positions = fanout.nonzero.shape
    if x.device.type != "cpu":
        return events_reference(x, fanout)
    if x.dtype not in (torch.float32, torch.float64):
        x = x.ne(0).to(torch.float32)
    values = x.detach().reshape(-1, channels, positions).contiguous().numpy()
    found = np.zeros((3, len(values)), dtype=np.int64)
    if (fanout.every == fanout.every[:1]).all():
        _count_nonzeros(values.reshape(len(values), -1), found[0])
        found[1] = found[0] * fanout.every[:1]
    else:
        _sum_events(values, fanout.every, found)
    if fanout.is_full:
        found[2] = found[1]
    else:
        _sum_weighted(values, fanout.nonzero.astype(np.int32), found[2])
    return found[0], found[1], found[2]


def events_reference(x: torch.Tensor, fanout: FanOut) -> tuple[Events, Events, Events]:
    """The same as `events` in torch operations, on the device of `x`.

    Sums run in float64, exact below 2^53.
    """
    channels, positions = fanout.nonzero.shape
    present = x.detach().reshape(-1, channels, positions).ne(0).to(torch.float64)
    every = torch.from_numpy(fanout.every).to(present)
    nonzero = torch.from_numpy(fanout.nonzero).to(present)
    sums = (present.sum((1, 2)), (present.sum(1) * every).sum(1), (present * nonzero).sum((1, 2)))
    return (_array(sums[0]), _array(sums[1]), _array(sums[2]))


def nonzeros(x: torch.Tensor, steps: int, samples: int) -> Events:
    """Non-zero entries of each step and sample, int64 [steps, B], of a tensor whose leading entries are steps and B."""
    rows = x.detach().reshape(steps * samples, -1)
    if x.device.type != "cpu" or x.dtype not in (torch.float32, torch.float64):
        return _array(torch.count_nonzero(rows, dim=1)).reshape(steps, samples)
    found = np.zeros(len(rows), dtype=np.int64)
    _count_nonzeros(rows.contiguous().numpy(), found)
    return found.reshape(steps, samples)


def magnitudes(x: torch.Tensor, steps: int, samples: int, scale: float = 1.0) -> Events:
    """Sum of |x| / scale of each step and sample, int64 [steps, B], for whole numbers of `scale`."""
    rows = x.detach().reshape(steps * samples, -1).to(torch.float64).abs().sum(1) / scale
    return _array(rows.round()).reshape(steps, samples)


def _array(x: torch.Tensor) -> Integers:
    return x.cpu().to(torch.int64).numpy()


@njit(cache=True, nogil=True, error_model="numpy", parallel=True)
def _sum_events(values, every, found):  # type: ignore[no-untyped-def]  # pragma: no cover - compiled
    rows, channels, positions = values.shape
    for r in prange(rows):
        present = np.zeros(positions, dtype=np.int32)
        for c in range(channels):
            row = values[r, c]
            for p in range(positions):
                present[p] += np.int32(row[p] != 0)
        entries = np.int64(0)
        products = np.int64(0)
        for p in range(positions):
            entries += present[p]
            products += present[p] * every[p]
        found[0, r] = entries
        found[1, r] = products


@njit(cache=True, nogil=True, error_model="numpy", parallel=True)
def _sum_weighted(values, weights, found):  # type: ignore[no-untyped-def]  # pragma: no cover - compiled
    rows, channels, positions = values.shape
    for r in prange(rows):
        products = np.int64(0)
        for c in range(channels):
            row = values[r, c]
            weight = weights[c]
            for p in range(positions):
                products += weight[p] if row[p] != 0 else np.int32(0)
        found[r] = products


@njit(cache=True, nogil=True, error_model="numpy", parallel=True)
def _count_nonzeros(values, found):  # type: ignore[no-untyped-def]  # pragma: no cover - compiled
    rows, entries = values.shape
    for r in prange(rows):
        row = values[r]
        present = np.int64(0)
        for start in range(0, entries, 4096):
            # Blocks keep the inner sum in 32 bits, twice as many to a vector.
            block = np.int32(0)
            for i in range(start, min(start + 4096, entries)):
                block += np.int32(row[i] != 0)
            present += block
        found[r] = present
