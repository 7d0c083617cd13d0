"""Neuron models against known propagators, spike times and potentials."""

import numpy as np
import pytest

from neuromorphic.engine import Network
from neuromorphic.engine.codegen import scalar_body
from neuromorphic.engine.models import MODELS
from neuromorphic.engine.models import propagators as exact
from neuromorphic.engine.models.izhikevich import CELL_TYPES

MICRO = {"C_m": 250.0, "tau_m": 10.0, "E_L": -65.0, "V_reset": -65.0, "V_th": -50.0, "t_ref": 2.0}


def spike_times(model, duration_ms, dt_ms=0.1, initial=None, **parameters):
    net = Network(dt_ms=dt_ms, seed=1, dtype="float64")
    cell = net.population(model, 1, initial=initial, **parameters)
    spikes = net.record(cell, "spikes")
    net.run(duration_ms)
    return spikes.times_ms


def test_propagators_of_the_microcircuit():
    assert exact.decay(0.5, 0.1) == pytest.approx(0.818730753, abs=5e-10)
    assert exact.decay(10.0, 0.1) == pytest.approx(0.990049834, abs=5e-10)
    assert exact.exponential_current(0.5, 10.0, 250.0, 0.1) == pytest.approx(3.606717488e-4, rel=1e-9)
    assert exact.current_to_voltage(10.0, 250.0, 0.1) == pytest.approx(3.980066500e-4, rel=1e-9)
    assert exact.alpha_current(0.5, 10.0, 250.0, 0.1) == pytest.approx(1.746286713e-5, rel=1e-9)


def test_propagators_of_cuba_per_mv():
    assert exact.exponential_current(5.0, 20.0, 20.0, 0.1) == pytest.approx(4.937935295e-3, rel=1e-9)
    assert exact.exponential_current(10.0, 20.0, 20.0, 0.1) == pytest.approx(4.962645444e-3, rel=1e-9)


@pytest.mark.parametrize("function", [exact.exponential_current, exact.alpha_current])
def test_propagators_are_continuous_at_equal_time_constants(function):
    equal = function(10.0, 10.0, 250.0, 0.1)
    for difference in (1e-9, 1e-7, 1e-5, 1e-3):
        assert function(10.0 * (1 + difference), 10.0, 250.0, 0.1) == pytest.approx(equal, rel=0.01 * difference + 1e-9)


def test_psc_for_psp():
    assert exact.psc_for_psp(0.15, 10.0, 0.5, 250.0) == pytest.approx(87.8084935, rel=1e-8)


@pytest.mark.parametrize("model", ["iaf_psc_exp", "iaf_psc_exp_one", "iaf_psc_delta", "iaf_psc_alpha"])
def test_spike_times_with_constant_current(model):
    times = spike_times(model, 60.0, I_e=561.97435859, **MICRO)
    np.testing.assert_allclose(times, [11.1, 24.2, 37.3, 50.4])


def test_refractory_steps_are_held():
    parameters = {"C_m": 250.0, "tau_m": 20.0, "E_L": 0.0, "V_th": 20.0, "V_reset": 10.0, "t_ref": 2.0}
    times = spike_times("iaf_psc_delta", 150.0, I_e=25.0 * 250.0 / 20.0, **parameters)
    np.testing.assert_allclose(np.diff(times), 24.0)


def single_psp(model, weight, **parameters):
    net = Network(seed=1, dtype="float64")
    source = net.population("spike_list", 1, times_ms=[1.0], ids=[0])
    cell = net.population(model, 1, **parameters)
    net.connect(source, cell, weight=weight, delay_ms=1.5)
    trace = net.record(cell, "v")
    net.run(10.0)
    return trace.times_ms, trace.values[:, 0] - parameters["E_L"]


@pytest.mark.parametrize("model", ["iaf_psc_exp", "iaf_psc_exp_one"])
def test_psp_of_one_spike(model):
    tau = {"tau_syn": 0.5} if model == "iaf_psc_exp_one" else {"tau_syn_ex": 0.5, "tau_syn_in": 0.5}
    times, v = single_psp(model, 87.8084935, **MICRO, **tau)
    np.testing.assert_array_equal(v[times < 2.55], 0.0)
    assert v[25] == pytest.approx(0.0316700429, abs=1e-9)
    assert v.max() == pytest.approx(0.1499919887, abs=1e-9)
    assert times[v.argmax()] == pytest.approx(4.1)


def test_alpha_psp_peaks_at_its_time():
    cell = {"C_m": 250.0, "tau_m": 20.0, "E_L": 0.0, "V_th": 20.0, "tau_syn_ex": 0.5}
    times, v = single_psp("iaf_psc_alpha", 20.6802, **cell)
    assert v.max() == pytest.approx(0.1, abs=2e-4)
    assert times[v.argmax()] - 2.5 == pytest.approx(2.757, abs=0.1)


def test_izhikevich_consistent():
    times = spike_times("izhikevich", 170.0, I_e=10.0, **CELL_TYPES["RS"])
    np.testing.assert_allclose(times, [3.4, 27.1, 72.2, 117.3, 162.4])


def test_izhikevich_2003():
    times = spike_times("izhikevich_2003", 200.0, dt_ms=1.0, I_e=10.0, **CELL_TYPES["RS"])
    np.testing.assert_allclose(times, [4, 31, 79, 141, 195])


def test_adex_within_the_error_of_the_step():
    times = spike_times("aeif_cond_exp", 180.0, I_e=1000.0)
    np.testing.assert_allclose(times, [11.8, 21.5, 33.0, 47.1, 64.8, 86.9, 114.1, 145.3, 179.0], atol=0.6)


@pytest.mark.parametrize("dtype", ["float64", "float32"])
def test_coba_step(dtype):
    net = Network(seed=1, dtype=dtype)
    cell = net.population("iaf_cond_exp", 1, initial={"v": -60.0, "g_ex": 6.0})
    net.run(0.1)
    assert net.state(cell, "v")[0] == pytest.approx(-59.820718084, abs=5e-10 if dtype == "float64" else 1e-6)


def test_alif_threshold_rises_with_spikes():
    parameters = {"I_e": 900.0, "C_m": 250.0, "tau_m": 10.0, "tau_a": 200.0, "V_th": -55.0, "E_L": -70.0}
    plain = np.diff(spike_times("alif", 400.0, beta=0.0, **parameters))
    adaptive = np.diff(spike_times("alif", 400.0, beta=2.0, **parameters))
    current = np.diff(spike_times("alif", 400.0, beta=0.0, b=50.0, **parameters))
    assert np.ptp(plain) < 0.15
    assert adaptive[-1] > 1.5 * adaptive[0]
    assert current[-1] > 1.2 * current[0]


@pytest.mark.parametrize("name", MODELS)
def test_every_model_is_emitted_with_all_its_states(name):
    body = scalar_body(MODELS[name])
    assert all(f"n_{state} =" in body for state in MODELS[name].states)
    assert "z =" in body


def test_parameters_may_differ_between_neurons():
    currents = np.array([0.0, 400.0, 561.97435859])
    net = Network(seed=1, dtype="float64")
    cells = net.population("iaf_psc_exp", 3, I_e=currents, **MICRO)
    spikes = net.record(cells, "spikes")
    net.run(30.0)
    np.testing.assert_allclose(spikes.times_ms[spikes.ids == 2], [11.1, 24.2])
    assert (spikes.ids == 1).sum() == 1
    assert (spikes.ids == 0).sum() == 0
