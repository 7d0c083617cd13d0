"""How well a converted network does, and where it loses what it loses."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol, cast

import torch
from torch import nn

from snn.conversion.early_exit import EarlyExit, ExitSums
from snn.conversion.error_split import Coding
from snn.conversion.layer_report import Layer, LayerReport, LayerSums, Record
from snn.conversion.recurrent import SpikingRecurrent
from snn.conversion.recurrent_report import RecurrentReport, RecurrentSums
from snn.errors import ShapeError

Images = torch.Tensor | tuple[torch.Tensor, torch.Tensor] | Iterable[Any]
"""Images [N, ...], a pair (images, labels [N]), or batches of either."""


class Network(Protocol):
    """What a report needs of a converted network; see `snn.conversion.network.ConvertedNetwork`."""

    source: Any
    coding: Coding
    T: int
    notes: list[str]

    def __call__(self, x: torch.Tensor, T: int | None = None, return_all_steps: bool = False) -> torch.Tensor: ...

    def layers(self) -> Mapping[str, Any]: ...

    def recurrent(self) -> Mapping[str, SpikingRecurrent]: ...

    def record(self) -> AbstractContextManager[Mapping[str, Any]]: ...


@dataclass(frozen=True, eq=False)
class ConversionReport:
    """Figures of a converted network on a set of images.

    Attributes:
        recipe: name of the recipe.
        T: steps of the run.
        coding: "rate" or "sum".
        images: number of images.
        source_accuracy: of the source network; None without labels.
        accuracy: of the read-out after 1, 2, ... T steps; None without labels.
        agreement: share of images on which the read-out after 1, 2, ... T steps names the class of the source network.
        logit_error: root mean square of the difference of the logits after T steps, over that of the source's logits.
        layers: one entry per spiking layer of a feed-forward part, in the order of the network.
        recurrent: one entry per recurrent layer.
        early_exit: result of an early-exit read-out; None if none was asked for.
        notes: what the conversion changed.
        points: pairs (activation, output) of each layer for the scatter plots, [n, 2], in the order of the network.
    """

    recipe: str
    T: int
    coding: Coding
    images: int
    source_accuracy: float | None
    accuracy: tuple[float, ...] | None
    agreement: tuple[float, ...]
    logit_error: float
    layers: tuple[LayerReport, ...]
    recurrent: tuple[RecurrentReport, ...]
    early_exit: EarlyExit | None
    notes: tuple[str, ...]
    points: Mapping[str, torch.Tensor]

    @property
    def all_layers(self) -> list[LayerReport | RecurrentReport]:
        """Rows of all layers with neurons, in the order of the network."""
        found: dict[str, LayerReport | RecurrentReport] = {layer.name: layer for layer in self.layers}
        found |= {layer.name: layer for layer in self.recurrent}
        return [found[name] for name in self.points]

    @property
    def spikes_per_inference(self) -> float:
        """Steps with a spike of all neurons together, per image; of recurrent layers the spikes of all inner steps."""
        return sum(layer.events for layer in self.all_layers)

    @property
    def first_difference(self) -> str | None:
        """The first layer with an output unlike the source network's, in words; None if there is none."""
        found = (layer.difference_in_words() for layer in self.all_layers)
        return next((words for words in found if words is not None), None)

    def steps_to_reach(self, accuracy: float) -> int | None:
        """The smallest number of steps whose read-out has at least this accuracy; None if none has.

        Raises: ValueError for a report without labels.
        """
        if self.accuracy is None:
            raise ValueError("steps_to_reach: the report was made without labels")
        return next((step for step, found in enumerate(self.accuracy, 1) if found >= accuracy), None)

    def to_dict(self) -> dict[str, Any]:
        """Everything but the points, as plain values."""
        return {
            "recipe": self.recipe,
            "T": self.T,
            "coding": self.coding,
            "images": self.images,
            "source_accuracy": self.source_accuracy,
            "accuracy": None if self.accuracy is None else list(self.accuracy),
            "agreement": list(self.agreement),
            "logit_error": self.logit_error,
            "spikes_per_inference": self.spikes_per_inference,
            "first_difference": self.first_difference,
            "early_exit": None if self.early_exit is None else self.early_exit.to_dict(),
            "notes": list(self.notes),
            "layers": [layer.to_dict() for layer in self.layers],
            "recurrent": [layer.to_dict() for layer in self.recurrent],
        }

    def to_json(self, path: str | Path | None = None) -> str:
        """Everything but the points as JSON text, also written to a file if a path is given."""
        text = json.dumps(self.to_dict(), indent=2) + "\n"
        if path is not None:
            from snn.training.atomic_write import write_text

            write_text(Path(path), text)
        return text

    def table(self) -> str:
        """The report as text, tables in Markdown."""
        from snn.conversion.report_text import text_of

        return text_of(self)

    def plot(self, folder: str | Path) -> list[Path]:
        """Draw accuracy.png, errors.png and rates.png into a folder, which is made if it is not there.

        Raises: ImportError without matplotlib.
        """
        from snn.conversion.pictures import draw

        return draw(self, Path(folder))

    def __str__(self) -> str:
        return self.table()


