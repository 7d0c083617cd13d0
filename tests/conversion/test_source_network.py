"""The canonical source network: equal to the ANN, named after its code, and clear about what it refuses."""

from __future__ import annotations

from typing import Any

import pytest
import torch
import torch.nn.functional as F
from conversion_networks import functional_network, images, random_norms
from torch import nn

import snn
from snn.conversion.functions import ChannelAffine
from snn.conversion.source import source_network

DOUBLE = torch.float64


class Written(nn.Module):
    """A network with the given layers and forward function."""

    def __init__(self, forward: Any, **layers: nn.Module) -> None:
        super().__init__()
        for name, module in layers.items():
            setattr(self, name, module)
        self.rule = forward

    def forward(self, x: torch.Tensor) -> Any:
        return self.rule(self, x)


class Loud(nn.ReLU):
    """A subclass that only has another name."""


class Odd(nn.ReLU):
    """A subclass with a forward of its own."""

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return super().forward(x) * 2.0


NETWORKS: dict[str, tuple[nn.Module, tuple[int, ...]]] = {
    "conv2d-bn": (nn.Sequential(nn.Conv2d(2, 3, 3, bias=False), nn.BatchNorm2d(3), nn.ReLU()), (2, 6, 6)),
    "conv1d-bn": (nn.Sequential(nn.Conv1d(2, 4, 3, groups=2), nn.BatchNorm1d(4), nn.ReLU()), (2, 9)),
    "conv3d-bn": (nn.Sequential(nn.Conv3d(1, 3, 2), nn.BatchNorm3d(3), nn.ReLU()), (1, 4, 4, 4)),
    "transposed-bn": (nn.Sequential(nn.ConvTranspose2d(2, 3, 3, stride=2), nn.BatchNorm2d(3), nn.ReLU()), (2, 4, 4)),
    "transposed-groups-bn": (
        nn.Sequential(nn.ConvTranspose2d(4, 6, 3, groups=2), nn.BatchNorm2d(6), nn.ReLU()),
        (4, 5, 5),
    ),
    "linear-bn": (nn.Sequential(nn.Linear(5, 4), nn.BatchNorm1d(4), nn.ReLU()), (5,)),
    "bn-padded-conv": (nn.Sequential(nn.BatchNorm2d(2), nn.Conv2d(2, 3, 3, padding=1), nn.ReLU()), (2, 6, 6)),
    "bn-alone": (nn.Sequential(nn.ReLU(), nn.BatchNorm1d(3)), (3, 7)),
    "plain-bn": (nn.Sequential(nn.Linear(5, 4), nn.BatchNorm1d(4, affine=False), nn.ReLU()), (5,)),
    "functional": (functional_network(), (2, 8, 8)),
    "subclass": (nn.Sequential(nn.Linear(3, 3), Loud(), nn.Linear(3, 3), Odd()), (3,)),
}


@pytest.mark.parametrize("name", NETWORKS)
def test_source_equals_the_network(name: str) -> None:
    network, shape = NETWORKS[name]
    network = random_norms(network).double()
    x = images(4, *shape, dtype=DOUBLE)
    source = source_network(network)
    assert not source.problems
    torch.testing.assert_close(source.network(x), network(x), rtol=1e-12, atol=1e-12)
    assert not any(isinstance(module, nn.modules.batchnorm._BatchNorm) for module in source.network.modules())


def test_norms_fold_where_that_is_exact() -> None:
    kinds = {
        name: [type(module) for module in source_network(NETWORKS[name][0]).network.modules()] for name in NETWORKS
    }
    for name in ("conv2d-bn", "conv1d-bn", "conv3d-bn", "transposed-bn", "linear-bn", "plain-bn"):
        assert ChannelAffine not in kinds[name]
    for name in ("bn-padded-conv", "bn-alone", "transposed-groups-bn"):
        assert ChannelAffine in kinds[name]


