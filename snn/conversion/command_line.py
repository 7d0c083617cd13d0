"""The command `spikeloop convert`: a trained network and data to a run folder of the converted network."""

from __future__ import annotations

import argparse
import sys
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch

from snn.errors import UnsupportedError

if TYPE_CHECKING:
    from snn.conversion.convert import Conversion
    from snn.conversion.report import ConversionReport
    from snn.conversion.sources import SourceRun

_DESCRIPTION = """Convert a trained ordinary network into a spiking one and write a run folder for simulate and energy.

SOURCE is a run folder of `spikeloop train`, or with --model and --data a file of weights (torch.save of a state_dict)."""


def parser() -> argparse.ArgumentParser:
    """Arguments of the command."""
    out = argparse.ArgumentParser(
        prog="spikeloop convert", description=_DESCRIPTION, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    out.add_argument("source", metavar="SOURCE", help="run folder, or file of weights")
    out.add_argument("--run-dir", required=True, metavar="DIR", help="folder of the converted run")
    out.add_argument("--recipe", default="rate", help="how to convert (default: rate); --list names them")
    out.add_argument(
        "--option", action="append", default=[], metavar="NAME=VALUE", help="option of the recipe; may be repeated"
    )
    out.add_argument("--T", type=int, metavar="STEPS", help="time steps of a run (default: 32)")
    out.add_argument(
        "--target-accuracy", type=float, metavar="A", help="instead of --T: fewest steps that reach A in (0, 1]"
    )
    out.add_argument(
        "--max-T", type=int, default=64, metavar="STEPS", help="most steps for --target-accuracy (default: 64)"
    )
    out.add_argument(
        "--calibration-images",
        type=int,
        default=1000,
        metavar="N",
        help="training images for thresholds (default: 1000)",
    )
    out.add_argument("--samples", type=int, metavar="N", help="test images for the report (default: all)")
    out.add_argument("--batch-size", type=int, default=100, metavar="N", help="test images at once (default: 100)")
    out.add_argument(
        "--early-exit", type=float, metavar="MARGIN", help="also answer as soon as the best logit leads by this much"
    )
    out.add_argument("--model", metavar="MODULE:CLASS", help="class of the network whose weights SOURCE holds")
    out.add_argument(
        "--model-args", default="{}", metavar="YAML", help="with --model: its arguments, e.g. '{width: 64}'"
    )
    out.add_argument("--data", metavar="NAME", help="with --model: data set of spikedata, or package.module:function")
    out.add_argument("--data-root", metavar="DIR", help="folder of the data")
    out.add_argument("--json", metavar="FILE", help="write the report here too")
    out.add_argument("--overwrite", action="store_true", help="replace the run in --run-dir")
    out.add_argument("--list", action=_ListRecipes, help="name the recipes and their options")
    return out


class _ListRecipes(argparse.Action):
    def __init__(self, option_strings: Sequence[str], dest: str, help: str | None = None) -> None:
        super().__init__(option_strings, dest, nargs=0, help=help)

    def __call__(self, parser: argparse.ArgumentParser, *_: Any, **__: Any) -> None:
        import inspect

        from snn.conversion.recipes import RECIPES

        for name, recipe in RECIPES.items():
            options = inspect.signature(recipe).parameters.values()
            print(f"{name}: {', '.join(f'{o.name}={o.default!r}' for o in options) or 'no options'}")
        parser.exit()


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command and return its exit code: 0, 2 for a user's mistake, 130 after Ctrl-C."""
    given = parser().parse_args(arguments)
    try:
        _run(given)
    except (ValueError, TypeError, OSError, UnsupportedError) as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    except ImportError as error:
        if "pip install" not in str(error):
            raise
        print(f"error: {error}", file=sys.stderr)
        return 2
    except KeyboardInterrupt:
        print("\ninterrupted; nothing was written", file=sys.stderr)
        return 130
    return 0


def _run(given: argparse.Namespace) -> None:
    from snn.conversion.converted_folder import check_target, write_folder
    from snn.conversion.recipes import make_recipe

    _check(given)
    options = _options(given.option)
    make_recipe(given.recipe, options)  # a wrong name is found before anything is loaded
    folder = Path(given.run_dir)
    check_target(folder, given.overwrite)
    if given.json and not Path(given.json).parent.is_dir():
        raise ValueError(f"--json: the folder {Path(given.json).parent} does not exist")
    source = _source(given)
    conversion, report, seconds = _converted(given, source, options)
    write_folder(folder, source, conversion.snn, report, options, seconds)
    if given.json:
        report.to_json(given.json)
    print(report.table())
    print(f"\nconverted in {seconds:.1f} s; run folder {folder}")


def _check(given: argparse.Namespace) -> None:
    if given.T is not None and given.target_accuracy is not None:
        raise ValueError("give either --T or --target-accuracy")
    if given.target_accuracy is not None and not 0 < given.target_accuracy <= 1:
        raise ValueError(f"--target-accuracy must lie in (0, 1], got {given.target_accuracy}")
    if bool(given.model) != bool(given.data):
        raise ValueError("--model and --data belong together: the class of the network, and the data set")
    counts = {
        "--T": given.T,
        "--max-T": given.max_T,
        "--calibration-images": given.calibration_images,
        "--samples": given.samples,
        "--batch-size": given.batch_size,
    }
    for flag, value in counts.items():
        if value is not None and value < 1:
            raise ValueError(f"{flag} must be at least 1, got {value}")
    if given.early_exit is not None and not given.early_exit >= 0:
        raise ValueError(f"--early-exit must be >= 0, got {given.early_exit}")


def _options(pairs: Sequence[str]) -> dict[str, Any]:
    from snn.training.recipe_yaml import read_yaml

    options: dict[str, Any] = {}
    for pair in pairs:
        name, equals, text = pair.partition("=")
        if not equals or not name:
            raise ValueError(f"--option must be NAME=VALUE, got {pair!r}")
        name = name.replace("-", "_")
        if name in options:
            raise ValueError(f"--option {name} is given twice")
        options[name] = read_yaml(text)
    return options


def _source(given: argparse.Namespace) -> SourceRun:
    from snn.conversion.sources import source_of_run, source_of_weights
    from snn.training.recipe import DataOptions
    from snn.training.recipe_yaml import read_yaml

    if not given.model:
        if Path(given.source).is_file():
            raise ValueError(f"SOURCE: {given.source} is a file; say --model package.module:Class and --data NAME")
        return source_of_run(given.source, given.data_root)
    arguments = read_yaml(given.model_args)
    if not isinstance(arguments, Mapping):
        raise ValueError(f"--model-args must be a mapping such as '{{width: 64}}', got {given.model_args!r}")
    return source_of_weights(given.source, given.model, arguments, DataOptions(name=given.data, root=given.data_root))


def _converted(
    given: argparse.Namespace, source: SourceRun, options: Mapping[str, Any]
) -> tuple[Conversion, ConversionReport, float]:
    """The conversion at the wanted or the smallest sufficient T, its report on the test images, and its seconds."""
    from snn.conversion.convert import convert
    from snn.conversion.report import measure
    from snn.conversion.sources import spread_images

    calibration = spread_images(source.splits.train, source.splits.train_rows, given.calibration_images)
    test = source.splits.test
    rows = torch.arange(len(test.labels))
    if given.samples is not None:
        if given.samples > len(rows):
            raise ValueError(f"--samples must be at most the {len(rows)} test images, got {given.samples}")
        rows = torch.linspace(0, len(rows) - 1, given.samples).round().long()

    def at(T: int) -> tuple[Conversion, ConversionReport, float]:
        start = time.perf_counter()
        conversion = convert(source.network, given.recipe, calibration, T, **options)
        seconds = time.perf_counter() - start
        report = measure(
            conversion.snn,
            _batches(test, rows, given.batch_size),
            recipe=given.recipe,
            exit_margin=given.early_exit,
            progress=_progress(len(rows), T),
        )
        return conversion, report, seconds

    if given.target_accuracy is None:
        return at(32 if given.T is None else given.T)
    return _fewest_steps(at, given.target_accuracy, given.max_T)


def _fewest_steps(
    at: Callable[[int], tuple[Conversion, ConversionReport, float]], accuracy: float, most: int
) -> tuple[Conversion, ConversionReport, float]:
    """The conversion for the fewest steps that reach the accuracy.

    Thresholds may depend on T, so the curve of one run only says where to look; each candidate is converted anew.

    Raises: ValueError if `most` steps do not reach it.
    """
    found = at(most)
    report = found[1]
    T = report.steps_to_reach(accuracy)
    if T is None:
        assert report.accuracy is not None
        raise ValueError(
            f"--target-accuracy {accuracy} is not reached within --max-T {most}: the best is "
            f"{max(report.accuracy):.4f}, the source network has {report.source_accuracy:.4f}"
        )
    while most > T:
        candidate = at(T)
        if candidate[1].accuracy is not None and candidate[1].accuracy[-1] >= accuracy:
            return candidate
        T += 1
    if report.accuracy is not None and report.accuracy[-1] < accuracy:
        raise ValueError(f"--target-accuracy {accuracy} is reached at fewer than {most} steps of that conversion only")
    return found


def _batches(images: Any, rows: torch.Tensor, size: int) -> Iterator[tuple[torch.Tensor, torch.Tensor]]:
    for part in rows.split(size):
        yield images.batch(part)


def _progress(images: int, T: int) -> Callable[[int], None] | None:
    if not sys.stderr.isatty():
        return None

    def show(done: int) -> None:
        end = "\n" if done == images else ""
        print(f"\rT = {T}: {done} of {images} test images", end=end, file=sys.stderr, flush=True)

    return show
