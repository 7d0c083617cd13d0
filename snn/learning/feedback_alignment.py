"""Feedback through other weights than the transposed ones: fixed random (feedback alignment) or signs only."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, ClassVar

import torch
from torch import nn

from snn.errors import UnsupportedError
from snn.learning.linear_maps import WeightedMap, linear_map
from snn.learning.rule import CreditRule, as_sequence
from snn.neurons.checks import require_above
from snn.training.bptt import Backward, StepResult
from snn.training.seeding import generator

FEEDBACK_STREAM = 101
"""First word of the path of random feedback weights under a seed, apart from those of snn.training.seeding."""


def weighted_maps(network: nn.Module, rule: str) -> dict[str, WeightedMap]:
    """Return the linear layers and convolutions of a network, by name.

    Raises: UnsupportedError naming another layer with a matrix of weights, or if there is none at all.
    """
    found: dict[str, WeightedMap] = {}
    for name, module in network.named_modules():
        step = linear_map(name, module)
        if isinstance(step, WeightedMap):
            found[name] = step
        elif any(parameter.dim() >= 2 for parameter in module.parameters(recurse=False)):
            raise UnsupportedError(
                f"{rule} cannot train {name!r} ({type(module).__name__}): only linear layers and convolutions have "
                "feedback weights"
            )
    if not found:
        raise UnsupportedError(f"{rule}: {type(network).__name__} has no linear layer and no convolution")
    return found


class _Feedback(torch.autograd.Function):
    """The output of a layer as it is; backward, the input's gradient goes through `weight`."""

    @staticmethod
    def forward(ctx: Any, y: torch.Tensor, x: torch.Tensor, weight: torch.Tensor, step: WeightedMap) -> torch.Tensor:
        ctx.step = step
        ctx.save_for_backward(x, weight)
        return y.view_as(y)

    @staticmethod
    def backward(ctx: Any, *grads: torch.Tensor) -> tuple[torch.Tensor | None, ...]:
        (grad,) = grads
        x, weight = ctx.saved_tensors
        return grad, ctx.step.transposed_by(weight.to(grad.dtype), grad, x.to(grad.dtype)), None, None


@contextmanager
def feedback_through(
    maps: dict[str, WeightedMap], weight_of: Callable[[str, WeightedMap], torch.Tensor]
) -> Iterator[None]:
    """Within the block, autograd sends the error of each map to its input through other weights.

    Args:
        maps: by name.
        weight_of: (name, map) -> the weights to use, in the shape of the map's own.
    """
    handles = []
    for name, step in maps.items():
        inputs: list[torch.Tensor] = []

        def before(module: nn.Module, given: Any, inputs: list[torch.Tensor] = inputs) -> Any:
            inputs.append(given[0])
            return (given[0].detach(), *given[1:])

        def after(
            module: nn.Module,
            given: Any,
            y: torch.Tensor,
            inputs: list[torch.Tensor] = inputs,
            name: str = name,
            step: WeightedMap = step,
        ) -> Any:
            x = inputs.pop()
            return _Feedback.apply(y, x, weight_of(name, step), step) if x.requires_grad else y

        handles += [step.layer.register_forward_pre_hook(before), step.layer.register_forward_hook(after)]
    try:
        yield
    finally:
        for handle in handles:
            handle.remove()


class _FeedbackRule(CreditRule):
    """Autograd with replaced feedback weights; spiking networks keep their surrogates and their path through time."""

    name: ClassVar[str]

    def prepare(self, network: nn.Module, steps: int = 1) -> None:
        weighted_maps(network, self.name)

    def __call__(self, network: nn.Module, x: torch.Tensor, labels: torch.Tensor, backward: Backward) -> StepResult:
        with feedback_through(weighted_maps(network, self.name), self.feedback_weight):
            logits = network(x)
        sequence = as_sequence(logits)
        value = self.loss(sequence, labels)
        backward(value)
        return StepResult(value.detach(), sequence.detach().mean(0))

    @abstractmethod
    def feedback_weight(self, name: str, step: WeightedMap) -> torch.Tensor:
        """Return the weights that carry the error of a layer to its input."""


@dataclass(frozen=True)
class FeedbackOptions:
    """Args:
    gain: standard deviation of the feedback weights times the root of a unit's number of inputs, > 0.
    seed: of the random weights.
    """

    gain: float = 1.0
    seed: int = 0

    def __post_init__(self) -> None:
        require_above("fa", "gain", self.gain, 0.0)


class FeedbackAlignment(_FeedbackRule):
    """Feedback alignment: each transposed weight matrix is replaced by a fixed random one.

    Normal entries with standard deviation gain / sqrt(inputs of a unit). They depend on the seed, the layer's name and
    its shape only, so a continued run has the same.

    Networks: any, with all matrices of weights in linear layers and convolutions; also spiking ones, T >= 1.
    Source: Lillicrap, Cownden, Tweed and Akerman, Nature Communications 2016.
    """

    Options: ClassVar[type] = FeedbackOptions
    name: ClassVar[str] = "fa"

    def __init__(self, loss: Any = None, options: Any = None) -> None:
        super().__init__(loss, options)
        self._weights: dict[str, torch.Tensor] = {}

    def feedback_weight(self, name: str, step: WeightedMap) -> torch.Tensor:
        weight = step.layer.get_parameter("weight")
        known = self._weights.get(name)
        if known is None or known.shape != weight.shape or known.device != weight.device:
            draw = generator(self.options.seed, FEEDBACK_STREAM, *name.encode())
            deviation = self.options.gain / weight[0].numel() ** 0.5
            known = (torch.randn(weight.shape, generator=draw) * deviation).to(weight.device)
            self._weights[name] = known
        return known


@dataclass(frozen=True)
class SignSymmetricOptions:
    """No settings."""


class SignSymmetric(_FeedbackRule):
    """Sign-symmetric feedback: the error goes back through sign(W) times the mean magnitude of W.

    Networks: as for `FeedbackAlignment`.
    Source: Liao, Leibo and Poggio, AAAI 2016.
    """

    Options: ClassVar[type] = SignSymmetricOptions
    name: ClassVar[str] = "sign_symmetric"

    def feedback_weight(self, name: str, step: WeightedMap) -> torch.Tensor:
        weight = step.layer.get_parameter("weight").detach()
        return weight.sign() * weight.abs().mean()
