"""Options of SpikingVGG and SpikingMLP that low-latency training needs."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from snn.models import SpikingMLP, SpikingVGG


def test_fully_connected_layers_take_the_place_of_the_average() -> None:
    net = SpikingVGG((2, 9, 8), 7, (4, 6), hidden=(11, 5))
    assert net(torch.rand(2, 3, 2, 9, 8)).shape == (2, 3, 7)
    layers = net.stack.layers
    assert "average" not in layers
    assert layers["linear1"].in_features == 6 * 2 * 2
    assert layers["linear1"].bias is None
    assert isinstance(layers["norm2"], nn.BatchNorm1d)
    bare = SpikingVGG((2, 9, 8), 7, (4, 6), hidden=(11,), batch_norm=False)
    assert bare.stack.layers["linear1"].bias is not None
    assert bare.stack.layers["conv1a"].bias is not None
    assert not any("norm" in name for name in bare.stack.layers)


def test_sequences_of_frames_give_the_shape_of_a_frame() -> None:
    assert SpikingVGG((8, 2, 8, 8), 3, (4,))(torch.rand(8, 2, 2, 8, 8)).shape == (8, 2, 3)


def test_dropout_of_the_vgg_keeps_its_choice_over_the_steps() -> None:
    torch.manual_seed(0)
    net = SpikingVGG((1, 8, 8), 3, (4,), dropout=0.5)
    seen: list[torch.Tensor] = []
    net.stack.layers["neuron1b"].register_forward_hook(lambda module, inputs, z: torch.ones_like(z))
    net.stack.layers["dropout1b"].register_forward_hook(lambda module, inputs, z: seen.append(z))
    net(torch.rand(5, 2, 1, 8, 8))
    assert set(seen[0].unique().tolist()) == {0.0, 2.0}
    assert torch.equal(seen[0], seen[0][:1].expand_as(seen[0]))


def test_he_weights_keep_the_signal_through_deep_rectifiers() -> None:
    torch.manual_seed(0)
    x = torch.rand(1, 200, 100)
    sizes = {}
    for init in ("torch", "he"):
        net = SpikingMLP((100,), 10, [100] * 8, "torch.nn.ReLU", bias=False, weight_init=init)  # type: ignore[arg-type]
        assert net.stack.layers["linear3"].bias is None
        assert net.stack.layers["readout"].bias is None
        sizes[init] = net(x).std().item()
    assert sizes["he"] > 0.1
    assert sizes["torch"] < 0.01
    readout = SpikingMLP((1000,), 1000, [1000], weight_init="he").stack.layers["readout"]
    assert readout.weight.var().item() == pytest.approx(1 / 1000, rel=0.02)
    assert not readout.bias.any()


def test_wrong_options_name_what_is_accepted() -> None:
    with pytest.raises(ValueError, match="weight_init must be 'torch' or 'he', got 'xavier'"):
        SpikingMLP((4,), 3, weight_init="xavier")  # type: ignore[arg-type]
    with pytest.raises(ValueError, match="norm_scale must be > 0"):
        SpikingVGG((1, 8, 8), 3, norm_scale=0.0)
    with pytest.raises(ValueError, match=r"\(C, H, W\) or \(T, C, H, W\), got \(8, 8\)"):
        SpikingVGG((8, 8), 3)
    with pytest.raises(ValueError, match=r"dropout must lie in \[0, 1\), got 1.5"):
        SpikingVGG((1, 8, 8), 3, dropout=1.5)
