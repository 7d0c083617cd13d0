"""Spikes, operations and energy of every layer."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from snn.models import SpikingMLP, SpikingVGG
from snn.training.activity import ann_energy_pj, measure_activity, snn_energy_pj

VGG16 = [(3, 64, 32), (64, 64, 32), (64, 128, 16), (128, 128, 16), (128, 256, 8), *[(256, 256, 8)] * 2]
VGG16 += [(256, 512, 4), *[(512, 512, 4)] * 2, *[(512, 512, 2)] * 3]
MACS = [9 * inputs * outputs * side**2 for inputs, outputs, side in VGG16] + [2048 * 4096, 4096 * 4096, 4096 * 10]


@pytest.mark.parametrize(
    ("rate", "T", "ratio"), [(0.0, 1, 191), (0.1, 1, 40.5), (0.2, 1, 22.6), (0.2, 5, 15.4), (0.5, 5, 8.1)]
)
def test_energy_ratios_of_vgg16(rate: float, T: int, ratio: float) -> None:
    assert sum(MACS) == pytest.approx(3.384e8, rel=1e-3)
    rates = [None, *[rate] * (len(MACS) - 1)]
    assert ann_energy_pj(MACS) / snn_energy_pj(MACS, rates, T) == pytest.approx(ratio, rel=6e-3)


def test_a_network_counted_by_hand() -> None:
    torch.manual_seed(0)
    T, B = 3, 7
    net = SpikingMLP((6,), 4, (5, 8), {"class": "DIET", "v_threshold": 0.1, "leak": 0.75}, weight_init="he")
    x = torch.rand(B, 6).expand(T, B, 6)
    seen: dict[str, torch.Tensor] = {}
    for name in ("neuron1", "neuron2"):
        net.stack.layers[name].register_forward_hook(
            lambda module, inputs, z, name=name: seen.update({name: z.detach()})
        )
    found = measure_activity(net, [x[:, :4], x[:, 4:]])
    net(x)
    rates = [None, seen["neuron1"].mean().item() * T, seen["neuron2"].mean().item() * T]
    assert [layer.macs for layer in found.layers] == [30, 40, 32]
    assert [layer.input_spikes for layer in found.layers] == pytest.approx(rates)
    assert [layer.spikes_per_neuron for layer in found.layers] == pytest.approx([*rates[1:], None])
    assert [layer.neurons for layer in found.layers] == [5, 8, 0]
    assert [layer.membrane_accesses for layer in found.layers] == [20, 32, 0]
    assert [layer.energy_pj for layer in found.layers] == pytest.approx(
        [4.6 * T * 30, 0.9 * rates[1] * 40, 0.9 * rates[2] * 32]
    )
    assert found.layers[0].threshold == pytest.approx(0.1)
    assert found.layers[0].leak == 0.75
    assert found.spikes_per_neuron == pytest.approx((5 * rates[1] + 8 * rates[2]) / 13)
    assert found.ann_over_snn == pytest.approx(4.6 * 102 / sum(layer.energy_pj for layer in found.layers))
    assert rates[1] > 0


def test_convolutions_count_pixels_and_one_step_needs_no_membrane() -> None:
    net = SpikingVGG((2, 8, 8), 10, (4, 6), {"class": "DIET"})
    found = measure_activity(net, [torch.rand(1, 3, 2, 8, 8)])
    assert [layer.macs for layer in found.layers] == [
        9 * 2 * 4 * 64,
        9 * 4 * 4 * 64,
        9 * 4 * 6 * 16,
        9 * 6 * 6 * 16,
        60,
    ]
    assert [layer.neurons for layer in found.layers] == [4 * 64, 4 * 16, 6 * 16, 6 * 4, 0]
    assert {layer.membrane_accesses for layer in found.layers} == {0}


def test_an_ann_counts_as_one_step_of_multiplications() -> None:
    found = measure_activity(SpikingMLP((6,), 4, (5,), "torch.nn.ReLU"), [torch.rand(5, 2, 6)])
    assert (found.T, found.spikes_per_neuron) == (1, None)
    assert found.ann_over_snn == pytest.approx(1)


def test_layers_behind_analog_neurons_multiply() -> None:
    net = SpikingMLP((6,), 4, (5, 8), {"class": "LIAF", "init_tau": 2.0})
    found = measure_activity(net, [torch.rand(3, 2, 6)])
    assert [layer.input_spikes for layer in found.layers] == [None, None, None]
    assert found.energy_pj == pytest.approx(4.6 * 3 * (30 + 40 + 32))
    # A batch for which their values happen to be whole numbers (all 0) makes them no spikes.
    for parameter in net.parameters():
        nn.init.zeros_(parameter) if parameter.dim() == 1 else None
    mixed = measure_activity(net, [torch.rand(3, 2, 6), torch.zeros(3, 2, 6)])
    assert [layer.input_spikes for layer in mixed.layers] == [None, None, None]


def test_wrong_batches() -> None:
    net = nn.Sequential(nn.Linear(6, 2))
    with pytest.raises(ValueError, match="no batches"):
        measure_activity(net, [])
    with pytest.raises(ValueError, match="all batches must have 3 steps, got 2"):
        measure_activity(net, [torch.rand(3, 2, 6), torch.rand(2, 2, 6)])
