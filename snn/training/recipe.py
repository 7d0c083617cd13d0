"""What one training run is: the recipe, its checks, and its YAML form."""

from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, fields, is_dataclass
from pathlib import Path
from typing import Any, Literal, get_args, get_origin

from snn.errors import closest
from snn.training.recipe_error import RecipeError, require
from snn.training.stage_options import Stage

RECIPE_FOLDER = Path(__file__).parent / "recipes"


@dataclass(frozen=True)
class DataOptions:
    """Which images, in which batches.

    Args:
        name: data set known to spikedata, or `package.module:function` of your own (see docs/training.md).
        root: folder with the files of the data set; null looks in SPIKEDATA_ROOT and then in the download folder.
        batch_size: images per optimiser step, over all processes together.
        val_fraction: share of the training images set aside for choosing the best epoch, 0 <= val_fraction < 1.
        train_images: number of training images that are used, drawn by the seed; null takes all.
        shift: largest random shift of a training image, in pixels, along each axis.
        flip: flip each training image left to right with probability 1/2.
        workers: loader processes; 0 slices batches in the training process, fastest for data held in memory.
    """

    name: str = "digits"
    root: str | None = None
    batch_size: int = 64
    val_fraction: float = 0.0
    train_images: int | None = None
    shift: int = 0
    flip: bool = False
    workers: int = 0

    def __post_init__(self) -> None:
        require(self.batch_size >= 1, "data.batch_size", ">= 1", self.batch_size)
        require(0 <= self.val_fraction < 1, "data.val_fraction", "in [0, 1)", self.val_fraction)
        require(
            self.train_images is None or self.train_images >= 1, "data.train_images", ">= 1 or null", self.train_images
        )
        require(self.shift >= 0, "data.shift", ">= 0 pixels", self.shift)
        require(self.workers >= 0, "data.workers", ">= 0", self.workers)


@dataclass(frozen=True)
class EncodingOptions:
    """How an image becomes a sequence.

    Args:
        name: direct (the image at every step), rate (Bernoulli spikes), latency (one spike, earlier for brighter pixels), or
            sequence (inputs that have their own time axis; silent steps are appended up to `steps`).
        steps: number of time steps T.
    """

    name: Literal["direct", "rate", "latency", "sequence"] = "direct"
    steps: int = 4

    def __post_init__(self) -> None:
        require(self.steps >= 1, "encoding.steps", ">= 1", self.steps)


@dataclass(frozen=True)
class ScheduleOptions:
    """Learning rate over the run, updated at every optimiser step.

    Args:
        name: cosine (down to final_fraction at the last step), constant, or one_cycle: from peak_factor / 25 up to
            peak_factor over 30 % of the steps, then down to nearly 0; learnable delays then follow the cosine.
        warmup_epochs: length of the linear rise from zero at the start; fractions allowed.
        final_fraction: last learning rate of the cosine, as a share of the optimiser's.
        peak_factor: highest learning rate of one_cycle, as a multiple of the optimiser's.
    """

    name: Literal["cosine", "constant", "one_cycle"] = "cosine"
    warmup_epochs: float = 0.0
    final_fraction: float = 0.0
    peak_factor: float = 1.0

    def __post_init__(self) -> None:
        require(self.warmup_epochs >= 0, "schedule.warmup_epochs", ">= 0", self.warmup_epochs)
        require(0 <= self.final_fraction <= 1, "schedule.final_fraction", "in [0, 1]", self.final_fraction)
        require(self.peak_factor > 0, "schedule.peak_factor", "> 0", self.peak_factor)
        rises_twice = self.name == "one_cycle" and self.warmup_epochs > 0
        require(
            not rises_twice, "schedule.warmup_epochs", "0 with one_cycle, which rises by itself", self.warmup_epochs
        )


@dataclass(frozen=True)
class LossOptions:
    """What is minimised.

    Args:
        name: cross_entropy, or squared_error (half the squared distance to the one-hot label).
        on: mean (of the logits averaged over time), steps (of each step's logits, averaged over time) or softmax (of the
            sum over time of each step's softmax, which then also decides; for cross_entropy and the rule bp).
        label_smoothing: as in torch.nn.functional.cross_entropy, 0 <= label_smoothing < 1.
    """

    name: Literal["cross_entropy", "squared_error"] = "cross_entropy"
    on: Literal["mean", "steps", "softmax"] = "mean"
    label_smoothing: float = 0.0

    def __post_init__(self) -> None:
        softmax = self.on == "softmax" and self.name != "cross_entropy"
        require(not softmax, "loss.on", f"mean or steps with loss.name {self.name}", self.on)
        require(0 <= self.label_smoothing < 1, "loss.label_smoothing", "in [0, 1)", self.label_smoothing)


