"""Encoders: known answers, properties, and refusal of wrong arguments."""

import math
from collections.abc import Iterator

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from spikedata import encode

intensities = st.floats(0, 1, width=32)
steps = st.integers(1, 12)
HALF = [torch.float16, torch.bfloat16]


@pytest.fixture(autouse=True)
def fill_unwritten_memory() -> Iterator[None]:
    """Memory from torch.empty holds NaN, so that a cell nobody wrote shows."""
    torch.use_deterministic_algorithms(True)
    yield
    torch.use_deterministic_algorithms(False)


def spike_times(spikes: torch.Tensor) -> list[int | None]:
    """Step of the single spike of each column of [T, N]; None where there is none."""
    assert (spikes.sum(dim=0) <= 1).all()
    return [int(column.argmax()) if column.any() else None for column in spikes.T]


def test_direct_is_a_view_of_every_step() -> None:
    x = torch.rand(3, 2, requires_grad=True)
    y = encode.direct(x, T=5)
    assert y.shape == (5, 3, 2)
    assert y.stride()[0] == 0
    assert y.data_ptr() == x.data_ptr()
    assert all(torch.equal(step, x) for step in y)
    y.sum().backward()
    assert torch.equal(x.grad, torch.full((3, 2), 5.0))
    assert encode.direct(torch.tensor([1, 2]), 2).tolist() == [[1, 2], [1, 2]]


@given(st.lists(intensities, min_size=1, max_size=5), st.integers(0, 2**31))
def test_rate_mean_is_the_probability(values: list[float], seed: int) -> None:
    T = 4000
    x = torch.tensor(values)
    spikes = encode.rate(x, T, seed=seed)
    assert ((spikes == 0) | (spikes == 1)).all()
    # Chernoff: a mean strays further than this once in about 10^11 draws.
    assert ((spikes.mean(dim=0) - x).abs() <= math.sqrt(math.log(1e11) / (2 * T))).all()


def test_rate_extremes_are_certain() -> None:
    spikes = encode.rate(torch.tensor([0.0, 1.0]), 10_000, seed=1)
    assert spikes.sum(dim=0).tolist() == [0, 10_000]


def test_rate_steps_are_independent() -> None:
    spikes = encode.rate(torch.full((2000,), 0.5), 20, seed=3)
    agreement = (spikes[:-1] == spikes[1:]).float().mean()
    assert abs(float(agreement) - 0.5) < 0.02


def test_rate_depends_on_the_seed_alone() -> None:
    x = torch.rand(64, 784, generator=torch.Generator().manual_seed(0))
    first = encode.rate(x, 8, seed=7)
    state = torch.get_rng_state()
    threads = torch.get_num_threads()
    try:
        torch.set_num_threads(1)
        torch.manual_seed(99)
        again = encode.rate(x, 8, seed=7)
    finally:
        torch.set_num_threads(threads)
        torch.set_rng_state(state)
    assert torch.equal(first, again)
    assert not torch.equal(first, encode.rate(x, 8, seed=8))


def test_rate_leaves_the_global_state_alone() -> None:
    state = torch.get_rng_state()
    encode.rate(torch.rand(3, generator=torch.Generator()), 4, seed=0)
    assert torch.equal(state, torch.get_rng_state())


def test_rate_moves_a_generator_on() -> None:
    generator = torch.Generator().manual_seed(7)
    x = torch.full((100,), 0.5)
    first, second = encode.rate(x, 4, seed=generator), encode.rate(x, 4, seed=generator)
    assert torch.equal(first, encode.rate(x, 4, seed=7))
    assert not torch.equal(first, second)


@pytest.mark.parametrize("dtype", HALF)
def test_rate_keeps_small_probabilities_in_half_precision(dtype: torch.dtype) -> None:
    probability = 1 / 1024
    spikes = encode.rate(torch.full((1000,), probability, dtype=dtype), 1000, seed=0)
    assert spikes.dtype == dtype
    assert abs(float(spikes.double().mean()) / probability - 1) < 0.15


def test_rate_known_answer() -> None:
    uniform = torch.rand(3, 2, generator=torch.Generator().manual_seed(5))
    x = torch.tensor([0.3, 0.8])
    assert torch.equal(encode.rate(x, 3, seed=5), (uniform < x).float())
    assert encode.rate(uniform[1], 3, seed=5)[1].tolist() == [0, 0]  # u = x does not fire, so that x = 0 never does


def test_latency_linear_known_answers() -> None:
    x = torch.tensor([1.0, 0.75, 0.5, 0.25, 1e-6, 0.0])
    assert spike_times(encode.latency(x, T=5)) == [0, 1, 2, 3, 4, None]


def test_latency_tie_takes_the_earlier_step() -> None:
    assert spike_times(encode.latency(torch.tensor([0.75, 0.25]), T=3)) == [0, 1]


