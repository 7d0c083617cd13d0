"""The NEST backend, where NEST is installed: equal trajectories for equal input, refusals by name."""

import importlib.util
import subprocess
import sys

import numpy as np
import pytest

from neuromorphic.engine import (
    DistanceDependent,
    Network,
    PairSTDP,
    PowerLawSTDP,
    RewardSTDP,
    ShortTermPlasticity,
    TripletSTDP,
    UnsupportedError,
)

pytestmark = pytest.mark.skipif(importlib.util.find_spec("nest") is None, reason="NEST is not installed")


def deterministic(backend, model, weight, plasticity=None, receptor=None):
    """Two sources onto two neurons, a step current; returns spikes, potentials and final weights."""
    net = Network(seed=1, backend=backend)
    source = net.population("spike_list", 2, times_ms=[1.0, 7.0, 12.0, 20.0, 31.0, 45.0], ids=[0, 1, 0, 0, 1, 0])
    cells = net.population(model, 2)
    weights = np.array([[weight, -0.5 * weight], [0.4 * weight, weight]])
    if plasticity is not None or receptor is not None:
        weights = np.abs(weights)
    p = net.connect(source, cells, "all_to_all", weights, 1.5, plasticity=plasticity, receptor=receptor)
    if not model.startswith("izh"):
        net.drive_current(cells, [3.0, 40.0], [500.0, 0.0])
    spikes = net.record(cells, "spikes")
    v = net.record(cells, "v", interval_ms=0.5)
    net.run(30.0)
    net.run(20.0)
    return spikes, v, net.synapses(p)


@pytest.mark.parametrize(
    ("model", "weight", "tolerance"),
    [("iaf_psc_delta", 6.0, 1e-4), ("iaf_psc_exp", 900.0, 1e-4), ("iaf_psc_exp_one", 900.0, 1e-4),
     ("iaf_psc_alpha", 500.0, 1e-4), ("izhikevich", 9.0, 1e-2)],
)  # fmt: skip
def test_same_trajectory(model, weight, tolerance):
    (s1, v1, _), (s2, v2, _) = (deterministic(b, model, weight) for b in ("numba", "nest"))
    np.testing.assert_allclose(v1.times_ms[:-1], v2.times_ms[: len(v1.times_ms) - 1])
    np.testing.assert_allclose(v1.values[: len(v2.values)], v2.values, atol=tolerance)
    np.testing.assert_array_equal(s1.times_ms, s2.times_ms)


def test_conductances_within_the_error_of_the_step():
    (s1, v1, _), (s2, v2, _) = (deterministic(b, "iaf_cond_exp", 5.0) for b in ("numba", "nest"))
    assert len(s1.ids) > 2
    np.testing.assert_allclose(s1.times_ms, s2.times_ms, atol=0.25)
    before = v1.times_ms[: len(v2.times_ms)] < s1.times_ms.min() - 0.5
    np.testing.assert_allclose(v1.values[: len(v2.values)][before], v2.values[before], atol=0.05)


@pytest.mark.parametrize(
    "rule",
    [PairSTDP(w_max=2000.0), PairSTDP(w_max=2000.0, mu_plus=0, mu_minus=0, pairing="nearest"), PowerLawSTDP(),
     TripletSTDP(w_max=2000.0, a3_plus=6.0, a2_minus=7.0), ShortTermPlasticity(tau_fac_ms=30.0)],
    ids=["pair", "nearest", "power", "triplet", "short-term"],
)  # fmt: skip
def test_same_plasticity(rule):
    (s1, v1, _w1), (s2, v2, _w2) = (deterministic(b, "iaf_psc_exp", 900.0, rule, "ex") for b in ("numba", "nest"))
    assert len(s1.ids) > 0
    np.testing.assert_array_equal(s1.times_ms, s2.times_ms)
    np.testing.assert_allclose(v1.values[: len(v2.values)], v2.values, atol=2e-3)


def build(change):
    net = Network(seed=1, backend="nest")
    a = net.population("iaf_psc_exp", 3, positions_um=np.zeros((3, 3)))
    change(net, a)
    net.build()


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda net, a: net.population("alif", 2), "alif"),
        (lambda net, a: net.connect(a, a, DistanceDependent(0.5, 10.0), 1.0, 1.0), "DistanceDependent"),
        (lambda net, a: net.connect(a, a, "all_to_all", 1.0, 1.0, plasticity=RewardSTDP()), "RewardSTDP"),
        (lambda net, a: net.connect(a, a, "all_to_all", -1.0, 1.0, receptor="ex"), "receptor 'ex'"),
        (lambda net, a: net.population("iaf_psc_exp", 2, initial={"i_ex": 1.0}), "i_ex"),
    ],
)
def test_refusals(change, message):
    with pytest.raises(UnsupportedError, match=message):
        build(change)


@pytest.mark.slow
@pytest.mark.parametrize("name", ["cuba", "brunel", "microcircuit"])
def test_same_statistics(name, tmp_path):
    import json

    figures = {}
    for backend in ("numba", "nest"):
        path = tmp_path / f"{backend}.json"
        command = [
            sys.executable,
            "scripts/simulate.py",
            name,
            "--scale",
            {"cuba": "1", "brunel": "0.4"}.get(name, "0.1"),
        ]
        command += [
            "--duration-ms",
            "1000",
            "--warmup-ms",
            "200",
            "--backend",
            backend,
            "--json",
            str(path),
            "--no-plot",
        ]
        subprocess.run(command, check=True, capture_output=True)
        figures[backend] = json.loads(path.read_text())
    ours, theirs = figures["numba"], figures["nest"]
    assert ours["rate_hz"] == pytest.approx(theirs["rate_hz"], rel={"brunel": 0.02}.get(name, 0.1))
    assert ours["cv_isi"] == pytest.approx(theirs["cv_isi"], rel=0.1)
