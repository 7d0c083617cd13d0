"""Integer neurons as scalar functions: one neuron, one step (or one event), whole numbers in and out.

They are plain Python on integers and compile inside Numba loops as they are (int64). The same neurons as torch layers
are in `neuromorphic.targets.neurons`; tests hold the two equal.
"""

from __future__ import annotations

from numba.extending import register_jitable

CUBA_BITS = 12
"""Bits of the fraction of a decay in the current-based neuron."""
CUBA_SHIFT = 6
"""Left shift of synaptic input and threshold mantissa in the current-based neuron."""
CUBA_CURRENT_LIMIT = 2**23
CUBA_VOLTAGE_LIMIT = 2**23 - 1


@register_jitable
def toward_zero(x: int, kept: int, bits: int) -> int:
    """x * kept / 2^bits, rounded toward zero."""
    return (x * kept) >> bits if x >= 0 else -((-x * kept) >> bits)


@register_jitable
def clipped(x: int, low: int, high: int) -> int:
    """x, no less than low and no more than high."""
    return min(max(x, low), high)


@register_jitable
def cuba_wrapped(u: int) -> int:
    """A current in (-2^23, 2^23]: one beyond it comes back at the other end, once."""
    if u > CUBA_CURRENT_LIMIT:
        return u - 2 * CUBA_CURRENT_LIMIT
    if u <= -CUBA_CURRENT_LIMIT:
        return u + 2 * CUBA_CURRENT_LIMIT
    return u


@register_jitable
def cuba_step(
    a: int,
    u: int,
    v: int,
    hold: int,
    current_decay: int,
    voltage_decay: int,
    threshold: int,
    bias: int,
    refractory: int,
) -> tuple[int, int, int, int]:
    """One step of the current-based LIF neuron of Loihi.

    In this order: u = dec(u, current_decay) + 64 a, wrapped to 24 bits; v = dec(v, voltage_decay) + u + bias, clipped to
    24 bits, or 0 while the neuron rests; spike where v > 64 threshold (strictly); v = 0 where it spiked.
    dec(x, d) = x (4096 - d) / 4096 rounded toward zero.

    Args:
        a: sum of the integer weights of the spikes that arrived.
        u, v: current and voltage.
        hold: steps that the neuron still rests.
        current_decay, voltage_decay: effective decays, 0..4096.
        threshold: mantissa; times 64 it is compared with v.
        bias: added to v at every step, mantissa << exponent.
        refractory: steps from a spike to the first step that may spike again, >= 1.

    Returns: spike 0 or 1, and the new u, v, hold.
    Source: Davies et al., IEEE Micro 2018, with the rounding of Lava's bit-accurate model; resting neurons keep their
        current running.

    >>> cuba_step(100, 0, 0, 0, 2048, 512, 200, 0, 1)
    (0, 6400, 6400, 0)
    """
    u = cuba_wrapped(toward_zero(u, 4096 - current_decay, CUBA_BITS) + (a << CUBA_SHIFT))
    if hold > 0:
        return 0, u, 0, hold - 1
    v = toward_zero(v, 4096 - voltage_decay, CUBA_BITS) + u + bias
    v = clipped(v, -CUBA_VOLTAGE_LIMIT, CUBA_VOLTAGE_LIMIT)
    if v > threshold << CUBA_SHIFT:
        return 1, u, 0, refractory - 1
    return 0, u, v, 0


@register_jitable
def shift_decay(x: int, shift: int) -> int:
    """What x loses in one step: x >> shift (rounded down), at least 1 toward zero."""
    lost = x >> shift
    if lost == 0 and x != 0:
        return 1 if x > 0 else -1
    return lost


@register_jitable
def saturated(x: int, bits: int) -> int:
    """x in two's complement of that many bits, clipped."""
    return min(max(x, -(1 << (bits - 1))), (1 << (bits - 1)) - 1)


@register_jitable
def bit_shift_step(
    i: int,
    v: int,
    forwarded: int,
    current_shift: int,
    voltage_shift: int,
    threshold: int,
    bias: int,
    most_spikes: int,
    state_bits: int,
) -> tuple[int, int, int]:
    """One step of the LIF neuron of Xylo, whose decays are bit shifts; `i` already holds the input of this step.

    In this order: i loses `shift_decay(i)`; v changes by i minus `shift_decay(v)`, then by the bias, each clipped to the
    state's bits; then, while v >= threshold and fewer than `most_spikes` were sent, v -= threshold and one spike.

    Args:
        i: synaptic current after `receive`.
        v: membrane.
        forwarded: spikes that another neuron hands on to this one (alias); the count starts there.
        current_shift, voltage_shift: decays, 0..15.
        threshold, bias: integers of the state's width.
        most_spikes: largest count of one step.
        state_bits: width of i and v.

    Returns: number of spikes, and the new i and v.
    Source: the xylosim simulator's order, as in rockpool's documentation of Xylo.

    >>> bit_shift_step(100, 0, 0, 2, 3, 250, 0, 31, 16)
    (0, 75, 75)
    """
    i = saturated(i - shift_decay(i, current_shift), state_bits)
    change = saturated(i - shift_decay(v, voltage_shift), state_bits)
    v = saturated(v + saturated(change + bias, state_bits), state_bits)
    count = forwarded
    while v >= threshold and count < most_spikes:
        v -= threshold
        count += 1
    return count, i, v