def test_latency_logarithmic_known_answers() -> None:
    T, tau, theta = 40, 20.0, 0.1
    x = torch.tensor([1.0, 0.9, 0.5, 0.3, 0.2, 0.15, 0.12, 0.11, 0.1, 0.01, 0.0], dtype=torch.float64)

    def time(value: float) -> int | None:
        if value <= theta:
            return T - 1 if value > 0 else None
        return min(T - 1, round(tau * math.log(value / (value - theta)) - tau * math.log(1 / (1 - theta))))

    assert spike_times(encode.latency(x, T, tau=tau, theta=theta)) == [time(value) for value in x.tolist()]


codes = st.one_of(st.none(), st.floats(0.1, 100))


@given(st.lists(intensities, min_size=1, max_size=20), steps, codes, st.floats(0.001, 0.999))
def test_latency_fires_once_and_in_order(values: list[float], T: int, tau: float | None, theta: float) -> None:
    x = torch.tensor(values)
    spikes = encode.latency(x, T, tau=tau, theta=theta)
    assert spikes.shape == (T, len(values))
    assert torch.equal(spikes.sum(dim=0), (x > 0).float())
    times = spike_times(spikes)
    ordered = [time for value, time in sorted(zip(values, times, strict=True), key=lambda pair: -pair[0]) if value > 0]
    assert ordered == sorted(ordered)
    edge = encode.latency(torch.tensor([1.0, 1e-30]), T, tau=tau, theta=theta)
    assert spike_times(edge) == [0, T - 1]


@pytest.mark.parametrize("dtype", [*HALF, torch.float64])
@pytest.mark.parametrize("tau", [None, 3.0])
def test_latency_keeps_the_dtype(dtype: torch.dtype, tau: float | None) -> None:
    x = torch.tensor([[1.0, 0.5], [0.25, 0.0]])
    spikes = encode.latency(x.to(dtype), 6, tau=tau)
    assert spikes.dtype == dtype
    assert torch.equal(spikes.float(), encode.latency(x, 6, tau=tau))


def test_delta_known_answer() -> None:
    x = torch.tensor([0.0, 0.4, 0.5, 1.2, 1.2, 1.2, -0.1, -0.1, -0.1, 0.5])
    #            level 0.0  0.0  0.5  1.0  1.0  1.0   0.5   0.0   0.0  0.5
    expected = [0, 0, 1, 1, 0, 0, -1, -1, 0, 1]
    assert encode.delta(x, 0.5, signed=True).tolist() == expected
    pair = encode.delta(x, 0.5)
    assert pair.shape == (10, 2)
    assert pair[:, 0].tolist() == [float(event == 1) for event in expected]
    assert pair[:, 1].tolist() == [float(event == -1) for event in expected]


@given(
    st.lists(st.lists(st.floats(-1, 1, width=32), min_size=2, max_size=2), min_size=1, max_size=30),
    st.floats(1.0, 3.0),
    st.floats(-5, 5, width=32),
)
def test_delta_rebuilds_the_signal_within_the_threshold(
    moves: list[list[float]], threshold: float, start: float
) -> None:
    x = start + torch.tensor(moves, dtype=torch.float64).cumsum(dim=0)
    events = encode.delta(x, threshold, signed=True)
    rebuilt = x[0] + threshold * events.cumsum(dim=0)
    assert ((rebuilt - x).abs() < threshold + 1e-9).all()


def test_delta_follows_a_jump_one_event_per_step() -> None:
    x = torch.tensor([0.0, *[3.1] * 6]).view(7, 1)
    assert encode.delta(x, 1.0, signed=True).flatten().tolist() == [0, 1, 1, 1, 0, 0, 0]


def test_delta_pair_follows_the_batch_axis() -> None:
    x = torch.randn(20, 4, 3, 5, generator=torch.Generator().manual_seed(0)).cumsum(dim=0)
    pair, signed = encode.delta(x, 0.7), encode.delta(x, 0.7, signed=True)
    assert pair.shape == (20, 4, 2, 3, 5)
    assert ((pair == 0) | (pair == 1)).all()
    assert pair.sum(dim=2).max() == 1
    assert torch.equal(pair[:, :, 0] - pair[:, :, 1], signed)
    assert encode.delta(x[:, :, 0, 0], 0.7).shape == (20, 4, 2)


def test_delta_starts_from_the_initial_level() -> None:
    x = torch.full((3, 2), 1.0)
    assert encode.delta(x, 0.5, signed=True).abs().sum() == 0
    assert encode.delta(x, 0.5, initial=0.0, signed=True)[:, 0].tolist() == [1, 1, 0]
    levels = torch.tensor([0.4, 2.0])
    assert encode.delta(x, 0.5, initial=levels, signed=True).tolist() == [[1, -1], [0, -1], [0, 0]]


def test_delta_does_not_drift() -> None:
    x = 0.1 * torch.arange(20_000, dtype=torch.float32)
    events = encode.delta(x, 0.3, signed=True)
    assert abs(float(events.sum()) - float(x[-1]) / 0.3) <= 1


