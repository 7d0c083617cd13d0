"""Trainings that follow each other in one run folder, each starting from the weights of an earlier one."""

from __future__ import annotations

import copy
import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any

import torch
from torch import nn

from snn.errors import closest
from snn.training.activity import measure_activity
from snn.training.atomic_write import write_text
from snn.training.build import build_network, build_optimizer, build_rule
from snn.training.data import Splits, load_splits
from snn.training.encoding import encoded
from snn.training.lightning_import import import_lightning
from snn.training.loss import SequenceLoss
from snn.training.network_check import check_network
from snn.training.recipe import Recipe, RecipeError, recipe_to_dict
from snn.training.recipe_parse import recipe_from_dict
from snn.training.run import Start, load_selected, train_one, using_threads
from snn.training.run_folder import RunFolder
from snn.training.seeding import EVALUATE, WEIGHTS, derived_seed, set_all_generators
from snn.training.stage_options import Stage
from snn.training.stage_report import draw_stages, stage_line, write_tables
from snn.training.thresholds import initialise_thresholds, revive, silent_gradients
from snn.training.transfer import transfer

_CHECK_IMAGES = 200  # for dead layers, before the training
_ACTIVITY_IMAGES = 1000  # of the test set, for spikes and energy per layer
_BATCH = 200


def stage_recipes(recipe: Recipe) -> dict[str, Recipe]:
    """The recipe of each stage by its name: the keys of the whole run, changed by those of the stage.

    A mapping of the stage is merged into that of the run, unless it has the key `class`, which replaces the whole.

    Raises: RecipeError for a name given twice, `weights_from` that is no earlier stage, or a wrong key.
    """
    common = {key: value for key, value in recipe_to_dict(recipe).items() if key != "stages"}
    found: dict[str, Recipe] = {}
    for stage in recipe.stages:
        if stage.name in found:
            raise RecipeError(f"stages: the name {stage.name!r} is given twice")
        source = stage.weights_from
        if source == "previous" and not found:
            raise RecipeError(f"stages: {stage.name}: the first stage has none before it; set weights_from: null")
        if source is not None and source not in ("previous", *found):
            raise RecipeError(
                f"stages: {stage.name}: weights_from: no earlier stage {source!r}{closest(source, found)}"
            )
        if "stages" in stage.recipe or "seed" in stage.recipe:
            raise RecipeError(f"stages: {stage.name}: recipe cannot change stages or seed")
        try:
            found[stage.name] = recipe_from_dict(_merged(common, stage.recipe))
        except RecipeError as error:
            raise RecipeError(f"stages: {stage.name}: recipe: {error}") from error
    return found


def _merged(base: Mapping[str, Any], changes: Mapping[str, Any]) -> dict[str, Any]:
    result = dict(base)
    for key, value in changes.items():
        before = result.get(key)
        merge = isinstance(value, Mapping) and isinstance(before, Mapping) and "class" not in value
        result[key] = _merged(before, value) if merge else value  # type: ignore[arg-type]
    return result


@dataclass
class _Run:
    """What the stages of one run share."""

    recipe: Recipe
    recipes: dict[str, Recipe]
    folder: RunFolder
    report: Callable[[str], None]
    splits: dict[Any, Splits] = field(default_factory=dict)

    def stage_folder(self, name: str) -> Path:
        return self.folder.path / "stages" / name

    def splits_of(self, name: str) -> Splits:
        recipe = self.recipes[name]
        if recipe.data not in self.splits:
            self.splits[recipe.data] = load_splits(recipe.data, recipe.seed)
        return self.splits[recipe.data]

    def source(self, stage: Stage) -> str | None:
        """Name of the stage whose weights are the start."""
        if stage.weights_from == "previous":
            names = list(self.recipes)
            return names[names.index(stage.name) - 1]
        return stage.weights_from

    def new_network(self, name: str) -> nn.Module:
        recipe, splits = self.recipes[name], self.splits_of(name)
        set_all_generators(derived_seed(recipe.seed, WEIGHTS))
        return build_network(recipe.network, splits.input_shape, splits.class_count)

    def trained_network(self, name: str) -> nn.Module:
        """The network of a finished stage."""
        network = self.new_network(name)
        load_selected(network, RunFolder(self.stage_folder(name)), len(self.splits_of(name).val_rows) > 0)
        return network.eval()


def train_stages(
    recipe: Recipe, run_dir: Path, resume: bool, overwrite: bool, progress: bool, report: Callable[[str], None]
) -> dict[str, Any]:
    """Train all stages of a recipe; arguments as in `train`.

    Each stage has the run folder `stages/NAME`. A continued run leaves finished stages alone and goes on in the middle of
    the one that was interrupted.

    Returns: metrics.json: the figures of the last stage, and those of every stage under `stages`.
    Raises: RecipeError for a recipe or folder that cannot be used; RunInterrupted after Ctrl-C.
    """
    import_lightning()  # before a finished stage is read, in the way that copes with a torchvision of another build
    run = _Run(recipe, stage_recipes(recipe), RunFolder(run_dir), report)
    with using_threads(recipe.threads):
        for stage in recipe.stages:
            try:
                _check(run, stage)
            except RecipeError as error:
                raise RecipeError(f"stages: {stage.name}: {error}") from error
        run.folder.open(recipe_to_dict(recipe), resume, overwrite)
        rows = [_train_stage(run, stage, progress) for stage in recipe.stages]
        write_tables(run.folder.path, rows)
        draw_stages(rows, run.folder.path / "stages.png")
    metrics = {**rows[-1], "stages": rows}
    run.folder.write_metrics(metrics)
    return metrics