def test_a_norm_whose_convolution_is_read_elsewhere_is_not_folded() -> None:
    def forward(self: Any, x: torch.Tensor) -> torch.Tensor:
        y = self.conv(x)
        return F.relu(self.norm(y)) + y

    network = random_norms(Written(forward, conv=nn.Conv2d(1, 2, 1), norm=nn.BatchNorm2d(2))).double()
    x = images(3, 1, 4, 4, dtype=DOUBLE)
    torch.testing.assert_close(source_network(network).network(x), network(x), rtol=1e-12, atol=1e-12)


def test_one_layer_called_twice_gets_two_names_and_one_weight() -> None:
    def forward(self: Any, x: torch.Tensor) -> torch.Tensor:
        return self.act(self.same(self.act(self.same(x))))

    network = Written(forward, same=nn.Linear(3, 3), act=nn.ReLU()).eval()
    source = source_network(network).network
    names = {name for name, module in source.named_modules() if isinstance(module, nn.ReLU)}
    assert names == {"act", "act_2"}
    assert source.get_submodule("same").weight is source.get_submodule("same_2").weight
    torch.testing.assert_close(source(torch.ones(2, 3)), network(torch.ones(2, 3)))


def test_names_follow_the_code() -> None:
    inner = Written(lambda self, x: F.relu(self.fc(x)).clamp(0, 1), fc=nn.Linear(2, 2))
    outer = Written(lambda self, x: torch.relu(self.inner(x)), inner=inner)
    names = {name for name, module in source_network(outer).network.named_modules() if type(module) is not nn.Module}
    assert {"inner.relu", "inner.clamp", "relu"} <= names


def test_softmax_at_the_end_is_dropped_and_noted() -> None:
    network = nn.Sequential(nn.Linear(3, 4), nn.ReLU(), nn.Linear(4, 2), nn.Softmax(dim=1)).eval()
    source = source_network(network)
    x = images(5, 3)
    torch.testing.assert_close(source.network(x), network[:3](x))
    assert "'3'" in source.notes[0]
    assert snn.convert(network, "rate", x, T=4).snn.notes == source.notes


@pytest.mark.parametrize("wrapped", [nn.DataParallel, lambda network: torch.compile(network, backend="eager")])
def test_wrappers_are_taken_off(wrapped: Any) -> None:
    network = nn.Sequential(nn.Linear(3, 3), nn.ReLU())
    assert "1" in dict(source_network(wrapped(network)).network.named_modules())


def test_parametrised_weights_are_written_out() -> None:
    linear = torch.nn.utils.parametrizations.weight_norm(nn.Linear(3, 3))
    network = nn.Sequential(linear, nn.ReLU()).eval()
    x = images(2, 3)
    torch.testing.assert_close(source_network(network).network(x), network(x))


def test_the_user_network_is_left_alone() -> None:
    network = functional_network().train()
    before = {name: value.clone() for name, value in network.state_dict().items()}
    snn.convert(network, "rate", images(4, 2, 8, 8), T=4)
    assert network.training
    assert all(module.training for module in network.modules())
    assert all(torch.equal(before[name], value) for name, value in network.state_dict().items())
    assert all(parameter.requires_grad for parameter in network.parameters())


def decides(self: Any, x: torch.Tensor) -> torch.Tensor:
    if x.sum() > 0:  # the line that is named
        return x
    return -x


def test_a_forward_that_decides_by_values_names_its_line() -> None:
    line = decides.__code__.co_firstlineno + 1
    with pytest.raises(snn.UnsupportedError, match=rf"test_source_network.py:{line}, it decides by the values"):
        source_network(Written(decides))


def two(self: Any, x: torch.Tensor) -> Any:
    return x, x


def test_networks_of_another_form_are_refused() -> None:
    with pytest.raises(snn.UnsupportedError, match="must return one tensor, it returns a tuple"):
        source_network(Written(two))

    class TwoInputs(nn.Module):
        def forward(self, x: torch.Tensor, mask: torch.Tensor) -> torch.Tensor:
            return x * mask

    with pytest.raises(snn.UnsupportedError, match="'mask' is a second"):
        source_network(TwoInputs())
    with pytest.raises(TypeError, match="must be a torch"):
        snn.convert(3, "rate", images(2, 3))  # type: ignore[arg-type]
    hooked = nn.Sequential(nn.Linear(3, 3), nn.ReLU())
    hooked[0].register_forward_hook(lambda module, inputs, output: output * 2)
    with pytest.raises(snn.UnsupportedError, match=r"layer '0' .Linear. has forward hooks"):
        source_network(hooked)


