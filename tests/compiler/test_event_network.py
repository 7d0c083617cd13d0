"""Event networks give torch's spikes, whatever the layers."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from compiled_networks import NETWORKS, Sequence, frames, made, scaled, spikes
from hypothesis import given, settings
from hypothesis import strategies as st
from spikingjelly.activation_based import functional, neuron
from torch import nn

import neuromorphic
import snn
from neuromorphic.compiler.check import torch_spikes
from neuromorphic.compiler.trace import fresh_copy
from snn.errors import ShapeError, UnsupportedError


def compiled(network: nn.Module, x: torch.Tensor, dtype: str = "float64", **more: object) -> neuromorphic.EventNetwork:
    single = any(getattr(layer, "step_mode", "m") == "s" for layer in network.modules())
    return neuromorphic.compile(network, x[0] if single else x, dtype, verify=False, **more)  # type: ignore[arg-type]


def torch_output(network: nn.Module, x: torch.Tensor) -> torch.Tensor:
    return torch_spikes(fresh_copy(network), x)[2]


@pytest.mark.parametrize("name", NETWORKS)
def test_float64_spikes_equal_torch(name: str) -> None:
    network, x = made(name), spikes(name)
    event = compiled(network, x)
    report = event.check(network, x)
    assert report.equal, report
    assert all(layer.spikes > 0 for layer in report.layers), f"a layer of {name} is silent: {report}"
    torch.testing.assert_close(event.run(x), torch_output(network, x), rtol=1e-9, atol=1e-11)


@pytest.mark.parametrize("name", NETWORKS)
def test_frames_that_repeat_equal_torch(name: str) -> None:
    network, x = made(name), frames(name)
    event = compiled(network, x)
    assert event.check(network, x).equal
    torch.testing.assert_close(event.run(x), event.run(x.contiguous()), rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize("name", ["mlp", "conv net", "residual", "recurrent", "graded spikes"])
def test_float32_spikes_agree(name: str) -> None:
    network = made(name, torch.float32)
    x = spikes(name, dtype=torch.float32)
    event = compiled(network, x, "float32")
    report = event.check(network, x)
    assert report.spike_agreement > 0.999, report
    assert event.run(x).dtype == torch.float32


def test_the_caller_keeps_its_network() -> None:
    network = made("single-step spikingjelly").train()
    functional.set_step_mode(network, "s")
    x = spikes("single-step spikingjelly")
    before = {name: value.clone() for name, value in network.state_dict().items()}
    network(x[0])  # leaves states that are part of an autograd graph
    membrane = network[2].v
    compiled(network, x)
    assert network.training
    assert network[2].v is membrane
    assert not any(layer._forward_hooks or layer._forward_pre_hooks for layer in network.modules())
    after = {
        name: value for name, value in network.state_dict().items() if "running" not in name and "num_b" not in name
    }
    assert all(torch.equal(before[name], value) for name, value in after.items())


@settings(max_examples=25, deadline=None)
@given(
    st.integers(1, 3), st.integers(1, 3), st.integers(0, 2), st.integers(1, 2), st.integers(1, 3), st.integers(0, 2**16)
)
def test_convolutions_of_all_geometries(
    kernel: int, stride: int, padding: int, dilation: int, pool: int, seed: int
) -> None:
    generator = torch.Generator().manual_seed(seed)
    groups = 1 + seed % 2
    layers: list[nn.Module] = [nn.Conv2d(2, 4, kernel, stride, padding, dilation, groups)]
    if (9 + 2 * padding - dilation * (kernel - 1) - 1) // stride + 1 >= pool:
        layers.append(nn.AvgPool2d(pool, 1 + seed % 3))
    network = scaled(Sequence(*layers, snn.IF(v_reset=None, step_mode="m")), seed=seed).double()
    x = torch.randn(3, 2, 2, 9, 9, generator=generator, dtype=torch.float64)
    x = x * (torch.rand(x.shape, generator=generator) < 0.4)
    assert compiled(network, x).check(network, x).equal


@pytest.mark.parametrize("name", ["mlp", "residual", "recurrent", "delay"])
def test_batch_rows_do_not_influence_each_other(name: str) -> None:
    network, x = made(name), spikes(name, B=4)
    event = compiled(network, x)
    whole = event.run(x)
    assert torch.equal(whole[:, 2:3], event.run(x[:, 2:3]))
    assert torch.equal(whole, event.run(x))  # nothing is left over from a run


def test_events_and_arrays_give_the_result_of_tensors() -> None:
    network, x = made("conv net"), spikes("conv net", B=1)
    event = compiled(network, x)
    expected = event.run(x)
    steps, places = np.nonzero(x.numpy().reshape(len(x), -1))
    assert torch.equal(event.run((steps, places), steps=len(x)), expected)
    assert torch.equal(event.run((steps, places, np.ones(len(steps))), steps=len(x)), expected)
    array = event.run(x.numpy())
    assert isinstance(array, np.ndarray)
    assert np.array_equal(array, expected.numpy())


def test_events_of_one_place_in_one_step_add_up() -> None:
    network, x = made("recurrent"), torch.zeros(2, 1, 12, dtype=torch.float64)
    x[0, 0, 3] = 2.0
    event = compiled(network, x)
    assert torch.equal(event.run((np.array([0, 0]), np.array([3, 3])), steps=2), event.run(x))


def test_report_counts() -> None:
    network, x = made("conv net"), spikes("conv net")
    report = compiled(network, x).report
    assert report.neurons == 4 * 36 + 6 * 9 + 20
    by_name = {layer.name: layer for layer in report.layers}
    assert by_name["stack.layers.linear"].synapses == 54 * 20
    first = by_name["stack.layers.conv1"]  # 3 x 3, padding 1, then 2 x 2 pooling: 4 x 4 with stride 2
    assert (first.weights, first.synapses) == (4 * 16, 4 * (6 * 4 - 2) ** 2)
    assert "stack.layers.neuron1" in str(report)
    assert report.seconds > 0


def test_activity_counts_every_event() -> None:
    x = spikes("recurrent", T=7, B=2)
    network = made("recurrent")
    event = compiled(network, x)
    found = event.activity(x)
    sent = torch_spikes(fresh_copy(network), x)[0]["1"]
    hidden, readout = found
    assert [layer.name for layer in found] == ["0", "2"]
    came = x.sum(-1).numpy().astype(np.int64)
    late = np.concatenate([np.zeros((1, 2)), sent.sum(-1)[:-1]]).astype(np.int64)
    assert np.array_equal(hidden.input_spikes, came + late)
    assert np.array_equal(hidden.synaptic_events, 20 * (came + late))
    assert np.array_equal(hidden.neuron_updates, np.full((7, 2), 20))
    assert np.array_equal(hidden.output_spikes, sent.sum(-1))
    assert np.array_equal(readout.synaptic_events, 4 * sent.sum(-1))
    assert hidden.input_spikes.dtype == np.int64


def test_check_names_the_first_difference_and_its_margin() -> None:
    network, x = made("mlp"), spikes("mlp")
    event = compiled(network, x)
    changed = made("mlp")
    layer = changed.stack.layers["neuron1"]
    layer.v_threshold = 0.5
    report = event.check(changed, x)
    assert not report.equal
    first = report.layers[0].first
    assert first is not None
    assert report.layers[0].different > 0
    assert 0 <= first.margin < 0.6  # torch fires, the event network with the higher threshold does not
    assert (first.torch, first.event) == (1.0, 0.0)
    assert "stack.layers.neuron1" in report.first_difference()


def test_verification_refuses_code_that_depends_on_the_step() -> None:
    class Alternating(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.layer = nn.Linear(3, 4)
            self.neuron = snn.IF(step_mode="m")

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            y = self.layer(x)
            if len(x) > 1:
                y = torch.cat([y[:1], -y[1:]])
            return self.neuron(y)

    torch.manual_seed(0)
    with pytest.raises(ValueError, match=r"'neuron'.*differ"):
        neuromorphic.compile(scaled(Alternating()), torch.ones(5, 1, 3))


class OneLine(nn.Module):
    """A network whose forward is given."""

    def __init__(self, forward: object, **layers: nn.Module) -> None:
        super().__init__()
        self._forward = forward
        for name, layer in layers.items():
            self.add_module(name, layer)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self._forward(self, x)  # type: ignore[operator,no-any-return]


REFUSED = {
    "layer 'relu'.*test_event_network.py:.*ReLU": OneLine(lambda n, x: n.relu(x), relu=nn.ReLU()),
    "relu has no event form": OneLine(lambda n, x: torch.relu(n.l(x)), l=nn.Linear(3, 3)),
    "two signals": OneLine(lambda n, x: n.l(x) * x, l=nn.Linear(3, 3)),
    "single step": OneLine(lambda n, x: n.n(x[0]), n=snn.IF(step_mode="m")),
    "one step for a sequence": OneLine(lambda n, x: x[-1], n=snn.IF(step_mode="m")),
    "depend on the data": OneLine(lambda n, x: x if x.tolist() else 2 * x, n=snn.IF(step_mode="m")),
    "called twice": OneLine(lambda n, x: n.n(n.n(x)), n=snn.IF(step_mode="m")),
    "'lstm'.*LSTM": OneLine(lambda n, x: n.lstm(x)[0], lstm=nn.LSTM(3, 3)),
    "EIFNode": OneLine(lambda n, x: n.n(x), n=neuron.EIFNode(step_mode="m")),
    "taken twice": OneLine(lambda n, x: n.n(torch.cat([x, x], -1)[..., [0, 1, 1]]), n=snn.IF(step_mode="m")),
}


@pytest.mark.parametrize("text", REFUSED)
def test_what_has_no_event_form_is_named(text: str) -> None:
    if text == "depend on the data":
        text = "makes the network depend on the data"
        network = REFUSED["depend on the data"]
    else:
        network = REFUSED[text]
    with pytest.raises(UnsupportedError, match=text):
        neuromorphic.compile(network, torch.ones(2, 1, 3), verify=False)


def test_a_subclass_with_its_own_arithmetic_is_not_taken_for_its_base() -> None:
    class Doubled(nn.Linear):
        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return 2 * super().forward(x)

    with pytest.raises(UnsupportedError, match="linear has no event form"):
        neuromorphic.compile(nn.Sequential(Doubled(3, 3), snn.IF(step_mode="m")), torch.ones(2, 1, 3), verify=False)


def test_wrong_arguments_say_what_is_wrong() -> None:
    network = made("recurrent")
    x = spikes("recurrent")
    with pytest.raises(ValueError, match=r"dtype must be one of \('float32', 'float64'\), got 'half'"):
        neuromorphic.compile(network, x, "half")
    with pytest.raises(TypeError, match=r"module must be a torch.nn.Module, got a list"):
        neuromorphic.compile([network], x)  # type: ignore[arg-type]
    with pytest.raises(ShapeError, match=r"example_input must be \[T, B, ...\], got shape \(12,\)"):
        neuromorphic.compile(network, x[0, 0])
    with pytest.raises(TypeError, match=r"floating-point tensor, got a torch.int64 tensor"):
        neuromorphic.compile(network, x.long())
    event = compiled(network, x)
    with pytest.raises(ShapeError, match=r"input must be \[T, B, 12\], got shape \(12, 3, 11\)"):
        event.run(x[..., :11])
    with pytest.raises(ValueError, match="finite"):
        event.run(x * float("nan"))
    with pytest.raises(TypeError, match="got a str"):
        event.run("spikes")
    with pytest.raises(ValueError, match=r"places must lie in \[0, 12\), got 3 to 12"):
        event.run((np.array([0, 1]), np.array([3, 12])))
    with pytest.raises(ValueError, match="sorted"):
        event.run((np.array([1, 0]), np.array([3, 1])))
    both = nn.Sequential(snn.IF(step_mode="m"), snn.IF(step_mode="s"))
    with pytest.raises(ValueError, match="both step modes"):
        neuromorphic.compile(both, x)


def test_events_that_arrive_while_nothing_else_does_change_nothing_else() -> None:
    """A silent input leaves a network without biases silent, and its buffers clean for the next run."""
    network = nn.Sequential(nn.Linear(12, 8, bias=False), snn.LIF(step_mode="m")).double()
    x = torch.zeros(5, 1, 12, dtype=torch.float64)
    event = compiled(network, x)
    assert not event.run(x).any()
    loud = 100 * torch.ones_like(x)
    assert torch.equal(event.run(loud), torch_output(network, loud))
    assert not event.run(x).any()


@pytest.mark.parametrize(
    "neurons", [snn.IF(v_reset=None), snn.IF(), snn.LIF(tau=3.0, v_reset=None), snn.PLIF()], ids=repr
)
def test_lazy_updates_give_the_same_spikes(neurons: snn.Neuron) -> None:
    """Few events with long pauses, strong ones that leave a soft-reset neuron above its threshold, and silent steps."""
    neurons.step_mode = "m"
    second = snn.IF(v_reset=None, step_mode="m")
    layers = [
        nn.Conv2d(2, 4, 3, padding=1, bias=False),
        nn.AvgPool2d(2),
        neurons,
        nn.Conv2d(4, 3, 3, bias=False),
        second,
    ]
    network = scaled(Sequence(*layers)).double()
    generator = torch.Generator().manual_seed(5)
    x = (torch.rand(150, 2, 2, 12, 12, generator=generator) < 0.003).double()
    x[20:100:9] *= 7.0
    x[40:44] = x[110:] = 0
    lazy = compiled(network, x, update="lazy")
    dense = compiled(network, x, update="dense")
    assert lazy.lazy == {"layers.2", "layers.4"}
    assert not dense.lazy
    assert lazy.check(network, x).equal
    assert lazy.check(network, x).layers[0].spikes > 50
    assert torch.equal(lazy.run(x), dense.run(x))
    touched = lazy.updated_share(x)
    assert touched["layers.2"] < 0.3
    assert dense.updated_share(x)["layers.2"] == 1.0
    assert compiled(network, x).lazy == {name for name in lazy.lazy if touched[name] < 0.4}
    stream = lazy.stream()
    parts = [stream.window(x[a:b, 0]) for a, b in ((0, 33), (33, 34), (34, 150))]
    assert torch.equal(torch.cat(parts), dense.run(x)[:, 0])


def test_lazy_updates_are_kept_from_layers_that_change_on_their_own() -> None:
    def names(*layers: nn.Module) -> frozenset[str]:
        network = scaled(Sequence(*layers)).double()
        return compiled(network, torch.zeros(2, 1, 2, 8, 8, dtype=torch.float64), update="lazy").lazy

    conv = nn.Conv2d(2, 3, 3, bias=False)
    assert names(conv, snn.LIF(step_mode="m")) == {"layers.1"}
    assert names(nn.Conv2d(2, 3, 3), snn.LIF(step_mode="m")) == frozenset()
    assert names(conv, snn.LIF(v_reset=0.1, step_mode="m")) == frozenset()
    assert names(conv, snn.ALIF(step_mode="m")) == frozenset()
    assert names(conv, snn.CubaLIF(step_mode="m")) == frozenset()
    assert names(conv, nn.BatchNorm2d(3), snn.IF(step_mode="m")) == frozenset()
    with pytest.raises(ValueError, match=r"update must be one of \('auto', 'dense', 'lazy'\), got 'sometimes'"):
        neuromorphic.compile(Sequence(conv, snn.IF(step_mode="m")), torch.zeros(2, 1, 2, 8, 8), update="sometimes")
