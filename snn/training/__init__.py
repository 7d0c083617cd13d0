"""Training of spiking networks: recipes, run folders, exact continuation of interrupted runs."""

from snn.training.bptt import StepResult, bptt
from snn.training.errors import RecipeError, RunInterrupted
from snn.training.loss import sequence_cross_entropy
from snn.training.recipe import Recipe
from snn.training.run import train

__all__ = ["Recipe", "RecipeError", "RunInterrupted", "StepResult", "bptt", "sequence_cross_entropy", "train"]