def measure(
    network: Network,
    images: Images,
    labels: torch.Tensor | None = None,
    T: int | None = None,
    *,
    recipe: str = "",
    batch_size: int = 100,
    exit_margin: float | None = None,
    progress: Callable[[int], None] | None = None,
) -> ConversionReport:
    """Run a converted network beside its source network and report.

    Memory is bounded by the batch: only sums are kept from one batch to the next.

    Args:
        network: what `snn.convert` made.
        images: [N, ...], a pair (images, labels), or an iterable of batches of either.
        labels: int64 [N], if `images` is a tensor.
        T: steps of the run; None takes the network's.
        recipe: name for the report.
        batch_size: images per batch where `images` is not an iterable of batches.
        exit_margin: lead of the best logit at which an early-exit read-out answers; None leaves it out.
        progress: called with the number of images done after each batch.
    Returns: the report.
    Raises: ValueError for no images, a margin without labels, or labels for some batches only; ShapeError if images and
        labels differ in number.
    """
    sums = _Sums(network, network.T if T is None else T, exit_margin)
    for x, y in batches_of(images, labels, batch_size):
        sums.add(x, y)
        if progress is not None:
            progress(sums.images)
    return sums.report(recipe)


def batches_of(
    images: Images, labels: torch.Tensor | None = None, batch_size: int = 100
) -> Iterator[tuple[torch.Tensor, torch.Tensor | None]]:
    """Pairs of images [B, ...] and labels [B] or None, from a tensor, a pair, or an iterable of batches of either.

    Raises: ValueError, TypeError or ShapeError for anything else.
    """
    if batch_size < 1:
        raise ValueError(f"batch_size must be at least 1, got {batch_size}")
    if isinstance(images, tuple) and len(images) == 2 and labels is None:
        images, labels = images
    if isinstance(images, torch.Tensor):
        _check_labels(images, labels)
        for start in range(0, len(images), batch_size):
            rows = slice(start, start + batch_size)
            yield images[rows], None if labels is None else labels[rows]
        return
    if labels is not None:
        raise TypeError("labels: give them with each batch where images is an iterable of batches")
    for batch in cast(Iterable[Any], images):
        x, y = (batch, None) if isinstance(batch, torch.Tensor) else (batch[0], batch[1])
        _check_labels(x, y)
        yield x, y


def _check_labels(x: Any, y: Any) -> None:
    if not isinstance(x, torch.Tensor):
        raise TypeError(f"images must be a tensor [N, ...], got a {type(x).__name__}")
    if y is None:
        return
    if not isinstance(y, torch.Tensor) or y.is_floating_point() or y.dim() != 1:
        raise TypeError(f"labels must be whole numbers in a tensor [N], got {_described(y)}")
    if len(y) != len(x):
        raise ShapeError(f"there are {len(x)} images and {len(y)} labels")


def _described(value: Any) -> str:
    if isinstance(value, torch.Tensor):
        return f"a {value.dtype} tensor of shape {tuple(value.shape)}"
    return f"a {type(value).__name__}"


