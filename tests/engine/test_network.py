"""The run loop against the NumPy reference; threads, split runs, saved states, interrupts."""

import os
import signal
import subprocess
import sys
import threading

import h5py
import numpy as np
import pytest

from neuromorphic.engine import (
    FixedInDegree,
    FixedProbability,
    Network,
    Normal,
    PairSTDP,
    ShortTermPlasticity,
    Uniform,
    blocks,
)
from neuromorphic.engine.models import MODELS
from neuromorphic.engine.reference import ReferenceSimulation

WEIGHT = {"iaf_cond_exp": 3.0, "aeif_cond_exp": 8.0, "izhikevich": 4.0, "izhikevich_2003": 4.0, "iaf_psc_delta": 1.5}


def mixed(seed=3, threads=1, dtype="float64", plastic=False, models=("iaf_psc_exp", "iaf_cond_exp"), n=150):
    """A small network that uses drives, sources, step currents, distributions and several models."""
    net = Network(seed=seed, threads=threads, dtype=dtype)
    cells = []
    for k, model in enumerate(models):
        initial = {"v": Uniform(-70.0, -55.0)}
        currents = {} if model.startswith("izh") else {"I_e": np.linspace(0.0, 100.0, n) if k == 0 else 50.0}
        cells.append(net.population(model, n, initial=initial, **currents))
    noise = net.population("poisson", 40, rate_hz=200.0)
    clock = net.population("spike_list", 2, times_ms=[5.0, 5.0, 12.3], ids=[0, 1, 1])
    for pre in cells:
        for post in cells:
            w = WEIGHT.get(post.model.name, 120.0)
            net.connect(pre, post, FixedProbability(0.05), Normal(w, 0.1 * w, low=0.0), Normal(1.5, 0.7))
            net.connect(pre, post, FixedInDegree(3), -0.8 * w, delay_ms=0.6)
    for post in cells:
        w = WEIGHT.get(post.model.name, 120.0)
        net.connect(noise, post, FixedInDegree(5), w, 0.3)
        net.connect(clock, post, "all_to_all", 2 * w, 1.1)
        net.drive_poisson(post, 900.0, w)
        net.drive_poisson(post, 300.0, -w, neurons=slice(10, 60), start_ms=4.0, stop_ms=20.0)
    if not cells[0].model.name.startswith("izh"):
        net.drive_current(cells[0], [6.0, 18.0], [80.0, -40.0], neurons=slice(0, 70))
    if plastic:
        net.connect(cells[0], cells[1], FixedInDegree(6), 2.0, 1.2, plasticity=PairSTDP(w_max=5.0))
        net.connect(cells[1], cells[0], FixedInDegree(6), 90.0, 0.9, plasticity=ShortTermPlasticity(tau_fac_ms=50.0))
    return net, [net.record(p, "spikes") for p in net.populations]


def spikes_of(recorders):
    return [(r.steps.tolist(), r.ids.tolist()) for r in recorders]


@pytest.mark.parametrize(
    "models", [("iaf_psc_exp", "iaf_cond_exp"), ("izhikevich", "aeif_cond_exp"), tuple(sorted(MODELS))[1:4]]
)
def test_equals_the_numpy_reference(models):
    assert set(models) <= set(MODELS)
    net, recorders = mixed(models=models, n=60)
    reference = ReferenceSimulation(net)
    expected = reference.run(300)
    net.run(30.0)
    found = [(int(t), r.population.index, int(i)) for r in recorders for t, i in zip(r.steps, r.ids, strict=True)]
    assert len(expected) > 300
    assert sorted(found) == sorted(expected)
    for p in net.populations:
        if p.model is not None:
            v = reference.states[p.index]["v"] + reference._shift(p, "v")
            np.testing.assert_allclose(net.state(p, "v"), v, rtol=1e-9, atol=1e-9)


@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_threads_do_not_change_results(dtype):
    results = []
    for threads in (1, 2, 3):
        net, recorders = mixed(threads=threads, dtype=dtype, plastic=True)
        net.run(60.0)
        plastic = net.projections[-2]
        results.append((spikes_of(recorders), [a.tolist() for a in net.synapses(plastic)]))
        assert sum(len(r.ids) for r in recorders) > 1000
    assert results[0] == results[1] == results[2]


@pytest.fixture
def many_blocks(monkeypatch):
    """Sets how many blocks of targets each thread of the next networks works on."""

    def choose(per_thread):
        monkeypatch.setattr(blocks, "blocks_per_thread", lambda *arguments: per_thread)

    return choose


