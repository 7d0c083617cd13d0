"""What one stage of a training in stages is: where its weights come from, and how its recipe differs."""

import re
from dataclasses import dataclass, field
from typing import Any

from snn.training.recipe_error import RecipeError, require


@dataclass(frozen=True)
class CalibrationOptions:
    """How starting thresholds are found inside the spiking network.

    Args:
        percentile: of a layer's input currents in one step, which becomes its threshold; 0 < percentile <= 100.
        steps: time steps of the calibration; the largest percentile of all steps counts.
        images: training images that are shown.
        scale: factor on the thresholds found.
        scale_biases: divide each bias by the thresholds of all layers before it, for weights that come from an ANN. A spike
            is 1 and not the threshold it stands for, so the currents of layer l are those of the ANN divided by these
            thresholds, and a bias that is not would outweigh them. For layers in a row; without biases it changes nothing.
    """

    percentile: float = 90.0
    steps: int = 100
    images: int = 64
    scale: float = 1.0
    scale_biases: bool = False

    def __post_init__(self) -> None:
        require(0 < self.percentile <= 100, "calibrate.percentile", "in (0, 100]", self.percentile)
        require(self.steps >= 1, "calibrate.steps", ">= 1", self.steps)
        require(self.images >= 1, "calibrate.images", ">= 1", self.images)
        require(self.scale > 0, "calibrate.scale", "> 0", self.scale)


@dataclass(frozen=True)
class Stage:
    """One training of several that follow each other in a run folder.

    Args:
        name: of the stage: letters, digits, "-", "_" and ".".
        weights_from: name of an earlier stage whose selected epoch is the start, "previous", or null for new weights.
        skip: parts of tensor names that are not taken over, such as readout.
        fold_norms: fold the earlier network's batch normalisations into its weights before they are taken over.
        adapt_input: spread the first layer's weights over another number of input channels.
        calibrate: find thresholds of DIET neurons inside the new network; null keeps those taken over.
        revive: lower the thresholds of layers that (almost) never fire at the start of the stage.
        freeze_epochs: epochs in which tensors that were taken over unchanged are not trained.
        recipe: keys of the recipe that differ in this stage.
    """

    name: str
    weights_from: str | None = "previous"
    skip: list[str] = field(default_factory=list)
    fold_norms: bool = False
    adapt_input: bool = False
    calibrate: CalibrationOptions | None = None
    revive: bool = False
    freeze_epochs: int = 0
    recipe: dict[str, Any] = field(default_factory=dict)

    def __post_init__(self) -> None:
        named = re.fullmatch(r"[A-Za-z0-9_][A-Za-z0-9_.-]*", self.name) and self.name != "previous"
        require(bool(named), "stages: name", "letters, digits, '-', '_' and '.', not 'previous'", self.name)
        require(self.freeze_epochs >= 0, f"stages: {self.name}: freeze_epochs", ">= 0", self.freeze_epochs)
        taken = self.weights_from is not None
        for key in ("skip", "fold_norms", "adapt_input", "freeze_epochs"):
            if getattr(self, key) and not taken:
                raise RecipeError(f"stages: {self.name}: {key} needs weights_from, which is null")
