"""Linear and convolution layers for inputs that are mostly zero."""

from typing import Any, Literal, NamedTuple

import torch
from torch import Tensor
from torch.nn import functional

from snn.errors import ShapeError
from snn.layers import sparse_ops, sparse_products

KERNEL_DTYPES = (torch.float32, torch.float64)
SMALLEST_PRODUCT = 100_000_000  # rows * inputs * outputs; a dense product of about 1 ms on two cores


class Path(NamedTuple):
    """What a spike-sparse layer did in its last forward pass."""

    name: str  # "sparse" or "dense"
    reason: str
    density: float | None  # share of non-zero inputs; None if they were not counted
    max_density: float  # the threshold in force; 0 means that the sparse path was ruled out by shape


def linear_max_density(rows: int, in_count: int, out_count: int) -> float:
    """Highest input density at which ``SpikeLinear`` takes the sparse path by itself.

    Measured for forward and weight gradient: the sparse path still wins at 30 % from 250 rows of 512 features on, and
    loses at any density where the whole product is so small that the fixed cost of a call counts.

    Args:
        rows: rows of the input, all leading dimensions multiplied.
        in_count: input features.
        out_count: output features.
    Returns: 0.3, or 0 where the dense product is always taken.

    >>> linear_max_density(8000, 512, 512), linear_max_density(16, 512, 512)
    (0.3, 0.0)
    """
    worthwhile = rows >= 64 and in_count >= 32 and out_count >= 32 and rows * in_count * out_count >= SMALLEST_PRODUCT
    return 0.3 if worthwhile else 0.0


def conv2d_max_density(rows: int, in_count: int, out_count: int) -> float:
    """Highest input density at which ``SpikeConv2d`` takes the sparse path by itself.

    Measured as in ``linear_max_density``. torch's convolutions are stronger than its matrix product and listing the
    taps costs time, so that few channels never pay: about 4 % at 32 channels, 16 % at 64, and 20 % from 128 on.

    Args:
        rows: output pixels of the whole batch.
        in_count: channels times taps that one output sees.
        out_count: output channels of one group.
    Returns: a density in [0, 0.2]; 0 where the dense convolution is always taken.

    >>> round(conv2d_max_density(64 * 32 * 32, 64 * 9, 64), 2), conv2d_max_density(128 * 28 * 28, 1 * 9, 32)
    (0.16, 0.0)
    """
    density = min(0.2, in_count * out_count / 230_000)
    return density if density >= 0.03 and rows * in_count * out_count >= SMALLEST_PRODUCT else 0.0


def _kernel_refusal(x: Tensor) -> str | None:
    """Why the sparse kernels cannot take x, or None if they can."""
    if x.device.type != "cpu":
        return f"the sparse kernels run on the CPU, the input is on {x.device}"
    if x.dtype not in KERNEL_DTYPES:
        return f"the sparse kernels take float32 and float64, the input is {x.dtype}"
    if torch.is_autocast_enabled(x.device.type):
        return "autocast is on"
    return None


def _check_dtype(layer: str, x: Tensor, weight: Tensor) -> None:
    if x.dtype != weight.dtype and not torch.is_autocast_enabled(x.device.type):
        raise TypeError(f"{layer}: input must have the weight's dtype {weight.dtype}, got {x.dtype}")


def _check_density(layer: str, max_density: float | None) -> None:
    if max_density is not None and not 0 <= max_density <= 1:
        raise ValueError(f"{layer}: max_density must be in [0, 1] or None, got {max_density}")


def _may_record() -> bool:
    """torch.export refuses a forward pass that leaves something on the module."""
    exporting = getattr(torch.compiler, "is_exporting", None)
    return not (exporting() if exporting is not None else torch.compiler.is_compiling())


