"""The recipes by name."""

from __future__ import annotations

import inspect
from collections.abc import Mapping
from typing import Any

from snn.conversion.recipe import Recipe
from snn.conversion.recipes.balancing import LTB
from snn.conversion.recipes.burst import Burst
from snn.conversion.recipes.calibration import CalibrationAdvanced, CalibrationLight
from snn.conversion.recipes.cnn_morph import CNNMorph
from snn.conversion.recipes.qcfs import FromQCFS
from snn.conversion.recipes.rate import Rate
from snn.conversion.recipes.residual import COS, SRP
from snn.conversion.recipes.rnn_morph import RNNMorph
from snn.conversion.recipes.signed import Signed
from snn.conversion.recipes.stbif import STBIF
from snn.conversion.recipes.td import TemporalDifferences
from snn.errors import closest

RECIPES: dict[str, type[Recipe]] = {
    "rate": Rate,
    "qcfs": FromQCFS,
    "calibration-light": CalibrationLight,
    "calibration-advanced": CalibrationAdvanced,
    "burst": Burst,
    "signed": Signed,
    "srp": SRP,
    "cos": COS,
    "ltb": LTB,
    "stbif": STBIF,
    "td": TemporalDifferences,
    "cnn-morph": CNNMorph,
    "rnn-morph": RNNMorph,
}
for _name, _recipe in RECIPES.items():
    _recipe.name = _name


def make_recipe(name: str, options: Mapping[str, Any]) -> Recipe:
    """The recipe of this name with its options.

    Raises:
        ValueError: there is no such recipe, or an option's value is not accepted.
        TypeError: an option that the recipe does not have.
    """
    if not isinstance(name, str) or name not in RECIPES:
        raise ValueError(f"convert: no recipe {name!r}{closest(str(name), RECIPES)}")
    accepted = inspect.signature(RECIPES[name]).parameters
    for option in options:
        if option not in accepted:
            raise TypeError(f"convert: recipe {name!r} has no option {option!r}{closest(option, accepted)}")
    return RECIPES[name](**options)
