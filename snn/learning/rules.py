"""All rules of credit assignment by name."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import fields
from typing import Any

from snn.errors import closest
from snn.learning.backpropagation import Backpropagation
from snn.learning.direct_feedback import DirectFeedbackAlignment
from snn.learning.dual_propagation import DualPropagation
from snn.learning.equilibrium import EquilibriumPropagation
from snn.learning.event_dual_propagation import EventDualPropagation
from snn.learning.feedback_alignment import FeedbackAlignment, SignSymmetric
from snn.learning.flexible_phase import FlexiblePhase
from snn.learning.rule import CreditRule
from snn.training.loss import SequenceLoss

RULES: dict[str, type[CreditRule]] = {
    "bp": Backpropagation,
    "dual_propagation": DualPropagation,
    "event_dual_propagation": EventDualPropagation,
    "eqprop": EquilibriumPropagation,
    "flexible_phase": FlexiblePhase,
    "fa": FeedbackAlignment,
    "sign_symmetric": SignSymmetric,
    "dfa": DirectFeedbackAlignment,
}
"""Every rule of credit assignment by its name in recipes."""


def make_rule(
    name: str, loss: SequenceLoss | None = None, options: Mapping[str, Any] | None = None, seed: int = 0
) -> CreditRule:
    """Return a rule.

    Args:
        name: one of `RULES`.
        loss: what is minimised; None takes the cross-entropy of the mean logits.
        options: fields of the rule's `Options` that differ from their defaults.
        seed: for rules with random weights or orders, unless the options give one.
    Raises: ValueError for an unknown name or option, naming the closest, or a value out of range; TypeError for a value
        of another type.

    >>> make_rule("dual_propagation", options={"beta": 0.5}).options.beta
    0.5
    """
    if name not in RULES:
        raise ValueError(f"rule: unknown {name!r}{closest(str(name), RULES)}")
    kind = RULES[name]
    accepted = [entry.name for entry in fields(kind.Options)]
    given = dict(options or {})
    for key in given:
        if key not in accepted:
            hint = closest(str(key), accepted) if accepted else "; it has none"
            raise ValueError(f"rule.{key}: {name} has no such option{hint}")
    if "seed" in accepted:
        given.setdefault("seed", seed)
    try:
        return kind(loss, kind.Options(**given))
    except (ValueError, TypeError) as error:
        raise type(error)(f"rule: {name}: {error}") from error
