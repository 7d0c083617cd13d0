"""Description of a network: populations, projections, stimuli, recorders; a backend builds and runs it."""

from __future__ import annotations

import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Protocol

import numpy as np

from neuromorphic.engine import checks
from neuromorphic.engine.connectivity import Explicit, OneToOne, Rule, as_rule, from_sparse
from neuromorphic.engine.distributions import Distribution
from neuromorphic.engine.errors import unknown_name
from neuromorphic.engine.models import MODELS, NeuronModel
from neuromorphic.engine.plasticity import Plasticity, ShortTermPlasticity
from neuromorphic.engine.recording import RateRecorder, Recorder, SpikeRecorder, StateRecorder
from neuromorphic.engine.report import RunReport

SOURCES = ("poisson", "spike_list")


@dataclass(eq=False)
class Population:
    """n neurons of one model, or n spike sources ("poisson", "spike_list"), made by ``Network.population``."""

    name: str
    index: int
    n: int
    model: NeuronModel | None
    values: dict[str, Any]
    initial: dict[str, Any]
    source: str | None = None
    positions_um: np.ndarray | None = None  # [n, 3]

    def __repr__(self) -> str:
        return f"Population({self.name!r}, {self.model.name if self.model else self.source}, n={self.n})"


@dataclass(eq=False)
class Projection:
    """Synapses from one population to another, made by ``Network.connect``."""

    index: int
    pre: Population
    post: Population
    rule: Rule
    weight: Any
    delay_ms: Any
    receptor: str | None
    plasticity: Plasticity | ShortTermPlasticity | None


@dataclass(frozen=True, eq=False)
class PoissonDrive:
    """Independent Poisson trains onto neurons low..high-1 of a population, from start_ms (included) to stop_ms."""

    post: Population
    rate_hz: float
    weight: float
    receptor: str | None
    low: int
    high: int
    start_ms: float
    stop_ms: float


@dataclass(frozen=True, eq=False)
class StepCurrent:
    """Added to I_e of the chosen neurons: amplitude k from times_ms[k] to times_ms[k + 1]."""

    post: Population
    times_ms: np.ndarray
    amplitudes: np.ndarray
    low: int
    high: int


class Simulation(Protocol):
    """What a backend offers to ``Network``."""

    def run(self, duration_ms: float, progress: bool) -> RunReport: ...

    def state(self, population: Population, name: str) -> np.ndarray: ...

    def weights(self, projection: Projection) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]: ...

    def reward(self, projection: Projection, amount: float) -> None: ...

    def save(self, path: str) -> None: ...

    def restore(self, path: str) -> None: ...


def _is_declaration(model: Any) -> bool:
    """Whether ``model`` was declared with `snn.neuron_model`; never imports the learning package."""
    module = sys.modules.get("snn.declaration")
    return module is not None and isinstance(model, module.NeuronModel)


