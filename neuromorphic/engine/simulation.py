"""The Numba backend: arrays of a network and the loop that advances them."""

from __future__ import annotations

import time
from dataclasses import dataclass
from typing import Any

import numpy as np

from neuromorphic.engine import blocks, build, checkpoint, layout, threads
from neuromorphic.engine.assembly import Inputs, assemble_inputs, assemble_kinds, assemble_samplers, fill_constants
from neuromorphic.engine.codegen import load
from neuromorphic.engine.distributions import draw
from neuromorphic.engine.interrupt import noted_interrupt
from neuromorphic.engine.kernels.barrier import CELLS
from neuromorphic.engine.kernels.step import Scratch
from neuromorphic.engine.learning import Learning
from neuromorphic.engine.network import Network, Population, Projection
from neuromorphic.engine.recording import StateRecorder
from neuromorphic.engine.report import RunReport

MAX_CHUNK = 32  # steps computed between two deliveries at most
LOG_SPIKES = 1 << 20  # spikes logged before Python takes them
CALL_SECONDS = 0.25  # wall time aimed at for one call of the compiled loop
_INITIAL = 3  # random domain of initial states


@dataclass
class _Clock:
    """Steps per call, adapted so that Ctrl-C and progress are answered in a fraction of a second."""

    steps: int = 64

    def learn(self, done: int, seconds: float) -> None:
        self.steps = max(1, min(int(done * CALL_SECONDS / max(seconds, 1e-6)), 4 * self.steps))