class _Sums:
    """Running sums of a network over batches."""

    def __init__(self, network: Network, T: int, exit_margin: float | None) -> None:
        self.network, self.T = network, T
        self.layers = {name: LayerSums(name) for name in network.layers()}
        self.recurrent = {name: RecurrentSums(name) for name in network.recurrent()}
        self.order: tuple[str, ...] = ()
        self.images = 0
        self.labelled = 0
        self.source_correct = 0
        self.correct = torch.zeros(T, dtype=torch.int64)
        self.agreeing = torch.zeros(T, dtype=torch.int64)
        self.squares = [0.0, 0.0]  # of the logits' difference, of the source's logits
        self.exits = None if exit_margin is None else ExitSums(exit_margin)

    @torch.no_grad()
    def add(self, x: torch.Tensor, y: torch.Tensor | None) -> None:
        if y is None and self.exits is not None:
            raise ValueError("labels: an early-exit read-out needs them")
        with _watched(self.network.source, (*self.layers, *self.recurrent)) as seen:
            logits = self.network.source(x)
        self.order = tuple(seen)
        with self.network.record() as records:
            readouts = self.network(x, T=self.T, return_all_steps=True)
            layers: Mapping[str, Layer] = self.network.layers()
            for name, sums in self.layers.items():
                record: Record = records[name]
                sums.add(*seen[name], layers[name], record, self.network.coding)
        for name, recurrent in self.network.recurrent().items():
            self.recurrent[name].add(*seen[name], recurrent)
        self._add_readouts(logits, readouts, y)

    def _add_readouts(self, logits: torch.Tensor, readouts: torch.Tensor, y: torch.Tensor | None) -> None:
        answers, wanted = readouts.argmax(2), logits.argmax(1)  # [T, B], [B]
        self.agreeing += (answers == wanted).sum(1).cpu()
        self.squares[0] += float((readouts[-1].double() - logits.double()).square().sum())
        self.squares[1] += float(logits.double().square().sum())
        self.images += len(wanted)
        if y is None:
            return
        y = y.to(wanted.device)
        self.labelled += len(y)
        self.source_correct += int((wanted == y).sum())
        self.correct += (answers == y).sum(1).cpu()
        if self.exits is not None:
            self.exits.add(readouts, y)

    def report(self, recipe: str) -> ConversionReport:
        if not self.images:
            raise ValueError("images: there are none to measure on")
        if self.labelled not in (0, self.images):
            raise ValueError(f"labels: {self.labelled} of {self.images} images have one; give all or none")
        known = self.labelled > 0
        pairs = {name: sums.pairs for name, sums in self.layers.items()}
        pairs |= {name: sums.pairs for name, sums in self.recurrent.items()}
        return ConversionReport(
            recipe=recipe,
            T=self.T,
            coding=self.network.coding,
            images=self.images,
            source_accuracy=self.source_correct / self.images if known else None,
            accuracy=tuple((self.correct.double() / self.images).tolist()) if known else None,
            agreement=tuple((self.agreeing.double() / self.images).tolist()),
            logit_error=(self.squares[0] / max(self.squares[1], 1e-300)) ** 0.5,
            layers=tuple(sums.report() for sums in self.layers.values()),
            recurrent=tuple(sums.report() for sums in self.recurrent.values()),
            early_exit=None if self.exits is None else self.exits.result(),
            notes=tuple(self.network.notes),
            points={name: pairs[name].points for name in self.order},
        )


@contextmanager
def _watched(source: nn.Module, names: Iterable[str]) -> Iterator[dict[str, tuple[torch.Tensor, torch.Tensor]]]:
    """Input and output of the named layers of the source network, while it runs inside the block."""
    seen: dict[str, tuple[torch.Tensor, torch.Tensor]] = {}

    def keep(name: str) -> Any:
        def hook(module: nn.Module, inputs: Any, output: torch.Tensor) -> None:
            seen[name] = (inputs[0].clone(), output)

        return hook

    handles = [source.get_submodule(name).register_forward_hook(keep(name)) for name in names]
    try:
        yield seen
    finally:
        for handle in handles:
            handle.remove()
