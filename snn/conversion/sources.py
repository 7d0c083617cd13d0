"""What the command converts: a run folder of training, or a file of weights with the class of the network."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch
from torch import nn

from snn.conversion.run_network import ConvertedRun, plain_network
from snn.errors import UnsupportedError
from snn.training.build import build_network
from snn.training.data import Images, Splits, load_splits
from snn.training.recipe import DataOptions, Recipe, RecipeError
from snn.training.run_folder import RunFolder


@dataclass(frozen=True, eq=False)
class SourceRun:
    """A trained ordinary network and its data.

    Attributes:
        network: [B, ...] to logits [B, classes], in evaluation.
        choice: `class` and arguments, to build it again.
        splits: its data.
        data: their options.
        seed: of the run.
        origin: in words, where it comes from.
    """

    network: nn.Module
    choice: dict[str, Any]
    splits: Splits
    data: DataOptions
    seed: int
    origin: str


def source_of_run(folder: str | Path, data_root: str | None = None) -> SourceRun:
    """The network of a run folder, best epoch where a validation part chose it, else the last.

    Raises:
        RecipeError: the folder holds no run, or its data are missing.
        UnsupportedError: the network is converted already, or spikes.
    """
    from snn.training.command_line import parse

    run = RunFolder(Path(folder))
    if not run.config.is_file() or not run.last.is_file():
        raise RecipeError(f"SOURCE: {folder} is no run folder (no config.yaml or checkpoints/last.ckpt)")
    root = [] if data_root is None else [f"--data.root={data_root}"]
    _, recipe = parse([f"--run-dir={folder}", "--resume", *root])
    splits = load_splits(recipe.data, recipe.seed)
    trained = build_network(recipe.network, splits.input_shape, splits.class_count)
    if isinstance(trained, ConvertedRun):
        raise UnsupportedError(f"SOURCE: {folder} is converted already; convert the run that it was made from")
    if recipe.encoding.steps != 1 or recipe.encoding.name != "direct":
        raise UnsupportedError(
            f"SOURCE: {folder} was trained with encoding {recipe.encoding.name!r} over {recipe.encoding.steps} steps; an "
            "ordinary network has encoding 'direct' and 1 step"
        )
    file = run.best if len(splits.val_rows) and run.best.is_file() else run.last
    weights = torch.load(file, map_location="cpu", weights_only=True)["state_dict"]
    trained.load_state_dict({key.removeprefix("network."): value for key, value in weights.items()})
    plain = plain_network(trained)
    if plain is trained:
        raise UnsupportedError(
            f"SOURCE: {type(trained).__name__} takes [T, B, ...]; of such networks, those made of one snn.models.Stack can "
            "be converted; give any other as FILE.pt with --model and the class over [B, ...]"
        )
    return SourceRun(
        plain.eval(), dict(recipe.network), splits, recipe.data, recipe.seed, f"run {Path(folder).resolve().name}"
    )


def source_of_weights(
    file: str | Path, model: str, arguments: Mapping[str, Any], data: DataOptions, seed: int = 0
) -> SourceRun:
    """A network `package.module:Class` over [B, ...] with the weights of a file.

    Args:
        file: written by torch.save: a state_dict, or a dictionary with one under "state_dict" or "model".
        model: "package.module:Class" or "package.module.Class"; a function that returns a network also does.
        arguments: of the class; `input_shape` and `classes` are filled in from the data where it takes them.
        data: which data set.
        seed: for a validation part of the data.
    Raises:
        RecipeError: the class, an argument, the data or the file cannot be used.
    """
    choice = {"class": model.replace(":", "."), **arguments}
    if "." not in choice["class"]:
        raise RecipeError(f"--model must be package.module:Class, got {model!r}")
    splits = load_splits(replace(data, batch_size=1), seed)
    network = build_network(choice, splits.input_shape, splits.class_count)
    try:
        network.load_state_dict(_weights(Path(file)))
    except RuntimeError as error:
        raise RecipeError(f"SOURCE: {file} does not fit {model}: {' '.join(str(error).split())[:500]}") from error
    return SourceRun(plain_network(network).eval(), choice, splits, data, seed, f"{Path(file).name} ({model})")


def _weights(file: Path) -> dict[str, torch.Tensor]:
    if not file.is_file():
        raise RecipeError(f"SOURCE: there is no file {file}")
    try:
        content = torch.load(file, map_location="cpu", weights_only=True)
    except Exception as error:
        raise RecipeError(
            f"SOURCE: {file} is not a file of weights (torch.save(network.state_dict(), ...)): "
            f"{' '.join(str(error).split())[:200]}"
        ) from error
    for key in ("state_dict", "model"):
        if isinstance(content, Mapping) and isinstance(content.get(key), Mapping):
            content = content[key]
    if not isinstance(content, Mapping) or not all(isinstance(value, torch.Tensor) for value in content.values()):
        raise RecipeError(f"SOURCE: {file} holds no state_dict; save torch.save(network.state_dict(), ...)")
    return {str(key).removeprefix("module."): value for key, value in content.items()}


def spread_images(images: Images, rows: torch.Tensor, count: int) -> tuple[torch.Tensor, torch.Tensor]:
    """Images [n, ...] and labels [n] at `count` places spread evenly over `rows`, all of them if there are fewer."""
    places = torch.linspace(0, len(rows) - 1, min(count, len(rows))).round().long()
    return images.batch(rows[places])


def recipe_of(source: SourceRun, T: int, converted: Mapping[str, Any]) -> Recipe:
    """The entry of config.yaml with which other commands load the converted network."""
    from snn.training.recipe import EncodingOptions

    return Recipe(
        data=source.data,
        encoding=EncodingOptions("direct", T),
        network={"class": "snn.conversion.run_network.ConvertedRun", **converted},
        seed=source.seed,
    )
