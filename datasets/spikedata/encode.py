"""Input coding: from intensities to spikes.

Every function takes and returns tensors on any device, puts time first and writes spikes as 0 and 1 in the dtype of its
input. None of them touches a global random state, and none is differentiable except `direct`.
"""

import math

import torch


def direct(x: torch.Tensor, T: int) -> torch.Tensor:
    """Present the same input at every step: y[t] = x.

    Args:
        x: input [B, ...], any dtype.
        T: number of steps, >= 1.
    Returns: [T, B, ...], a read-only view of x that takes no memory; gradients flow through it.
    Raises: TypeError, ValueError for a wrong argument.

    >>> direct(torch.tensor([0.5, 1.0]), T=2).tolist()
    [[0.5, 1.0], [0.5, 1.0]]
    """
    _check_tensor("direct", x)
    _check_steps("direct", T)
    return x.unsqueeze(0).expand(T, *x.shape)


def rate(x: torch.Tensor, T: int, *, seed: int | torch.Generator) -> torch.Tensor:
    """Draw spikes with probability x at each step, independently: y[t] = [u[t] < x], u[t] uniform in [0, 1).

    The spike train is a Bernoulli process, the form that a Poisson process of rate -log(1 - x) per step takes when a
    step tells only whether at least one event fell into it.

    Args:
        x: probabilities [B, ...] in [0, 1], floating dtype.
        T: number of steps, >= 1.
        seed: an integer, for the same spikes at every call, or a generator on the device of x that is moved on, for new
            spikes at every call. The result does not depend on the number of threads.
    Returns: spikes 0/1, [T, B, ...], dtype of x.
    Raises: TypeError, ValueError for a wrong argument.

    >>> rate(torch.tensor([0.0, 1.0]), T=3, seed=0).tolist()
    [[0.0, 1.0], [0.0, 1.0], [0.0, 1.0]]
    """
    _check_intensity("rate", x)
    _check_steps("rate", T)
    # Half precision has too few levels for u: with 8 bits, no probability below 1/256 could be told from another.
    precision = torch.float64 if x.dtype == torch.float64 else torch.float32
    uniform = torch.rand((T, *x.shape), generator=_generator(seed, x.device), dtype=precision, device=x.device)
    return uniform.lt_(x.detach().to(precision)).to(x.dtype)


def latency(x: torch.Tensor, T: int, *, tau: float | None = None, theta: float = 0.01) -> torch.Tensor:
    """Code an intensity by the time of a single spike: the larger, the earlier.

    Without tau, linear:      s(x) = (1 - x) * (T - 1).
    With tau, logarithmic:    s(x) = tau * log(x / (x - theta)) - tau * log(1 / (1 - theta)),
    the time a leaky integrator of time constant tau, driven by x, takes to rise to theta, counted from that of x = 1.
    The spike is in the step nearest to s(x), the earlier one in a tie, and in the last step where s(x) is later or, for
    0 < x <= theta, infinite. So intensity 1 fires at step 0, every intensity above 0 exactly once, and 0 never.

    Args:
        x: intensities [B, ...] in [0, 1], floating dtype.
        T: number of steps, >= 1.
        tau: time constant in steps, > 0; None for the linear code.
        theta: threshold of the logarithmic code, between 0 and 1, both excluded.
    Returns: spikes 0/1, [T, B, ...], dtype of x.
    Raises: TypeError, ValueError for a wrong argument.
    Source: the logarithmic form is the first-passage time of dv/dt = (x - v) / tau from v = 0.

    >>> latency(torch.tensor([1.0, 0.5, 0.1, 0.0]), T=3).tolist()
    [[1.0, 0.0, 0.0, 0.0], [0.0, 1.0, 0.0, 0.0], [0.0, 0.0, 1.0, 0.0]]
    """
    _check_intensity("latency", x)
    _check_steps("latency", T)
    if tau is not None and not (tau > 0 and math.isfinite(tau)):
        raise ValueError(f"latency: tau must be > 0 steps or None, got {tau}")
    if not 0 < theta < 1:
        raise ValueError(f"latency: theta must lie between 0 and 1, both excluded, got {theta}")
    # The intensity that reaches s = k + 1/2 separates step k from step k + 1. Comparing with these T - 1 values keeps
    # the order of the intensities whatever the rounding of a logarithm.
    middles = [k + 0.5 for k in range(T - 1)]
    if tau is None:
        bounds = [1 - middle / (T - 1) for middle in middles]
    else:
        bounds = [-theta / math.expm1(math.log1p(-theta) - middle / tau) for middle in middles]
    precision = torch.float64 if x.dtype == torch.float64 else torch.float32
    rising = torch.tensor(bounds[::-1], dtype=precision, device=x.device)
    step = T - 1 - torch.bucketize(x.detach().to(precision), rising, right=True)  # [B, ...]
    spikes = torch.zeros((T, *x.shape), dtype=x.dtype, device=x.device)
    return spikes.scatter_(0, step.unsqueeze(0), (x.detach() > 0).to(x.dtype).unsqueeze(0))