@dataclass(eq=False)
class Network:
    """A network of point neurons on a time grid.

    Args:
        dt_ms: grid step h.
        seed: every random number of the network follows from it; the number of threads does not matter.
        threads: worker threads; None takes the cores of the machine for networks of 20,000 neurons or more, else 1.
        backend: "numba" (this package) or "nest" (an installed NEST simulator).
        dtype: "float32" or "float64", states, weights and input sums of the numba backend.

    >>> net = Network(seed=1)
    >>> cell = net.population("iaf_psc_delta", 1, tau_m=20.0, C_m=1.0, E_L=0.0, V_th=20.0, V_reset=10.0, I_e=1.25)
    >>> spikes = net.record(cell, "spikes")
    >>> report = net.run(80.0)
    >>> spikes.times_ms.round(1).tolist()
    [32.2, 48.2, 64.2]
    """

    dt_ms: float = 0.1
    seed: int = 1
    threads: int | None = None
    backend: str = "numba"
    dtype: str = "float32"
    populations: list[Population] = field(default_factory=list, init=False)
    projections: list[Projection] = field(default_factory=list, init=False)
    drives: list[PoissonDrive] = field(default_factory=list, init=False)
    currents: list[StepCurrent] = field(default_factory=list, init=False)
    recorders: list[Recorder] = field(default_factory=list, init=False)
    _simulation: Simulation | None = field(default=None, init=False)

    def __post_init__(self) -> None:
        checks.positive("Network", "dt_ms", self.dt_ms)
        checks.count("Network", "seed", self.seed, low=0)
        if self.threads is not None:
            checks.count("Network", "threads", self.threads, low=1)
        checks.choice("backend", self.backend, ("numba", "nest"))
        checks.choice("dtype", self.dtype, ("float32", "float64"))

    def population(
        self,
        model: Any,
        n: int,
        *,
        name: str | None = None,
        initial: Mapping[str, Any] | None = None,
        positions_um: Any = None,
        **parameters: Any,
    ) -> Population:
        """Add n neurons.

        Args:
            model: a name of ``MODELS``, a `NeuronModel` or a neuron declared with `snn.neuron_model`; "poisson" (parameter
                rate_hz: each source fires at most once per step) or "spike_list" (parameters times_ms and ids: spikes to
                emit, times rounded to the grid).
            n: number of neurons, >= 1.
            name: label in results; default "model_index".
            initial: first value of states by name: a number, an array [n] or a distribution, in the state's unit.
            positions_um: [n, 3] or [n, 2], for distance-dependent connections.
            parameters: numbers or arrays [n], in the units of the model.
        """
        self._open("population")
        checks.count("population", "n", n, low=1)
        label = name or f"{model if isinstance(model, str) else model.name}_{len(self.populations)}"
        if any(p.name == label for p in self.populations):
            raise ValueError(f"population: name {label!r} is taken")
        positions = None if positions_um is None else checks.positions(positions_um, n)
        if isinstance(model, str) and model in SOURCES:
            if initial:
                raise ValueError(f"population: {model} has no state, got initial for {sorted(initial)}")
            values = checks.source_values(model, parameters, n, self.dt_ms)
            population = Population(label, len(self.populations), n, None, values, {}, model, positions)
        else:
            if _is_declaration(model):
                from neuromorphic.engine.models.declared import from_declaration

                model, parameters = from_declaration(model, parameters)
            description = model if isinstance(model, NeuronModel) else MODELS.get(model)
            if description is None:
                raise unknown_name("neuron model", model, (*MODELS, *SOURCES))
            values = description.check_values(parameters, n)
            start = checks.initial_values(description, initial or {}, n)
            population = Population(label, len(self.populations), n, description, values, start, None, positions)
        self.populations.append(population)
        return population

    def connect(
        self,
        pre: Population,
        post: Population,
        rule: Any = "all_to_all",
        weight: Any = None,
        delay_ms: Any = None,
        plasticity: Plasticity | ShortTermPlasticity | None = None,
        receptor: str | None = None,
    ) -> Projection:
        """Add synapses from pre to post.

        Args:
            rule: see `connectivity`; a SciPy sparse matrix [n_pre, n_post] gives synapses and weights.
            weight: number, distribution or array aligned with an explicit rule, in the unit of the receiving model
                (mV for delta synapses, pA for currents, nS for conductances).
            delay_ms: number, distribution or array, at least dt_ms, rounded to the grid (ties upward). Draws below
                dt_ms/2 are repeated.
            plasticity: rule of `plasticity`, None for static synapses.
            receptor: name of the input channel; None: the sign of each weight decides where there is "ex" and "in".
        """
        self._open("connect")
        for label, population in (("pre", pre), ("post", post)):
            if population not in self.populations:
                raise ValueError(f"connect: {label} must be a population of this network, got {population!r}")
        if post.model is None:
            raise ValueError(f"connect: post {post.name!r} is a spike source and takes no input")
        if hasattr(rule, "tocoo"):
            if weight is not None:
                raise ValueError("connect: a sparse matrix brings its weights; weight must be None")
            rule, weight = from_sparse(rule, pre.n, post.n)
        rule = as_rule(rule)
        rule, weight, delay_ms = self._aligned(rule, pre, post, weight, delay_ms)
        checks.rule_fits(rule, pre, post)
        checks.weight(weight, post.model, receptor)
        checks.delay(delay_ms, self.dt_ms)
        if receptor is not None and receptor not in post.model.receptors:
            raise unknown_name(f"receptor of {post.model.name}", receptor, post.model.receptors)
        if plasticity is not None and not isinstance(plasticity, Plasticity | ShortTermPlasticity):
            raise TypeError(f"connect: plasticity must be a rule of the plasticity module, got {plasticity!r}")
        projection = Projection(len(self.projections), pre, post, rule, weight, delay_ms, receptor, plasticity)
        self.projections.append(projection)
        return projection

    def drive_poisson(
        self,
        post: Population,
        rate_hz: float,
        weight: float,
        *,
        receptor: str | None = None,
        neurons: slice | None = None,
        start_ms: float = 0.0,
        stop_ms: float = np.inf,
    ) -> PoissonDrive:
        """Give every chosen neuron its own Poisson train of ``rate_hz`` with ``weight`` (several events may share a step)."""
        self._open("drive_poisson")
        model = checks.driven_model("drive_poisson", post, self.populations)
        checks.positive("drive_poisson", "rate_hz", rate_hz, zero=True)
        checks.weight(weight, model, receptor)
        if isinstance(weight, Distribution) or np.ndim(weight):
            raise TypeError("drive_poisson: weight must be one number")
        if receptor is not None and receptor not in model.receptors:
            raise unknown_name(f"receptor of {model.name}", receptor, model.receptors)
        low, high = checks.contiguous("drive_poisson", neurons, post.n)
        drive = PoissonDrive(post, float(rate_hz), float(weight), receptor, low, high, start_ms, stop_ms)
        self.drives.append(drive)
        return drive

    def drive_current(
        self, post: Population, times_ms: Any, amplitudes: Any, *, neurons: slice | None = None
    ) -> StepCurrent:
        """Add amplitude k to I_e of the chosen neurons from times_ms[k] on (grid points, increasing)."""
        self._open("drive_current")
        model = checks.driven_model("drive_current", post, self.populations)
        if "I_e" not in model.parameters:
            raise ValueError(f"drive_current: {model.name} has no parameter I_e")
        times, values = checks.step_function(times_ms, amplitudes)
        low, high = checks.contiguous("drive_current", neurons, post.n)
        current = StepCurrent(post, times, values, low, high)
        self.currents.append(current)
        return current

    def record(
        self,
        population: Population,
        what: str = "spikes",
        *,
        neurons: Sequence[int] | None = None,
        interval_ms: float | None = None,
        window_ms: float | None = None,
        file: str | None = None,
    ) -> Any:
        """Record "spikes", "rate" (per ``window_ms``) or a state (at multiples of ``interval_ms``) of a population.

        Args:
            neurons: indices; None records all.
            file: HDF5 file to which the data go in chunks during the run; None keeps them in memory.
        Returns:
            the recorder: ``times_ms`` and ``ids`` for spikes, ``times_ms`` and ``values`` otherwise.
        """
        self._open("record")
        if population not in self.populations:
            raise ValueError(f"record: population must belong to this network, got {population!r}")
        chosen = None if neurons is None else checks.indices("record", neurons, population.n)
        recorder: Recorder
        if what == "spikes":
            recorder = SpikeRecorder(population, chosen, self.dt_ms, file)
        elif what == "rate":
            recorder = RateRecorder(population, chosen, self.dt_ms, window_ms, file)
        else:
            names = population.model.states if population.model else {}
            if what not in names:
                raise unknown_name(f"quantity of {population.name}", what, ("spikes", "rate", *names))
            recorder = StateRecorder(population, chosen, self.dt_ms, what, interval_ms, file)
        self.recorders.append(recorder)
        return recorder

    def build(self) -> Network:
        """Generate the synapses now; ``run`` does it by itself."""
        if self._simulation is None:
            if not self.populations:
                raise ValueError("Network: it has no population")
            if self.backend == "nest":
                from neuromorphic.engine.nest_backend import NestSimulation

                self._simulation = NestSimulation(self)
            else:
                from neuromorphic.engine.simulation import NumbaSimulation

                self._simulation = NumbaSimulation(self)
        return self

    def run(self, duration_ms: float, *, progress: bool = False) -> RunReport:
        """Advance the network; builds it first. Ctrl-C ends the run at the last whole chunk and keeps what was recorded."""
        checks.positive("run", "duration_ms", duration_ms, zero=True)
        return self._built().run(duration_ms, progress)

    def state(self, population: Population, name: str) -> np.ndarray:
        """Current value of a state [n] in its unit."""
        return self._built().state(population, name)

    def synapses(self, projection: Projection) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
        """(pre, post, weight, delay_ms) of every synapse, plastic weights brought up to the current time."""
        return self._built().weights(projection)

    def reward(self, projection: Projection, amount: float) -> None:
        """Deliver a reward to a projection with `RewardSTDP` at the current time."""
        checks.number("reward", "amount", amount)
        self._built().reward(projection, amount)

    def save(self, path: str) -> None:
        """Write the whole dynamic state to an HDF5 file; a network of the same description restores it."""
        self._built().save(path)

    def restore(self, path: str) -> None:
        """Continue from a saved state; the description (sizes, parameters, seed, dt) must be the same."""
        self._built().restore(path)

    def _built(self) -> Simulation:
        self.build()
        assert self._simulation is not None
        return self._simulation

    def _open(self, action: str) -> None:
        if self._simulation is not None:
            raise RuntimeError(f"{action}: the network is already built; describe it completely before the first run")

    def _aligned(
        self, rule: Rule, pre: Population, post: Population, weight: Any, delay_ms: Any
    ) -> tuple[Rule, Any, Any]:
        """Turn rules with arrays of weights or delays into explicit lists of synapses with aligned arrays."""
        if weight is None or delay_ms is None:
            raise ValueError(f"connect: {'weight' if weight is None else 'delay_ms'} is missing")
        arrays = {k: np.asarray(v) for k, v in (("weight", weight), ("delay_ms", delay_ms)) if np.ndim(v)}
        if not arrays:
            return rule, weight, delay_ms
        if isinstance(rule, Explicit):
            shape: tuple[int, ...] = (len(rule._pre),)
        elif isinstance(rule, OneToOne):
            shape, rule = (pre.n,), Explicit(np.arange(pre.n), np.arange(pre.n))
        elif rule == as_rule("all_to_all"):
            shape = (pre.n, post.n)
            rule = Explicit(np.repeat(np.arange(pre.n), post.n), np.tile(np.arange(post.n), pre.n))
        else:
            raise ValueError(
                f"connect: an array of {next(iter(arrays))} needs an explicit, one_to_one or all_to_all rule"
            )
        for label, array in arrays.items():
            if array.shape != shape:
                raise ValueError(f"connect: {label} must have shape {shape}, got {array.shape}")
        flat = {label: array.reshape(-1) for label, array in arrays.items()}
        return rule, flat.get("weight", weight), flat.get("delay_ms", delay_ms)
