"""NeuroBench's own tool and this package count the same, apart from what is explained here."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import nn

from neuromorphic.energy import SPIKES, Counts, Signal, count, estimate

pytest.importorskip("neurobench", reason="pip install neurobench")
snntorch = pytest.importorskip("snntorch")

from neurobench.metrics.static import ConnectionSparsity, Footprint, ParameterCount  # noqa: E402
from neurobench.metrics.workload import (  # noqa: E402
    ActivationSparsity,
    MembraneUpdates,
    SynapticOperations,
)
from neurobench.metrics.workload.neuron_operations import NeuronOperations  # noqa: E402
from neurobench.models import SNNTorchModel, TorchModel  # noqa: E402


def pruned(net: nn.Module, seed: int = 1) -> nn.Module:
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for parameter in net.parameters():
            if parameter.dim() > 1:
                parameter.copy_(torch.randn(parameter.shape, generator=generator))
                parameter.mul_(torch.rand(parameter.shape, generator=generator) < 0.6)
    return net


def of_neurobench(model: Any, data: torch.Tensor) -> dict[str, float]:
    """All of its metrics for data as its models take it."""
    model.register_hooks()
    with torch.no_grad():
        predictions = model(data)
    batch = (data, None)
    synaptic = SynapticOperations()(model, predictions, batch)
    found = {
        "footprint": Footprint()(model),
        "parameter_count": ParameterCount()(model),
        "connection_sparsity": ConnectionSparsity()(model),
        "activation_sparsity": ActivationSparsity()(model, predictions, batch),
        "effective_macs": synaptic["Effective_MACs"],
        "effective_acs": synaptic["Effective_ACs"],
        "dense": synaptic["Dense"],
    }
    if isinstance(model, SNNTorchModel):
        found["membrane_updates"] = MembraneUpdates()(model, predictions, batch)
        neurons = NeuronOperations()(model, predictions, batch)
        found["effective_neuron_ops"] = neurons["Effective Neuron Ops"]
        found["dense_neuron_ops"] = neurons["Neuron Dense Ops"]
    model.cleanup_hooks()
    return found


def ours(counts: Counts, names: dict[str, float]) -> dict[str, float]:
    metrics = estimate(counts, "neurobench").metrics
    return {name: metrics[name] for name in names}


def spikes(*shape: int) -> torch.Tensor:
    return (torch.rand(shape, generator=torch.Generator().manual_seed(5)) < 0.4).float()


def test_a_plain_mlp() -> None:
    net = pruned(nn.Sequential(nn.Linear(12, 20), nn.ReLU(), nn.Linear(20, 20), nn.ReLU(), nn.Linear(20, 4)))
    x = torch.randn(7, 12) * spikes(7, 12)
    theirs = of_neurobench(TorchModel(net), x)
    assert ours(count(net, x), theirs) == theirs
    assert theirs["effective_macs"] > 0


def test_a_plain_cnn() -> None:
    net = pruned(
        nn.Sequential(
            nn.Conv2d(2, 4, 3, padding=1, stride=2),
            nn.BatchNorm2d(4),
            nn.ReLU(),
            nn.AvgPool2d(2),
            nn.Conv2d(4, 6, 3, groups=2),
            nn.ReLU(),
            nn.Flatten(),
            nn.Linear(24, 5),
        )
    )
    x = torch.randn(3, 2, 16, 16) * spikes(3, 2, 16, 16)
    theirs = of_neurobench(TorchModel(net), x)
    assert ours(count(net, x), theirs) == theirs


class SpikingNetwork(nn.Module):
    """One step per call; also over [T, B, ...], as `count` asks for."""

    def __init__(self, layers: nn.Sequential) -> None:
        super().__init__()
        self.layers = layers

    def reset(self) -> None:
        """NeuroBench calls this where it exists; snntorch.utils.reset does not reach nested layers."""
        for layer in self.layers:
            if isinstance(layer, snntorch.SpikingNeuron):
                layer.reset_mem()

    def forward(self, x: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        y = self.layers(x)
        return y, y


@pytest.mark.parametrize("reset", ["subtract", "zero"])
def test_a_spiking_cnn(reset: str) -> None:
    def leaky() -> nn.Module:
        return snntorch.Leaky(beta=0.5, init_hidden=True, reset_mechanism=reset)

    net = SpikingNetwork(
        pruned(
            nn.Sequential(
                nn.Conv2d(1, 4, 3, padding=1),
                leaky(),
                nn.MaxPool2d(2),
                nn.Conv2d(4, 4, 3),
                leaky(),
                nn.Flatten(),
                nn.Linear(16, 6),
                leaky(),
            )
        )
    )
    x = spikes(3, 5, 1, 8, 8)  # [B, T, ...], as NeuroBench orders it
    theirs = of_neurobench(SNNTorchModel(net), x)
    found = count(net, x.transpose(0, 1), input_signal=SPIKES)
    assert ours(found, theirs) == pytest.approx(theirs, rel=1e-12)
    assert theirs["effective_acs"] > 0
    assert theirs["effective_macs"] == 0


class Recurrent(nn.Module):
    def __init__(self, cell: Any) -> None:
        super().__init__()
        self.cell, self.out = cell, nn.Linear(cell.hidden_size, 3)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        h = torch.zeros(len(x), self.cell.hidden_size)
        for x_t in x.unbind(1):
            h = self.cell(x_t, h)
        return self.out(h)


def test_a_recurrent_network() -> None:
    net = pruned(Recurrent(nn.RNNCell(6, 5)))
    net.cell.bias_ih.data.fill_(0.1)
    x = torch.randn(4, 3, 6) * spikes(4, 3, 6)
    theirs = of_neurobench(TorchModel(net), x)
    found = ours(count(net, x), theirs)
    # NeuroBench takes the biases of a cell for connections; they are none of its operations, and not ours.
    parameters = sum(p.numel() for name, p in net.named_parameters() if "bias_" in name)
    weights = sum(p.numel() for name, p in net.named_parameters() if "weight" in name)
    zeros = sum(int(p.eq(0).sum()) for name, p in net.named_parameters() if "weight" in name)
    assert theirs.pop("connection_sparsity") == round(zeros / (weights + parameters), 4)
    assert found.pop("connection_sparsity") == round(zeros / weights, 4)
    # Its dense count fills the zero state with ones from the first step on, as ours does.
    assert found == theirs


def test_recurrent_spiking_neurons() -> None:
    class Loop(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.fc, self.feedback = nn.Linear(6, 5), nn.Linear(5, 5)
            self.neuron = snntorch.Leaky(beta=0.7, init_hidden=True)
            self.z: torch.Tensor | None = None

        def reset(self) -> None:
            self.z = None
            self.neuron.reset_mem()

        def forward(self, x: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
            z = torch.zeros(len(x), 5) if self.z is None else self.z
            self.z = self.neuron(self.fc(x) + self.feedback(z))
            return self.z, self.z

    net = pruned(Loop())
    x = spikes(3, 6, 6)
    theirs = of_neurobench(SNNTorchModel(net), x)
    net.reset()
    found = count(net, x.transpose(0, 1), input_signal=SPIKES)
    assert ours(found, theirs) == pytest.approx(theirs, rel=1e-12)
    assert found["feedback"].recurrent
    assert found["feedback"].input_signal == SPIKES


W = torch.tensor([[1.3, 0, -3.2], [0, 1.2, -5.1], [-1.1, 2.7, 0]])


@pytest.mark.parametrize(
    ("x", "signal", "expected"),
    [
        ([0, 1.3, -1], None, {"effective_macs": 4, "effective_acs": 0, "dense": 9}),
        ([0, 1, -1], Signal("spikes", 1, signed=True), {"effective_macs": 0, "effective_acs": 4, "dense": 9}),
        ([0, 2, 1], Signal("spikes", 2), {"effective_macs": 4, "effective_acs": 0, "dense": 9}),
        ([0, 0, 0], SPIKES, {"effective_macs": 0, "effective_acs": 0, "dense": 9}),
    ],
)
def test_a_linear_layer_with_known_numbers(x: list[float], signal: Signal | None, expected: dict[str, int]) -> None:
    layer = nn.Linear(3, 3)
    layer.weight.data = W
    net, data = nn.Sequential(layer), torch.tensor([x], dtype=torch.float32)
    found = count(net, data, **({} if signal is None else {"input_signal": signal}))
    assert ours(found, expected) == expected
    theirs = of_neurobench(TorchModel(net), data)
    assert {name: theirs[name] for name in expected} == expected


def test_a_declared_spike_is_not_a_value() -> None:
    """NeuroBench calls an analog input AC when its values happen to be 0 and 1; ours stays MAC."""
    net, data = nn.Sequential(nn.Linear(3, 3)), torch.tensor([[0.0, 1.0, 1.0]])
    theirs = of_neurobench(TorchModel(net), data)
    assert theirs["effective_acs"] == 6
    assert ours(count(net, data), theirs)["effective_macs"] == 6


class Step(nn.Module):
    def __init__(self, cell: Any, *states: torch.Tensor) -> None:
        super().__init__()
        self.cell, self.states = cell, states

    def forward(self, x: torch.Tensor) -> Any:
        if not self.states:
            return self.cell(x)
        return self.cell(x, self.states if len(self.states) > 1 else self.states[0])


X = torch.tensor([[1.0, 0, 1], [1, 1, 1]])
H = torch.tensor([[0.5, 0], [0.5, 0.5]])


def filled(cell: Any) -> Any:
    for parameter in cell.parameters():
        parameter.data.fill_(1.0)
    return cell


def products(net: nn.Module, x: torch.Tensor) -> tuple[float, float]:
    metrics = estimate(count(net, x), "neurobench").metrics
    return (metrics["effective_macs"] + metrics["effective_acs"]) * len(x), metrics["dense"] * len(x)


def products_of_neurobench(net: nn.Module, x: torch.Tensor) -> tuple[float, float]:
    found = of_neurobench(TorchModel(net), x)
    return (found["effective_macs"] + found["effective_acs"]) * len(x), found["dense"] * len(x)


def test_an_rnn_cell_with_its_state() -> None:
    net = Step(filled(nn.RNNCell(3, 2)), H)
    assert products(net, X) == products_of_neurobench(net, X) == (16, 20)


def test_an_rnn_cell_without_state_is_counted_for_all_samples() -> None:
    """NeuroBench sees only the first sample of a cell that is called with x alone."""
    net = Step(filled(nn.RNNCell(3, 2)))
    assert products_of_neurobench(net, X) == (4, 6)
    effective, dense = products(net, X)
    assert effective == 10
    # 12 for the input; the recurrent weights are dense operations too, whatever the state.
    assert dense == 12 + 8


def test_an_lstm_cell() -> None:
    """Effective operations agree; for "dense" NeuroBench leaves the zeros in h and c, which adds one to each of 9 products."""
    net = Step(filled(nn.LSTMCell(3, 2)), H, H)
    assert products_of_neurobench(net, X) == (75, 83)
    effective, dense = products(net, X)
    assert effective == 75
    assert dense == 83 + 8 + 1
