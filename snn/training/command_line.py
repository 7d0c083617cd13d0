"""The command `spikeloop train`: recipe, overrides and run folder from the command line."""

import sys
from collections.abc import Mapping, Sequence
from dataclasses import fields
from pathlib import Path
from typing import Any

from snn.errors import closest
from snn.training.recipe import Recipe, RecipeError, recipe_names, recipe_path
from snn.training.recipe_parse import recipe_from_dict
from snn.training.recipe_yaml import read_yaml

_DESCRIPTION = """Train a spiking network as a recipe says and write a run folder.

Every key of the recipe can be given on the command line: --epochs 3, --data.batch_size 128, --network.hidden "[256, 256]".
Values are YAML; "-" may stand for "_" in names."""
_FLAGS = ("config", "run_dir", "resume", "overwrite", "help")


def main(arguments: Sequence[str]) -> int:
    """Run the command and return its exit code: 0, 2 for a user's mistake, 130 after Ctrl-C."""
    from snn.training.run import RunInterrupted, train

    folder: Path | None = None
    try:
        options, recipe = parse(arguments)
        folder = options["run_dir"]
        metrics = train(recipe, folder, options["resume"], options["overwrite"], progress=sys.stderr.isatty())
    except RecipeError as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    except ImportError as error:
        if "pip install" not in str(error):
            raise
        print(f"error: {error}", file=sys.stderr)
        return 2
    except (RunInterrupted, KeyboardInterrupt):
        again = f"; continue with: spikeloop train --run-dir {folder} --resume" if folder else ""
        print(f"\ninterrupted{again}", file=sys.stderr)
        return 130
    if metrics:
        print(_summary(metrics, options["run_dir"]))
    return 0


def parse(arguments: Sequence[str]) -> tuple[dict[str, Any], Recipe]:
    """Return the options of the command and the recipe with its overrides.

    Raises: RecipeError naming the flag, key or value that is wrong; SystemExit(0) after --help.
    """
    try:
        from jsonargparse import ArgumentError, ArgumentParser
    except ImportError as error:
        raise ImportError("training needs jsonargparse; install it with: pip install 'spikeloop[train]'") from error

    flags, overrides = _split(arguments)
    parser = ArgumentParser(prog="spikeloop train", description=_DESCRIPTION, exit_on_error=False)
    parser.add_argument("--config", type=str, help=f"YAML file, or one of: {', '.join(recipe_names())}")
    parser.add_argument("--run_dir", type=str, help="folder of the run, made if it is not there")
    parser.add_argument(
        "--resume", action="store_true", help="continue the run in the folder; starts one if there is none"
    )
    parser.add_argument("--overwrite", action="store_true", help="replace the run in the folder")
    if any(flag in ("-h", "--help") for flag in arguments):
        parser.add_class_arguments(Recipe)
        parser.print_help()
        raise SystemExit(0)
    try:
        options = vars(parser.parse_args(flags))
    except ArgumentError as error:
        raise RecipeError(str(error)) from error
    if options["run_dir"] is None:
        raise RecipeError("--run-dir is missing: the folder that the run is written to")
    options["run_dir"] = Path(options["run_dir"])
    path = _config_path(options)
    try:
        given = read_yaml(path.read_text(encoding="utf-8")) or {}
    except (ValueError, OSError) as error:
        raise RecipeError(f"--config: {path}: {error}") from error
    if not isinstance(given, Mapping):
        raise RecipeError(f"--config: {path} must hold keys and values, got {type(given).__name__}")
    given = dict(given)
    for key, text in overrides:
        try:
            value = read_yaml(text)
        except ValueError as error:
            raise RecipeError(f"--{key}: {text!r}: {error}") from error
        _set(given, key.split("."), value, key)
    return options, recipe_from_dict(given)


def _split(arguments: Sequence[str]) -> tuple[list[str], list[tuple[str, str]]]:
    """Part the command's own flags from overrides of recipe keys, written --key value or --key=value."""
    keys = [entry.name for entry in fields(Recipe)]
    flags: list[str] = []
    overrides: list[tuple[str, str]] = []
    waiting = iter(arguments)
    for argument in waiting:
        if not argument.startswith("--"):
            flags.append(argument)
            continue
        name, equals, value = argument[2:].partition("=")
        name = name.replace("-", "_")
        first = name.split(".")[0]
        if first in keys:
            text = value if equals else next(waiting, None)
            if text is None or (not equals and text.startswith("--")):
                raise RecipeError(f"--{name} needs a value")
            overrides.append((name, text))
        elif name in _FLAGS:
            flags.append(f"--{name}{equals}{value}")
        else:
            raise RecipeError(f"unknown flag --{name}{closest(first, [*keys, *_FLAGS])}")
    return flags, overrides


def _config_path(options: Mapping[str, Any]) -> Path:
    if options["config"] is not None:
        return recipe_path(options["config"])
    saved: Path = options["run_dir"] / "config.yaml"
    if options["resume"] and saved.is_file():
        return saved
    raise RecipeError(f"--config is missing: a YAML file, or one of: {', '.join(recipe_names())}")


def _set(given: dict[str, Any], path: Sequence[str], value: Any, key: str) -> None:
    for depth, name in enumerate(path[:-1], start=1):
        inner = given.get(name) or {}
        if name in ("neuron", "rule") and isinstance(inner, str):
            inner = {"class": inner}
        if not isinstance(inner, Mapping):
            raise RecipeError(f"--{key}: {'.'.join(path[:depth])} is {inner!r} and has no keys")
        given[name] = dict(inner)
        given = given[name]
    given[path[-1]] = value


def _summary(metrics: Mapping[str, Any], folder: Path) -> str:
    if "stages" in metrics:
        from snn.training.stage_report import stage_table

        return f"{stage_table(metrics['stages'])}\n\nper layer              {folder / 'layers.csv'}"
    spikes = f"spikes per neuron      {metrics['spikes_per_neuron']:.3f} per image in {metrics['T']} steps"
    return "\n".join(
        [
            f"test accuracy          {metrics['test_accuracy']:.2%} ({metrics['test_accuracy_is_of']})",
            *([spikes] if metrics["spike_rates"] else []),
            f"time per epoch         {metrics['seconds_per_epoch']:.2f} s ({metrics['train_seconds']:.1f} s in all)",
            f"spike raster           {folder / 'raster.png'}",
            f"accuracy curve         {folder / 'accuracy.png'}",
        ]
    )
