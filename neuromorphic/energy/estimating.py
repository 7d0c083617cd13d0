"""`estimate`: counts priced by a model, by name."""

from __future__ import annotations

import inspect
from collections.abc import Callable
from typing import Any, Final

from neuromorphic.energy.counts import Counts
from neuromorphic.energy.estimates import Estimate
from neuromorphic.energy.models.bits import arithmetic_effort
from neuromorphic.energy.models.keras_spiking import keras_spiking
from neuromorphic.energy.models.lemaire import lemaire
from neuromorphic.energy.models.mac_ac import mac_ac
from neuromorphic.energy.models.neurobench import neurobench
from neuromorphic.energy.models.snn_or_qnn import snn_or_qnn
from neuromorphic.energy.models.spikesim import spikesim

CHIP: Final = "chip:"

MODELS: Final[dict[str, Callable[..., Estimate]]] = {
    "45nm": mac_ac,
    "bit-budget": arithmetic_effort,
    "lemaire": lemaire,
    "snn-or-qnn": snn_or_qnn,
    "neurobench": neurobench,
    "keras-spiking": keras_spiking,
    "spikesim": spikesim,
}
"""Every model that is not a chip, by name; "chip:NAME" takes the data sheet NAME of `neuromorphic.targets`."""


def estimate(counts: Counts, model: str = "45nm", **options: Any) -> Estimate:
    """Price counts with a model.

    Args:
        counts: from `count`.
        model: a name of `MODELS`, or "chip:NAME" with a data sheet's name or the path of your own sheet.
        options: further arguments of that model's function.
    Returns: rows of layers and terms per inference, with low, typical and high.
    Raises:
        ValueError: an unknown model, chip or option, naming the closest one.
        UnsupportedError: the model cannot price this network; the text says which price or shape is missing.

    >>> estimate(Counts((), steps=1, samples=1), "45nm").total.typical
    0
    """
    from snn.errors import closest

    if not isinstance(counts, Counts):
        raise TypeError(f"estimate: counts must be what count() returned, got {type(counts).__name__}")
    if model.startswith(CHIP):
        from neuromorphic.energy.models.chip import chip
        from neuromorphic.targets import load

        target = load(model.removeprefix(CHIP))
        _check_options(model, chip, options, ("counts", "target"))
        return chip(counts, target, **options)
    if model not in MODELS:
        raise ValueError(f"estimate: unknown model {model!r}{closest(model, [*MODELS, 'chip:NAME'])}")
    _check_options(model, MODELS[model], options, ("counts",))
    return MODELS[model](counts, **options)


def _check_options(model: str, function: Callable[..., Any], options: dict[str, Any], own: tuple[str, ...]) -> None:
    from snn.errors import closest

    known = [name for name in inspect.signature(function).parameters if name not in own]
    for name in options:
        if name not in known:
            raise ValueError(f"estimate: model {model!r} has no option {name!r}{closest(name, known)}")
