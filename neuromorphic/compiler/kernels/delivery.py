"""Delivery of events through shared weights: rows of a matrix, kernels of a convolution, pooling windows.

An event is the place of an entry that is not zero, with a value where a list is valued. Feature maps are stored with
channels last, so that what an event adds lies in contiguous runs. All functions return the number of additions.
"""

from __future__ import annotations

import numpy as np

from neuromorphic.engine.kernels.views import njit_views


@njit_views
def deliver_dense(out, weights, n, ids, values, count, valued):  # type: ignore[no-untyped-def]
    """out += sum of the rows of `weights` [sources, n] that the events name."""
    k = 0
    if not valued:
        while k + 4 <= count:  # four rows at a time read and write `out` once
            a = weights[ids[k] * n : ids[k] * n + n]
            b = weights[ids[k + 1] * n : ids[k + 1] * n + n]
            c = weights[ids[k + 2] * n : ids[k + 2] * n + n]
            d = weights[ids[k + 3] * n : ids[k + 3] * n + n]
            for j in range(n):
                out[j] += (a[j] + b[j]) + (c[j] + d[j])
            k += 4
        while k < count:
            a = weights[ids[k] * n : ids[k] * n + n]
            for j in range(n):
                out[j] += a[j]
            k += 1
        return count * n
    while k + 2 <= count:
        a = weights[ids[k] * n : ids[k] * n + n]
        b = weights[ids[k + 1] * n : ids[k + 1] * n + n]
        u, v = values[k], values[k + 1]
        for j in range(n):
            out[j] += u * a[j] + v * b[j]
        k += 2
    if k < count:
        a = weights[ids[k] * n : ids[k] * n + n]
        u = values[k]
        for j in range(n):
            out[j] += u * a[j]
    return count * n


@njit_views
def deliver_delayed(ahead, weights, places, n, ids, values, count, valued):  # type: ignore[no-untyped-def]
    """ahead[places[i, j]] += value of i * weights[i, j] for every event i; places are not negative."""
    for k in range(count):
        first = ids[k] * n
        own, at = weights[first : first + n], places[first : first + n]
        if valued:
            value = values[k]
            for j in range(n):
                ahead[np.uint64(at[j])] += value * own[j]
        else:
            for j in range(n):
                ahead[np.uint64(at[j])] += own[j]
    return count * n


@njit_views
def deliver_conv(row, out, weights, phases, ids, values, count, valued, marks, touched):  # type: ignore[no-untyped-def]
    """Convolution of one group without dilation.

    The taps that an input pixel reaches along an axis depend on its phase (x + padding) mod stride only; the weights
    are stored for each phase as [C_in, taps_y, taps_x, C_out] with taps reversed, so that the outputs of one row of
    taps are one contiguous run. Pixels reached are listed in `touched` once where `marks` is not empty; its first
    entry counts them.
    """
    C, W, out_C, out_H, out_W = row[4], row[5], row[6], row[7], row[8]
    kernel_y, kernel_x, stride_y, stride_x, pad_y, pad_x = row[9], row[10], row[11], row[12], row[13], row[14]
    listing = marks.shape[0] > 0
    adds = 0
    for k in range(count):
        i = ids[k]
        c = i % C
        pixel = i // C
        x = pixel % W + pad_x
        y = pixel // W + pad_y
        phase_y, phase_x = y % stride_y, x % stride_x
        taps_y = (kernel_y - phase_y + stride_y - 1) // stride_y
        taps_x = (kernel_x - phase_x + stride_x - 1) // stride_x
        top = y // stride_y - taps_y + 1
        left = x // stride_x - taps_x + 1
        skip = max(0, -left)
        run = min(taps_x, out_W - left) - skip
        if run <= 0:
            continue
        n = run * out_C
        start = phases[phase_y * stride_x + phase_x] + c * taps_y * taps_x * out_C + skip * out_C
        for m in range(max(0, -top), min(taps_y, out_H - top)):
            first = (top + m) * out_W + left + skip
            target = out[first * out_C : first * out_C + n]
            source = weights[start + m * taps_x * out_C : start + m * taps_x * out_C + n]
            if valued:
                u = values[k]
                for j in range(n):
                    target[j] += u * source[j]
            else:
                for j in range(n):
                    target[j] += source[j]
            adds += n
            if listing:
                for p in range(first, first + run):
                    if marks[p] == 0:
                        marks[p] = 1
                        touched[0] += 1
                        touched[touched[0]] = p
    return adds


