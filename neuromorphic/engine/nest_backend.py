"""The NEST backend: builds and runs a description on an installed NEST 3 simulator.

NEST has one kernel in a process: building a second network discards the first. Statistics agree with the numba backend,
single spikes do not, because the random numbers differ.
"""

from __future__ import annotations

import time
from typing import Any

import numpy as np

from neuromorphic.engine import nest_models
from neuromorphic.engine.assembly import to_step, values_at
from neuromorphic.engine.connectivity import Explicit
from neuromorphic.engine.distributions import Distribution, draw
from neuromorphic.engine.errors import UnsupportedError, unknown_name
from neuromorphic.engine.interrupt import noted_interrupt
from neuromorphic.engine.network import Network, Population, Projection
from neuromorphic.engine.recording import StateRecorder
from neuromorphic.engine.report import RunReport

_CHUNK_MS = 100.0  # time between looks at Ctrl-C and progress
_kernel_owner: list[NestSimulation] = []  # NEST's own kernel is global; this remembers whose network it holds


def _import_nest() -> Any:
    try:
        import nest
    except ImportError as error:
        raise ImportError("backend 'nest' needs the NEST simulator; pip install nest-simulator") from error
    return nest


class NestSimulation:
    """A network built in NEST's kernel."""

    def __init__(self, network: Network) -> None:
        self.nest = nest = _import_nest()
        began = time.perf_counter()
        self.network, self.h = network, network.dt_ms
        if network.dtype != "float32":
            raise UnsupportedError("backend 'nest': dtype has no meaning there; leave it at its default")
        nest.verbosity = nest.VerbosityLevel.ERROR
        nest.ResetKernel()
        nest.resolution = network.dt_ms
        nest.local_num_threads = network.threads or 1
        nest.rng_seed = network.seed % (2**32 - 2) + 1
        _kernel_owner[:] = [self]
        self.step = 0
        self.nodes = [self._create(p) for p in network.populations]
        self.counts = [self._connect(p) for p in network.projections]
        for drive in network.drives:
            stop = {} if np.isinf(drive.stop_ms) else {"stop": drive.stop_ms}
            generator = nest.Create(
                "poisson_generator", params={"rate": drive.rate_hz, "start": drive.start_ms, **stop}
            )
            weight = self._signed(drive.post, drive.receptor, drive.weight)
            targets = self.nodes[drive.post.index][drive.low : drive.high]
            nest.Connect(generator, targets, syn_spec={"weight": weight, "delay": self.h})
        self.spike_devices = [self._spike_device(p) for p in network.populations]
        self.state_devices = [self._multimeter(r) for r in network.recorders if isinstance(r, StateRecorder)]
        nest.Prepare()  # sorts the connections, which would else count as run time
        nest.Cleanup()
        self.build_s = time.perf_counter() - began

    def _create(self, population: Population) -> Any:
        nest, values = self.nest, population.values
        if population.source == "poisson":
            generator = nest.Create("poisson_generator", params={"rate": values["rate_hz"]})
            parrots = nest.Create("parrot_neuron", population.n)
            nest.Connect(generator, parrots, syn_spec={"delay": self.h})
            return parrots
        if population.source == "spike_list":
            return self._spike_list(population)
        model, parameters = nest_models.neuron(population)
        nodes = nest.Create(model, population.n)
        nodes.set(**{name: value.tolist() if np.ndim(value) else value for name, value in parameters.items()})
        for k, (name, start) in enumerate(population.initial.items()):
            if name not in nest_models.SETTABLE:
                raise UnsupportedError(f"backend 'nest': initial {name!r} of {population.name!r} cannot be set")
            generator = np.random.Generator(np.random.Philox([self.network.seed, population.index * 64 + k]))
            nodes.set(**{nest_models.SETTABLE[name]: draw(start, population.n, generator).tolist()})
        return nodes

    def _spike_list(self, population: Population) -> Any:
        times, ids = population.values["times_ms"], population.values["ids"]
        steps = np.array([to_step(t, self.h) for t in times], dtype=np.int64)
        if (steps < 2).any():
            raise UnsupportedError(f"backend 'nest': spikes of {population.name!r} must be at 2 dt_ms or later")
        order = np.argsort(steps, kind="stable")
        steps, ids = steps[order], ids[order]
        generators = self.nest.Create("spike_generator", population.n)
        generators.set(
            [{"spike_times": ((steps[ids == i] - 1) * self.h).round(9).tolist()} for i in range(population.n)]
        )
        parrots = self.nest.Create("parrot_neuron", population.n)
        self.nest.Connect(generators, parrots, "one_to_one", {"delay": self.h})
        return parrots

    def _signed(self, post: Population, receptor: str | None, weight: Any) -> Any:
        """NEST chooses the receptor by the sign: weights given for "in" become negative conductances or keep their sign."""
        model = post.model
        assert model is not None
        if receptor is None or len(model.receptors) == 1:
            return weight
        if isinstance(weight, Distribution):
            raise UnsupportedError(
                f"backend 'nest': a distribution of weights on receptor {receptor!r} is not expressed"
            )
        array = np.asarray(weight)
        if model.conductance:
            return -weight if receptor == "in" else weight
        if (array * (1 if receptor == "ex" else -1) < 0).any():
            raise UnsupportedError(f"backend 'nest': weights of that sign cannot go to receptor {receptor!r}")
        return weight

    def _connect(self, p: Projection) -> int:
        nest = self.nest
        before = nest.num_connections
        model, parameters, in_post = nest_models.synapse(p)
        if in_post:
            self.nodes[p.post.index].set(**in_post)
        if model != "static_synapse":
            name = f"{model}_{p.index}"
            common = parameters if model.endswith("_hom") else {}
            nest.CopyModel(model, name, common)
            parameters = {} if common else parameters
            model = name
        spec = {"synapse_model": model, **parameters}
        weight = self._signed(p.post, p.receptor, p.weight)
        pre, post = self.nodes[p.pre.index], self.nodes[p.post.index]
        if isinstance(p.rule, Explicit):
            count = len(p.rule._pre)
            generator = np.random.Generator(np.random.Philox([self.network.seed, p.index]))
            delay = draw(p.delay_ms, count, generator)
            grid = np.maximum(np.floor(delay / self.h + 0.5 + 1e-9), 1) * self.h
            spec |= {"weight": draw(weight, count, generator), "delay": grid.round(9)}
            if count:
                sources, targets = np.array(pre.global_id), np.array(post.global_id)
                sources, targets = np.atleast_1d(sources)[p.rule._pre], np.atleast_1d(targets)[p.rule._post]
                nest.Connect(sources, targets, "one_to_one", spec)
        else:
            spec |= {"weight": nest_models.quantity(nest, weight)}
            spec |= {"delay": nest_models.quantity(nest, p.delay_ms, low=self.h / 2)}
            nest.Connect(pre, post, nest_models.rule(p), spec)
        return int(nest.num_connections - before)

    def _spike_device(self, population: Population) -> Any:
        device = self.nest.Create("spike_recorder")
        self.nest.Connect(self.nodes[population.index], device)
        return device

    def _multimeter(self, recorder: StateRecorder) -> Any:
        population = recorder.population
        assert population.model is not None
        assert recorder.neurons is not None
        known = nest_models.STATES[population.model.name]
        if recorder.state not in known:
            raise UnsupportedError(
                f"backend 'nest': state {recorder.state!r} of {population.model.name} is not recordable"
            )
        settings = {"interval": recorder.interval * self.h, "record_from": [known[recorder.state]]}
        device = self.nest.Create("multimeter", params=settings)
        self.nest.Connect(device, self.nodes[population.index][np.unique(recorder.neurons).tolist()])
        return device

    def run(self, duration_ms: float, progress: bool) -> RunReport:
        """Advance by ``duration_ms`` rounded to whole steps, in chunks."""
        if _kernel_owner[0] is not self:
            raise RuntimeError("backend 'nest': another network was built since; NEST holds one network per process")
        first, target = self.step, self.step + round(duration_ms / self.h)
        changes = sorted({to_step(float(t), self.h) for c in self.network.currents for t in c.times_ms})
        began, pieces = time.perf_counter(), max(1, round(_CHUNK_MS / self.h))
        with noted_interrupt() as interrupted:
            while self.step < target and not interrupted:
                self._set_currents(changes)
                stop = min([target, self.step + pieces, *(s for s in changes if s > self.step)])
                self.nest.Simulate((stop - self.step) * self.h)
                self.step = stop
                if progress:
                    print(f"\r{(self.step - first) * self.h:.0f} of {duration_ms:g} ms", end="", flush=True)
        seconds = time.perf_counter() - began
        counts = self._collect()
        total = sum(self.counts)
        events = sum(
            counts[p.pre.index] * n / p.pre.n for p, n in zip(self.network.projections, self.counts, strict=True)
        )
        return RunReport(
            duration_ms=(self.step - first) * self.h,
            run_s=seconds,
            build_s=self.build_s,
            compile_s=0.0,
            neurons=sum(p.n for p in self.network.populations),
            synapses=total,
            bytes_per_synapse=float("nan"),
            spikes={p.name: counts[p.index] for p in self.network.populations},
            synaptic_events=round(events),
            interrupted=bool(interrupted),
        )

    def _set_currents(self, changes: list[int]) -> None:
        if self.step not in changes and self.step != 0:
            return
        for population in {c.post.index: c.post for c in self.network.currents}.values():
            values = values_at(self.network, population, self.step, self.h)["I_e"]
            self.nodes[population.index].I_e = values.tolist() if np.ndim(values) else values

    def _collect(self) -> list[int]:
        """Hand new spikes and samples to the recorders; returns the spikes of each population."""
        counts = []
        for population, device in zip(self.network.populations, self.spike_devices, strict=True):
            events = device.events
            device.n_events = 0
            steps = np.rint(np.asarray(events["times"]) / self.h).astype(np.int64)
            ids = np.asarray(events["senders"], dtype=np.int64) - self._first_id(population)
            order = np.lexsort((ids, steps))
            for recorder in self.network.recorders:
                if recorder.population is population and not isinstance(recorder, StateRecorder):
                    recorder.take_spikes(steps[order], ids[order].astype(np.int32), self.step)
            counts.append(len(steps))
        recorders = [r for r in self.network.recorders if isinstance(r, StateRecorder)]
        for recorder, device in zip(recorders, self.state_devices, strict=True):
            self._collect_states(recorder, device)
        return counts

    def _collect_states(self, recorder: StateRecorder, device: Any) -> None:
        population = recorder.population
        assert population.model is not None
        assert recorder.neurons is not None
        events = device.events
        device.n_events = 0
        steps = np.rint(np.asarray(events["times"]) / self.h).astype(np.int64)
        ids = np.asarray(events["senders"], dtype=np.int64) - self._first_id(population)
        values = np.asarray(events[nest_models.STATES[population.model.name][recorder.state]])
        order = np.lexsort((ids, steps))
        unique = np.unique(recorder.neurons)
        table = values[order].reshape(-1, len(unique))
        recorder.take_samples(np.unique(steps), table[:, np.searchsorted(unique, recorder.neurons)])

    def _first_id(self, population: Population) -> int:
        return int(np.min(self.nodes[population.index].global_id))

    def state(self, population: Population, name: str) -> np.ndarray:
        """[n] a state in its unit."""
        known = nest_models.STATES[population.model.name] if population.model else {}
        if name not in known:
            raise unknown_name(f"state of {population.name} in NEST", name, known)
        return np.atleast_1d(np.asarray(self.nodes[population.index].get(known[name]), dtype=np.float64))

    def weights(self, projection: Projection) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
        """(pre, post, weight, delay_ms); plastic weights as of the last presynaptic spike, as NEST keeps them."""
        twins = [q for q in self.network.projections if q.pre is projection.pre and q.post is projection.post]
        model, _, _ = nest_models.synapse(projection)
        if model == "static_synapse" and len(twins) > 1:
            raise UnsupportedError(
                "backend 'nest': static projections between the same populations cannot be told apart"
            )
        name = model if model == "static_synapse" else f"{model}_{projection.index}"
        pre, post = self.nodes[projection.pre.index], self.nodes[projection.post.index]
        found = self.nest.GetConnections(pre, post, synapse_model=name)
        if not len(found):
            return np.zeros(0, int), np.zeros(0, int), np.zeros(0), np.zeros(0)
        values = found.get(["source", "target", "weight", "delay"])
        i = np.atleast_1d(values["source"]) - self._first_id(projection.pre)
        j = np.atleast_1d(values["target"]) - self._first_id(projection.post)
        order = np.lexsort((j, i))
        return i[order], j[order], np.atleast_1d(values["weight"])[order], np.atleast_1d(values["delay"])[order]

    def reward(self, projection: Projection, amount: float) -> None:
        """Not available."""
        raise UnsupportedError("backend 'nest': rewards are not expressed")

    def save(self, path: str) -> None:
        """Not available."""
        raise UnsupportedError("backend 'nest': save is not offered by NEST")

    def restore(self, path: str) -> None:
        """Not available."""
        raise UnsupportedError("backend 'nest': restore is not offered by NEST")