def test_all_obstacles_are_named_in_one_error() -> None:
    def forward(self: Any, x: torch.Tensor) -> torch.Tensor:
        x = F.relu(self.a(x))
        y = F.gelu(x) * self.norm(x)
        y = F.leaky_relu(y.sort(dim=1).values)
        return torch.matmul(y, y.transpose(0, 1))

    network = Written(forward, a=nn.Linear(4, 4), norm=nn.LayerNorm(4))
    with pytest.raises(snn.UnsupportedError) as caught:
        snn.convert(network, "rate", images(4, 4))
    text = str(caught.value)
    first = forward.__code__.co_firstlineno
    for name, line, word in (
        ("'gelu'", first + 2, "recipe='td'"),
        ("'norm'", first + 2, "LayerNorm"),
        ("'mul'", first + 2, "Product"),
        ("'sort'", first + 3, "not known to be linear"),
        ("'leaky_relu'", first + 3, "nn.ReLU"),
        ("'matmul'", first + 4, "MatrixProduct"),
    ):
        assert any(
            name in row and f"test_source_network.py:{line}" in row and word in row for row in text.splitlines()
        ), (name, text)
    assert "6 layers stand in the way" in text


@pytest.mark.parametrize(
    ("layers", "match"),
    [
        ([nn.Linear(3, 3), nn.GRU(3, 3)], "'1'.*GRU needs recipe='rnn-morph'"),
        ([nn.Linear(3, 3), nn.ReLU(), nn.BatchNorm1d(3, track_running_stats=False)], "without running statistics"),
        ([nn.Linear(3, 3), nn.ReLU(), nn.Sigmoid()], "'2'.*Sigmoid is not linear"),
        ([nn.Linear(3, 3)], "no activation that could become"),
        ([nn.Linear(3, 3), nn.Tanh(), nn.Linear(3, 3), nn.ReLU()], "'1'.*Tanh"),
    ],
)
def test_layers_without_a_spiking_form_are_refused(layers: list[nn.Module], match: str) -> None:
    with pytest.raises(snn.UnsupportedError, match=match):
        snn.convert(nn.Sequential(*layers), "rate", images(4, 3))


def test_a_network_that_tracing_misreads_is_noticed() -> None:
    def forward(self: Any, x: torch.Tensor) -> torch.Tensor:
        return F.relu(self.linear(x)) + torch.rand(1)

    with pytest.raises(snn.UnsupportedError, match="the traced network differs from Written"):
        snn.convert(Written(forward, linear=nn.Linear(3, 3)), "rate", images(8, 3))


class InPlace(nn.Module):
    """A residual block with operations in place whose result is read by the old name."""

    def __init__(self, through_view: bool = False) -> None:
        super().__init__()
        self.conv, self.down = nn.Conv2d(2, 4, 3, padding=1, bias=False), nn.Conv2d(2, 4, 1)
        self.norm = nn.BatchNorm2d(4)
        self.relu = nn.ReLU(inplace=True)
        self.through_view = through_view

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        y = self.norm(self.conv(x))
        self.relu(y)
        z = y + self.down(x)
        z.mul_(0.5)
        F.relu(z, inplace=True)
        if self.through_view:
            z.view(-1).mul_(2.0)
        return (z + y).mean((2, 3))


def test_operations_in_place_become_new_tensors() -> None:
    network = random_norms(InPlace()).double()
    x = images(6, 2, 5, 5, dtype=DOUBLE)
    wanted = network(x)
    converted = snn.convert(network, "rate", x, T=512, threshold="max").snn
    torch.testing.assert_close(converted.source(x), wanted, rtol=1e-12, atol=1e-12)
    assert (converted(x) - wanted).abs().mean() < 0.02 * wanted.std()
    assert network.relu.inplace
    with pytest.raises(snn.UnsupportedError, match="changing a tensor in place through a view or by \\+="):
        snn.convert(random_norms(InPlace(through_view=True)).double(), "rate", x)