@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_blocks_of_a_thread_do_not_change_results(many_blocks, dtype):
    results = []
    for threads, per_thread in ((1, 1), (1, 2), (2, 3), (1, 7)):
        many_blocks(per_thread)
        net, recorders = mixed(threads=threads, dtype=dtype, plastic=True)
        net.run(60.0)
        assert net._simulation.blocks == threads * per_thread
        weights = [[a.tolist() for a in net.synapses(p)] for p in net.projections[-2:]]
        results.append((spikes_of(recorders), weights, [net.state(p, "v").tolist() for p in net.populations[:2]]))
        assert sum(len(r.ids) for r in recorders) > 1000
    assert all(result == results[0] for result in results[1:])


@pytest.mark.parametrize(("first", "second"), [((1, 5), (2, 2)), ((2, 3), (1, 1))])
def test_a_state_saved_with_other_blocks_continues(tmp_path, many_blocks, first, second):
    spikes = []
    for (threads, per_thread), saves in ((first, True), (second, False)):
        many_blocks(per_thread)
        net, recorders = mixed(plastic=True, dtype="float32", threads=threads)
        if saves:
            net.run(25.0)
            net.save(str(tmp_path / "state.h5"))
            before = [len(r.ids) for r in recorders]
        else:
            net.restore(str(tmp_path / "state.h5"))
            before = [0] * len(recorders)
        net.run(25.0)
        spikes.append([(r.steps[k:].tolist(), r.ids[k:].tolist()) for r, k in zip(recorders, before, strict=True)])
    assert sum(len(ids) for _, ids in spikes[0]) > 500
    assert spikes[0] == spikes[1]


