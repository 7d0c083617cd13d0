"""Counts a run of the event engine, step by step of its grid."""

from __future__ import annotations

from typing import Any

import numpy as np

from neuromorphic.energy.counts import SPIKES, Counts, Events, LayerCounts
from neuromorphic.engine.network import Network, Population


def count_engine(network: Network, duration_ms: Any) -> Counts:
    """Run an engine network and count every population and projection.

    A population is a layer of kind "neuron" (its sources: "input" layers without updates), a projection
    "pre->post" a layer of kind "event" without neurons. Spikes cross a projection in the step in which they are
    emitted, whatever its delay, as in the engine's own total of synaptic events. External Poisson drives are not
    synapses and are not counted.

    Args:
        network: not built yet, since spikes have to be recorded.
        duration_ms: time to run.
    Raises: ValueError if the network is built or the duration is not a positive number.
    """
    if isinstance(duration_ms, bool) or not isinstance(duration_ms, int | float) or duration_ms <= 0:
        raise ValueError(f"count: data must be the milliseconds to run an engine network, > 0, got {duration_ms!r}")
    try:
        recorders = {population.name: network.record(population, "spikes") for population in network.populations}
    except RuntimeError as error:
        raise ValueError("count: the network is already built; count it before its first run") from error
    report = network.run(float(duration_ms))
    steps = round(report.duration_ms / network.dt_ms)
    emitted = {
        name: _by_step_and_neuron(recorder.times_ms, recorder.ids, steps, recorder.population.n, network.dt_ms)
        for name, recorder in recorders.items()
    }
    layers = [_population(population, emitted[population.name], steps) for population in network.populations]
    for projection in network.projections:
        pre, _, weight, _ = network.synapses(projection)
        degree = np.bincount(pre, minlength=projection.pre.n).astype(np.int64)
        nonzero = np.bincount(pre[weight != 0], minlength=projection.pre.n).astype(np.int64)
        spikes = emitted[projection.pre.name]
        label = f"{projection.pre.name}->{projection.post.name}"
        taken = sum(layer.name == label or layer.name.startswith(f"{label}#") for layer in layers)
        layers.append(
            LayerCounts(
                f"{label}#{taken + 1}" if taken else label,
                "event",
                inputs=(projection.pre.name,),
                input_shape=(projection.pre.n,),
                output_shape=(projection.post.n,),
                weight_shape=(projection.post.n, projection.pre.n),
                weight_count=len(pre),
                weight_nonzero_count=int((weight != 0).sum()),
                weight_bits=64 if network.dtype == "float64" else 32,
                input_signal=SPIKES,
                recurrent=projection.pre is projection.post,
                dense_synops=len(pre),
                dense_synops_padded=len(pre),
                input_events=_per_step(spikes, np.ones(projection.pre.n, dtype=np.int64), steps),
                synops=_per_step(spikes, degree, steps),
                synops_nonzero=_per_step(spikes, nonzero, steps),
            )
        )
    return Counts(tuple(layers), steps, 1, input_signal=SPIKES, source="engine", dt_ms=network.dt_ms)


def _by_step_and_neuron(
    times_ms: Any, ids: Any, steps: int, neurons: int, dt_ms: float
) -> tuple[np.ndarray, np.ndarray]:
    # A spike at the end of grid step k carries the time k * dt.
    step = np.rint(np.asarray(times_ms) / dt_ms).astype(np.int64) - 1
    return np.clip(step, 0, steps - 1), np.asarray(ids, dtype=np.int64)


def _per_step(spikes: tuple[np.ndarray, np.ndarray], weight: np.ndarray, steps: int) -> Events:
    step, ids = spikes
    found = np.zeros(steps, dtype=np.int64)
    np.add.at(found, step, weight[ids])
    return found.reshape(steps, 1)


def _population(population: Population, spikes: tuple[np.ndarray, np.ndarray], steps: int) -> LayerCounts:
    """A population as a layer of neurons, which a source of spikes is without state and updates."""
    emitted = _per_step(spikes, np.ones(population.n, dtype=np.int64), steps)
    states = len(population.model.states) if population.model else 0
    return LayerCounts(
        population.name,
        "neuron",
        output_shape=(population.n,),
        neuron_count=population.n if population.model else 0,
        state_variables=states,
        neuron_model=population.model.name if population.model else str(population.source),
        output_signal=SPIKES,
        output_events=emitted,
        output_magnitude=emitted,
        neuron_updates=np.full((steps, 1), population.n if population.model else 0, dtype=np.int64),
    )
