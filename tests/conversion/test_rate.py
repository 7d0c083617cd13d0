"""Rate coding: exact laws, a plain loop as reference, known answers, and convergence."""

from __future__ import annotations

import itertools
from collections.abc import Callable
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from conversion_networks import functional_network, images, random_norms
from torch import nn

import snn
from snn.conversion import ConvertedNetwork, barrier_run
from snn.conversion import network as network_module
from snn.conversion.activations import QCFS

DOUBLE = torch.float64


def plain_loop(layers: list[nn.Linear], thresholds: list[float], x: torch.Tensor, steps: int) -> torch.Tensor:
    """Output current [steps, B, K] of dense layers with integrate-and-fire neurons between them, step by step."""
    v = [
        torch.full((len(x), layer.out_features), theta / 2, dtype=x.dtype)
        for layer, theta in zip(layers, thresholds, strict=False)
    ]
    outputs = []
    for _ in range(steps):
        signal = x
        for k, theta in enumerate(thresholds):
            v[k] = v[k] + layers[k](signal)
            fired = (v[k] >= theta).to(x.dtype)
            v[k] = v[k] - fired * theta
            signal = fired * theta
        outputs.append(layers[-1](signal))
    return torch.stack(outputs)


def dyadic(layer: nn.Linear, denominator: int, generator: torch.Generator) -> nn.Linear:
    """Weights and biases that are multiples of 1 / denominator, in float64."""
    layer = layer.double()
    for parameter in layer.parameters():
        values = torch.randint(-denominator, denominator + 1, parameter.shape, generator=generator)
        parameter.data = values.double() / denominator
    return layer


def dense(sizes: list[int], denominator: int = 8, seed: int = 0) -> list[nn.Linear]:
    generator = torch.Generator().manual_seed(seed)
    return [dyadic(nn.Linear(a, b), denominator, generator) for a, b in itertools.pairwise(sizes)]


def chain(layers: list[nn.Linear], activations: list[nn.Module]) -> nn.Sequential:
    parts: list[nn.Module] = []
    for layer, activation in zip(layers, activations, strict=False):
        parts += [layer, activation]
    return nn.Sequential(*parts, *layers[len(activations) :]).eval()


def with_thresholds(network: nn.Module, thresholds: list[float], T: int) -> ConvertedNetwork:
    converted = snn.conversion.structure(network, "rate", T=T).double()
    for layer, theta in zip(converted.layers().values(), thresholds, strict=True):
        layer.set_threshold(torch.tensor(theta, dtype=DOUBLE), 0.5)
    return converted


def test_equals_a_plain_loop_over_steps() -> None:
    layers, thresholds = dense([6, 9, 7, 4]), [2.0, 0.5]
    x = torch.randint(-16, 17, (5, 6), generator=torch.Generator().manual_seed(1)).double() / 16
    converted = with_thresholds(chain(layers, [nn.ReLU(), nn.ReLU()]), thresholds, 23)
    wanted = plain_loop(layers, thresholds, x, 23)
    outputs = torch.cat([chunk for _, chunk in converted.run(x, 23)])
    assert torch.equal(outputs, wanted)
    assert wanted.abs().sum() > 0
    assert torch.equal(converted(x), wanted.sum(0) / 23)
    counts = torch.arange(1, 24, dtype=DOUBLE).view(-1, 1, 1)
    assert torch.equal(converted(x, return_all_steps=True), wanted.cumsum(0) / counts)


def test_weight_form_equals_threshold_form() -> None:
    """Thresholds 1 with weights scaled by lambda before / lambda after: the same spikes in each of 50 steps."""
    layers, thresholds = dense([6, 12, 10, 4]), [4.0, 0.5]
    x = torch.randint(-16, 17, (8, 6), generator=torch.Generator().manual_seed(2)).double() / 16
    unit = [nn.Linear(layer.in_features, layer.out_features).double() for layer in layers]
    scales = [1.0, *thresholds, 1.0]
    for k, (own, layer) in enumerate(zip(unit, layers, strict=True)):
        own.weight.data = layer.weight * scales[k] / scales[k + 1]
        own.bias.data = layer.bias / scales[k + 1]
    given = with_thresholds(chain(layers, [nn.ReLU(), nn.ReLU()]), thresholds, 50).single_step()
    binary = with_thresholds(chain(unit, [nn.ReLU(), nn.ReLU()]), [1.0, 1.0], 50).single_step()
    sent: dict[str, list[torch.Tensor]] = {"given": [], "binary": []}
    for name, network in (("given", given), ("binary", binary)):
        for layer in ("1", "3"):
            neuron = network.body.get_submodule(layer).neuron
            neuron.register_forward_hook(lambda m, i, output, name=name: sent[name].append(output.clone()))
    for _ in range(50):
        assert torch.equal(given(x), binary(x))
    assert all(torch.equal(a, b) for a, b in zip(sent["given"], sent["binary"], strict=True))
    assert 0.05 < torch.stack([z.mean() for z in sent["binary"]]).mean() < 0.95


