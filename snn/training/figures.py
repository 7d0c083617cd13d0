"""Pictures of a run: accuracy over the epochs, and the spikes of a few test images in every layer."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from torch import nn

from snn.training.atomic_write import replacing
from snn.training.loss import On, running_scores
from snn.training.spike_rates import memory_layers

_SHOWN_NEURONS = 60


def draw_accuracy(history: Sequence[Mapping[str, Any]], selected: int, title: str, path: Path) -> None:
    """Draw training, validation and test accuracy after each epoch into a PNG file.

    Args:
        history: one row per epoch.
        selected: the epoch, from 1, whose test accuracy is the run's.
        title: of the picture.
        path: of the PNG file.
    """
    figure, axes = new_figure(1, 1, (6.4, 4.0))
    axis = axes[0][0]
    epochs = [row["epoch"] for row in history]
    curves = (
        ("train_accuracy", "training (during the epoch)", "o"),
        ("val_accuracy", "validation", "^"),
        ("test_accuracy", "test", "s"),
    )
    for key, label, marker in curves:
        if key in history[0]:
            axis.plot(epochs, [100 * row[key] for row in history], marker=marker, markersize=4, label=label)
    axis.set_xlabel("epoch")
    axis.set_ylabel("accuracy in %")
    axis.xaxis.get_major_locator().set_params(integer=True)
    axis.grid(alpha=0.3)
    axis.legend(loc="lower right")
    axis.set_title(f"{title}: test accuracy {history[selected - 1]['test_accuracy']:.2%} after epoch {selected}")
    save_figure(figure, path)


def layer_spikes(network: nn.Module, x: torch.Tensor) -> tuple[dict[str, torch.Tensor], torch.Tensor]:
    """Run a network and return each spiking layer's output [T, B, N] by name, and the logits [T, B, classes]."""
    outputs: dict[str, torch.Tensor] = {}

    def keep(name: str) -> Any:
        def hook(module: nn.Module, inputs: Any, output: Any) -> None:
            z = output[0] if isinstance(output, tuple) else output
            if bool((z == z.round()).all()):
                outputs[name] = z.detach().flatten(2).cpu()

        return hook

    handles = [layer.register_forward_hook(keep(name)) for name, layer in memory_layers(network).items()]
    was_training = network.training
    network.eval()
    try:
        with torch.no_grad():
            logits = network(x)
    finally:
        network.train(was_training)
        for handle in handles:
            handle.remove()
    return outputs, logits.detach().cpu()


def draw_raster(
    network: nn.Module,
    x: torch.Tensor,
    labels: Sequence[int],
    classes: Sequence[str],
    path: Path,
    on: On = "mean",
) -> None:
    """Draw the spikes of each layer, one column per input, into a PNG file.

    Args:
        network: maps [T, B, ...] to logits [T, B, classes].
        x: input sequence [T, B, ...], B small.
        labels: true label of each input.
        classes: name of each label.
        path: of the PNG file.
        on: what each step adds to the answer, see `snn.training.loss.votes`.
    """
    spikes, logits = layer_spikes(network, x)
    T, B = x.shape[:2]
    running = running_scores(logits, on)
    guesses = running[-1].argmax(1).tolist()
    rows = len(spikes) + 1
    figure, axes = new_figure(rows, B, (2.3 * B + 1.2, 1.9 * rows + 0.6))
    for column in range(B):
        for row, (name, z) in enumerate(spikes.items()):
            axis = axes[row][column]
            _draw_layer(axis, z[:, column])
            if column == 0:
                axis.set_ylabel(f"{name}\n{_shown(z.shape[2])}")
            else:
                axis.tick_params(labelleft=False)
            axis.tick_params(labelbottom=False)
        top = axes[0][column]
        top.set_title(f"shown: {classes[labels[column]]}\nanswer: {classes[guesses[column]]}", fontsize=10)
        _draw_answer(axes[-1][column], running[:, column], column == 0, classes)
        axes[-1][column].set_xlabel("time step")
        for row in range(rows):
            axes[row][column].set_xlim(-0.6, T - 0.4)
            axes[row][column].xaxis.get_major_locator().set_params(integer=True, min_n_ticks=1)
    save_figure(figure, path)


def _shown(count: int) -> str:
    return f"{count} neurons" if count <= _SHOWN_NEURONS else f"{_SHOWN_NEURONS} of {count} neurons"


def _draw_layer(axis: Any, z: torch.Tensor) -> None:
    N = z.shape[1]
    chosen = torch.linspace(0, N - 1, min(N, _SHOWN_NEURONS)).round().long()
    steps, neurons = z[:, chosen].nonzero(as_tuple=True)
    axis.scatter(steps.numpy(), neurons.numpy(), s=14, marker="|", linewidths=1.4, color="black")
    axis.set_ylim(-1, len(chosen))
    axis.yaxis.get_major_locator().set_params(integer=True)


def _draw_answer(axis: Any, running: torch.Tensor, first: bool, classes: Sequence[str]) -> None:
    image = axis.imshow(running.softmax(1).T.numpy(), aspect="auto", origin="lower", cmap="Greys", vmin=0, vmax=1)
    image.set_extent((-0.5, len(running) - 0.5, -0.5, running.shape[1] - 0.5))
    if running.shape[1] <= 12:
        axis.set_yticks(range(running.shape[1]), classes, fontsize=7)
    if first:
        axis.set_ylabel("class\n(darker: likelier)")
    else:
        axis.tick_params(labelleft=False)


def new_figure(rows: int, columns: int, size: tuple[float, float]) -> tuple[Any, Any]:
    """Return a figure and its axes [rows][columns]; size in inches.

    Raises: ImportError without matplotlib.
    """
    try:
        from matplotlib.backends.backend_agg import FigureCanvasAgg
        from matplotlib.figure import Figure
    except ImportError as error:
        raise ImportError("pictures need matplotlib; install it with: pip install 'spikeloop[train]'") from error
    # Without pyplot there is no global figure list and no display is looked for.
    figure = Figure(figsize=size, dpi=110, layout="constrained")
    FigureCanvasAgg(figure)
    return figure, figure.subplots(rows, columns, squeeze=False)


def save_figure(figure: Any, path: Path) -> None:
    """Write a figure as PNG, whole or not at all."""
    with replacing(path) as temporary:
        figure.savefig(temporary, format="png")
