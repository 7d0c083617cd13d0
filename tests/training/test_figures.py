"""Pictures show what they claim."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from snn.models import SpikingMLP
from snn.training.figures import draw_accuracy, draw_raster, layer_spikes

image = pytest.importorskip("matplotlib.image")


def ink(path: Path) -> float:
    """Share of pixels that are not white."""
    return float((image.imread(path)[..., :3].min(axis=2) < 0.9).mean())


def test_accuracy_picture_has_curves(tmp_path: Path) -> None:
    rows = [{"epoch": k, "train_accuracy": k / 10, "test_accuracy": k / 12} for k in range(1, 9)]
    draw_accuracy(rows, "digits", tmp_path / "accuracy.png")
    assert 0.01 < ink(tmp_path / "accuracy.png") < 0.5
    assert [path.name for path in tmp_path.iterdir()] == ["accuracy.png"]


def test_raster_has_more_ink_for_more_spikes(tmp_path: Path) -> None:
    torch.manual_seed(0)
    net = SpikingMLP((16,), 4, hidden=(80, 20))
    amounts = []
    for scale in (0.0, 6.0):
        x = scale * torch.randn(6, 3, 16)
        draw_raster(net, x, [0, 1, 2], list("abcd"), tmp_path / f"{scale}.png")
        amounts.append(ink(tmp_path / f"{scale}.png"))
    assert amounts[1] > amounts[0] > 0.01


def test_layer_spikes_are_the_layers_outputs_and_leave_the_network_as_it_was() -> None:
    net = SpikingMLP((5,), 3, hidden=(7,), dropout=0.5)
    x = torch.randn(4, 2, 5) * 5
    spikes, logits = layer_spikes(net, x)
    assert net.training
    net.eval()
    assert torch.equal(logits, net(x))
    assert spikes["neuron1"].shape == (4, 2, 7)
    torch.testing.assert_close(net.stack.layers["readout"](spikes["neuron1"]), logits)
    assert not net.stack.layers["neuron1"]._forward_hooks
