"""Dual propagation: credit assignment by dyadic neurons in one phase."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, ClassVar

import torch
from torch import nn

from snn.errors import UnsupportedError
from snn.learning.dyadic_inference import Dyadic, infer, weight_gradients
from snn.learning.given_gradients import apply_gradients
from snn.learning.graph import Edge, Graph, graph_of
from snn.learning.kolen_pollack import add_feedback_weights, has_feedback_weights
from snn.learning.linear_maps import Gradients
from snn.learning.rule import CreditRule
from snn.neurons.dyadic import nudges, propagate_error
from snn.training.bptt import Backward, StepResult

NAME = "dual_propagation"
Channel = Callable[[torch.Tensor], torch.Tensor]
"""What becomes of a state on its way to another layer: a stand-in of the same shape."""


class DualPropagation(CreditRule):
    """Dual propagation (Hoier, Staudt and Zach, ICML 2023) and its transpose variant (Hoier and Zach, ICML 2024).

    Every neuron has two states, nudged towards and away from the target by the feedback of the layer above; their mean
    goes up, their difference goes down, and the weights change by difference times activity. With the default settings
    this costs one forward and one feedback pass; other schedules run `snn.learning.dyadic_inference`.

    Args:
        loss: cross-entropy or squared error, linearised at the logits; nudges are per sample, whatever the batch size.
        options: `snn.learning.dyadic_inference.Dyadic`.
    Networks: see `snn.learning.graph.graph_of`; T = 1.
    """

    Options: ClassVar[type] = Dyadic

    def prepare(self, network: nn.Module, steps: int = 1) -> None:
        graph = graph_of(network, NAME)
        graph.check_steps(steps, NAME)
        if self.options.feedback == "kolen_pollack":
            add_feedback_weights(graph, self.options.seed)

    def __call__(self, network: nn.Module, x: torch.Tensor, labels: torch.Tensor, backward: Backward) -> StepResult:
        options = self.options
        graph = graph_of(network, NAME)
        if options.feedback == "kolen_pollack" and not has_feedback_weights(graph):
            raise UnsupportedError("dual_propagation: feedback 'kolen_pollack' needs rule.prepare(network) first")
        # The differences are small beside the states, so reduced precision would lose them.
        with torch.no_grad(), torch.autocast(x.device.type, enabled=False):
            batch = graph.batch(x, NAME)
            if options.is_single_pass:
                passed = forward_pass(graph, batch)
                logits = passed.states[-1]
                gradients = single_pass(graph, passed, self.loss.errors(logits, labels), options)
            else:
                inferred = infer(graph, batch, lambda a: self.loss.errors(a, labels), options)
                logits = inferred.forward[-1]
                gradients = weight_gradients(graph, inferred, options)
            value = self.loss(logits.unsqueeze(0), labels)
        apply_gradients(value, gradients, backward)
        return StepResult(value, logits)


@dataclass(frozen=True)
class ForwardPass:
    """A forward pass with what the feedback pass needs.

    Args:
        inputs: a of each layer; the entry of layer 0 is the network's input.
        states: f(a) of each layer, as the layers above received it.
        saved: of each edge.
    """

    inputs: list[torch.Tensor]
    states: list[torch.Tensor]
    saved: dict[Edge, list[Any]]


def forward_pass(graph: Graph, x: torch.Tensor, upward: Channel | None = None) -> ForwardPass:
    """Run the network on x [B, ...] and keep what the feedback pass needs.

    Args:
        graph: the network.
        x: its input.
        upward: what the layer above receives of a state; None hands it on as it is. Logits are never sent.
    """
    inputs, states = [x], [x if upward is None else upward(x)]
    saved: dict[Edge, list[Any]] = {}
    for layer in graph.layers[1:]:
        a: torch.Tensor | None = None
        for edge in layer.incoming:
            term, saved[edge] = edge.forward(states[edge.source])
            a = term if a is None else a + term
        assert a is not None
        inputs.append(a)
        z = layer.activation.f(a)
        states.append(z if upward is None or not layer.outgoing else upward(z))
    return ForwardPass(inputs, states, saved)


def single_pass(
    graph: Graph, passed: ForwardPass, errors: torch.Tensor, settings: Dyadic, downward: Channel | None = None
) -> Gradients:
    """Return the gradients of one top-down sweep, at the cost of a backward pass.

    Instead of the differences D_k it carries e_k = -D_k / (beta_k B), which is dl/da_k / B to first order, so that no
    weight gradient has to be scaled:

        e_k = [f(a_k + q r s_k) - f(a_k - p r s_k)] / r,  s_k = W^T e_{k+1},  r = beta_k B,  (p, q) = nudges(alpha)

    This is `infer` with the schedule top_down, one sweep, and maxima routed as in the forward pass.

    Args:
        graph: the network.
        passed: its forward pass.
        errors: dl/dlogits of each sample [B, classes].
        settings: see `Dyadic`; schedule, sweeps, router and reference have no say here.
        downward: what the layer below receives of a difference D_k; None hands it on as it is.
    """
    B = len(errors)
    fused = settings.presynaptic == "forward"
    p, q = nudges(settings.alpha, settings.transpose)
    betas = settings.betas(graph.top)
    gradients: Gradients = {}
    e = {graph.top: _received(errors / B, downward, betas[-1] * B)}
    for k in range(graph.top - 1, -1, -1):
        layer, a, point = graph.layers[k], passed.inputs[k], passed.states[k]
        s: torch.Tensor | None = None
        for edge in layer.outgoing:
            delta, saved = e[edge.target], passed.saved[edge]
            if fused:
                term = edge.both(delta, saved, gradients, wants_input=k > 0)
            else:
                term = edge.transposed(delta, saved) if k > 0 else None
            s = term if s is None or term is None else s + term
        if s is not None:
            strength = (p * betas[k] * B, q * betas[k] * B)
            passed_on = (
                s if layer.activation.is_identity else propagate_error(layer.activation.f_in_place, a, s, strength)
            )
            e[k] = _received(passed_on, downward, betas[k] * B)
            if not fused:
                plus = layer.activation.f(torch.sub(a, s, alpha=strength[0]))
                minus = layer.activation.f(torch.add(a, s, alpha=strength[1]))
                point = torch.lerp(minus, plus, settings.alpha)
        if not fused:
            for edge in layer.outgoing:
                edge.collect(e[edge.target], passed.saved[edge], point, gradients)
    return gradients


def _received(e: torch.Tensor, downward: Channel | None, reach: float) -> torch.Tensor:
    return e if downward is None else downward(e * -reach) / -reach
