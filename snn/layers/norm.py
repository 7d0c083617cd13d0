"""Batch normalisation of the membrane potential."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal

import torch
from torch import nn

from snn.errors import ShapeError
from snn.neurons.membrane import CARRIED, COMPARED, MembraneNorm, MembraneView


class MPBN(MembraneNorm):
    """Membrane-potential batch normalisation, given to a neuron as `membrane_norm`.

    In each step, between charge and fire:  z = weight (h - mean) / sqrt(var + eps) + bias, and the neuron fires where
    z >= v_threshold. In training every step is normalised with its own batch statistics and moves the running ones, so
    a call over T steps moves them T times; in evaluation the running ones make it one affine map per channel, which is
    part of the neuron's kernel.

    Args:
        features: number of channels C (statistics over batch and pixels; inputs [B, C], [B, C, L], [B, C, H, W]), or
            the whole shape of one sample, (C, H, W) or (N,) (statistics over the batch alone).
        eps: added to the variance.
        momentum: share of the new statistics in the running ones, at every step, in (0, 1].
        carry: "raw" hands the membrane h itself to the reset and to the next step (Guo et al.; can be folded into a
            threshold), "normalised" hands z on (SpikingJelly's MPBNLIFNode).
        steps: number of steps T that keep running statistics of their own; None keeps one set for all steps.
        sync: in training with torch.distributed, statistics are those of all processes together.
    Attributes: weight, bias [features]; running_mean, running_var [features] or [steps, features];
        num_batches_tracked, which counts steps.
    Raises: ValueError for a value outside its range, or in training for a single value per channel; ShapeError for an
        input of another size.
    Source: Guo et al., Membrane Potential Batch Normalization for Spiking Neural Networks, ICCV 2023, and its released
        code; statistics per step and synchronised ones are additions.

    >>> from snn import LIF
    >>> layer = LIF(tau=4.0, step_mode="m", membrane_norm=MPBN(16))
    >>> layer(torch.randn(2, 8, 16, 5, 5)).shape, int(layer.membrane_norm.num_batches_tracked)
    (torch.Size([2, 8, 16, 5, 5]), 2)
    """

    running_mean: torch.Tensor
    running_var: torch.Tensor
    num_batches_tracked: torch.Tensor

    def __init__(
        self,
        features: int | Sequence[int],
        eps: float = 1e-5,
        momentum: float = 0.1,
        carry: Literal["raw", "normalised"] = "raw",
        steps: int | None = None,
        sync: bool = True,
    ) -> None:
        super().__init__()
        shape = (features,) if isinstance(features, int) else tuple(features)
        if not shape or any(not isinstance(size, int) or isinstance(size, bool) or size < 1 for size in shape):
            raise ValueError(f"MPBN: features must be a positive number or a shape of such, got {features!r}")
        if not eps > 0:
            raise ValueError(f"MPBN: eps must be > 0, got {eps}")
        if not 0 < momentum <= 1:
            raise ValueError(f"MPBN: momentum must be in (0, 1], got {momentum}")
        if carry not in ("raw", "normalised"):
            raise ValueError(f"MPBN: carry must be 'raw' or 'normalised', got {carry!r}")
        if steps is not None and steps < 1:
            raise ValueError(f"MPBN: steps must be >= 1 or None, got {steps}")
        self.shape = shape
        self.elementwise = not isinstance(features, int)
        self.eps = eps
        self.momentum = momentum
        self.carry = carry
        self.step_count = steps
        self.sync = sync
        self.dims: int | None = None  # of one step of the last input; folding needs it to shape thresholds
        self.weight = nn.Parameter(torch.ones(shape))
        self.bias = nn.Parameter(torch.zeros(shape))
        rows = shape if steps is None else (steps, *shape)
        self.register_buffer("running_mean", torch.zeros(rows))
        self.register_buffer("running_var", torch.ones(rows))
        self.register_buffer("num_batches_tracked", torch.tensor(0))

    @property
    def view(self) -> MembraneView:  # type: ignore[override]
        return COMPARED if self.carry == "raw" else CARRIED

    @property
    def uses_batch(self) -> bool:
        return self.training

    def values(self, step: int, dims: int) -> dict[str, torch.Tensor]:
        """Scale and shift from the running statistics."""
        row = () if self.step_count is None else (step,)
        return self._map(self.running_mean[row], self.running_var[row], dims)

    def batch_values(
        self, mean: torch.Tensor, var: torch.Tensor, count: int, step: int, dims: int
    ) -> dict[str, torch.Tensor]:
        """Scale and shift from the batch, whose statistics move the running ones."""
        if self.sync and torch.distributed.is_available() and torch.distributed.is_initialized():
            mean, var, count = _over_processes(mean, var, count)
        if count < 2:
            raise ValueError("MPBN: training needs more than one value per channel, got a batch of 1")
        with torch.no_grad():
            row = () if self.step_count is None else (step,)
            for running, new in ((self.running_mean, mean), (self.running_var, var * (count / (count - 1)))):
                running[row].lerp_(new.to(running.dtype), self.momentum)
            self.num_batches_tracked += 1
        return self._map(mean, var, dims)

    def check_call(self, x: torch.Tensor, continued: bool) -> None:
        """Raises ShapeError for other features, ValueError for steps that have no statistics of their own."""
        given = tuple(x.shape[2:]) if self.elementwise else tuple(x.shape[2:3])
        if given != self.shape:
            form = f"[T, B, {', '.join(map(str, self.shape))}{'' if self.elementwise else ', ...'}]"
            raise ShapeError(f"MPBN: input must be {form}, got shape {tuple(x.shape)}")
        self.dims = x.dim() - 1
        if self.step_count is not None and (continued or len(x) != self.step_count):
            came = "a call that continues from a state" if continued else f"{len(x)}"
            raise ValueError(
                f"MPBN: statistics per step need all {self.step_count} steps in one call (step mode 'm'), got {came}"
            )

    def folded_terms(self) -> tuple[torch.Tensor, ...]:
        """(weight, bias, mean, standard deviation) of the evaluation, in float64, broadcast over steps if any."""
        mean, var = self.running_mean.double(), self.running_var.double()
        return self.weight.detach().double(), self.bias.detach().double(), mean, torch.sqrt(var + self.eps)

    def _map(self, mean: torch.Tensor, var: torch.Tensor, dims: int) -> dict[str, torch.Tensor]:
        scale = self.weight * torch.rsqrt(var + self.eps)
        shift = self.bias - scale * mean
        if not self.elementwise:
            trailing = (len(scale), *(1 for _ in range(dims - 2)))
            scale, shift = scale.view(trailing), shift.view(trailing)
        return {"norm_scale": scale, "norm_shift": shift}

    def extra_repr(self) -> str:
        features = self.shape if self.elementwise else self.shape[0]
        return f"{features}, eps={self.eps}, momentum={self.momentum}, carry={self.carry!r}, steps={self.step_count}"


def _over_processes(mean: torch.Tensor, var: torch.Tensor, count: int) -> tuple[torch.Tensor, torch.Tensor, int]:
    """Mean, biased variance and count of all processes' values together; gradients flow to every process."""
    from torch.distributed.nn.functional import all_reduce

    counts = torch.tensor([float(count)], dtype=mean.dtype, device=mean.device)
    torch.distributed.all_reduce(counts)
    total = int(counts.item())
    share = count / total
    whole = all_reduce(mean * share)
    spread = all_reduce((var + (mean - whole) ** 2) * share)
    return whole, spread, total
