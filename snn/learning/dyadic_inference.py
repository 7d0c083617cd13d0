"""Inference of dyadic networks by layerwise closed-form updates, in any order, as often as wanted."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal

import torch

from snn.learning.graph import Graph
from snn.learning.linear_maps import Gradients
from snn.learning.schedule import Schedule, updates
from snn.neurons.checks import require_above, require_within
from snn.neurons.dyadic import Dyad, hidden_dyad, layer_energy, output_dyad

Errors = Callable[[torch.Tensor], torch.Tensor]
Output = Callable[[torch.Tensor], Dyad]


@dataclass(frozen=True)
class Dyadic:
    """Settings of dyadic inference.

    Args:
        alpha: weight of the plus state in the mean, in [0, 1].
        beta: strength of the nudge at the output, per sample, > 0.
        transpose: the transpose variant, stable for every alpha; at alpha = 1/2 both are the same.
        ratio: beta of a layer over beta of the layer above; below 1 the differences shrink on their way down and are
            magnified again in the weight update.
        schedule, sweeps: order and number of the updates; see `snn.learning.schedule`.
        presynaptic: the factor of the weight update that stands for the layer below: its activity in the forward pass,
            or the mean of its states. Both have the gradient as their limit for beta -> 0.
        router: state at which maxima are routed: the activity in the forward pass, the plus state, or the mean.
        reference: logits at which the loss is linearised: "initial" (the forward pass), "current" (the mean's input at
            each update), or None for initial with `transpose` and current without.
        feedback: "symmetric" takes the transposed weights; "kolen_pollack" separate ones, which receive the same updates
            and the same weight decay, so that the two approach each other.
        seed: of the random schedule and of the feedback weights.
    """

    alpha: float = 0.5
    beta: float = 0.1
    transpose: bool = True
    ratio: float = 1.0
    schedule: Schedule = "top_down"
    sweeps: int = 1
    presynaptic: Literal["forward", "mean"] = "forward"
    router: Literal["forward", "plus", "mean"] = "forward"
    reference: Literal["initial", "current"] | None = None
    feedback: Literal["symmetric", "kolen_pollack"] = "symmetric"
    seed: int = 0

    def __post_init__(self) -> None:
        require_within("dual_propagation", 0.0, 1.0, alpha=self.alpha)
        require_above("dual_propagation", "beta", self.beta, 0.0)
        require_above("dual_propagation", "ratio", self.ratio, 0.0)
        next(updates(self.schedule, 1, self.sweeps))
        for name, value, accepted in (
            ("presynaptic", self.presynaptic, ("forward", "mean")),
            ("router", self.router, ("forward", "plus", "mean")),
            ("reference", self.reference, ("initial", "current", None)),
            ("feedback", self.feedback, ("symmetric", "kolen_pollack")),
        ):
            if value not in accepted:
                raise ValueError(f"dual_propagation: {name} must be one of {accepted}, got {value!r}")

    @property
    def is_single_pass(self) -> bool:
        """Whether one top-down sweep with forward routing is asked for, which has a form without states."""
        return self.schedule == "top_down" and self.sweeps == 1 and self.router == "forward"

    def betas(self, top: int) -> list[float]:
        """Return beta of each layer, 0..top."""
        return [self.beta * self.ratio ** (top - k) for k in range(top + 1)]


@dataclass(frozen=True)
class Inferred:
    """What inference leaves behind.

    Args:
        states: of each layer, the input first.
        forward: activity of each layer in the forward pass.
        changes: largest change of any state, per update.
    """

    states: list[Dyad]
    forward: list[torch.Tensor]
    changes: list[float]


def infer(
    graph: Graph, x: torch.Tensor, output: Output | Errors, settings: Dyadic, linearised: bool = True
) -> Inferred:
    """Run the updates of a schedule from the forward pass.

    Args:
        graph: the network.
        x: input [B, ...].
        output: for linearised losses, logits [B, classes] -> dl/dlogits of each sample; else input of the output
            layer -> its dyad, for instance `squared_error_dyad`.
        settings: see `Dyadic`.
        linearised: which of the two `output` is.
    Returns: see `Inferred`.
    """
    forward = graph.forward(x)
    states = [Dyad(z, z) for z in forward]
    betas = settings.betas(graph.top)
    generator = torch.Generator().manual_seed(settings.seed)
    initial = output(forward[-1]) if linearised else None
    refreshed = settings.reference == "current" or (settings.reference is None and not settings.transpose)
    changes = []
    for group in updates(settings.schedule, graph.top, settings.sweeps, generator):
        means = [state.mean(settings.alpha) for state in states]
        fresh = {}
        for k in group:
            a = graph.input_of(k, means)
            if k < graph.top:
                f = graph.layers[k].activation.f
                feedback = feedback_to(graph, k, states, routing_point(settings, states[k], forward[k]), betas)
                fresh[k] = hidden_dyad(f, a, feedback, settings.alpha, settings.transpose)
            elif linearised:
                error = output(a) if refreshed else initial
                assert isinstance(error, torch.Tensor)
                fresh[k] = output_dyad(a, error, settings.alpha, settings.beta, settings.transpose)
            else:
                dyad = output(a)
                assert isinstance(dyad, Dyad)
                fresh[k] = dyad
        changes.append(max(_change(states[k], dyad) for k, dyad in fresh.items()))
        for k, dyad in fresh.items():
            states[k] = dyad
    return Inferred(states, forward, changes)


def _change(before: Dyad, after: Dyad) -> float:
    return max(float((new - old).abs().max()) for old, new in zip(before, after, strict=True))


def routing_point(settings: Dyadic, state: Dyad, forward: torch.Tensor) -> torch.Tensor:
    """Return the state of a layer at which the maxima above it are routed."""
    if settings.router == "forward":
        return forward
    return state.plus if settings.router == "plus" else state.mean(settings.alpha)


def feedback_to(graph: Graph, k: int, states: list[Dyad], point: torch.Tensor, betas: list[float]) -> torch.Tensor:
    """Return the sum of W^T difference over the edges that leave layer k, weighted by the ratio of the betas.

    Args:
        graph: the network.
        k: position of the layer.
        states: of all layers.
        point: see `routing_point`.
        betas: of all layers.
    """
    total: torch.Tensor | None = None
    for edge in graph.layers[k].outgoing:
        _, saved = edge.forward(point)
        term = edge.transposed(states[edge.target].difference(), saved) * (betas[k] / betas[edge.target])
        total = term if total is None else total + term
    assert total is not None
    return total


def weight_gradients(graph: Graph, inferred: Inferred, settings: Dyadic) -> Gradients:
    """Return -(1 / (beta B)) difference presynaptic^T for every layer with weights, with its bias."""
    gradients: Gradients = {}
    betas = settings.betas(graph.top)
    states = inferred.states
    B = len(states[0].plus)
    means = [state.mean(settings.alpha) for state in states]
    before = inferred.forward if settings.presynaptic == "forward" else means
    for edge in graph.edges():
        _, saved = edge.forward(routing_point(settings, states[edge.source], inferred.forward[edge.source]))
        delta = states[edge.target].difference() * (-1.0 / (betas[edge.target] * B))
        edge.collect(delta, saved, before[edge.source], gradients)
    return gradients


def energy(
    graph: Graph, states: list[Dyad], losses: tuple[torch.Tensor, torch.Tensor], settings: Dyadic
) -> torch.Tensor:
    """Return the objective that inference makes stationary, summed over the samples.

        J = alpha l(plus_L) + (1 - alpha) l(minus_L) + sum_k (1 / beta_k) [E_k(plus_k) - E_k(minus_k)],
        E_k(z) = G_k(z) - z (W mean_{k-1} + b)

    Minimal over the plus and maximal over the minus states, for `transpose` false.

    Args:
        graph: the network.
        states: of each layer.
        losses: of the plus and of the minus state of the output, scalars, summed over the samples.
        settings: see `Dyadic`.
    """
    means = [state.mean(settings.alpha) for state in states]
    betas = settings.betas(graph.top)
    total = settings.alpha * losses[0] + (1 - settings.alpha) * losses[1]
    for k in range(1, len(states)):
        a = graph.input_of(k, means)
        total = total + layer_energy(graph.layers[k].activation.potential, states[k], a) / betas[k]
    return total