def _check(run: _Run, stage: Stage) -> None:
    """Find what is wrong in a stage before the first one is trained."""
    recipe = run.recipes[stage.name]
    network = run.new_network(stage.name)
    check_network(recipe, network, run.splits_of(stage.name))
    build_rule(recipe, network)
    build_optimizer(recipe.optimizer, network)
    source = run.source(stage)
    try:
        if source is not None:
            _take_over(stage, run.new_network(source), network)
        if stage.calibrate is not None or stage.revive:
            few = replace(stage.calibrate, images=2, steps=1) if stage.calibrate else None
            _set_thresholds(run, replace(stage, calibrate=few), network, 2)
    except ValueError as error:
        raise RecipeError(str(error)) from error


def _take_over(stage: Stage, old: nn.Module, network: nn.Module) -> tuple[dict[str, Any], list[nn.Parameter]]:
    found = transfer(old, network, stage.skip, adapt_input=stage.adapt_input, fold_norms=stage.fold_norms)
    copied = set(found.copied)
    frozen = [p for name, p in network.named_parameters() if name in copied and p.requires_grad]
    return {"transfer": asdict(found)}, frozen


def _set_thresholds(run: _Run, stage: Stage, network: nn.Module, image_count: int) -> dict[str, Any]:
    record: dict[str, Any] = {}
    recipe = run.recipes[stage.name]
    if stage.calibrate is not None:
        options = stage.calibrate
        encoding = recipe.encoding
        if encoding.name != "sequence":
            encoding = replace(encoding, steps=options.steps)
        x, _ = _shown(run, stage.name, options.images, encoding)
        record["thresholds_at_start"] = initialise_thresholds(network, x, options)
    if stage.revive:
        x, _ = _shown(run, stage.name, image_count, recipe.encoding)
        record["revived"] = {name: asdict(change) for name, change in revive(network, x).items()}
    return record


def _shown(run: _Run, name: str, count: int, encoding: Any) -> tuple[torch.Tensor, torch.Tensor]:
    """The first training images of a stage, encoded, and their labels."""
    splits = run.splits_of(name)
    images, labels = splits.train.batch(splits.train_rows[:count])
    return encoded(images, encoding, derived_seed(run.recipe.seed, EVALUATE)), labels


def _train_stage(run: _Run, stage: Stage, progress: bool) -> dict[str, Any]:
    recipe, folder = run.recipes[stage.name], run.stage_folder(stage.name)
    finished = folder / "stage.json"
    if finished.is_file():
        row: dict[str, Any] = json.loads(finished.read_text(encoding="utf-8"))
        return row
    start_record: dict[str, Any] = {}

    def begin(network: nn.Module, splits: Splits) -> Start:
        record, frozen = _begin(run, stage, network)
        start_record.update(record)
        return Start(frozen, stage.freeze_epochs)

    folder.parent.mkdir(exist_ok=True)
    metrics = train_one(recipe, folder, True, False, progress, lambda line: run.report(f"{stage.name}: {line}"), begin)
    row = {"stage": stage.name, "weights_from": run.source(stage), **metrics, **start_record}
    row |= _activity(run, stage.name)
    write_text(finished, json.dumps(row, indent=2) + "\n")
    run.report(stage_line(row))
    return row


def _begin(run: _Run, stage: Stage, network: nn.Module) -> tuple[dict[str, Any], Sequence[nn.Parameter]]:
    """Give a new network its start, and tell what was done and which parameters may be frozen."""
    source = run.source(stage)
    record: dict[str, Any] = {}
    frozen: Sequence[nn.Parameter] = ()
    if source is not None:
        record, frozen = _take_over(stage, run.trained_network(source), network)
        counts = {kind: len(names) for kind, names in record["transfer"].items() if names}
        told = ", ".join(f"{count} {kind}" for kind, count in counts.items())
        run.report(f"{stage.name}: from {source}: tensors {told}")
    record |= _set_thresholds(run, stage, network, _CHECK_IMAGES)
    for name, change in record.get("revived", {}).items():
        run.report(
            f"{stage.name}: {name} fired {change['rate']:.2g} per step: threshold {change['threshold']:.4g} -> "
            f"{change['new_threshold']:.4g}, now {change['new_rate']:.2g}"
        )
    recipe = run.recipes[stage.name]
    x, labels = _shown(run, stage.name, _CHECK_IMAGES, recipe.encoding)
    loss = SequenceLoss(recipe.loss.name, recipe.loss.on, recipe.loss.label_smoothing)
    # A copy, in training: with the statistics of a new normalisation, evaluation would be silent for no reason.
    record["weights_without_gradient"] = silent_gradients(copy.deepcopy(network).train(), x, labels, loss)
    if record["weights_without_gradient"]:
        names = ", ".join(record["weights_without_gradient"])
        run.report(
            f"{stage.name}: no gradient reaches {names}; revive: true lowers thresholds of layers that do not fire"
        )
    return record, frozen


def _activity(run: _Run, name: str) -> dict[str, Any]:
    recipe, splits = run.recipes[name], run.splits_of(name)
    network = run.trained_network(name)
    rows = torch.arange(min(_ACTIVITY_IMAGES, len(splits.test.labels)))
    seed = derived_seed(recipe.seed, EVALUATE)
    batches = (encoded(splits.test.batch(part)[0], recipe.encoding, seed) for part in rows.split(_BATCH))
    found = measure_activity(network, batches)
    return {
        "T": found.T,
        "spikes_per_neuron": found.spikes_per_neuron,
        "energy_nj": found.energy_pj / 1000,
        "ann_over_snn_energy": found.ann_over_snn,
        "activity_images": len(rows),
        "layers": [asdict(layer) for layer in found.layers],
    }
