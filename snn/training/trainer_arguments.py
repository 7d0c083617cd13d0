"""Arguments of Lightning's Trainer from a recipe."""

import inspect
from typing import Any

from snn.errors import closest
from snn.training.recipe import Recipe, RecipeError

# Decided by the recipe's own keys or by the run folder.
_OWN = {
    "accelerator",
    "devices",
    "num_nodes",
    "strategy",
    "precision",
    "max_epochs",
    "logger",
    "callbacks",
    "plugins",
    "enable_checkpointing",
    "enable_progress_bar",
    "use_distributed_sampler",
    "check_val_every_n_epoch",
    "val_check_interval",
    "limit_val_batches",
    "default_root_dir",
    "gradient_clip_val",
    "gradient_clip_algorithm",
    "accumulate_grad_batches",
    "barebones",
    "fast_dev_run",
    "max_steps",
    "max_time",
    "min_epochs",
    "min_steps",
    "overfit_batches",
    "reload_dataloaders_every_n_epochs",
}


def trainer_arguments(recipe: Recipe, trainer_class: type, progress: bool) -> dict[str, Any]:
    """Return the keyword arguments for Lightning's Trainer.

    Raises: RecipeError for a key under `trainer` that Lightning does not have or that the recipe sets elsewhere.
    """
    accepted = set(inspect.signature(trainer_class.__init__).parameters) - {"self"} - _OWN  # type: ignore[misc]
    for key in recipe.trainer:
        if key in ("accelerator", "devices", "num_nodes", "strategy", "precision"):
            raise RecipeError(f"trainer.{key}: give it as {key}, outside trainer")
        if key not in accepted:
            raise RecipeError(f"trainer.{key}: not an argument that can be passed on{closest(key, accepted)}")
    return {
        "accelerator": recipe.accelerator,
        "devices": recipe.devices,
        "num_nodes": recipe.num_nodes,
        "strategy": recipe.strategy,
        "precision": recipe.precision,
        "max_epochs": recipe.epochs,
        "logger": False,
        "enable_checkpointing": False,
        "enable_model_summary": False,
        "enable_progress_bar": progress,
        "num_sanity_val_steps": 0,
        "use_distributed_sampler": False,
        **recipe.trainer,
    }
