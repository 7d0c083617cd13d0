"""Dyadic neurons: two states nudged in opposite directions, whose mean carries activity and whose difference error."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, NamedTuple

import torch
from torch import nn
from torch.nn import functional as F

from snn.errors import UnsupportedError
from snn.neurons.checks import require_above, require_within

Function = Callable[[torch.Tensor], torch.Tensor]
_BLOCK = 1 << 15


class Dyad(NamedTuple):
    """The two states of a layer of dyadic neurons, of equal shape [B, ...].

    `plus` is the state on the side of the target, `minus` the one pushed away from it.
    """

    plus: torch.Tensor
    minus: torch.Tensor

    def mean(self, alpha: float) -> torch.Tensor:
        """alpha plus + (1 - alpha) minus, what the layer above receives."""
        return torch.lerp(self.minus, self.plus, alpha)

    def difference(self) -> torch.Tensor:
        """plus - minus, what the layer below receives."""
        return self.plus - self.minus


@dataclass(frozen=True)
class Activation:
    """An increasing function of a neuron and its potential.

    Args:
        f: the function, element by element; it is the gradient of the convex conjugate of `potential`.
        f_in_place: the same, free to overwrite its argument.
        potential: G with f(a) = argmax over z of z a - G(z), inside the range of f.
        is_identity: whether f(a) = a.
    """

    f: Function
    f_in_place: Function
    potential: Function
    is_identity: bool = False


def activation_of(layer: nn.Module, name: str) -> Activation:
    """Return the activation of a torch layer.

    Args:
        layer: Identity, ReLU, LeakyReLU, ReLU6, Hardtanh, Tanh, Sigmoid or `DyadicReLU`.
        name: of the layer, for the message.
    Raises: UnsupportedError for a layer whose potential is not known.
    """
    if isinstance(layer, nn.LeakyReLU):
        slope = float(layer.negative_slope)
        if slope <= 0:
            raise UnsupportedError(f"dyadic neurons: {name!r} (LeakyReLU) needs negative_slope > 0, got {slope}")
        return Activation(
            lambda a: F.leaky_relu(a, slope),
            lambda a: F.leaky_relu_(a, slope),
            lambda z: torch.where(z > 0, 0.5 * z * z, 0.5 * z * z / slope),
        )
    if isinstance(layer, nn.Hardtanh):  # ReLU6 is one
        low, high = float(layer.min_val), float(layer.max_val)
        return Activation(lambda a: a.clamp(low, high), lambda a: a.clamp_(low, high), _half_square)
    for kind, activation in _ACTIVATIONS.items():
        if isinstance(layer, kind):
            return activation
    known = "Identity, ReLU, LeakyReLU, ReLU6, Hardtanh, Tanh, Sigmoid"
    raise UnsupportedError(f"dyadic neurons: {name!r} ({type(layer).__name__}) is not one of {known}")


def _half_square(z: torch.Tensor) -> torch.Tensor:
    return 0.5 * z * z


def _tanh_potential(z: torch.Tensor) -> torch.Tensor:
    return z * torch.atanh(z) + 0.5 * torch.log1p(-z * z)


def _sigmoid_potential(z: torch.Tensor) -> torch.Tensor:
    return torch.special.xlogy(z, z) + torch.special.xlogy(1 - z, 1 - z)


def nudges(alpha: float, transpose: bool) -> tuple[float, float]:
    """Return the shares of the feedback that the plus and the minus state receive.

    Dual propagation gives alpha to plus and 1 - alpha to minus; its transpose variant exchanges the two, while the mean
    stays alpha plus + (1 - alpha) minus. To first order the mean then equals f(a) for every alpha.
    """
    require_within("dyadic neuron", 0.0, 1.0, alpha=alpha)
    return (1 - alpha, alpha) if transpose else (alpha, 1 - alpha)


def hidden_dyad(f: Function, a: torch.Tensor, feedback: torch.Tensor, alpha: float, transpose: bool) -> Dyad:
    """Return the closed-form states of a hidden layer, stationary in the energy with all other layers fixed.

        plus = f(a + p feedback),  minus = f(a - q feedback),  (p, q) = nudges(alpha, transpose)

    Args:
        f: activation function.
        a: input from the layer below, W mean + b, [B, ...].
        feedback: W^T difference of the layer above, [B, ...].
        alpha: weight of plus in the mean, in [0, 1].
        transpose: the transpose variant, which is stable for every alpha.
    Source: Hoier, Staudt and Zach, Dual Propagation, ICML 2023; Hoier and Zach, ICML 2024, for the transpose variant.
    """
    p, q = nudges(alpha, transpose)
    return Dyad(f(torch.add(a, feedback, alpha=p)), f(torch.sub(a, feedback, alpha=q)))


def output_dyad(a: torch.Tensor, error: torch.Tensor, alpha: float, beta: float, transpose: bool) -> Dyad:
    """Return the output states for a linearised loss: identity activation, feedback -beta dl/da.

    Args:
        a: logits [B, classes].
        error: dl/da of each sample (not divided by B) at the reference logits, [B, classes].
        alpha, transpose: as in `hidden_dyad`.
        beta: strength of the nudge.
    """
    p, q = nudges(alpha, transpose)
    return Dyad(torch.sub(a, error, alpha=p * beta), torch.add(a, error, alpha=q * beta))


def squared_error_dyad(a: torch.Tensor, target: torch.Tensor, gamma: float) -> Dyad:
    """Return the exact output states for l = |z - target|^2 / 2 and alpha = 1/2.

        plus = (2 a + gamma target) / (2 + gamma),  minus = (2 a - gamma target) / (2 - gamma)

    With b = gamma / 2: difference = 2 b (target - a) / (1 - b^2), mean = (a - b^2 target) / (1 - b^2). For small gamma the
    difference is gamma (target - a), that of the linearised loss at beta = gamma.

    Raises: ValueError unless 0 < gamma < 2; at 2 the minus state has a pole and beyond it the sign changes.
    """
    if not 0 < gamma < 2:
        raise ValueError(f"squared_error_dyad: gamma must lie in (0, 2), got {gamma}")
    return Dyad((2 * a + gamma * target) / (2 + gamma), (2 * a - gamma * target) / (2 - gamma))


def layer_energy(potential: Function, dyad: Dyad, a: torch.Tensor) -> torch.Tensor:
    """Return E(plus) - E(minus) of one layer, E(z) = G(z) - z a, summed over all neurons and samples.

    Args:
        potential: G of the layer's activation.
        dyad: states of the layer.
        a: input W mean + b from the states below.
    """
    return (potential(dyad.plus) - potential(dyad.minus) - dyad.difference() * a).sum()


def propagate_error(f: Function, a: torch.Tensor, error: torch.Tensor, strength: tuple[float, float]) -> torch.Tensor:
    """Return the difference of the two states for an error from above, scaled to stand in for f'(a) * error.

        (f(a + s error) - f(a - r error)) / (s + r),   (r, s) = strength

    This is the single-pass form of a dyad: error is the loss gradient that arrives from above, so plus is the second
    term and minus the first.

    Args:
        f: activation function, free to overwrite its argument.
        a, error: [B, ...].
        strength: nudge of the plus and of the minus state per unit of error, not both 0.
    """
    result = torch.empty_like(a, memory_format=torch.contiguous_format)
    if a.device.type != "cpu" or not (a.is_contiguous() and error.is_contiguous()):
        _propagate(f, a, error, strength, result)
        return result
    # In blocks the states stay in the cache, which makes this as fast as one product.
    flat = [tensor.view(-1).split(_BLOCK) for tensor in (a, error, result)]
    for a_block, error_block, result_block in zip(*flat, strict=True):
        _propagate(f, a_block, error_block, strength, result_block)
    return result


def _propagate(
    f: Function, a: torch.Tensor, error: torch.Tensor, strength: tuple[float, float], result: torch.Tensor
) -> None:
    r, s = strength
    up = f(torch.add(a, error, alpha=s))
    down = f(torch.sub(a, error, alpha=r))
    torch.mul(up.sub_(down), 1.0 / (r + s), out=result)


class _DyadicReLU(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, a: torch.Tensor, c: float) -> torch.Tensor:
        ctx.save_for_backward(a)
        ctx.c = c
        return a.relu()

    @staticmethod
    def backward(ctx: Any, *grads: torch.Tensor) -> tuple[torch.Tensor, None]:
        (a,) = ctx.saved_tensors
        return propagate_error(torch.relu_, a, grads[0], (ctx.c, ctx.c)), None


class DyadicReLU(nn.Module):
    """ReLU whose backward pass is that of a dyad with alpha = 1/2, for networks trained by autograd.

    Forward: relu(a). Backward, for a loss gradient g: (relu(a + c g) - relu(a - c g)) / (2 c). It passes g whole where
    a > c |g|, nothing where a < -c |g|, half of it at a = 0, and is the derivative of ReLU for c -> 0. With a loss
    summed over the batch this is dual propagation with beta = 2 c; with a loss averaged over B samples, beta = 2 c / B.

    Args:
        c: nudge per unit of gradient, > 0.
    Raises: ValueError if c <= 0.
    Source: Hoier, Staudt and Zach, ICML 2023, the variant used for convolutional networks.

    >>> a = torch.tensor([0.5, 0.1, 0.0, -0.1, -0.5], requires_grad=True)
    >>> DyadicReLU(c=1.0)(a).backward(torch.full((5,), 0.2))
    >>> [round(g, 4) for g in a.grad.tolist()]
    [0.2, 0.15, 0.1, 0.05, 0.0]
    """

    def __init__(self, c: float = 1.0) -> None:
        super().__init__()
        require_above("DyadicReLU", "c", c, 0.0)
        self.c = float(c)

    def forward(self, a: torch.Tensor) -> torch.Tensor:
        return torch.as_tensor(_DyadicReLU.apply(a, self.c))

    def extra_repr(self) -> str:
        return f"c={self.c:g}"


_ACTIVATIONS: dict[type[nn.Module], Activation] = {
    nn.Identity: Activation(lambda a: a, lambda a: a, _half_square, is_identity=True),
    nn.ReLU: Activation(torch.relu, torch.relu_, _half_square),
    DyadicReLU: Activation(torch.relu, torch.relu_, _half_square),
    nn.Tanh: Activation(torch.tanh, torch.tanh_, _tanh_potential),
    nn.Sigmoid: Activation(torch.sigmoid, torch.sigmoid_, _sigmoid_potential),
}