class NumbaSimulation:
    """A built network."""

    def __init__(self, network: Network) -> None:
        began = time.perf_counter()
        self.network = network
        self.h = network.dt_ms
        self.dtype: Any = np.dtype(network.dtype).type
        neurons = sum(p.n for p in network.populations)
        self.threads = threads.choose(network.threads, neurons)
        self.step = 0
        kinds, kind_of = assemble_kinds(network)
        self.kind_of = [kinds[k] if k >= 0 else None for k in kind_of]
        sizes = [p.n for p in network.populations]
        receptors = [len(p.model.receptors) if p.model else 0 for p in network.populations]
        plans = build.plan_tables(network.projections)
        rows = build.count_rows(plans, sizes, network.seed, self.threads)
        self.blocks = self.threads * blocks.blocks_per_thread(
            network.projections, int(np.dot(sizes, receptors)), self.threads, rows.mean, self.h, self.dtype().itemsize
        )
        plain = layout.make_layout(
            sizes=sizes,
            kinds=[
                k if k >= 0 else (-1 if p.source == "poisson" else -2)
                for k, p in zip(kind_of, network.populations, strict=True)
            ],
            states=[len(p.model.states) if p.model else 0 for p in network.populations],
            receptors=receptors,
            vectors=[len(k.vectors) if k else 0 for k in self.kind_of],
            constants=[len(k.scalars) if k else 0 for k in self.kind_of],
            blocks=self.blocks,
        )
        self.layout, self.tables, shortest = build.build_tables(
            plans, rows, plain, network.seed, self.h, self.dtype, self.threads
        )
        self.chunk = int(min(shortest, MAX_CHUNK))
        self.ring = layout.aligned_zeros(int((self.layout.block_cells * self.layout.slots[0]).sum()), self.dtype)
        self.state_array = layout.aligned_zeros(layout.state_elements(self.layout), self.dtype)
        self.constants = np.zeros(sum(len(k.scalars) if k else 0 for k in self.kind_of), dtype=self.dtype)
        self.rows = [layout.row_positions(self.layout, p.index) for p in network.populations]
        self.inputs: Inputs = assemble_inputs(network, self.layout, self.dtype)
        for population in network.populations:
            self._initialise(population)
            self.write_constants(population)
        self.learning = Learning(network, plans, self.layout, self.tables, self.h, self.chunk)
        self.module = load(kinds, network.dtype, self.learning.active)
        self._allocate(neurons)
        self.clock = _Clock()
        self.degrees = self._out_degrees()
        self.build_s = time.perf_counter() - began
        self._call(self.step, np.zeros(len(network.populations), dtype=np.int64))  # no step: compiles the loop
        self.compile_s = time.perf_counter() - began - self.build_s
        self.clock = _Clock()

    def _allocate(self, neurons: int) -> None:
        widths = np.diff(self.layout.bounds, axis=1).sum(axis=0)
        most = int(widths.max()) * self.chunk + 8
        self.buffers = tuple(
            Scratch(
                flags=np.zeros((self.threads, -(-layout.TILE // 64) * 64), dtype=np.uint8),
                words=np.zeros((self.threads, layout.TILE // 2 + 8), dtype=np.uint64),
                counts=np.zeros((self.threads, layout.TILE), dtype=np.int32),
                ids=np.zeros((self.blocks, most), dtype=np.int32),
                segments=np.zeros((self.blocks, self.chunk, len(self.network.populations)), dtype=np.int64),
                cursor=np.zeros((self.threads, max(16, self.blocks)), dtype=np.int64),
            )
            for _ in range(2)
        )
        capacity = max(LOG_SPIKES, 2 * neurons * self.chunk)
        self.log_step = np.zeros((self.threads, capacity), dtype=np.int64)
        dynamic = self.tables.stp_state.shape[1]
        self.factors = np.zeros((self.threads, dynamic, neurons * self.chunk if dynamic else 0), dtype=self.dtype)
        self.log_id = np.zeros((self.threads, capacity), dtype=np.int32)
        self.state_recorders = [r for r in self.network.recorders if isinstance(r, StateRecorder)]

    def _initialise(self, population: Population) -> None:
        if population.model is None:
            return
        for k, (name, spec) in enumerate(population.model.states.items()):
            if name in population.initial:
                key = int(build.sub_seed(self.network.seed, _INITIAL, population.index * 64 + k))
                generator = np.random.Generator(np.random.Philox(key))
                values = draw(population.initial[name], population.n, generator)
            else:
                default = population.values[spec.default] if isinstance(spec.default, str) else spec.default
                values = np.broadcast_to(np.asarray(default, dtype=np.float64), (population.n,))
            if spec.relative_to is not None:
                values = values - population.values[spec.relative_to]
            self.state_array[self.rows[population.index] + k * layout.TILE] = values

    def write_constants(self, population: Population) -> None:
        """Constants of a population for the interval that starts at the current step."""
        kind = self.kind_of[population.index]
        if kind is None:
            return
        values = fill_constants(self.network, population, kind, self.step, self.h)
        first = int(self.layout.constant_start[population.index])
        for k, name in enumerate(kind.scalars):
            self.constants[first + k] = values[name]
        row = int(self.layout.states[population.index])
        for k, name in enumerate(kind.vectors):
            self.state_array[self.rows[population.index] + (row + k) * layout.TILE] = values[name]

    def _out_degrees(self) -> np.ndarray:
        starts = self.tables.pointers[:, :: self.blocks]
        return np.diff(starts, axis=1).sum(axis=0) if len(starts) else np.zeros(int(self.layout.first_id[-1]), np.int64)

    def run(self, duration_ms: float, progress: bool) -> RunReport:
        """Advance by ``duration_ms`` rounded to whole steps."""
        target = self.step + round(duration_ms / self.h)
        first = self.step
        counts = np.zeros(len(self.network.populations), dtype=np.int64)
        events, bar = 0, _progress_bar(duration_ms) if progress else None
        began = time.perf_counter()
        with noted_interrupt() as interrupted:
            while self.step < target and not interrupted:
                before = self.step
                events += self._call(target, counts)
                if bar is not None:
                    bar.update((self.step - before) * self.h)
        seconds = time.perf_counter() - began
        if bar is not None:
            bar.close()
        size = build.describe_size(self.tables)
        return RunReport(
            duration_ms=(self.step - first) * self.h,
            run_s=seconds,
            build_s=self.build_s,
            compile_s=self.compile_s,
            neurons=int(self.layout.first_id[-1]),
            synapses=size["synapses"],
            bytes_per_synapse=size["bytes_per_synapse"],
            spikes={p.name: int(c) for p, c in zip(self.network.populations, counts, strict=True)},
            synaptic_events=events,
            interrupted=bool(interrupted),
        )

    def _call(self, target: int, counts: np.ndarray) -> int:
        """One call of the compiled loop and the handing over of what it recorded; returns its synaptic events."""
        steps = min(self.clock.steps, target - self.step, self.inputs.next_change(self.step) - self.step)
        steps = max(0, min(steps, self.learning.next_change(self.step) - self.step))
        samplers = assemble_samplers(self.state_recorders, self.layout, self.rows, self.step, steps, self.dtype)
        before = self.step
        began = time.perf_counter()
        arguments = [self.step, steps, self.chunk, self.layout, self.tables]
        arguments += [self.learning.arrays] if self.learning.active else []
        arguments += [self.inputs.drives, self.inputs.lists, samplers, self.state_array, self.constants, self.ring]
        fresh = np.zeros((self.threads, max(16, len(counts))), dtype=np.int64)
        arguments += [self.buffers, self.factors, self.log_step, self.log_id, fresh, np.zeros(CELLS, dtype=np.int64)]
        done, logged = threads.on_all(self.module.advance, self.threads, arguments)
        self.step += int(done)
        self.clock.learn(int(done), time.perf_counter() - began)
        counts += fresh[0, : len(counts)]
        self._hand_over(before, logged, samplers.out, samplers.out_start)
        changed = self.inputs.changed(self.step)
        for population in changed:
            self.write_constants(population)
        self.learning.after(self.step, self.log_id[0, :logged])
        return int(self.degrees[self.log_id[0, :logged]].sum())

    def _hand_over(self, before: int, logged: int, samples: np.ndarray, starts: np.ndarray) -> None:
        steps, ids = self.log_step[0, :logged], self.log_id[0, :logged]
        for recorder in self.network.recorders:
            if isinstance(recorder, StateRecorder):
                continue
            low = self.layout.first_id[recorder.population.index]
            high = self.layout.first_id[recorder.population.index + 1]
            mine = (ids >= low) & (ids < high)
            recorder.take_spikes(steps[mine], ids[mine] - np.int32(low), self.step)
        for k, recorder in enumerate(self.state_recorders):
            assert recorder.neurons is not None
            times = np.arange(before // recorder.interval + 1, self.step // recorder.interval + 1) * recorder.interval
            width = len(recorder.neurons)
            values = samples[starts[k] : starts[k] + len(times) * width].reshape(len(times), width).astype(np.float64)
            recorder.take_samples(times, values + self._shift(recorder.population, recorder.state, recorder.neurons))

    def _shift(self, population: Population, name: str, neurons: np.ndarray | slice) -> Any:
        assert population.model is not None
        relative = population.model.states[name].relative_to
        value: Any = population.values[relative] if relative else 0.0
        return value[neurons] if np.ndim(value) else value

    def state(self, population: Population, name: str) -> np.ndarray:
        """[n] a state in its unit."""
        from neuromorphic.engine.errors import unknown_name

        names = list(population.model.states) if population.model else []
        if name not in names:
            raise unknown_name(f"state of {population.name}", name, names)
        values = self.state_array[self.rows[population.index] + names.index(name) * layout.TILE].astype(np.float64)
        return values + self._shift(population, name, slice(None))

    def weights(self, projection: Projection) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
        """(pre, post, weight, delay_ms) of every synapse of a projection."""
        self.learning.flush(self.step)
        return build.synapse_list(self.learning.plans, projection, self.layout, self.tables, self.h)

    def reward(self, projection: Projection, amount: float) -> None:
        """Deliver a reward now."""
        self.learning.reward(projection, amount, self.step)

    def save(self, path: str) -> None:
        """Write the dynamic state."""
        checkpoint.save(self, path)

    def restore(self, path: str) -> None:
        """Read the dynamic state."""
        checkpoint.restore(self, path)


def _progress_bar(duration_ms: float) -> Any:
    try:
        from tqdm import tqdm
    except ImportError as error:
        raise ImportError("run: progress=True needs tqdm; pip install tqdm") from error
    return tqdm(total=duration_ms, unit="ms", unit_scale=True)
