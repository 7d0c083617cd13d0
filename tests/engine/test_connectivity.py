"""Connection rules: counts, ranges, distributions and independence of threads."""

import numpy as np
import pytest
import scipy.sparse
from hypothesis import given, settings
from hypothesis import strategies as st

from neuromorphic.engine import (
    AllToAll,
    DistanceDependent,
    Explicit,
    FixedInDegree,
    FixedOutDegree,
    FixedProbability,
    FixedTotalNumber,
    LogNormal,
    Network,
    Normal,
    OneToOne,
    Uniform,
)


def synapses(
    rule, n_pre=200, n_post=300, weight=1.0, delay_ms=1.0, same=False, seed=1, threads=1, model="iaf_psc_delta"
):
    net = Network(seed=seed, threads=threads, dtype="float64")
    pre = net.population(model, n_pre, positions_um=np.arange(n_pre)[:, None] * [10.0, 0.0])
    post = pre if same else net.population(model, n_post, positions_um=np.arange(n_post)[:, None] * [10.0, 0.0])
    return net.synapses(net.connect(pre, post, rule, weight, delay_ms))


def test_all_to_all_without_autapses():
    pre, post, *_ = synapses(AllToAll(autapses=False), n_pre=30, same=True)
    assert len(pre) == 30 * 29
    assert (pre != post).all()


def test_one_to_one():
    pre, post, *_ = synapses(OneToOne(), 50, 50)
    np.testing.assert_array_equal(pre, post)


@pytest.mark.parametrize("p", [0.02, 0.5, 1.0, 0.0])
def test_probability(p):
    pre, post, *_ = synapses(FixedProbability(p))
    pairs = 200 * 300
    assert abs(len(pre) - p * pairs) <= 5 * np.sqrt(pairs * p * (1 - p))
    assert len(set(zip(pre.tolist(), post.tolist(), strict=True))) == len(pre)
    if p == 0.5:
        assert abs(np.bincount(post).mean() - 100) < 1
        assert np.bincount(post).std() == pytest.approx(np.sqrt(200 * 0.25), rel=0.25)


def test_fixed_in_degree():
    pre, post, *_ = synapses(FixedInDegree(40))
    assert (np.bincount(post, minlength=300) == 40).all()
    assert np.bincount(pre).var() == pytest.approx(60.0, rel=0.4)


def test_fixed_out_degree_distinct():
    pre, post, *_ = synapses(FixedOutDegree(250, multapses=False))
    assert (np.bincount(pre, minlength=200) == 250).all()
    assert len(set(zip(pre.tolist(), post.tolist(), strict=True))) == len(pre)


def test_in_degree_distinct_without_autapses():
    pre, post, *_ = synapses(FixedInDegree(19, autapses=False, multapses=False), n_pre=20, same=True)
    assert sorted(zip(pre.tolist(), post.tolist(), strict=True)) == [
        (i, j) for i in range(20) for j in range(20) if i != j
    ]


def test_fixed_total_number():
    pre, post, *_ = synapses(FixedTotalNumber(12345))
    assert len(pre) == 12345
    for index, n in ((pre, 200), (post, 300)):
        count = np.bincount(index, minlength=n)
        assert count.var() == pytest.approx(12345 / n, rel=0.4)


def test_distance_dependent():
    pre, post, *_ = synapses(DistanceDependent(0.8, 100.0, cutoff_um=350.0), 300, 300)
    distance = np.abs(pre - post) * 10.0
    assert distance.max() <= 350.0
    near, far = (distance < 50).sum() / (9 * 300), ((distance > 195) & (distance < 205)).sum() / (2 * 280)
    assert near == pytest.approx(0.77, abs=0.08)
    assert far == pytest.approx(0.8 * np.exp(-2.0), abs=0.05)


def test_explicit_lists_and_sparse_matrices_are_kept():
    matrix = scipy.sparse.random(20, 30, 0.2, random_state=1, format="csr")
    net = Network(dtype="float64")
    pre, post = net.population("iaf_psc_delta", 20), net.population("iaf_psc_delta", 30)
    found = net.synapses(net.connect(pre, post, matrix, delay_ms=0.5))
    np.testing.assert_array_equal(
        scipy.sparse.coo_matrix((found[2], (found[0], found[1])), (20, 30)).toarray(), matrix.toarray()
    )
    rule = Explicit([3, 0, 3], [1, 2, 0])
    pre, post, weight, delay = synapses(
        rule, 5, 5, weight=np.array([1.0, 2.0, 3.0]), delay_ms=np.array([0.1, 0.25, 0.3])
    )
    assert pre.tolist() == [0, 3, 3]
    assert post.tolist() == [2, 0, 1]
    assert weight.tolist() == [2.0, 3.0, 1.0]
    np.testing.assert_allclose(delay, [0.3, 0.3, 0.1])  # 0.25 rounds upward


