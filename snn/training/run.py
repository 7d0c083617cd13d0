"""One training run, from a recipe to a full run folder."""

import inspect
import logging
import math
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from torch import nn

from snn.training.bptt import bptt
from snn.training.build import build_network, build_optimizer
from snn.training.data import Splits, evaluation_loader, load_splits, training_loader
from snn.training.encoding import encoded
from snn.training.environment import environment
from snn.training.errors import RecipeError, RunInterrupted
from snn.training.lightning_import import import_lightning
from snn.training.loss import sequence_cross_entropy
from snn.training.recipe import Recipe, recipe_to_dict
from snn.training.results import write_results
from snn.training.run_folder import RunFolder, is_first_process
from snn.training.schedule import learning_rate_factor
from snn.training.seeding import EVALUATE, WEIGHTS, derived_seed, set_all_generators
from snn.training.trainer_arguments import trainer_arguments

if TYPE_CHECKING:
    from lightning.pytorch import Trainer

    from snn.training.module import Parts
    from snn.training.recorder import Recorder


def train(
    recipe: Recipe,
    run_dir: str | Path,
    resume: bool = False,
    overwrite: bool = False,
    progress: bool = False,
    report: Callable[[str], None] = print,
) -> dict[str, Any]:
    """Train as the recipe says and write the run folder.

    The folder receives config.yaml, environment.json, metrics.csv, TensorBoard events, checkpoints/last.ckpt after every
    epoch, checkpoints/best.ckpt, accuracy.png, raster.png and, at the end, metrics.json.

    Args:
        recipe: what to train.
        run_dir: the run folder.
        resume: continue the run in the folder from its last finished epoch; a folder without a run starts one.
        overwrite: replace the run in the folder.
        progress: show Lightning's progress bar.
        report: receives one line of text per epoch.
    Returns: the content of metrics.json; empty in all processes but the first.
    Raises: RecipeError for a recipe or folder that cannot be used; RunInterrupted after Ctrl-C.
    """
    if resume and overwrite:
        raise RecipeError("--resume and --overwrite exclude each other")
    import_lightning()
    from snn.training.recorder import Recorder

    with _threads(recipe.threads), _quiet_lightning():
        splits = load_splits(recipe.data, recipe.seed)
        set_all_generators(derived_seed(recipe.seed, WEIGHTS))
        network = build_network(recipe.network, splits.input_shape, splits.class_count)
        _check_network(recipe, network, splits)
        build_optimizer(recipe.optimizer, network)  # a wrong argument is found before the folder is touched
        folder = RunFolder(Path(run_dir))
        recorder = Recorder(folder, len(splits.val_rows) > 0, report)
        trainer = _trainer(recipe, recorder, progress)
        loaders = _loaders(recipe, splits, trainer.global_rank, trainer.world_size)
        if is_first_process():
            folder.open(recipe_to_dict(recipe), resume, overwrite)
        _fit(trainer, _parts(recipe, network), loaders, folder.last if resume and folder.last.is_file() else None)
        if not is_first_process():
            return {}
        return write_results(recipe, splits, network, folder, recorder.history, recorder.best_epoch())


def _check_network(recipe: Recipe, network: nn.Module, splits: Splits) -> None:
    """Raise RecipeError unless the network maps two images to logits, and carries state where the recipe needs it."""
    kind = type(network).__name__
    T = recipe.encoding.steps
    truncated = recipe.bptt_steps is not None and recipe.bptt_steps < T
    if truncated and "state" not in inspect.signature(network.forward).parameters:
        raise RecipeError(f"bptt_steps: {kind} cannot carry state; its forward must take state= and then return a pair")
    images, _ = splits.train.batch(splits.train_rows[:2])
    expected = (T, len(images), splits.class_count)
    training = network.training
    network.eval()
    try:
        with torch.no_grad():
            logits = network(encoded(images, recipe.encoding, derived_seed(recipe.seed, EVALUATE)))
    except (RuntimeError, ValueError, TypeError) as error:
        raise RecipeError(f"network: {kind} fails on input {(T, *images.shape)}: {error}") from error
    finally:
        network.train(training)
    if not isinstance(logits, torch.Tensor) or tuple(logits.shape) != expected:
        got = tuple(logits.shape) if isinstance(logits, torch.Tensor) else type(logits).__name__
        raise RecipeError(f"network: {kind} must return logits [T, B, classes] = {expected}, got {got}")


