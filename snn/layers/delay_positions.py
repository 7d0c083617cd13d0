"""The delays of a layer: parameter, range, width of the taps while they are learned, and rounding."""

from __future__ import annotations

import math
from typing import Any, Literal

import torch
from torch import nn

Kernel = Literal["gaussian", "two-tap"]
WIDTH_FLOOR = 0.27  # added to the annealed width, as in DCLS
LAST_WIDTH = 0.23


def start_sigma(max_delay: int) -> float:
    """Width in steps with which annealing starts: half the longest delay, and the floor."""
    return max_delay / 2 + WIDTH_FLOOR


def rounded_half_up(delay: torch.Tensor) -> torch.Tensor:
    """The nearest whole number; halves go up, whatever their neighbours are."""
    return torch.floor(delay + 0.5)


class Delays(nn.Module):
    """Learnable delays of any shape, within [0, max_delay] steps.

    While training, delays are real numbers: a delayed value is spread over whole delays by a Gaussian of width `sigma`
    (see `anneal_sigma`) or shared between the two nearest ones. In evaluation and after `round_` they are whole.

    Args:
        shape: shape of the delays.
        max_delay: longest delay in steps, >= 1.
        kernel: "gaussian" or "two-tap".
    Attributes:
        delay: the parameter, uniform in [0, max_delay] at the start. Values that an optimiser moves out of the range act
            as the nearest border and still get their gradient; `clamp_delays` puts them back.
        sigma: width of the Gaussian in steps, saved with the state.
        is_rounded: True after `round_`, saved with the state.
    Raises: ValueError for max_delay < 1 or an unknown kernel.
    """

    def __init__(self, shape: tuple[int, ...], max_delay: int, kernel: Kernel) -> None:
        super().__init__()
        if not isinstance(max_delay, int) or isinstance(max_delay, bool) or max_delay < 1:
            raise ValueError(f"max_delay must be a whole number of steps >= 1, got {max_delay!r}")
        if kernel not in ("gaussian", "two-tap"):
            raise ValueError(f"kernel must be 'gaussian' or 'two-tap', got {kernel!r}")
        self.max_delay = max_delay
        self.kernel = kernel
        self.sigma = start_sigma(max_delay)
        self.is_rounded = False
        self.delay = nn.Parameter(torch.rand(shape) * max_delay)

    @property
    def is_whole(self) -> bool:
        """True where the layer runs with whole delays: in evaluation, and after `round_`."""
        return self.is_rounded or not self.training

    def current(self) -> tuple[torch.Tensor, float | None]:
        """(delays that act now, width of their Gaussian or None for at most two taps)."""
        within = self.delay.detach().clamp(0, self.max_delay)
        if self.is_whole:
            return rounded_half_up(within), None
        acting = self.delay + (within - self.delay).detach()
        return acting, self.sigma if self.kernel == "gaussian" else None

    @torch.no_grad()
    def clamp_(self) -> None:
        """Puts every delay into [0, max_delay]."""
        self.delay.clamp_(0, self.max_delay)

    @torch.no_grad()
    def round_(self) -> None:
        """Rounds the delays to whole steps, for good; they no longer learn."""
        self.clamp_()
        self.delay.copy_(rounded_half_up(self.delay))
        self.delay.requires_grad_(False)
        self.is_rounded = True

    def get_extra_state(self) -> dict[str, Any]:
        return {"sigma": self.sigma, "is_rounded": self.is_rounded}

    def set_extra_state(self, state: dict[str, Any]) -> None:
        self.sigma, self.is_rounded = float(state["sigma"]), bool(state["is_rounded"])
        self.delay.requires_grad_(not self.is_rounded)

    def extra_repr(self) -> str:
        return f"{tuple(self.delay.shape)}, max_delay={self.max_delay}, kernel={self.kernel!r}, sigma={self.sigma:.3g}"


def annealed_sigma(epoch: int, epochs: int, max_delay: int) -> float:
    """Width in steps at one epoch: from half of max_delay down to 0.5 over the first quarter of the epochs, geometrically.

    sigma = S a^epoch + 0.27,  S = max_delay / 2,  a = (0.23 / S)^(1 / (epochs // 4)),  and 0.5 from then on.

    Source: Hammouamri et al., ICLR 2024, and its released code.

    >>> [round(annealed_sigma(epoch, 8, 24), 3) for epoch in (0, 1, 2, 7)]
    [12.27, 1.931, 0.5, 0.5]
    """
    if epochs < 1:
        raise ValueError(f"annealed_sigma: epochs must be >= 1, got {epochs}")
    first = max_delay / 2
    falling = epochs // 4
    if epoch >= falling or first <= LAST_WIDTH:
        return LAST_WIDTH + WIDTH_FLOOR
    return first * math.exp(math.log(LAST_WIDTH / first) * epoch / falling) + WIDTH_FLOOR


def anneal_sigma(net: nn.Module, epoch: int, epochs: int) -> None:
    """Gives all Gaussian delays of `net` the width of `annealed_sigma`."""
    for module in net.modules():
        if isinstance(module, Delays):
            module.sigma = annealed_sigma(epoch, epochs, module.max_delay)


def clamp_delays(net: nn.Module) -> None:
    """Puts all delays of `net` back into their range; call it after every optimiser step."""
    for module in net.modules():
        if isinstance(module, Delays) and not module.is_rounded:
            module.clamp_()


def round_delays(net: nn.Module) -> None:
    """Rounds all delays of `net` to whole steps, for good."""
    for module in net.modules():
        if isinstance(module, Delays):
            module.round_()


def delay_parameter_groups(net: nn.Module, lr: float, delay_lr_factor: float = 100.0) -> list[dict[str, Any]]:
    """Parameter groups of an optimiser: delays with lr * delay_lr_factor and no weight decay, all others with lr.

    Batch normalisations, where there are any, are a group of their own between the two, with lr and no weight decay.

    Raises: ValueError if the network has no delays to learn.
    """
    delays = learnable_delays(net)
    if not delays:
        raise ValueError(f"delay_parameter_groups: {type(net).__name__} has no delays to learn")
    undecayed = {"params": delays, "lr": lr * delay_lr_factor, "weight_decay": 0.0}
    return [*weight_parameter_groups(net, lr), undecayed]


def weight_parameter_groups(net: nn.Module, lr: float) -> list[dict[str, Any]]:
    """Parameter groups of all that is no delay: batch normalisations apart, without weight decay."""
    modules = list(net.modules())
    norms = [p for module in modules if isinstance(module, nn.modules.batchnorm._NormBase) for p in module.parameters()]
    apart = {id(value) for value in [*norms, *(module.delay for module in modules if isinstance(module, Delays))]}
    weights = [value for value in net.parameters() if value.requires_grad and id(value) not in apart]
    learned = [value for value in norms if value.requires_grad]
    groups: list[dict[str, Any]] = [{"params": weights, "lr": lr}]
    return [*groups, {"params": learned, "lr": lr, "weight_decay": 0.0}] if learned else groups


def learnable_delays(net: nn.Module) -> list[nn.Parameter]:
    """The delays of `net` that are not rounded for good."""
    return [module.delay for module in net.modules() if isinstance(module, Delays) and module.delay.requires_grad]