def _path(status: Tensor | str | None, limit: float, entry_count: int) -> Path | None:
    if status is None:
        return None
    if isinstance(status, str):
        return Path("dense", status, None, limit)
    active, done = status.tolist()
    density = None if active < 0 else active / entry_count
    reasons = {
        sparse_products.SPARSE_ONES: "all non-zero inputs are 1",
        sparse_products.SPARSE_VALUES: "non-zero inputs have values",
        sparse_products.DENSE_DENSITY: "input is denser than max_density",
        sparse_products.DENSE_SHAPE: "dense is faster at this shape at any density",
    }
    return Path(
        "sparse" if done in (sparse_products.SPARSE_ONES, sparse_products.SPARSE_VALUES) else "dense",
        reasons[done],
        density,
        limit,
    )


class SpikeLinear(torch.nn.Linear):
    """``torch.nn.Linear`` for inputs that are mostly zero: y = x W^T + b.

    On the CPU, forward and weight gradient read only the rows of W and of the output gradient that belong to non-zero
    inputs; the input gradient is dense. Any values are right (spikes that are 0/1, signed, integer or graded); the time
    depends on how many are not zero. Above ``max_density``, on other devices, for other dtypes and under autocast the
    layer uses torch's dense product; ``last_path`` says which was used and why. Results equal the dense layer's to
    rounding and do not depend on the number of threads. A weight that is infinite or NaN reaches the output only
    through non-zero inputs (0 * inf is NaN in the dense product).

    Constructor, parameters and state_dict are those of ``torch.nn.Linear``.

    Args:
        max_density: share of non-zero inputs above which the dense product is used, in [0, 1]; None takes the measured
            ``linear_max_density`` of the shape, 0 is always dense, 1 always sparse.
    Input: [..., in_features], float32 or float64 for the sparse path.
    Returns: [..., out_features], dtype of the input.
    Raises: ShapeError for a wrong number of features; ValueError for max_density; TypeError for a dtype other than the weight's.

    >>> layer = SpikeLinear(512, 256)
    >>> spikes = torch.zeros(1000, 512)
    >>> spikes[:, ::50] = 1.0
    >>> torch.allclose(layer(spikes), torch.nn.functional.linear(spikes, layer.weight, layer.bias), atol=1e-5)
    True
    >>> layer.last_path.name, layer.last_path.reason
    ('sparse', 'all non-zero inputs are 1')
    """

    def __init__(
        self,
        in_features: int,
        out_features: int,
        bias: bool = True,
        device: Any = None,
        dtype: Any = None,
        *,
        max_density: float | None = None,
    ) -> None:
        _check_density("SpikeLinear", max_density)
        super().__init__(in_features, out_features, bias, device, dtype)
        self.max_density = max_density
        self._status: Tensor | str | None = None
        self._limit = 0.0
        self._entry_count = 0

    @property
    def last_path(self) -> Path | None:
        """What the last forward pass did; None before the first, and not updated while torch.export traces."""
        return _path(self._status, self._limit, self._entry_count)

    def forward(self, input: Tensor) -> Tensor:
        if input.dim() == 0 or input.shape[-1] != self.in_features:
            raise ShapeError(
                f"SpikeLinear: input must be [..., {self.in_features}] (in_features last), "
                f"got shape {tuple(input.shape)}"
            )
        _check_dtype("SpikeLinear", input, self.weight)
        x = input.reshape(input.shape[:-1].numel(), self.in_features)
        status: Tensor | str | None = _kernel_refusal(input)
        if status is None:
            limit = self.max_density
            if limit is None:
                limit = linear_max_density(x.shape[0], self.in_features, self.out_features)
            y, _, status = sparse_ops.sparse_linear(x, self.weight, self.bias, limit)
        else:
            limit = 0.0
            y = functional.linear(x, self.weight, self.bias)
        if _may_record():
            self._status, self._limit, self._entry_count = status, limit, x.numel()
        return y.view(*input.shape[:-1], self.out_features)