@njit_views
def deliver_conv_general(row, out, weights, ids, values, count, valued):  # type: ignore[no-untyped-def]
    """Convolution with groups or dilation; weights [C_in, kernel_y, kernel_x, C_out / groups]."""
    C, W, out_C, out_H, out_W = row[4], row[5], row[6], row[7], row[8]
    kernel_y, kernel_x, stride_y, stride_x, pad_y, pad_x = row[9], row[10], row[11], row[12], row[13], row[14]
    step_y, step_x, groups = row[15], row[16], row[17]
    n = out_C // groups
    adds = 0
    for k in range(count):
        i = ids[k]
        c = i % C
        pixel = i // C
        x = pixel % W + pad_x
        y = pixel // W + pad_y
        first_channel = c // (C // groups) * n
        for tap_y in range(kernel_y):
            from_y = y - tap_y * step_y
            if from_y < 0 or from_y % stride_y or from_y // stride_y >= out_H:
                continue
            for tap_x in range(kernel_x):
                from_x = x - tap_x * step_x
                if from_x < 0 or from_x % stride_x or from_x // stride_x >= out_W:
                    continue
                first = (from_y // stride_y * out_W + from_x // stride_x) * out_C + first_channel
                start = ((c * kernel_y + tap_y) * kernel_x + tap_x) * n
                target = out[first : first + n]
                source = weights[start : start + n]
                if valued:
                    u = values[k]
                    for j in range(n):
                        target[j] += u * source[j]
                else:
                    for j in range(n):
                        target[j] += source[j]
                adds += n
    return adds


@njit_views
def deliver_pool(row, out, factor, ids, values, count, valued):  # type: ignore[no-untyped-def]
    """Sum over windows times `factor`."""
    C, W, out_H, out_W = row[4], row[5], row[7], row[8]
    kernel_y, kernel_x, stride_y, stride_x, pad_y, pad_x = row[9], row[10], row[11], row[12], row[13], row[14]
    adds = 0
    for k in range(count):
        i = ids[k]
        c = i % C
        pixel = i // C
        x = pixel % W + pad_x
        y = pixel // W + pad_y
        value = factor * values[k] if valued else factor
        low_y = max(0, (y - kernel_y) // stride_y + 1)
        low_x = max(0, (x - kernel_x) // stride_x + 1)
        for out_y in range(low_y, min(out_H, y // stride_y + 1)):
            for out_x in range(low_x, min(out_W, x // stride_x + 1)):
                out[(out_y * out_W + out_x) * C + c] += value
                adds += 1
    return adds


@njit_views
def deliver_diagonal(out, weights, n, places, moved, ids, values, count, valued, gain):  # type: ignore[no-untyped-def]
    """Elementwise: out[place] += weight * value; without weights (n = 0) the weight is `gain`."""
    for k in range(count):
        i = ids[k]
        place = places[i] if moved else i
        value = gain * values[k] if valued else gain
        out[place] += value * weights[i] if n else value
    return count


@njit_views
def max_pool_list(row, marks, ids, count, found):  # type: ignore[no-untyped-def]
    """The windows that hold a spike, each once, into `found`; returns (how many, window tests)."""
    C, W, out_H, out_W = row[4], row[5], row[7], row[8]
    kernel_y, kernel_x, stride_y, stride_x, pad_y, pad_x = row[9], row[10], row[11], row[12], row[13], row[14]
    step_y, step_x = row[15], row[16]
    number, tests = 0, 0
    for k in range(count):
        i = ids[k]
        c = i % C
        pixel = i // C
        x = pixel % W + pad_x
        y = pixel // W + pad_y
        for tap_y in range(kernel_y):
            from_y = y - tap_y * step_y
            if from_y < 0 or from_y % stride_y or from_y // stride_y >= out_H:
                continue
            for tap_x in range(kernel_x):
                from_x = x - tap_x * step_x
                if from_x < 0 or from_x % stride_x or from_x // stride_x >= out_W:
                    continue
                place = (from_y // stride_y * out_W + from_x // stride_x) * C + c
                tests += 1
                if marks[place] == 0:
                    marks[place] = 1
                    found[number] = place
                    number += 1
    for k in range(number):
        marks[found[k]] = 0
    return number, tests


@njit_views
def max_pool_values(row, source, out):  # type: ignore[no-untyped-def]
    """Largest value of each window; padding is left out of it."""
    C, W, H, out_H, out_W = row[4], row[5], row[6], row[7], row[8]
    kernel_y, kernel_x, stride_y, stride_x, pad_y, pad_x = row[9], row[10], row[11], row[12], row[13], row[14]
    step_y, step_x = row[15], row[16]
    for out_y in range(out_H):
        for out_x in range(out_W):
            target = out[(out_y * out_W + out_x) * C : (out_y * out_W + out_x) * C + C]
            first = True
            for tap_y in range(kernel_y):
                y = out_y * stride_y - pad_y + tap_y * step_y
                if y < 0 or y >= H:
                    continue
                for tap_x in range(kernel_x):
                    x = out_x * stride_x - pad_x + tap_x * step_x
                    if x < 0 or x >= W:
                        continue
                    values = source[(y * W + x) * C : (y * W + x) * C + C]
                    if first:
                        for c in range(C):
                            target[c] = values[c]
                        first = False
                    else:
                        for c in range(C):
                            target[c] = values[c] if values[c] > target[c] else target[c]
    return out_H * out_W * C * kernel_y * kernel_x
