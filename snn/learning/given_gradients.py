"""Hands gradients that a rule has worked out by itself to torch, as if they came from a backward pass."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch

from snn.learning.linear_maps import Gradients
from snn.training.bptt import Backward


class _Given(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, loss: torch.Tensor, gradients: list[torch.Tensor], *parameters: torch.Tensor) -> torch.Tensor:
        ctx.gradients = gradients
        return loss.clone()

    @staticmethod
    def backward(ctx: Any, *grads: torch.Tensor) -> tuple[torch.Tensor | None, ...]:
        (scale,) = grads
        # The scale of mixed precision; without it the gradients are handed on as they are.
        scaled = scale.item() != 1.0
        handed = [gradient * scale if scaled else gradient for gradient in ctx.gradients]
        # A gradient that nobody else holds becomes `.grad`; one that is held is copied.
        ctx.gradients.clear()
        return None, None, *handed


def apply_gradients(loss: torch.Tensor, gradients: Gradients, backward: Backward) -> None:
    """Call `backward` on a scalar with the value of `loss` and the given gradients.

    Scaling of mixed precision and averaging over processes then apply to them as to any others.

    Args:
        loss: scalar, detached.
        gradients: of each parameter, in its shape; left empty.
        backward: as a `Rule` receives it.
    """
    parameters = list(gradients)
    backward(_Given.apply(loss, [gradients.pop(parameter) for parameter in parameters], *parameters))


def inject(loss: torch.Tensor, gradients: Mapping[torch.Tensor, torch.Tensor]) -> torch.Tensor:
    """Return a scalar with the value of `loss` whose gradient also reaches the given tensors, with the given values."""
    tensors = list(gradients)
    none = torch.zeros_like(loss, requires_grad=False)
    return loss + torch.as_tensor(_Given.apply(none, [gradients[tensor] for tensor in tensors], *tensors))
