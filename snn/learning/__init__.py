"""Rules of credit assignment: what fills the gradients of a network."""

from snn.learning.alignment import Alignment, gradient_alignment
from snn.learning.backpropagation import Backpropagation
from snn.learning.direct_feedback import DirectFeedbackAlignment
from snn.learning.dual_propagation import DualPropagation
from snn.learning.equilibrium import EquilibriumPropagation
from snn.learning.event_dual_propagation import EventDualPropagation
from snn.learning.feedback_alignment import FeedbackAlignment, SignSymmetric
from snn.learning.flexible_phase import FlexiblePhase
from snn.learning.rule import CreditRule
from snn.learning.rules import RULES, make_rule

__all__ = [
    "RULES",
    "Alignment",
    "Backpropagation",
    "CreditRule",
    "DirectFeedbackAlignment",
    "DualPropagation",
    "EquilibriumPropagation",
    "EventDualPropagation",
    "FeedbackAlignment",
    "FlexiblePhase",
    "SignSymmetric",
    "gradient_alignment",
    "make_rule",
]
