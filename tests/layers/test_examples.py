"""The examples in docstrings and documentation of delays and membrane norms."""

from __future__ import annotations

import doctest
import importlib
import re
from pathlib import Path
from typing import Any

import pytest
import torch

MODULES = [
    "snn.layers.norm",
    "snn.layers.norm_report",
    "snn.layers.delay",
    "snn.layers.delay_positions",
    "snn.models.delayed",
    "snn.models.resnet",
]


@pytest.mark.parametrize("name", MODULES)
def test_docstrings(name: str) -> None:
    results = doctest.testmod(importlib.import_module(name), extraglobs={"torch": torch})
    assert results.attempted > 0
    assert results.failed == 0


@pytest.mark.parametrize("page", ["mpbn", "delays"])
def test_pages(page: str) -> None:
    text = (Path(__file__).parents[2] / "docs" / f"{page}.md").read_text(encoding="utf8")
    names: dict[str, Any] = {"__name__": "documentation"}
    blocks = re.findall(r"```python\n(.*?)```", text, re.DOTALL)
    assert blocks
    for block in blocks:
        exec(block, names)
