"""Bad input raises at the boundary and names the argument."""

import numpy as np
import pytest
import scipy.sparse

from neuromorphic.engine import (
    DistanceDependent,
    Explicit,
    FixedInDegree,
    FixedProbability,
    Network,
    Normal,
    OneToOne,
    Uniform,
)


@pytest.fixture
def net():
    network = Network(seed=1)
    network.population("iaf_psc_exp", 10, name="a")
    network.population("iaf_cond_exp", 20, name="b")
    network.population("poisson", 5, name="noise", rate_hz=10.0)
    return network


def connect(net, pre=0, post=1, rule=None, weight=1.0, delay_ms=1.0, **more):
    rule = FixedInDegree(2) if rule is None else rule
    return net.connect(net.populations[pre], net.populations[post], rule, weight, delay_ms, **more)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"delay_ms": -1.0}, "delay_ms must be finite and >= dt_ms = 0.1 ms, got -1.0"),
        ({"delay_ms": 0.05}, "got 0.05"),
        ({"delay_ms": float("nan")}, "delay_ms"),
        ({"delay_ms": Uniform(0.0, 2.0)}, "delay_ms"),
        ({"delay_ms": Normal(0.01, 0.1)}, "mean of delay_ms"),
        ({"weight": float("nan")}, "weight must be finite"),
        ({"weight": float("inf")}, "weight must be finite"),
        ({"weight": None}, "weight is missing"),
        ({"delay_ms": None}, "delay_ms is missing"),
        ({"weight": np.ones(3)}, "array of weight needs"),
        ({"rule": "all_to_all", "weight": np.ones((3, 4))}, r"weight must have shape \(10, 20\), got \(3, 4\)"),
        ({"rule": Explicit([0, 1], [0, 1]), "weight": np.ones(3)}, r"shape \(2,\), got \(3,\)"),
        ({"rule": Explicit([0, 10], [0, 1])}, r"pre must be in \[0, 10\), got 0..10"),
        ({"rule": OneToOne()}, "equal size, got 10 and 20"),
        ({"rule": "al_to_all"}, "did you mean 'all_to_all'"),
        ({"rule": FixedInDegree(11, multapses=False)}, "k must be <= 10"),
        ({"rule": DistanceDependent(0.5, 10.0)}, "no positions_um"),
        ({"rule": scipy.sparse.eye(3), "weight": None}, "sparse matrix must have shape"),
        ({"receptor": "exc"}, "did you mean 'ex'"),
        ({"receptor": "in", "weight": -1.0}, "must be >= 0 nS"),
        ({"post": 2}, "spike source"),
    ],
)
def test_connect(net, change, message):
    with pytest.raises(ValueError, match=message):
        connect(net, **change)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"rule": 3}, "rule must be"),
        ({"plasticity": "stdp"}, "plasticity must be"),
        ({"weight": "x"}, "weight must be"),
    ],
)
def test_connect_types(net, change, message):
    with pytest.raises(TypeError, match=message):
        connect(net, **change)


@pytest.mark.parametrize(
    ("arguments", "more", "message"),
    [
        (("iaf_psc_exp", 0), {}, "n must be >= 1, got 0"),
        (("iaf_psc_ex", 3), {}, "did you mean 'iaf_psc_exp'"),
        (("iaf_psc_exp", 3), {"tau_mm": 1.0}, "did you mean 'tau_m'"),
        (("iaf_psc_exp", 3), {"tau_m": -1.0}, "tau_m must be in"),
        (("iaf_psc_exp", 3), {"tau_m": np.ones(4)}, r"shape \(3,\), got shape \(4,\)"),
        (("iaf_psc_exp", 3), {"I_e": float("nan")}, "I_e must be finite"),
        (("iaf_psc_exp", 3), {"initial": {"w": 0.0}}, "unknown state"),
        (("iaf_psc_exp", 3), {"initial": {"v": np.zeros(2)}}, "initial v"),
        (("iaf_psc_exp", 3), {"positions_um": np.zeros((2, 3))}, "positions_um"),
        (("iaf_psc_exp", 3), {"name": "a"}, "taken"),
        (("poisson", 3), {}, "rate_hz is missing"),
        (("poisson", 3), {"rate_hz": -1.0}, "rate_hz must be"),
        (("spike_list", 3), {"times_ms": [1.0], "ids": [3]}, r"\[0, 3\)"),
        (("spike_list", 3), {"times_ms": [1.0, 2.0], "ids": [1]}, "equal length"),
        (("spike_list", 3), {"times_ms": [-1.0], "ids": [1]}, "times_ms"),
    ],
)
def test_population(net, arguments, more, message):
    with pytest.raises(ValueError, match=message):
        net.population(*arguments, **more)


def test_population_count_must_be_an_integer(net):
    with pytest.raises(TypeError, match=r"n must be an integer, got 2\.5"):
        net.population("iaf_psc_exp", 2.5)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"dt_ms": 0.0}, "dt_ms"),
        ({"seed": -1}, "seed"),
        ({"threads": 0}, "threads"),
        ({"backend": "numb"}, "did you mean 'numba'"),
        ({"dtype": "float16"}, "unknown dtype"),
    ],
)
def test_network(arguments, message):
    with pytest.raises(ValueError, match=message):
        Network(**arguments)


def test_distributions():
    with pytest.raises(ValueError, match="std must be >= 0"):
        Normal(1.0, -1.0)
    with pytest.raises(ValueError, match="more than 3 std"):
        Normal(-10.0, 1.0, low=0.0)
    with pytest.raises(ValueError, match=r"p must be in \[0, 1\]"):
        FixedProbability(1.5)


def test_records_and_drives(net):
    a = net.populations[0]
    with pytest.raises(ValueError, match="unknown quantity"):
        net.record(a, "vm")
    with pytest.raises(ValueError, match="window_ms"):
        net.record(a, "rate")
    with pytest.raises(ValueError, match="multiple of dt_ms"):
        net.record(a, "v", interval_ms=0.15)
    with pytest.raises(ValueError, match=r"\[0, 10\)"):
        net.record(a, "spikes", neurons=[10])
    with pytest.raises(ValueError, match="rate_hz"):
        net.drive_poisson(a, -1.0, 1.0)
    with pytest.raises(ValueError, match="increasing"):
        net.drive_current(a, [2.0, 1.0], [0.0, 0.0])
    with pytest.raises(ValueError, match="duration_ms"):
        net.run(-1.0)
    with pytest.raises(ValueError, match="no population"):
        Network().run(1.0)


def test_a_built_network_is_closed(net):
    net.run(0.1)
    with pytest.raises(RuntimeError, match="already built"):
        connect(net)


def test_too_long_delays_are_refused(net):
    connect(net, delay_ms=1e7)
    with pytest.raises(ValueError, match="shorten"):
        net.build()
