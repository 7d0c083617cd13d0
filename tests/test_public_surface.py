"""What is public, what importing costs, and that the documentation's examples run."""

from __future__ import annotations

import doctest
import importlib
import os
import pkgutil
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch

import snn
from snn.ops import spike

HEAVY = ["numba", "lightning", "matplotlib", "jsonargparse", "sklearn", "h5py", "nir", "tensorboard", "pooch", "triton"]


def test_public_names() -> None:
    assert sorted(snn.__all__) == sorted(
        [
            "ALIF",
            "DIET",
            "IF",
            "LI",
            "LIAF",
            "LIF",
            "NEURONS",
            "PLIF",
            "AdEx",
            "BipolarIF",
            "CubaLIF",
            "Izhikevich",
            "MultiSpikeLIF",
            "Neuron",
            "NeuronModel",
            "RecurrentLIF",
            "STBIF",
            "ShapeError",
            "UnsupportedError",
            "accelerate",
            "convert",
            "fold_mpbn",
            "neuron_model",
            "surrogate",
        ]
    )
    assert all(hasattr(snn, name) for name in snn.__all__)


def test_every_neuron_layer_is_listed() -> None:
    defined = set()
    for module in pkgutil.iter_modules(importlib.import_module("snn.neurons").__path__):
        names = vars(importlib.import_module(f"snn.neurons.{module.name}"))
        defined |= {value for value in names.values() if isinstance(value, type) and issubclass(value, snn.Neuron)}
    assert defined - {snn.Neuron} == set(snn.NEURONS.values())


def test_import_snn_is_light() -> None:
    script = "import sys, torch; before = set(sys.modules); import snn; print(*(set(sys.modules) - before))"
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)}
    output = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True, env=environment)
    loaded = {name.partition(".")[0] for name in output.stdout.split()}
    assert "snn" in loaded
    assert not loaded & set(HEAVY)


FAMILIES = ["adaptive", "cuba", "diet", "graded", "liaf", "lif", "neuron", "recurrent", "tracer"]
MODULES = ["snn.acceleration", "snn.declaration", "snn.errors", *(f"snn.neurons.{family}" for family in FAMILIES)]


@pytest.mark.parametrize("name", MODULES)
def test_examples_in_docstrings(name: str) -> None:
    @snn.neuron_model(state={"v": 0.0}, params={"leak": 0.9, "v_threshold": 1.0})
    def leaky(x, s, p):  # type: ignore[no-untyped-def]
        v = p.leak * s.v + x
        z = spike(v - p.v_threshold)
        return z, {"v": v - z * p.v_threshold}

    module = importlib.import_module(name)
    names = {"torch": torch, "snn": snn, "leaky": leaky, "spike": spike}
    results = doctest.testmod(module, extraglobs=names)
    assert results.failed == 0


def test_the_neuron_written_in_the_documentation() -> None:
    text = (Path(__file__).parents[1] / "docs" / "neurons.md").read_text(encoding="utf8")
    (block,) = [block for block in re.findall(r"```python\n(.*?)```", text, re.DOTALL) if "neuron_model" in block]
    names: dict[str, Any] = {"__name__": "documentation"}
    exec(block, names)
    layer = names["layer"]
    x = torch.rand(30, 2, 5)
    y = layer(x)
    assert layer.chosen_backend(x).backend == "numba"
    layer.backend = "reference"
    assert torch.equal(layer(x), y)
    assert 0 < y.mean() < 0.5