def test_barrier_is_exact_where_a_stream_is_not() -> None:
    layers, lambdas = dense([10, 20, 20, 20], seed=3), [2.0, 4.0, 1.0]
    source = chain(layers, [QCFS(8, value) for value in lambdas]).double()
    x = torch.randint(-32, 33, (400, 10), generator=torch.Generator().manual_seed(4)).double() / 32
    converted = snn.convert(source, "qcfs", T=8).snn
    wanted = source(x)
    assert torch.equal(barrier_run(converted, x), wanted)
    wrong = (converted(x) != wanted).double().mean().item()
    assert 0.15 < wrong < 0.7


class Residual(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.first = nn.Sequential(nn.Conv2d(2, 6, 3, padding=1), nn.BatchNorm2d(6), nn.ReLU())
        self.second = nn.Sequential(nn.Conv2d(6, 6, 3, padding=1), nn.BatchNorm2d(6))
        self.linear = nn.Linear(6, 4)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x = self.first(x)
        x = F.relu(x + self.second(x))
        return self.linear(x.mean((2, 3)))


class Joined(Residual):
    def __init__(self) -> None:
        super().__init__()
        self.linear = nn.Linear(12, 4)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x = self.first(x)
        x = torch.cat([x, F.relu(self.second(x))], 1)
        return self.linear(F.adaptive_avg_pool2d(x, 1).flatten(1))


class Pooled(Residual):
    def __init__(self, pool: Callable[[torch.Tensor], torch.Tensor]) -> None:
        super().__init__()
        self.pool = pool
        self.linear = nn.Linear(6 * 9, 4)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x = self.pool(self.first(x))
        return self.linear(F.relu(self.second(x)).view(x.size(0), -1))


def _residual_pools() -> dict[str, Callable[[torch.Tensor], torch.Tensor]]:
    return {
        "max": lambda x: F.max_pool2d(x, 2),
        "overlapping max": lambda x: F.max_pool2d(x, 3, stride=2, padding=1)[:, :, :3, :3],
        "adaptive max": lambda x: F.adaptive_max_pool2d(x, 3),
    }


NETWORKS: dict[str, Callable[[], nn.Module]] = {
    "plain": functional_network,
    "residual": Residual,
    "concatenation": Joined,
    **{name: (lambda pool=pool: Pooled(pool)) for name, pool in _residual_pools().items()},  # type: ignore[misc]
    "separable, ReLU6": lambda: nn.Sequential(
        nn.Conv2d(2, 4, 3, stride=2, padding=1),
        nn.BatchNorm2d(4),
        nn.ReLU6(),
        nn.Conv2d(4, 8, 3, groups=4, padding="same", padding_mode="reflect"),
        nn.Hardtanh(0.0, 0.3),
        nn.Upsample(scale_factor=2),
        nn.ConvTranspose2d(8, 3, 3),
        nn.ReLU(),
        nn.AdaptiveAvgPool2d((2, 1)),
        nn.Flatten(),
        nn.Linear(6, 3),
    ),
}


@pytest.mark.parametrize("name", NETWORKS)
@pytest.mark.parametrize("start", [0.0, 0.5])
def test_error_falls_as_one_over_steps(name: str, start: float) -> None:
    torch.manual_seed(5)
    net = random_norms(NETWORKS[name]()).double()
    x = images(16, 2, 6, 6, seed=6, dtype=DOUBLE) if name != "plain" else images(16, 2, 8, 8, dtype=DOUBLE)
    converted = snn.convert(net, "rate", x, T=8, threshold="max", start=start).snn
    wanted = net(x)
    spread = wanted - wanted.mean(0)
    errors = [((converted(x, T) - wanted).abs().mean() / spread.abs().mean()).item() for T in (64, 256, 1024)]
    assert errors[2] < 0.06
    assert all(later < 0.5 * earlier for earlier, later in itertools.pairwise(errors))


def test_charge_balance_of_every_neuron() -> None:
    net = functional_network(dtype=DOUBLE)
    x = images(5, 2, 8, 8, dtype=DOUBLE)
    network = snn.convert(net, "rate", x, T=9, channelwise=True).snn
    with network.record() as records:
        network(x[:2])
        network(x)  # a new run replaces the records of the one before
    assert set(records) == set(network.layers()) == {"relu", "relu_2", "relu_3", "clamp"}
    for record in records.values():
        balance = record.output_sum + record.membrane - record.initial - record.input_sum
        assert balance.shape[0] == 5
        assert balance.abs().max() < 1e-12
        assert record.steps == 9
        assert record.events.max() <= 9
        assert record.events.sum() > 0


def test_steps_in_chunks_equal_one_run(monkeypatch: pytest.MonkeyPatch) -> None:
    net = functional_network()
    x = images(3, 2, 8, 8)
    network = snn.convert(net, "rate", x, T=11).snn
    whole = network(x, return_all_steps=True)
    monkeypatch.setattr(network_module, "CHUNK_VALUES", 1)
    torch.testing.assert_close(network(x, return_all_steps=True), whole)
    torch.testing.assert_close(network(x), whole[-1])


def test_samples_do_not_influence_each_other_and_runs_forget() -> None:
    net = functional_network(dtype=DOUBLE)
    x = images(6, 2, 8, 8, dtype=DOUBLE)
    network = snn.convert(net, "rate", x, T=7).snn
    together = network(x)
    for k in range(6):
        torch.testing.assert_close(network(x[k : k + 1]), together[k : k + 1])
    for _ in network.run(x[:3], 4):
        break  # a run that is left early
    assert torch.equal(network(x), together)


def test_read_out_after_a_delay() -> None:
    net = functional_network(dtype=DOUBLE)
    x = images(6, 2, 8, 8, dtype=DOUBLE)
    network = snn.convert(net, "rate", x, T=20, delay=6, start=0.0).snn
    outputs = torch.cat([chunk for _, chunk in network.run(x, 20)])
    torch.testing.assert_close(network(x), outputs[6:].mean(0))
    all_steps = network(x, return_all_steps=True)
    torch.testing.assert_close(all_steps[-1], outputs[6:].mean(0))
    torch.testing.assert_close(all_steps[9], outputs[6:10].mean(0))  # four steps are left
    torch.testing.assert_close(all_steps[8], outputs[4:9].mean(0))  # three would be: the last five instead
    torch.testing.assert_close(all_steps[3], outputs[:4].mean(0))
    torch.testing.assert_close(network(x, 8), outputs[3:8].mean(0))


def test_delay_estimate_known_answer() -> None:
    """Two layers of one neuron: 0.5 theta / mean activation steps each, 4 / 0.5 and 1 / 0.25 thresholds."""
    net = nn.Sequential(nn.Linear(1, 1, bias=False), nn.ReLU(), nn.Linear(1, 1, bias=False), nn.ReLU(), nn.Linear(1, 1))
    net[0].weight.data.fill_(1.0)
    net[2].weight.data.fill_(0.5)
    x = torch.tensor([[0.1], [0.4], [1.0]])  # means 0.5 and 0.25, maxima 1 and 0.5
    for start, steps in ((0.0, 4), (0.5, 2)):
        conversion = snn.convert(net, "rate", x, T=30, threshold="max", delay="auto", start=start)
        assert int(conversion.snn.skipped_steps) == steps


def test_delays_add_up_along_the_longest_path() -> None:
    class Branches(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.half, self.whole, self.head = (nn.Linear(1, 1, bias=False) for _ in range(3))
            for layer, weight in ((self.half, 0.5), (self.whole, 1.0), (self.head, 1.0)):
                layer.weight.data.fill_(weight)

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            x = F.relu(x)
            return self.head(F.relu(self.whole(x + F.relu(self.half(x)))))

    x = torch.tensor([[0.1], [0.4], [1.0]])  # each layer waits greatest / mean = 2 steps
    assert int(snn.convert(Branches(), "rate", x, threshold="max", delay="auto", start=0.0).snn.skipped_steps) == 6


def test_structure_takes_the_state_of_a_conversion() -> None:
    net = functional_network()
    x = images(6, 2, 8, 8)
    for recipe, options in (("rate", {"channelwise": True, "delay": 2}), ("calibration-advanced", {"samples": 4})):
        made: Any = snn.convert(net, recipe, x, T=10, **options).snn
        empty = snn.conversion.structure(net, recipe, T=10, **options)
        with pytest.raises(ValueError, match="has no threshold; calibrate"):
            empty(x)
        empty.load_state_dict(made.state_dict())
        assert torch.equal(empty(x), made(x))


def test_bad_runs_name_the_argument() -> None:
    net = functional_network()
    network = snn.convert(net, "rate", images(6, 2, 8, 8), T=4).snn
    with pytest.raises(ValueError, match="T must be a positive whole number of steps, got 0"):
        network(images(1, 2, 8, 8), T=0)
    with pytest.raises(TypeError, match=r"got a torch.int64 tensor"):
        network(torch.zeros(1, 2, 8, 8, dtype=torch.int64))
    with pytest.raises(snn.ShapeError, match="'first'"):
        network(images(1, 3, 8, 8))
    with pytest.raises(snn.ShapeError, match="at least one sample"):
        network(torch.zeros(0, 2, 8, 8))


def test_a_forward_that_mixes_the_batch_is_refused() -> None:
    class Mixing(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.a, self.b = nn.Linear(3, 3), nn.Linear(3, 3)

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            x = F.relu(self.a(x))
            return F.relu(self.b(torch.cat([x, x], 0)))

    with pytest.raises(snn.ShapeError, match=r"'relu_2'.*its input has 8 rows for a batch of 4"):
        snn.convert(Mixing(), "rate", images(4, 3), T=4).snn(images(4, 3))