def _trainer(recipe: Recipe, recorder: "Recorder", progress: bool) -> "Trainer":
    from lightning.pytorch import Trainer
    from lightning.pytorch.utilities.exceptions import MisconfigurationException

    from snn.training.checkpoint import AtomicCheckpoints

    arguments = trainer_arguments(recipe, Trainer, progress)
    try:
        return Trainer(**arguments, callbacks=[recorder], plugins=[AtomicCheckpoints()])
    except (MisconfigurationException, ValueError, TypeError) as error:
        raise RecipeError(f"accelerator, devices, num_nodes, strategy, precision or trainer: {error}") from error


def _loaders(recipe: Recipe, splits: Splits, process: int, process_count: int) -> tuple[Any, list[Any]]:
    """Return the training batches, and the test and validation batches, of one process."""
    parts = [(splits.test, torch.arange(len(splits.test.labels)))]
    if len(splits.val_rows):
        parts.append((splits.train, splits.val_rows))
    where = (recipe.data, recipe.seed, process, process_count)
    return training_loader(splits, *where), [evaluation_loader(images, rows, *where) for images, rows in parts]


def _fit(trainer: "Trainer", parts: "Parts", loaders: tuple[Any, list[Any]], checkpoint: Path | None) -> None:
    from lightning.pytorch.trainer.states import TrainerStatus
    from lightning.pytorch.utilities.exceptions import MisconfigurationException

    from snn.training.module import TrainingModule

    try:
        trainer.fit(TrainingModule(parts), *loaders, ckpt_path=checkpoint, weights_only=True)
    except MisconfigurationException as error:
        raise RecipeError(f"trainer: {error}") from error
    except SystemExit as error:
        # Lightning turns Ctrl-C into an exit of the process after its own clean-up.
        if trainer.state.status == TrainerStatus.INTERRUPTED:
            raise RunInterrupted from error
        raise


def _parts(recipe: Recipe, network: nn.Module) -> "Parts":
    from snn.training.module import Parts

    def loss(logits: torch.Tensor, labels: torch.Tensor) -> torch.Tensor:
        return sequence_cross_entropy(logits, labels, recipe.loss.on, recipe.loss.label_smoothing)

    def rate_factor(step: int, step_count: int, steps_per_epoch: int) -> float:
        warmup_steps = math.ceil(recipe.schedule.warmup_epochs * steps_per_epoch)
        return learning_rate_factor(step, step_count, warmup_steps, recipe.schedule)

    return Parts(
        network=network,
        rule=bptt(loss, recipe.bptt_steps),
        loss=loss,
        encode=lambda images, seed: encoded(images, recipe.encoding, seed),
        make_optimizer=lambda built: build_optimizer(recipe.optimizer, built),
        rate_factor=rate_factor,
        clip_norm=recipe.clip_norm,
        seed=recipe.seed,
        record={"recipe": recipe_to_dict(recipe), "environment": environment(), "seed": recipe.seed},
    )


@contextmanager
def _threads(count: int | None) -> Iterator[None]:
    before = torch.get_num_threads()
    torch.set_num_threads(before if count is None else count)
    try:
        yield
    finally:
        torch.set_num_threads(before)


@contextmanager
def _quiet_lightning() -> Iterator[None]:
    """Silence hints about loggers, loader workers and idle devices; the run has decided on all of them."""
    loggers = [logging.getLogger(f"lightning.{part}") for part in ("pytorch", "fabric")]
    levels = [logger.level for logger in loggers]
    for logger in loggers:
        logger.setLevel(logging.WARNING)
    try:
        with warnings.catch_warnings():
            for category in (UserWarning, FutureWarning, DeprecationWarning):
                warnings.filterwarnings("ignore", module=r"lightning\.", category=category)
            yield
    finally:
        for logger, level in zip(loggers, levels, strict=True):
            logger.setLevel(level)
