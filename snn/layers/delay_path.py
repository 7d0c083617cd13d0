"""Chooses how a delayed sum is computed: by device, kind of taps and whether gradients are wanted."""

from __future__ import annotations

import torch
from torch.nn import functional

from snn.layers.delay_gaussian import Gaussian
from snn.layers.delay_ops import TwoTap, whole_delays_forward
from snn.layers.delay_reference import delayed_linear_reference, tap_kernel_reference

KERNEL_DTYPES = (torch.float32, torch.float64)


def delayed_sum(
    x: torch.Tensor, weight: torch.Tensor, delay: torch.Tensor, max_delay: int, sigma: float | None
) -> torch.Tensor:
    """y[t, b, o] = sum_i weight[o, i] x[t - delay[o, i], b, i], with Gaussian taps of width sigma or two taps (None).

    Gaussian taps are summed at single frequencies on any device. Two taps run in Numba kernels on the CPU (whole delays
    without gradients event by event, where few inputs are not zero) and in Triton kernels on CUDA devices; on other
    devices the readable reference computes them.

    Args:
        x: [T, B, in].
        weight, delay: [out, in]; delays within [0, max_delay].
    Returns: [T, B, out] in x's dtype; sums are in float32 at least.
    """
    dtype = x.dtype if x.dtype in KERNEL_DTYPES else torch.float32
    values, w, d = x.to(dtype), weight.to(dtype), delay.to(dtype)
    if x.numel() == 0 or len(x) == 0:
        return delayed_linear_reference(values, w, d, max_delay, sigma).to(x.dtype)
    if sigma is not None:
        return Gaussian.apply(values, w, d, max_delay, sigma).to(x.dtype)
    if x.device.type == "cpu":
        wants_gradient = torch.is_grad_enabled() and any(v.requires_grad for v in (values, w, d))
        whole = not wants_gradient and torch.equal(d, d.round())
        y = whole_delays_forward(values, w, d, max_delay) if whole else TwoTap.apply(values, w, d, max_delay)
        return y.to(x.dtype)
    if x.device.type == "cuda":
        from snn.kernels.gpu import obstacle_on

        if obstacle_on(x.device) is None:
            from snn.layers.delay_gpu import TwoTapOnGPU

            return TwoTapOnGPU.apply(values, w, d, max_delay).to(x.dtype)
    return delayed_linear_reference(values, w, d, max_delay, None).to(x.dtype)


def delayed_channels(x: torch.Tensor, delay: torch.Tensor, max_delay: int, sigma: float | None) -> torch.Tensor:
    """y[t, b, c] = x[t - delay[c], b, c]: every channel of x [T, B, C] through its own delay [C]."""
    taps = tap_kernel_reference(delay.to(x.dtype), max_delay, sigma)  # [max_delay + 1, C]
    rows = functional.pad(x.permute(1, 2, 0), (max_delay, 0))  # [B, C, max_delay + T]
    return functional.conv1d(rows, taps.flip(0).t().unsqueeze(1), groups=x.shape[2]).permute(2, 0, 1)
