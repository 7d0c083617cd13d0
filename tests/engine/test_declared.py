"""Neurons declared for training run in the engine with the spikes of the torch step."""

import numpy as np
import pytest
import torch

from neuromorphic.engine import Network, UnsupportedError
from snn.neurons.adaptive import adaptive_lif
from snn.neurons.biophysical import izhikevich
from snn.neurons.cuba import cuba_lif
from snn.neurons.lif import integrate_and_fire, leaky_integrate_and_fire, leaky_integrator
from snn.ops import fire_with

CASES = [
    (integrate_and_fire, {}),
    (integrate_and_fire, {"v_reset": None}),
    (leaky_integrate_and_fire, {"tau": 4.0, "decay_input": False}),
    (leaky_integrate_and_fire, {"tau": np.linspace(1.5, 6.0, 40), "v_threshold": 0.7}),
    (adaptive_lif, {}),
    (cuba_lif, {}),
    (izhikevich, {}),
]


def torch_spikes(model, params, inputs):
    """[T, n] spikes of the declared step, float64; inputs [T, n]."""
    n = inputs.shape[1]
    values = {**model.params, **params}
    as_tensor = {
        k: v if v is None or isinstance(v, bool) else torch.as_tensor(v, dtype=torch.float64) for k, v in values.items()
    }
    p = torch.nn.Module()
    p.__dict__.update(as_tensor)
    state = {k: torch.as_tensor(v, dtype=torch.float64).expand(n) for k, v in model.start(values).items()}
    out = []
    with fire_with(lambda u: (u >= 0).to(u.dtype)):
        for x in torch.from_numpy(inputs):
            s = torch.nn.Module()
            s.__dict__.update(state)
            z, state = model.step(x, s, p)
            out.append(z)
    return torch.stack(out).numpy()


@pytest.mark.parametrize(("model", "params"), CASES, ids=lambda value: getattr(value, "name", None))
def test_same_spikes_as_the_torch_step(model, params):
    n, steps = 40, 120
    generator = np.random.default_rng(1)
    scale = 300.0 if model is izhikevich else 1.5
    fired = generator.random((steps, n)) < 0.4
    weight = generator.uniform(0.1, 1.0, n) * scale
    net = Network(dt_ms=1.0, seed=1, dtype="float64")
    step, ids = np.nonzero(fired)
    source = net.population("spike_list", n, times_ms=step + 1.0, ids=ids)
    cells = net.population(model, n, **params)
    net.connect(source, cells, "one_to_one", weight, delay_ms=1.0)
    spikes = net.record(cells, "spikes")
    net.run(steps + 1.0)
    expected = torch_spikes(model, params, np.where(fired, weight, 0.0))
    found = np.zeros((steps, n))
    keep = (spikes.steps >= 2) & (spikes.steps < steps + 2)
    found[spikes.steps[keep] - 2, spikes.ids[keep]] = 1
    # The engine's first step has no input yet: models at rest do nothing in it.
    if model is izhikevich:
        expected = torch_spikes(model, params, np.vstack([np.zeros(n), np.where(fired, weight, 0.0)]))[1:]
    assert found.sum() > 20
    np.testing.assert_array_equal(found, expected)


def test_an_analog_output_is_refused():
    net = Network(dt_ms=1.0)
    with pytest.raises(UnsupportedError, match="leaky_integrator"):
        net.population(leaky_integrator, 3)


def test_an_unknown_parameter_is_named():
    net = Network(dt_ms=1.0)
    with pytest.raises(ValueError, match="did you mean 'tau'"):
        net.population(leaky_integrate_and_fire, 3, taus=2.0)