def test_a_large_ring_is_cut_into_blocks(monkeypatch):
    monkeypatch.setattr(blocks, "MIN_SEGMENT", 32)
    results = []
    for limit in (4096, 1 << 30):
        monkeypatch.setattr(blocks, "BLOCK_BYTES", limit)
        net = Network(seed=1, threads=1)
        cells = net.population("iaf_psc_delta", 640, tau_m=20.0, E_L=0.0, V_th=20.0, V_reset=0.0, t_ref=2.0)
        net.connect(cells, cells, FixedInDegree(128), Normal(0.2, 0.1, low=0.0), Uniform(1.0, 2.0))
        net.drive_poisson(cells, 20_000.0, 0.1)
        spikes = net.record(cells, "spikes")
        net.run(50.0)
        results.append((spikes.steps.tolist(), spikes.ids.tolist(), net._simulation.blocks))
    assert results[0][:2] == results[1][:2]
    assert len(results[0][0]) > 500
    assert [r[2] for r in results] == [min(round(640 * 4 * 11 / 4096), 128 // blocks.MIN_SEGMENT), 1]


def test_a_split_run_equals_one_run():
    whole, first = mixed(plastic=True, dtype="float32")
    parts, second = mixed(plastic=True, dtype="float32")
    whole.run(40.0)
    for length in (0.1, 13.3, 0.7, 25.9):
        parts.run(length)
    assert spikes_of(first) == spikes_of(second)


def test_seeds_matter():
    one, a = mixed(seed=1)
    two, b = mixed(seed=2)
    one.run(20.0)
    two.run(20.0)
    assert spikes_of(a) != spikes_of(b)


@pytest.mark.parametrize("threads", [1, 2])
def test_a_restored_run_equals_the_uninterrupted_one(tmp_path, threads):
    whole, _ = mixed(plastic=True, dtype="float32")
    whole_rate = list(whole.recorders)
    whole.run(25.0)
    whole.save(str(tmp_path / "state.h5"))
    before = [len(r.ids) for r in whole_rate]
    whole.run(25.0)
    again, recorders = mixed(plastic=True, dtype="float32", threads=threads)
    again.restore(str(tmp_path / "state.h5"))
    again.run(25.0)
    for r, skip, s in zip(whole_rate, before, recorders, strict=True):
        assert r.steps[skip:].tolist() == s.steps.tolist()
        assert r.ids[skip:].tolist() == s.ids.tolist()
    np.testing.assert_array_equal(whole.synapses(whole.projections[-2])[2], again.synapses(again.projections[-2])[2])


def test_restore_names_what_differs(tmp_path):
    one, _ = mixed(seed=1)
    one.save(str(tmp_path / "state.h5"))
    two, _ = mixed(seed=2)
    with pytest.raises(ValueError, match="seed is 2 here, 1 in"):
        two.restore(str(tmp_path / "state.h5"))
    with pytest.raises(FileNotFoundError, match="nothing"):
        two.restore(str(tmp_path / "nothing.h5"))


def test_the_ring_is_empty_after_the_longest_delay():
    net = Network(seed=1)
    source = net.population("spike_list", 3, times_ms=[1.0, 1.0, 1.5], ids=[0, 1, 2])
    cell = net.population("iaf_psc_delta", 4, tau_m=1e9, E_L=0.0, V_th=1e9)
    net.connect(source, cell, weight=2.0, delay_ms=Uniform(0.1, 5.0))
    trace = net.record(cell, "v", interval_ms=0.1)
    net.run(8.0)
    assert not net._simulation.ring.any()
    np.testing.assert_allclose(trace.values[-1], 6.0, rtol=1e-6)


def test_equal_arrivals_add_and_delays_shift():
    def trace_of(times, delay):
        net = Network(seed=1, dtype="float64")
        source = net.population("spike_list", 2, times_ms=times, ids=[0, 1])
        cell = net.population("iaf_psc_exp", 1, V_th=1e6)
        net.connect(source, cell, "all_to_all", weight=np.array([[10.0], [20.0]]), delay_ms=np.array(delay)[:, None])
        trace = net.record(cell, "i_ex")
        net.run(10.0)
        return trace.values[:, 0]

    together = trace_of([2.0, 2.4], [1.4, 1.0])
    assert together[33] == 30.0
    assert not together[:33].any()
    later = trace_of([2.0, 2.4], [3.4, 3.0])
    np.testing.assert_array_equal(later[20:], together[:-20])


def test_interrupt_keeps_what_was_recorded():
    net, recorders = mixed(dtype="float32")
    net.run(1.0)
    threading.Timer(0.3, os.kill, (os.getpid(), signal.SIGINT)).start()
    report = net.run(1e7)
    assert report.interrupted
    assert 0 < report.duration_ms < 1e7
    assert max(r.times_ms.max() for r in recorders if len(r.ids)) > 1.0
    before = len(recorders[0].ids)
    assert not net.run(50.0).interrupted
    assert len(recorders[0].ids) > before


def test_hdf5_recording_equals_memory(tmp_path):
    path = str(tmp_path / "spikes.h5")

    def build(file):
        net = Network(seed=2)
        cells = net.population("iaf_psc_delta", 50, E_L=0.0, V_th=20.0, V_reset=0.0)
        net.drive_poisson(cells, 20000.0, 0.12)
        return (
            net,
            net.record(cells, "spikes", file=file),
            net.record(cells, "v", neurons=[3, 1], interval_ms=0.5, file=file),
        )

    (one, spikes, v), (two, spikes_file, v_file) = build(None), build(path)
    for net in (one, two):
        net.run(60.0)
        net.run(40.0)
    assert len(spikes.ids) > 100
    np.testing.assert_array_equal(spikes.times_ms, spikes_file.times_ms)
    np.testing.assert_array_equal(spikes.ids, spikes_file.ids)
    np.testing.assert_array_equal(v.values, v_file.values)
    with h5py.File(path) as file:
        assert file["iaf_psc_delta_0/spikes/step"].shape[0] == len(spikes.ids)


def test_rates_and_states_are_recorded_at_their_times():
    net = Network(seed=2, dtype="float64")
    cells = net.population("iaf_psc_delta", 20, E_L=0.0, V_th=20.0, V_reset=0.0)
    net.drive_poisson(cells, 20000.0, 0.12)
    rate = net.record(cells, "rate", window_ms=5.0)
    spikes = net.record(cells, "spikes")
    every = net.record(cells, "v", interval_ms=0.1)
    some = net.record(cells, "v", neurons=[7, 2], interval_ms=0.7)
    for length in (3.0, 7.1, 39.9):
        net.run(length)
    counts, _ = np.histogram(spikes.times_ms, bins=np.arange(11) * 5.0 + 0.05)
    np.testing.assert_allclose(rate.values, counts / (20 * 5e-3))
    np.testing.assert_allclose(rate.times_ms, np.arange(1, 11) * 5.0)
    np.testing.assert_allclose(some.times_ms, np.arange(1, 72) * 0.7)
    np.testing.assert_array_equal(some.values, every.values[6::7][:, [7, 2]])


def test_import_is_light():
    code = "import sys, neuromorphic; assert not {'numba', 'scipy', 'h5py', 'nest'} & set(sys.modules), 'heavy'"
    subprocess.run([sys.executable, "-c", code], check=True)
