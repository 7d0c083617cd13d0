"""The report against plain loops and NumPy."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from conversion_networks import functional_network, images
from torch import nn

import snn
from snn.conversion.layer_report import LayerSums
from snn.conversion.output_pairs import OutputPairs
from snn.conversion.report import batches_of, measure
from snn.conversion.report_text import shown_steps
from snn.errors import ShapeError
from tests.conversion.looped_network import LoopedRecord, dyadic_images, looped_network


def labels_of(x: torch.Tensor) -> torch.Tensor:
    return torch.randint(4, (len(x),), generator=torch.Generator().manual_seed(5))


def test_accuracy_and_agreement_after_every_number_of_steps() -> None:
    network, x = looped_network(T=5), dyadic_images(40)
    y = labels_of(x)
    report = measure(network, x, y, batch_size=16)
    wanted = network.source(x).argmax(1)
    assert report.source_accuracy == pytest.approx(float((wanted == y).double().mean()))
    for steps in range(1, 6):
        answers = network(x, T=steps).argmax(1)
        assert report.accuracy is not None
        assert report.accuracy[steps - 1] == pytest.approx(float((answers == y).double().mean()))
        assert report.agreement[steps - 1] == pytest.approx(float((answers == wanted).double().mean()))
    logits, expected = network(x), network.source(x)
    assert report.logit_error == pytest.approx(float((logits - expected).norm() / expected.norm()))
    assert (report.T, report.images, report.coding, report.notes) == (5, 40, "rate", ("made by hand",))


def test_layer_figures_equal_a_direct_computation() -> None:
    T, x = 4, dyadic_images(37)
    network = looped_network(T)
    report = measure(network, x, batch_size=10)
    network(x)
    h = x
    for layer in report.layers:
        records = network._records[layer.name]
        for name, module in network.source.named_children():
            z, h = (x if name == "0" else h), module(x if name == "0" else h)
            if name == layer.name:
                break
        theta = network.layers()[layer.name].threshold
        phi = records.output_sum / T
        assert layer.neurons == h.shape[1]
        expected = np.corrcoef(h.flatten().detach().numpy(), phi.flatten().detach().numpy())[0, 1]
        assert layer.correlation == pytest.approx(expected, abs=1e-12)
        even = theta * torch.floor((theta / 2 + records.input_sum) / theta).clamp(0, T) / T
        own = theta * torch.floor((theta / 2 + T * z) / theta).clamp(0, T) / T
        capped = torch.minimum(h, theta)
        terms: dict[str, torch.Tensor] = {
            "clipping": capped - h,
            "quantisation": own - capped,
            "unevenness": phi - even,
            "propagated": even - own,
            "total": phi - h,
        }
        for name, term in terms.items():
            found = layer.errors[name]
            assert found.mean == pytest.approx(float(term.mean()), abs=1e-12)
            assert found.mean_absolute == pytest.approx(float(term.abs().mean()), abs=1e-12)
            assert found.root_mean_square == pytest.approx(float(term.square().mean().sqrt()), abs=1e-12)
        assert layer.source_mean == pytest.approx(float(h.mean()))
        assert layer.spiking_mean == pytest.approx(float(phi.mean()))
        assert layer.silent == pytest.approx(float((records.events == 0).all(0).double().mean()))
        assert layer.silent_in_source == pytest.approx(float((h == 0).all(0).double().mean()))
        assert layer.saturated == pytest.approx(float((records.events == T).double().mean()))
        inside = (records.events > 0) & (records.events < T)
        moved = (records.membrane - theta / 2).abs() / theta
        assert layer.residual == pytest.approx(float(moved[inside].mean()))
        too_many = (records.membrane < 0) & (records.events > 0)
        too_few = (records.membrane >= theta) & (records.events < T)
        assert layer.too_many == pytest.approx(float(too_many.double().mean()))
        assert layer.too_few == pytest.approx(float(too_few.double().mean()))
        assert layer.events == pytest.approx(float(records.events.sum()) / len(x))
        assert layer.equal == pytest.approx(float(((phi - h).abs() <= 1e-3 * theta).double().mean()))
        assert (layer.threshold_least, layer.threshold_greatest) == (float(theta.min()), float(theta.max()))
        assert layer.charge_balance == 0.0
    assert report.spikes_per_inference == pytest.approx(sum(layer.events for layer in report.layers))


def test_batch_size_changes_nothing() -> None:
    network, x = looped_network(), dyadic_images(23)
    y = labels_of(x)
    whole, parts = measure(network, x, y, batch_size=100), measure(network, (x, y), batch_size=4)
    given = measure(network, [(x[:9], y[:9]), (x[9:], y[9:])])
    assert whole.accuracy == parts.accuracy == given.accuracy
    for one, other in zip(whole.layers, parts.layers, strict=True):
        assert one.first_difference == other.first_difference
        assert one.errors["total"].mean_absolute == pytest.approx(other.errors["total"].mean_absolute, rel=1e-12)
        assert one.silent == other.silent


def test_first_difference_points_at_an_output_that_is_not_the_sources() -> None:
    network, x = looped_network(T=3), dyadic_images(6)
    report = measure(network, x, batch_size=2)
    assert report.first_difference is not None
    image, neuron, activation, output = report.layers[0].first_difference or (0, 0, 0.0, 0.0)
    network(x)
    wanted = network.source[:2](x)
    got = network._records["1"].output_sum / 3
    differs = ((wanted - got).abs() > 1e-3).flatten()
    assert image * 8 + neuron == int(differs.to(torch.uint8).argmax())
    assert float(wanted[image, neuron]) == activation
    assert float(got[image, neuron]) == output


def test_steps_to_reach_an_accuracy() -> None:
    network, x = looped_network(T=8), dyadic_images(60)
    report = measure(network, x, network.source(x).argmax(1))
    assert report.accuracy is not None
    step = report.steps_to_reach(report.accuracy[3])
    assert step is not None
    assert step <= 4
    assert all(value < report.accuracy[3] for value in report.accuracy[: step - 1])
    assert report.steps_to_reach(1.1) is None
    with pytest.raises(ValueError, match="without labels"):
        measure(network, x).steps_to_reach(0.5)


def test_early_exit_is_part_of_the_report() -> None:
    network, x = looped_network(T=4), dyadic_images(20)
    report = measure(network, x, labels_of(x), exit_margin=0.5)
    assert report.early_exit is not None
    assert sum(report.early_exit.distribution) == 20
    never = measure(network, x, labels_of(x), exit_margin=1e9).early_exit
    assert never is not None
    assert never.mean_steps == 4
    assert report.accuracy is not None
    assert never.accuracy == report.accuracy[-1]


def test_table_json_and_pictures(tmp_path: Path) -> None:
    network, x = looped_network(T=16), dyadic_images(30)
    report = measure(network, x, labels_of(x), recipe="by hand", exit_margin=0.5)
    text = report.table()
    for wanted in ("'by hand'", "T = 16", "| accuracy %", "| 1 ", "clipping", "note: made by hand", "early exit"):
        assert wanted in text
    assert str(report) == text
    lines = [line for line in text.splitlines() if line.startswith("|")]
    assert len({line.count("|") for line in lines[:3]}) == 1
    values: dict[str, Any] = json.loads(report.to_json(tmp_path / "report.json"))
    assert values == json.loads((tmp_path / "report.json").read_text())
    assert values["layers"][0]["errors"]["clipping"]["mean"] == report.layers[0].errors["clipping"].mean
    assert values["accuracy"] == list(report.accuracy or ())
    paths = report.plot(tmp_path / "pictures")
    assert [path.name for path in paths] == ["accuracy.png", "errors.png", "rates.png"]
    assert all(path.read_bytes().startswith(b"\x89PNG") for path in paths)


def test_points_are_pairs_of_activation_and_output() -> None:
    network, x = looped_network(T=4), dyadic_images(300)
    report = measure(network, x, batch_size=50)
    for name, points in report.points.items():
        theta = network.layers()[name].threshold
        assert 0 < len(points) <= 1500
        assert bool((points[:, 0] >= 0).all())
        assert float(points[:, 1].max()) <= float(theta.max())


def test_shown_steps_double() -> None:
    assert shown_steps(1) == [1]
    assert shown_steps(16) == [1, 2, 4, 8, 16]
    assert shown_steps(20) == [1, 2, 4, 8, 16, 20]


def test_wrong_data_are_named() -> None:
    network, x = looped_network(), dyadic_images(6)
    with pytest.raises(ValueError, match="images: there are none"):
        measure(network, [])
    with pytest.raises(ShapeError, match="6 images and 5 labels"):
        measure(network, x, torch.zeros(5, dtype=torch.int64))
    with pytest.raises(TypeError, match=r"labels must be whole numbers in a tensor \[N\], got a torch.float32"):
        measure(network, x, torch.zeros(6))
    with pytest.raises(TypeError, match="images must be a tensor"):
        measure(network, [np.zeros((2, 5))])
    with pytest.raises(ValueError, match="labels: 3 of 6 images"):
        measure(network, [(x[:3], torch.zeros(3, dtype=torch.int64)), x[3:]])
    with pytest.raises(ValueError, match="early-exit read-out needs them"):
        measure(network, x, exit_margin=1.0)
    with pytest.raises(ValueError, match="batch_size must be at least 1, got 0"):
        measure(network, x, batch_size=0)
    with pytest.raises(TypeError, match="give them with each batch"):
        next(batches_of([x], torch.zeros(6, dtype=torch.int64)))


def test_layers_that_work_in_place_are_reported_like_others() -> None:
    x = torch.randn(12, 4, generator=torch.Generator().manual_seed(3))

    def report_of(inplace: bool) -> dict[str, Any]:
        torch.manual_seed(0)
        net = nn.Sequential(nn.Linear(4, 6), nn.ReLU(inplace), nn.Linear(6, 5), nn.ReLU(inplace), nn.Linear(5, 3))
        network = snn.convert(net, "rate", x, T=3).snn
        network.source.get_submodule("1").inplace = inplace  # type: ignore[assignment]
        network.source.get_submodule("3").inplace = inplace  # type: ignore[assignment]
        return measure(network, x).to_dict()

    assert report_of(True) == report_of(False)


def test_the_source_keeps_no_hooks() -> None:
    network, x = looped_network(), dyadic_images(5)
    measure(network, x)
    assert all(not module._forward_hooks for module in network.source.modules())


def test_images_are_numbered_over_all_batches() -> None:
    """The first layer is exact on the first five images and not on the third of the second batch."""
    layer = looped_network().layers()["1"]
    sums = LayerSums("1")
    initial = layer.initial.expand(5, 2)
    z = torch.tensor([[1.0, 0.0]]).double().expand(5, 2)
    for output in (2 * z, 2 * z - torch.tensor([[0.0, 0.0]] * 2 + [[1.0, 0.0]] + [[0.0, 0.0]] * 2)):
        record = LoopedRecord(2 * z, output, output != 0, initial + 2 * z - output, initial, 2)
        sums.add(z, z, layer, record, "rate")
    assert sums.report().first_difference == (7, 0, 1.0, 0.5)


def test_charge_balance_leaves_silenced_neurons_out() -> None:
    net, x = functional_network(dtype=torch.float64), images(10, 2, 8, 8, dtype=torch.float64)
    network = snn.convert(net, "srp", x, T=6, tau=3).snn
    report = measure(network, x)
    network(x)
    masks = [layer.mask for layer in network.layers().values()]
    assert any(mask is not None and bool((mask == 0).any()) for mask in masks)
    assert all(layer.charge_balance < 1e-12 for layer in report.layers)


def test_points_are_of_later_batches_too() -> None:
    pairs = OutputPairs()
    for number in range(3):
        pairs.add(torch.full((2000,), float(number)).double(), torch.zeros(2000).double())
    counts = [int((pairs.points[:, 0] == number).sum()) for number in range(3)]
    assert counts == [750, 375, 187]
    assert pairs.means == (1.0, 0.0)
    assert pairs.correlation is None
