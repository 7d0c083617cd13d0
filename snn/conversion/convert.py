"""`snn.convert`: from a trained ANN to a spiking network and a report about it."""

from __future__ import annotations

import importlib
from typing import Any

import torch
from torch import nn

from snn.conversion.calibration_data import CalibrationData, calibration_data
from snn.conversion.network import ConvertedNetwork
from snn.conversion.recipes import make_recipe
from snn.conversion.structure import build
from snn.errors import UnsupportedError

CHECKED_SAMPLES = 4


class Conversion:
    """A converted network and how it came about.

    Attributes:
        snn: the converted network; `snn(x)` gives logits [B, classes].
        recipe: name of the recipe.
        options: options that were given to it.
        T: steps of a run.
    """

    def __init__(
        self, network: ConvertedNetwork, recipe: str, options: dict[str, Any], T: int, data: CalibrationData | None
    ) -> None:
        self.snn = network
        self.recipe = recipe
        self.options = options
        self.T = T
        self._data = data
        self._report: Any = None

    @property
    def report(self) -> Any:
        """What the conversion did on the calibration data; computed when first asked for.

        Raises:
            ValueError: there was no calibration data; use `snn.conversion.measure`.
        """
        if self._report is None:
            if self._data is None:
                raise ValueError(
                    "report: the conversion had no calibration data to report on; "
                    "use snn.conversion.measure(conversion.snn, images, labels)"
                )
            measure = importlib.import_module("snn.conversion.report").measure
            self._report = measure(self.snn, self._data.images, self._data.labels, T=self.T, recipe=self.recipe)
        return self._report

    def __repr__(self) -> str:
        return f"Conversion(recipe={self.recipe!r}, T={self.T}, {len(self.snn.layers())} spiking layers)"


def convert(ann: nn.Module, recipe: str, calibration: Any = None, T: int = 32, **options: Any) -> Conversion:
    """Converts a trained ANN into a spiking network.

    The ANN is copied, put into evaluation and traced with torch.fx; batch normalisation is folded, every activation
    becomes a layer of spiking neurons, and thresholds come from the calibration data.

    Args:
        ann: any torch.fx-traceable network with one input [B, ...] and one output [B, classes].
        recipe: a name of `snn.conversion.RECIPES`.
        calibration: inputs [N, ...], (inputs, labels), or an iterable of batches of either; as the ANN takes them.
        T: steps of a run.
        options: of the recipe.
    Returns: `Conversion` with `.snn`, `.report`, `.recipe` and `.T`.
    Raises:
        UnsupportedError: with every layer that has no spiking form, its line, and what to write instead.
        ValueError, TypeError, ShapeError: a recipe, option, T or calibration data that is not accepted.

    >>> ann = nn.Sequential(nn.Linear(4, 8), nn.ReLU(), nn.Linear(8, 2))
    >>> conversion = convert(ann, "rate", torch.rand(32, 4), T=16)
    >>> conversion.snn(torch.rand(3, 4)).shape
    torch.Size([3, 2])
    """
    made = make_recipe(recipe, options)
    network = build(ann, made, T)
    data = None if calibration is None else calibration_data(calibration)
    if data is None and made.needs_data(network):
        raise ValueError(f"convert: recipe {recipe!r} needs calibration data: a tensor, (inputs, labels) or batches")
    if data is not None:
        _check_source(ann, network, data.batches[0][:CHECKED_SAMPLES])
    with torch.no_grad():
        made.calibrate(network, () if data is None else data.batches, T)
    return Conversion(network, recipe, options, T, data)


def structure(ann: nn.Module, recipe: str, T: int, **options: Any) -> ConvertedNetwork:
    """The converted network without calibration, to load a `state_dict` of an earlier conversion into.

    Raises: as `convert`.
    """
    return build(ann, make_recipe(recipe, options), T)


@torch.no_grad()
def _check_source(ann: nn.Module, network: ConvertedNetwork, x: torch.Tensor) -> None:
    """Makes sure that the canonical network computes what the ANN computes in evaluation.

    Raises: UnsupportedError with the largest difference.
    """
    if network.notes:  # the head was left out
        return
    training = {module: module.training for module in ann.modules()}
    try:
        wanted = ann.eval()(x)
    finally:
        for module, mode in training.items():
            module.training = mode
    got = network.source(x)
    size = wanted.abs().max().clamp(min=torch.finfo(wanted.dtype).tiny)
    error = ((got - wanted).abs().max() / size).item()
    if not error <= 1e4 * torch.finfo(wanted.dtype).eps:
        raise UnsupportedError(
            f"convert: the traced network differs from {type(ann).__name__} by {error:.2g} of its largest output; "
            "its forward does something that a conversion cannot follow: counting calls, drawing random numbers, or "
            "changing a tensor in place through a view or by +="
        )
