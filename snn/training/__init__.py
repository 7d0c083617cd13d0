"""Training of spiking networks: recipes, run folders, exact continuation of interrupted runs."""

from snn.training.bptt import StepResult, bptt
from snn.training.loss import sequence_cross_entropy
from snn.training.recipe import Recipe, RecipeError
from snn.training.run import RunInterrupted, train
from snn.training.transfer import TransferReport, transfer

__all__ = [
    "Recipe",
    "RecipeError",
    "RunInterrupted",
    "StepResult",
    "TransferReport",
    "bptt",
    "sequence_cross_entropy",
    "train",
    "transfer",
]
