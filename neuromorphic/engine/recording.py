"""Recorders: spikes, states and rates, to memory or to HDF5 in chunks while the network runs."""

from __future__ import annotations

from abc import ABC, abstractmethod
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from neuromorphic.engine import checks

if TYPE_CHECKING:
    from neuromorphic.engine.network import Population


class Store:
    """Growing columns, in lists of chunks or in resizable HDF5 data sets (group = label)."""

    def __init__(self, file: str | None, label: str, columns: dict[str, tuple[type, int]]) -> None:
        self._columns = columns  # name -> (dtype, values per row; 0 for a plain column)
        self._chunks: dict[str, list[np.ndarray]] = {name: [] for name in columns}
        self._path = None if file is None else Path(file)
        self._label = label
        if self._path is not None:
            self._create()

    def _create(self) -> None:
        import h5py

        assert self._path is not None
        with h5py.File(self._path, "a") as file:
            if self._label in file:
                raise ValueError(f"record: {self._path} already holds {self._label!r}; choose another file or name")
            group = file.create_group(self._label)
            for name, (dtype, width) in self._columns.items():
                shape = (0, width) if width else (0,)
                limit = (None, width) if width else (None,)
                rows = max(1, 65536 // max(width, 1))
                group.create_dataset(name, shape, dtype, maxshape=limit, chunks=(rows, width) if width else (rows,))

    def append(self, **columns: np.ndarray) -> None:
        """Add rows to every column."""
        if not len(next(iter(columns.values()))):
            return
        if self._path is None:
            for name, values in columns.items():
                self._chunks[name].append(values.astype(self._columns[name][0]))
            return
        import h5py

        with h5py.File(self._path, "a") as file:
            for name, values in columns.items():
                data = file[self._label][name]
                data.resize(data.shape[0] + len(values), axis=0)
                data[-len(values) :] = values

    def read(self, name: str) -> np.ndarray:
        """The whole column."""
        dtype, width = self._columns[name]
        if self._path is not None:
            import h5py

            with h5py.File(self._path, "r") as file:
                return file[self._label][name][:]
        if not self._chunks[name]:
            return np.zeros((0, width) if width else 0, dtype=dtype)
        if len(self._chunks[name]) > 1:
            self._chunks[name] = [np.concatenate(self._chunks[name])]
        return self._chunks[name][0]


class Recorder(ABC):
    """What a backend feeds after each stretch of the run."""

    def __init__(self, population: Population, neurons: np.ndarray | None, dt_ms: float) -> None:
        self.population = population
        self.neurons = neurons  # None: all
        self.dt_ms = dt_ms

    @abstractmethod
    def take_spikes(self, steps: np.ndarray, ids: np.ndarray, until: int) -> None:
        """Spikes of the population (step, neuron), in order, up to and including step ``until``."""

    def _chosen(self, steps: np.ndarray, ids: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        if self.neurons is None:
            return steps, ids
        keep = np.isin(ids, self.neurons)
        return steps[keep], ids[keep]


class SpikeRecorder(Recorder):
    """Spikes of a population: ``times_ms`` [S] float64 and ``ids`` [S] int32, sorted by time, then neuron."""

    def __init__(self, population: Population, neurons: np.ndarray | None, dt_ms: float, file: str | None) -> None:
        super().__init__(population, neurons, dt_ms)
        self._store = Store(file, f"{population.name}/spikes", {"step": (np.int64, 0), "id": (np.int32, 0)})

    def take_spikes(self, steps: np.ndarray, ids: np.ndarray, until: int) -> None:
        steps, ids = self._chosen(steps, ids)
        self._store.append(step=steps, id=ids)

    @property
    def times_ms(self) -> np.ndarray:
        """[S] spike times."""
        return self._store.read("step") * self.dt_ms

    @property
    def steps(self) -> np.ndarray:
        """[S] spike times in grid steps."""
        return self._store.read("step")

    @property
    def ids(self) -> np.ndarray:
        """[S] neuron indices within the population."""
        return self._store.read("id")


class RateRecorder(Recorder):
    """Mean rate per window: ``times_ms`` [W] ends of the windows, ``values`` [W] in Hz; complete windows only."""

    def __init__(
        self,
        population: Population,
        neurons: np.ndarray | None,
        dt_ms: float,
        window_ms: float | None,
        file: str | None,
    ) -> None:
        super().__init__(population, neurons, dt_ms)
        if window_ms is None:
            raise ValueError("record: a rate needs window_ms")
        checks.positive("record", "window_ms", window_ms)
        self.window = max(1, round(window_ms / dt_ms))
        self._size = population.n if neurons is None else len(np.unique(neurons))
        self._open = 0  # spikes of the window under way
        self._closed = 0  # complete windows
        self._store = Store(file, f"{population.name}/rate", {"window": (np.int64, 0), "rate_hz": (np.float64, 0)})

    def take_spikes(self, steps: np.ndarray, ids: np.ndarray, until: int) -> None:
        steps, _ = self._chosen(steps, ids)
        complete = until // self.window
        counts = np.bincount((steps - 1) // self.window - self._closed, minlength=complete - self._closed + 1)
        counts[0] += self._open
        new = np.arange(self._closed, complete)
        rate = counts[: len(new)] / (self._size * self.window * self.dt_ms * 1e-3)
        self._store.append(window=new + 1, rate_hz=rate)
        self._open = int(counts[len(new)])
        self._closed = complete

    def resume(self, step: int, open_count: int) -> None:
        """Continue at a restored step with ``open_count`` spikes in the window under way."""
        self._closed, self._open = step // self.window, open_count

    @property
    def open_count(self) -> int:
        """Spikes of the window under way."""
        return self._open

    @property
    def times_ms(self) -> np.ndarray:
        """[W] end of each window."""
        return self._store.read("window") * (self.window * self.dt_ms)

    @property
    def values(self) -> np.ndarray:
        """[W] rate in Hz."""
        return self._store.read("rate_hz")


class StateRecorder(Recorder):
    """A state at multiples of an interval: ``times_ms`` [K], ``values`` [K, neurons] in the state's unit."""

    def __init__(
        self,
        population: Population,
        neurons: np.ndarray | None,
        dt_ms: float,
        state: str,
        interval_ms: float | None,
        file: str | None,
    ) -> None:
        super().__init__(population, np.arange(population.n) if neurons is None else neurons, dt_ms)
        interval = dt_ms if interval_ms is None else interval_ms
        checks.positive("record", "interval_ms", interval)
        self.interval = round(interval / dt_ms)
        if self.interval < 1 or abs(self.interval * dt_ms - interval) > 1e-6 * interval:
            raise ValueError(f"record: interval_ms must be a multiple of dt_ms = {dt_ms:g} ms, got {interval:g}")
        self.state = state
        assert self.neurons is not None
        columns: dict[str, tuple[type, int]] = {"step": (np.int64, 0), "value": (np.float64, len(self.neurons))}
        self._store = Store(file, f"{population.name}/{state}", columns)

    def take_spikes(self, steps: np.ndarray, ids: np.ndarray, until: int) -> None:
        """Spikes are of no interest to this recorder."""

    def take_samples(self, steps: np.ndarray, values: np.ndarray) -> None:
        """values [K, neurons] at the given steps."""
        self._store.append(step=steps, value=values)

    @property
    def times_ms(self) -> np.ndarray:
        """[K] sample times."""
        return self._store.read("step") * self.dt_ms

    @property
    def values(self) -> np.ndarray:
        """[K, neurons] samples."""
        return self._store.read("value")


def labels_of(recorders: list[Any]) -> list[str]:
    """Class and population of each recorder, for messages and saved states."""
    return [f"{type(r).__name__}:{r.population.name}" for r in recorders]
