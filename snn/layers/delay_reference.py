"""The delayed layers in a few readable lines; every fast path must give these values and gradients."""

from __future__ import annotations

import torch

NORM_FLOOR = 1e-7


def tap_kernel_reference(delay: torch.Tensor, max_delay: int, sigma: float | None) -> torch.Tensor:
    """Share of each whole delay 0..max_delay in the delays `delay`, [max_delay + 1, *delay.shape].

    gaussian:  e_n = exp(-((n - delay) / sigma)^2 / 2),  share_n = e_n / (1e-7 + sum_n e_n)
    two-tap (sigma None):  1 - r at floor(delay) and r at floor(delay) + 1, where r = delay - floor(delay).

    Args:
        delay: delays in steps, within [0, max_delay].
        max_delay: largest delay in steps.
        sigma: width in steps, or None.
    Source: Hammouamri et al., ICLR 2024 (DCLS-Delays), kernels "gauss" and "v0", written over delays, not positions.
    """
    steps = torch.arange(max_delay + 1, dtype=delay.dtype, device=delay.device).view(-1, *(1 for _ in delay.shape))
    if sigma is not None:
        bump = torch.exp(-0.5 * ((steps - delay) / sigma) ** 2)
        return bump / (NORM_FLOOR + bump.sum(0))
    whole = delay.detach().floor()
    rest = delay - whole
    return (steps == whole) * (1 - rest) + (steps == whole + 1) * rest


def delayed_linear_reference(
    x: torch.Tensor, weight: torch.Tensor, delay: torch.Tensor, max_delay: int, sigma: float | None
) -> torch.Tensor:
    """y[t, b, o] = sum over i and n of weight[o, i] share[n, o, i] x[t - n, b, i], with x = 0 before its start.

    Args:
        x: [T, B, in].
        weight, delay: [out, in].
        max_delay, sigma: as in `tap_kernel_reference`.
    Returns: [T, B, out].
    """
    kernel = weight * tap_kernel_reference(delay, max_delay, sigma)
    y = torch.zeros(*x.shape[:2], weight.shape[0], dtype=x.dtype, device=x.device)
    for n in range(min(max_delay + 1, len(x))):
        late = torch.nn.functional.linear(x[: len(x) - n], kernel[n])
        y = y + torch.cat([torch.zeros_like(y[:n]), late])
    return y