class SpikeConv2d(torch.nn.Conv2d):
    """``torch.nn.Conv2d`` for inputs that are mostly zero.

    As ``SpikeLinear``, with the taps of each output pixel in place of the inputs of a row: only taps that see a
    non-zero input are added up, forward and in the weight gradient; the input gradient is dense. The output is
    contiguous.

    Constructor, parameters and state_dict are those of ``torch.nn.Conv2d``; padding modes other than "zeros" pad first.

    Args:
        max_density: as in ``SpikeLinear``; None takes the measured ``conv2d_max_density``.
    Input: [..., in_channels, H, W] with any leading dimensions, float32 or float64 for the sparse path.
    Returns: [..., out_channels, H', W'], dtype of the input.
    Raises: ShapeError for a wrong shape; ValueError for max_density; TypeError for a dtype other than the weight's.

    >>> layer = SpikeConv2d(64, 64, 3, padding=1)
    >>> spikes = torch.zeros(16, 64, 16, 16)
    >>> spikes[:, ::32, ::4] = 1.0
    >>> layer(spikes).shape, layer.last_path.name
    (torch.Size([16, 64, 16, 16]), 'sparse')
    """

    def __init__(
        self,
        in_channels: int,
        out_channels: int,
        kernel_size: int | tuple[int, int],
        stride: int | tuple[int, int] = 1,
        padding: str | int | tuple[int, int] = 0,
        dilation: int | tuple[int, int] = 1,
        groups: int = 1,
        bias: bool = True,
        padding_mode: Literal["zeros", "reflect", "replicate", "circular"] = "zeros",
        device: Any = None,
        dtype: Any = None,
        *,
        max_density: float | None = None,
    ) -> None:
        _check_density("SpikeConv2d", max_density)
        super().__init__(
            in_channels, out_channels, kernel_size, stride, padding, dilation, groups, bias, padding_mode, device, dtype
        )
        self.max_density = max_density
        self._status: Tensor | str | None = None
        self._limit = 0.0
        self._entry_count = 0

    @property
    def last_path(self) -> Path | None:
        """What the last forward pass did; None before the first, and not updated while torch.export traces."""
        return _path(self._status, self._limit, self._entry_count)

    def _padded(self, x: Tensor) -> tuple[Tensor, list[int]]:
        """(input padded as far as the convolution itself cannot, zero padding left to do on both sides)."""
        around = self._reversed_padding_repeated_twice  # left, right, top, bottom
        if self.padding_mode != "zeros":
            return functional.pad(x, around, mode=self.padding_mode), [0, 0]
        if around[0] != around[1] or around[2] != around[3]:  # padding="same" and an even kernel
            return functional.pad(x, around), [0, 0]
        return x, [around[2], around[0]]

    def forward(self, input: Tensor) -> Tensor:
        if input.dim() < 3 or input.shape[-3] != self.in_channels:
            raise ShapeError(
                f"SpikeConv2d: input must be [..., {self.in_channels}, H, W] (in_channels third from last), "
                f"got shape {tuple(input.shape)}"
            )
        _check_dtype("SpikeConv2d", input, self.weight)
        leading = input.shape[:-3]
        x, padding = self._padded(input.reshape(leading.numel(), *input.shape[-3:]))
        geometry = (list(self.stride), padding, list(self.dilation), self.groups)
        height, width = sparse_products.conv2d_out_size(x.shape[2:], self.kernel_size, *geometry[:3])
        if height < 1 or width < 1:
            raise ShapeError(
                f"SpikeConv2d: input of {tuple(x.shape[2:])} pixels with padding {tuple(padding)} is smaller than the "
                f"kernel of {self.kernel_size} taps at dilation {self.dilation}"
            )
        status: Tensor | str | None = _kernel_refusal(input)
        if status is None:
            limit = self.max_density
            if limit is None:
                taps = self.weight[0].numel()
                limit = conv2d_max_density(x.shape[0] * height * width, taps, self.out_channels // self.groups)
            y, _, status = sparse_ops.sparse_conv2d(x, self.weight, self.bias, *geometry, limit)
        else:
            limit = 0.0
            y = functional.conv2d(x, self.weight, self.bias, *geometry)
        if _may_record():
            self._status, self._limit, self._entry_count = status, limit, x.numel()
        return y.view(*leading, *y.shape[1:])