@pytest.mark.parametrize("dtype", HALF)
def test_delta_keeps_the_dtype(dtype: torch.dtype) -> None:
    x = torch.tensor([0.0, 0.5, 1.0, 0.25]).to(dtype)
    events = encode.delta(x, 0.5, signed=True)
    assert (events.dtype, events.tolist()) == (dtype, [0, 1, 1, -1])


@pytest.mark.parametrize("call", [lambda x: encode.rate(x, 2, seed=0), lambda x: encode.latency(x, 2)])
@pytest.mark.parametrize("value", [-0.001, 1.001, math.nan, math.inf, -math.inf])
def test_intensities_outside_the_range_are_refused(call, value: float) -> None:
    with pytest.raises(ValueError, match=r"x must lie in \[0, 1\], got values from"):
        call(torch.tensor([0.5, value, 0.2]))


@pytest.mark.parametrize("value", [math.nan, math.inf])
def test_delta_refuses_what_is_not_finite(value: float) -> None:
    with pytest.raises(ValueError, match="delta: x must be finite"):
        encode.delta(torch.tensor([0.5, value]), 1.0)
    with pytest.raises(ValueError, match="delta: initial must be finite"):
        encode.delta(torch.tensor([0.5, 0.2]), 1.0, initial=value)


CALLS = {
    "direct": lambda x, T: encode.direct(x, T),
    "rate": lambda x, T: encode.rate(x, T, seed=0),
    "latency": lambda x, T: encode.latency(x, T),
}


@pytest.mark.parametrize("name", CALLS)
def test_steps_must_be_a_positive_integer(name: str) -> None:
    x = torch.tensor([0.5])
    with pytest.raises(ValueError, match=f"{name}: T must be >= 1 step, got 0"):
        CALLS[name](x, 0)
    for wrong in (2.0, True, "2"):
        with pytest.raises(TypeError, match=f"{name}: T must be an integer number of steps, got"):
            CALLS[name](x, wrong)


@pytest.mark.parametrize("name", CALLS)
def test_x_must_be_a_tensor(name: str) -> None:
    with pytest.raises(TypeError, match=f"{name}: x must be a torch.Tensor, got list"):
        CALLS[name]([0.5], 2)


def test_bytes_are_refused_with_the_conversion() -> None:
    x = torch.tensor([1, 0], dtype=torch.uint8)
    for call in (CALLS["rate"], CALLS["latency"], encode.delta):
        with pytest.raises(
            TypeError, match=r"x must have a floating dtype, got torch\.uint8; convert it, bytes as x / 255"
        ):
            call(x, 2)


def test_other_arguments_are_checked() -> None:
    x = torch.tensor([0.5, 0.5])
    for tau in (0.0, -1.0, math.nan, math.inf):
        with pytest.raises(ValueError, match="latency: tau must be > 0 steps"):
            encode.latency(x, 2, tau=tau)
    for theta in (0.0, 1.0, math.nan):
        with pytest.raises(ValueError, match="latency: theta must lie between 0 and 1"):
            encode.latency(x, 2, tau=1.0, theta=theta)
    for threshold in (0.0, -1.0, math.nan, math.inf):
        with pytest.raises(ValueError, match="delta: threshold must be > 0 and finite"):
            encode.delta(x, threshold)
    with pytest.raises(ValueError, match=r"delta: initial must be a number or \(3,\), got \(2,\)"):
        encode.delta(torch.zeros(4, 3), 1.0, initial=x)
    for empty in (torch.tensor(1.0), torch.zeros(0, 3)):
        with pytest.raises(ValueError, match=r"delta: x must be a sequence \[T, ...\] of at least one step"):
            encode.delta(empty, 1.0)
    for seed in (True, 0.5, None):
        with pytest.raises(TypeError, match=r"rate: seed must be an integer or a torch\.Generator"):
            encode.rate(x, 2, seed=seed)


def test_empty_batches_stay_empty() -> None:
    x = torch.zeros(0, 3)
    assert encode.rate(x, 4, seed=0).shape == (4, 0, 3)
    assert encode.latency(x, 4).shape == (4, 0, 3)
    assert encode.delta(torch.zeros(4, 0, 3), 1.0).shape == (4, 0, 2, 3)


def test_encoders_take_what_requires_a_gradient() -> None:
    x = torch.tensor([0.5, 1.0], requires_grad=True)
    for spikes in (encode.rate(x, 2, seed=0), encode.latency(x, 2), encode.delta(x, 0.2)):
        assert not spikes.requires_grad


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
def test_encoders_stay_on_the_device() -> None:
    x = torch.rand(50, generator=torch.Generator().manual_seed(0))
    device = x.cuda()
    assert torch.equal(encode.latency(device, 9, tau=4.0).cpu(), encode.latency(x, 9, tau=4.0))
    assert torch.equal(encode.delta(device, 0.2).cpu(), encode.delta(x, 0.2))
    assert encode.rate(device, 9, seed=0).is_cuda
    assert torch.equal(encode.rate(device, 9, seed=0), encode.rate(device, 9, seed=0))
    with pytest.raises(ValueError, match="generator must be on the device of x"):
        encode.rate(device, 9, seed=torch.Generator())
