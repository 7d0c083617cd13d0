"""Networks exported by other libraries give the spikes that those libraries give."""

from __future__ import annotations

import contextlib
import io
import warnings

import numpy as np
import pytest
import torch
from compiled_networks import scaled
from torch import nn

import neuromorphic

pytest.importorskip("nir")
STEPS, BATCH = 40, 3


def random_spikes(size: int, rate: float = 0.3) -> torch.Tensor:
    return (torch.rand(STEPS, BATCH, size, generator=torch.Generator().manual_seed(3)) < rate).float()


def agree(network: nn.Module, x: torch.Tensor, expected: torch.Tensor, floor: int = 50) -> None:
    network = network.double()
    assert expected.sum() > floor
    assert torch.equal(network(x.double()), expected.double())
    assert torch.equal(neuromorphic.compile(network, x.double(), "float64").run(x.double()), expected.double())


def quietly(call: object, *arguments: object, **more: object) -> object:
    with contextlib.redirect_stdout(io.StringIO()), warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return call(*arguments, **more)  # type: ignore[operator]


def test_norse() -> None:
    norse = pytest.importorskip("norse.torch")
    from norse.torch.utils.export_nir import to_nir

    cells = norse.SequentialState(nn.Linear(10, 16), norse.LIFBoxCell(), nn.Linear(16, 8), norse.LIFBoxCell())
    scaled(cells, gain=25.0)
    x = random_spikes(10)
    graph = quietly(to_nir, cells, x[0])
    state, sent = None, []
    with torch.no_grad():
        for step in x:
            y, state = cells(step, state)
            sent.append(y)
    # norse stores dt * tau; read at dt * dt it has norse's own steps.
    network = neuromorphic.from_nir(graph, 1e-3, input_shape=(10,))
    agree(network, x, torch.stack(sent))


@pytest.mark.parametrize(("mechanism", "reset"), [("zero", "value"), ("subtract", "subtract_next")])
def test_snntorch(mechanism: str, reset: str, monkeypatch: pytest.MonkeyPatch) -> None:
    snntorch = pytest.importorskip("snntorch")
    from snntorch.export_nir import export_to_nir

    _accept_v_reset(monkeypatch)
    network = nn.Sequential(
        nn.Linear(10, 16),
        snntorch.Leaky(beta=0.8 * torch.ones(16), threshold=torch.ones(16), reset_mechanism=mechanism, init_hidden=True),
        nn.Linear(16, 8, bias=False),
        snntorch.Synaptic(
            alpha=0.6 * torch.ones(8), beta=0.7 * torch.ones(8), threshold=torch.ones(8), reset_mechanism=mechanism,
            init_hidden=True, output=False,
        ),
    )  # fmt: skip
    if mechanism == "zero":
        network = network[:2]  # its synaptic neuron resets otherwise than any NIR neuron
    scaled(network, gain=2.0)
    x = random_spikes(10)
    graph = quietly(export_to_nir, network, x[0])
    for module in network.modules():
        if isinstance(module, snntorch.Leaky | snntorch.Synaptic):
            module.mem = module.syn = torch.zeros(0)
    with torch.no_grad():
        sent = torch.stack([network(step) for step in x])
    agree(neuromorphic.from_nir(graph, 0.1, reset=reset, input_shape=(10,)), x, sent)


def _accept_v_reset(monkeypatch: pytest.MonkeyPatch) -> None:
    """snnTorch writes the field v_reset, which older versions of the nir library do not know."""
    import nir

    for name in ("LIF", "CubaLIF"):
        kind = getattr(nir, name)
        if "v_reset" not in kind.__dataclass_fields__:
            monkeypatch.setattr(nir, name, lambda kind=kind, v_reset=None, **fields: kind(**fields))


def test_sinabs() -> None:
    layers = pytest.importorskip("sinabs.layers")
    from sinabs.activation import SingleSpike
    from sinabs.nir import to_nir

    network = nn.Sequential(
        nn.Linear(10, 16),
        layers.IAFSqueeze(batch_size=BATCH, spike_fn=SingleSpike, min_v_mem=None),
        nn.Linear(16, 8, bias=False),
        layers.LIFSqueeze(
            tau_mem=4.0 * torch.ones(8), batch_size=BATCH, spike_fn=SingleSpike, norm_input=False,
            spike_threshold=torch.ones(8),
        ),
    )  # fmt: skip
    scaled(network, gain=2.0)
    x = random_spikes(10)
    flat = x.transpose(0, 1).reshape(-1, 10)  # sinabs: batch first, then time
    with torch.no_grad():
        sent = network(flat).view(BATCH, STEPS, 8).transpose(0, 1)
    graph = quietly(to_nir, network, flat)
    imported = neuromorphic.from_nir(
        graph, 1000.0, integration="impulse", input="jump", reset="subtract", fires_at_threshold=True, input_shape=(10,)
    )
    agree(imported, x, sent)
    assert np.all(sent.numpy() <= 1)