def test_distributions_of_weights_and_delays():
    weight, delay = synapses(FixedOutDegree(200), weight=Normal(5.0, 2.0, low=0.0), delay_ms=Normal(1.5, 0.75))[2:]
    assert weight.min() >= 0
    assert weight.mean() == pytest.approx(5.0, abs=0.1)
    assert delay.min() == pytest.approx(0.1)
    assert delay.mean() == pytest.approx(1.545, abs=0.02)  # redrawn below 0.05
    assert abs(np.corrcoef(weight, delay)[0, 1]) < 0.02
    assert 0.0005 < (np.isclose(delay, 0.1)).mean() < 0.02  # no mass at the bound
    weight, delay = synapses(FixedOutDegree(200), weight=LogNormal(1.0, 0.5), delay_ms=Uniform(1.0, 2.0))[2:]
    assert np.log(weight).std() == pytest.approx(0.5, rel=0.02)
    assert delay.min() >= 1.0 - 1e-9
    assert delay.max() <= 2.0 + 1e-9
    weight = synapses(FixedOutDegree(200), weight=Normal(0.0, 1.0, low=-0.5, high=0.5, clip=True))[2]
    assert (weight == 0.5).mean() == pytest.approx(0.3085, abs=0.01)


@pytest.mark.parametrize("rule", [FixedProbability(0.1), FixedInDegree(30), FixedTotalNumber(5000), FixedOutDegree(20)])
def test_synapses_do_not_depend_on_threads(rule):
    one, three = (synapses(rule, weight=Normal(1.0, 0.1), delay_ms=Uniform(0.5, 3.0), threads=k) for k in (1, 3))
    for a, b in zip(one, three, strict=True):
        np.testing.assert_array_equal(a, b)


def test_signs_choose_receptors():
    weight = np.array([1.0, -2.0, 3.0])
    _pre, _post, found, _ = synapses(Explicit([0, 1, 2], [0, 0, 0]), 3, 1, weight=weight, model="iaf_cond_exp")
    assert found.tolist() == weight.tolist()
    net = Network(dtype="float64")
    source = net.population("spike_list", 3, times_ms=[1.0, 1.0, 1.0], ids=[0, 1, 2])
    cell = net.population("iaf_cond_exp", 1)
    net.connect(source, cell, weight=weight[:, None], delay_ms=0.1)
    net.run(1.1)
    assert net.state(cell, "g_ex")[0] == 4.0
    assert net.state(cell, "g_in")[0] == 2.0


@settings(max_examples=15, deadline=None)
@given(n_pre=st.integers(1, 40), n_post=st.integers(1, 2100), data=st.data())
def test_every_synapse_of_a_list_survives_the_layout(n_pre, n_post, data):
    size = data.draw(st.integers(0, 200))
    generator = np.random.default_rng(data.draw(st.integers(0, 1000)))
    pre, post = generator.integers(0, n_pre, size), generator.integers(0, n_post, size)
    steps = generator.integers(1, 50, size)
    found = synapses(
        Explicit(pre, post), n_pre, n_post, np.arange(size) + 1.0, steps * 0.1, threads=data.draw(st.integers(1, 4))
    )
    expected = sorted(zip(pre.tolist(), post.tolist(), (np.arange(size) + 1.0).tolist(), steps.tolist(), strict=True))
    got = zip(
        found[0].tolist(),
        found[1].tolist(),
        found[2].tolist(),
        np.rint(found[3] * 10).astype(int).tolist(),
        strict=True,
    )
    assert sorted(got) == expected


@pytest.mark.parametrize("degree", [20, 700])
def test_rows_are_sorted_within_their_blocks(degree):
    net = Network(seed=1, threads=2)
    pre, post = net.population("iaf_psc_exp", 30), net.population("iaf_psc_exp", 900)
    net.connect(pre, post, FixedOutDegree(degree), Normal(0.0, 1.0), Uniform(0.1, 40.0))
    simulation = net.build()._simulation
    pointers, blocks = simulation.tables.pointers[0], simulation.layout.block_base
    for row in range(30 * 2):
        offsets = simulation.tables.offsets[pointers[row] : pointers[row + 1]].astype(np.int64)
        assert (np.diff(offsets) >= 0).all()
        assert (np.searchsorted(blocks, offsets, side="right") - 1 == row % 2).all()