@register_jitable
def receive(i: int, weight: int, spikes: int, state_bits: int) -> int:
    """The current after so many spikes through one synapse, clipped after each."""
    for _ in range(spikes):
        i = saturated(i + weight, state_bits)
    return i


@register_jitable
def event_if_step(weight: int, v: int, threshold: int, lowest: int, subtract: bool) -> tuple[int, int]:
    """One event at the integer integrate-and-fire neuron of DYNAP-CNN and Speck.

    In this order: v += weight; v = max(v, lowest); where v >= threshold one spike, and v -= threshold or v = 0. An event
    makes at most one spike; what is left waits for the next event.

    Returns: spike 0 or 1, and the new v.
    Source: Richter et al., arXiv 2304.06793; sinabs' DYNAP-CNN documentation.

    >>> event_if_step(300, -127, 127, -127, True)
    (1, 46)
    """
    v = max(v + weight, lowest)
    if v >= threshold:
        return 1, (v - threshold if subtract else 0)
    return 0, v


@register_jitable
def event_lif_step(weight: int, v: int, threshold: int) -> tuple[int, int]:
    """One event at the 8-bit LIF neuron of ODIN: v = v + weight within 0..255; where v >= threshold a spike and v = 0.

    A leak is an event of weight -leak at every neuron.

    Returns: spike 0 or 1, and the new v.
    Source: Frenkel et al., IEEE TBioCAS 2019.

    >>> event_lif_step(7, 16, 20)
    (1, 0)
    """
    v = clipped(v + weight, 0, 255)
    return (1, 0) if v >= threshold else (0, v)


@register_jitable
def linear_leak_step(
    a: int, v: int, leak: int, threshold: int, reset: int, subtract: bool, floor: int, floor_resets: bool
) -> tuple[int, int]:
    """One step of TrueNorth's deterministic neuron: v += a + leak; where v >= threshold a spike, and v -= threshold or
    v = reset; where v < -floor: v = -reset (floor_resets) or v = -floor.

    Args:
        a: sum over axons of the weight that the axon's type selects.
        leak: signed, added once a step.

    Returns: spike 0 or 1, and the new v.
    Source: Cassidy et al., IJCNN 2013, without its stochastic modes.

    >>> linear_leak_step(5, 3, -1, 7, 0, True, 100, False)
    (1, 0)
    """
    v += a + leak
    if v >= threshold:
        return 1, (v - threshold if subtract else reset)
    if v < -floor:
        return 0, (-reset if floor_resets else -floor)
    return 0, v


@register_jitable
def rounded_shift(product: int, bits: int, rounding: int) -> int:
    """product / 2^bits, rounded toward zero (0), down (1), or to the nearest with halves away from zero (2)."""
    if rounding == 1:
        return product >> bits
    half = (1 << bits) >> 1 if rounding == 2 else 0
    return (product + half) >> bits if product >= 0 else -((-product + half) >> bits)


@register_jitable
def fixed_point_step(
    a: int,
    c: int,
    v: int,
    current_kept: int,
    voltage_kept: int,
    threshold: int,
    bias: int,
    decay_bits: int,
    state_bits: int,
    rounding: int,
    subtract: bool,
) -> tuple[int, int, int]:
    """One step of a (current-based) LIF neuron in plain fixed point.

    In this order: c = c current_kept / 2^decay_bits + a; v = v voltage_kept / 2^decay_bits + c + bias, both saturated to
    `state_bits`; spike where v >= threshold; then v -= threshold or v = 0.

    Args:
        a: synaptic input in units of the state.
        current_kept, voltage_kept: share that stays, 0..2^decay_bits; current_kept = 0 is a neuron without current.
        rounding: of the products, see `rounded_shift`.
        subtract: reset kind.

    Returns: spike 0 or 1, and the new c and v.

    >>> fixed_point_step(100, 0, 90, 0, 2048, 140, 0, 12, 16, 0, True)
    (1, 100, 5)
    """
    c = saturated(rounded_shift(c * current_kept, decay_bits, rounding) + a, state_bits)
    v = saturated(rounded_shift(v * voltage_kept, decay_bits, rounding) + c + bias, state_bits)
    if v >= threshold:
        return 1, c, (v - threshold if subtract else 0)
    return 0, c, v