def delta(
    x: torch.Tensor, threshold: float, *, initial: float | torch.Tensor | None = None, signed: bool = False
) -> torch.Tensor:
    """Send on delta: an event wherever the signal has moved by the threshold since the last event.

    Each step, with the reference level r, in this order: ON = [x[t] - r >= threshold]; OFF = [r - x[t] >= threshold];
    r = r + threshold * (ON - OFF). At most one event per step: while the signal moves by no more than the threshold per
    step, r stays closer to it than the threshold; a larger jump is followed over the next steps. The signal can be
    rebuilt as initial + threshold * cumsum(ON - OFF).

    Args:
        x: signal [T, B, ...] or [T], floating dtype, finite.
        threshold: > 0, in the unit of x.
        initial: r before the first step, a number or a tensor [B, ...]; None takes x[0], so that step 0 has no event.
        signed: True returns ON - OFF in one channel instead of the pair.
    Returns: events 0/1 with the pair (ON, OFF) as axis 2, [T, B, 2, ...] (for a signal [T]: [T, 2]), or for `signed`
        events -1/0/1 of the shape of x; dtype of x.
    Raises: TypeError, ValueError for a wrong argument.

    >>> delta(torch.tensor([0.0, 0.6, 0.7, 0.1]), threshold=0.5, signed=True).tolist()
    [0.0, 1.0, 0.0, 0.0]
    """
    _check_signal(x)
    if not (threshold > 0 and math.isfinite(threshold)):
        raise ValueError(f"delta: threshold must be > 0 and finite, got {threshold}")
    precision = torch.float64 if x.dtype == torch.float64 else torch.float32
    signal = x.detach()
    start = signal[0] if initial is None else torch.as_tensor(initial, device=x.device)
    if start.dim() > 0 and start.shape != x.shape[1:]:
        raise ValueError(f"delta: initial must be a number or {tuple(x.shape[1:])}, got {tuple(start.shape)}")
    if not bool(start.isfinite().all()):
        raise ValueError("delta: initial must be finite")
    start = start.to(precision)
    balance = torch.zeros(x.shape[1:], dtype=precision, device=x.device)  # ON minus OFF events so far
    axis = min(2, x.dim())
    shape = x.shape if signed else (*x.shape[:axis], 2, *x.shape[axis:])
    events = torch.empty(shape, dtype=x.dtype, device=x.device)
    for t in range(len(x)):
        # The level comes from the count of events, so that rounding does not add up over time.
        distance = signal[t].to(precision) - (start + balance * threshold)
        on, off = (distance >= threshold).to(precision), (distance <= -threshold).to(precision)
        change = on - off
        balance += change
        events[t] = change if signed else torch.stack((on, off), dim=axis - 1)
    return events


def _check_tensor(function: str, x: torch.Tensor) -> None:
    if not isinstance(x, torch.Tensor):
        raise TypeError(f"{function}: x must be a torch.Tensor, got {type(x).__name__}")


def _check_steps(function: str, T: int) -> None:
    if not isinstance(T, int) or isinstance(T, bool):
        raise TypeError(f"{function}: T must be an integer number of steps, got {type(T).__name__}")
    if T < 1:
        raise ValueError(f"{function}: T must be >= 1 step, got {T}")


def _check_floating(function: str, x: torch.Tensor) -> None:
    _check_tensor(function, x)
    if not x.dtype.is_floating_point:
        raise TypeError(f"{function}: x must have a floating dtype, got {x.dtype}; convert it, bytes as x / 255")


def _check_intensity(function: str, x: torch.Tensor) -> None:
    _check_floating(function, x)
    if x.numel() == 0:
        return
    low, high = (float(value) for value in x.detach().aminmax())
    if not (low >= 0 and high <= 1):  # false for NaN too
        raise ValueError(f"{function}: x must lie in [0, 1], got values from {low} to {high}")


def _check_signal(x: torch.Tensor) -> None:
    _check_floating("delta", x)
    if x.dim() == 0 or len(x) == 0:
        raise ValueError(f"delta: x must be a sequence [T, ...] of at least one step, got shape {tuple(x.shape)}")
    if not bool(x.isfinite().all()):
        raise ValueError("delta: x must be finite, got NaN or infinity")


def _generator(seed: int | torch.Generator, device: torch.device) -> torch.Generator:
    if isinstance(seed, torch.Generator):
        if seed.device.type != device.type:
            raise ValueError(f"rate: the generator must be on the device of x, {device}, got {seed.device}")
        return seed
    if not isinstance(seed, int) or isinstance(seed, bool):
        raise TypeError(f"rate: seed must be an integer or a torch.Generator, got {type(seed).__name__}")
    return torch.Generator(device=device).manual_seed(seed)