@dataclass(frozen=True)
class Recipe:
    """One training run.

    Args:
        data: images and batches.
        encoding: from image to sequence.
        network: `class` (a name from snn.models or `package.module.Class`) and its arguments.
        optimizer: `class` (a name from torch.optim) and its arguments; `delay_lr_factor` (default 100) times lr is the
            learning rate of learnable delays, which have no weight decay.
        schedule: learning rate over the run.
        loss: what is minimised.
        rule: rule of credit assignment: a name in snn.learning.RULES, or a mapping of `class` and the rule's options.
        alignment: measure, on the last batch of each epoch, how far the rule's update of every layer points the way of the
            gradient.
        bptt_steps: length of the chunks of truncated backpropagation through time; null goes through all steps.
        clip_norm: largest norm of the gradient over all parameters; null does not clip.
        epochs: passes over the training images.
        stages: trainings that follow each other, each starting from the weights of an earlier one; the recipe's other
            keys hold for all stages that do not give their own. Empty for a single training.
        seed: fixes weights, data order, augmentation, encoding and dropout.
        accelerator: Lightning's choice of device kind (auto, cpu, gpu, ...).
        devices: Lightning's number of devices per machine, list of indices, or auto.
        num_nodes: number of machines.
        strategy: Lightning's strategy (auto, ddp, ...).
        precision: Lightning's precision (32-true, bf16-mixed, 16-mixed, 64-true, ...).
        threads: threads of torch and of the neuron kernels on the CPU; null leaves torch's choice, one per core. A small
            network is as fast with one, and does not wait for a core that another program keeps busy.
        trainer: further arguments of lightning.Trainer.
    """

    data: DataOptions = field(default_factory=DataOptions)
    encoding: EncodingOptions = field(default_factory=EncodingOptions)
    network: dict[str, Any] = field(default_factory=lambda: {"class": "SpikingMLP"})
    optimizer: dict[str, Any] = field(default_factory=lambda: {"class": "AdamW", "lr": 1e-3})
    schedule: ScheduleOptions = field(default_factory=ScheduleOptions)
    loss: LossOptions = field(default_factory=LossOptions)
    rule: str | dict[str, Any] = "bp"
    alignment: bool = False
    bptt_steps: int | None = None
    clip_norm: float | None = None
    epochs: int = 10
    stages: list[Stage] = field(default_factory=list)
    seed: int = 0
    accelerator: str = "auto"
    devices: int | str | list[int] = "auto"
    num_nodes: int = 1
    strategy: str = "auto"
    precision: str = "32-true"
    threads: int | None = None
    trainer: dict[str, Any] = field(default_factory=dict)

    def __post_init__(self) -> None:
        for key, given in (("network", self.network), ("optimizer", self.optimizer)):
            require("class" in given, key, "a mapping with the key 'class'", given)
        named = isinstance(self.rule, str) or "class" in self.rule
        require(named, "rule", "a name or a mapping with the key 'class'", self.rule)
        require(self.bptt_steps is None or self.bptt_steps >= 1, "bptt_steps", ">= 1 or null", self.bptt_steps)
        if self.loss.on == "softmax":
            whole = self.bptt_steps is None and self.rule in ("bp", {"class": "bp"})
            require(whole, "loss.on", "mean or steps unless the rule is bp over all steps at once", self.loss.on)
        require(self.clip_norm is None or self.clip_norm > 0, "clip_norm", "> 0 or null", self.clip_norm)
        require(self.epochs >= 1, "epochs", ">= 1", self.epochs)
        require(0 <= self.seed < 2**63, "seed", "in [0, 2**63)", self.seed)
        require(self.threads is None or self.threads >= 1, "threads", ">= 1 or null", self.threads)
        require(self.num_nodes >= 1, "num_nodes", ">= 1", self.num_nodes)
        warmup = self.schedule.warmup_epochs
        require(warmup <= self.epochs, "schedule.warmup_epochs", f"at most epochs = {self.epochs}", warmup)


def recipe_names() -> list[str]:
    """Return the names of the recipes that come with the package."""
    return sorted(path.stem for path in RECIPE_FOLDER.glob("*.yaml"))


def recipe_path(name_or_path: str) -> Path:
    """Return the file of a shipped recipe's name or of a path.

    Raises: RecipeError if there is neither.
    """
    path = Path(name_or_path)
    if path.is_file():
        return path
    if name_or_path in recipe_names():
        return RECIPE_FOLDER / f"{name_or_path}.yaml"
    raise RecipeError(
        f"--config: no file {name_or_path!r} and no shipped recipe of that name{closest(path.stem, recipe_names())}"
    )


def _inner_options(annotation: Any) -> type | None:
    """The dataclass that an annotation names, itself or in a list or union; None where there is none."""
    if isinstance(annotation, type) and is_dataclass(annotation):
        return annotation
    return next((found for inner in get_args(annotation) if (found := _inner_options(inner))), None)


def check_keys(given: Mapping[str, Any], options: type, place: str = "") -> None:
    """Raise RecipeError for a key that `options`, a dataclass, does not have; nested dataclasses included."""
    known = {entry.name: entry.type for entry in fields(options)}
    for key, value in given.items():
        if key not in known:
            raise RecipeError(f"unknown key {f'{place}{key}'!r}{closest(str(key), known)}")
        nested = _inner_options(known[key])
        if nested is None or (value is None and type(None) in get_args(known[key])):
            continue
        if get_origin(known[key]) is list:
            if not isinstance(value, list):
                raise RecipeError(f"{place}{key} must be a list, got {value!r}")
            for number, entry in enumerate(value, start=1):
                _check_nested(entry, nested, f"{place}{key}[{number}]")
        else:
            _check_nested(value, nested, f"{place}{key}")


def _check_nested(value: object, nested: type, place: str) -> None:
    if not isinstance(value, Mapping):
        names = ", ".join(entry.name for entry in fields(nested))
        raise RecipeError(f"{place} must be a mapping of {names}, got {value!r}")
    check_keys(value, nested, f"{place}.")


def recipe_to_dict(recipe: Recipe) -> dict[str, Any]:
    """Return the recipe as plain nested dictionaries, every default spelled out."""
    return asdict(recipe)


__all__ = [
    "RECIPE_FOLDER",
    "DataOptions",
    "EncodingOptions",
    "LossOptions",
    "Recipe",
    "RecipeError",
    "ScheduleOptions",
    "check_keys",
    "recipe_names",
    "recipe_path",
    "recipe_to_dict",
]
