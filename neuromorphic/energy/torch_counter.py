"""Counts a torch network while it runs: hooks on layers, and a dispatch mode for operations outside of layers."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from typing import Any, Literal

import torch
from torch import nn
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.utils._python_dispatch import TorchDispatchMode

from neuromorphic.energy import torch_layers as layers
from neuromorphic.energy.counts import ANALOG, INPUT, Events, Signal
from neuromorphic.energy.fanout import magnitudes, nonzeros
from neuromorphic.energy.neuron_kinds import NeuronKind, Spiking, membrane_of, neuron_kind, signals_of_conversions
from neuromorphic.energy.operations import count_operation
from neuromorphic.energy.propagation import CONSTANT, WEIGHT, Tag, Tags, summed, tag_of_result, tensors
from neuromorphic.energy.records import Layout, Records, Rows
from neuromorphic.energy.recurrent_cells import CELLS, count_cell
from snn.conversion.pooling import passes_maxima
from snn.errors import UnsupportedError
from snn.models.stack import Stack

_NEVER: tuple[type[nn.Module], ...] = (nn.RNNBase, nn.Bilinear, nn.EmbeddingBag, nn.MultiheadAttention)


class TorchCounter:
    """Hooks of one network.

    Args:
        network: whose calls are counted inside `counting`.
        spiking: further layers whose output is spikes, see `neuron_kinds`.
    """

    def __init__(self, network: nn.Module, spiking: Spiking = ()) -> None:
        self.network = network
        self.records = Records()
        self.tags = Tags()
        self.maps = layers.FanOuts()
        self.layout = Layout(1, 1)
        self._paths: list[
            tuple[str, dict[str, int]]
        ] = []  # modules that run now, and the operations of this call so far
        self._inside = 0  # layers that are counted as a whole and are running now
        self._kinds: dict[str, NeuronKind] = {}
        self._updated: set[str] = set()
        names = dict(network.named_modules())
        for unknown in [entry for entry in spiking if isinstance(entry, str) and entry not in names]:
            raise ValueError(f"count: spiking names no module {unknown!r}")
        declared = signals_of_conversions(names)
        self._parts_of_maxima = {
            f"{name}.{part}"
            for name, module in names.items()
            if passes_maxima(module)
            for part, _ in module.named_children()
        }
        for name, module in names.items():
            if kind := neuron_kind(module, name, spiking):
                self._kinds[name] = replace(kind, signal=declared[name]) if name in declared else kind
            elif isinstance(module, _NEVER):
                raise UnsupportedError(
                    f"count: {name!r} ({type(module).__name__}) runs in one call in which steps and samples cannot be "
                    "told apart; write it with cells (nn.RNNCell, nn.LSTMCell, nn.GRUCell), linear layers and products"
                )

    @contextmanager
    def counting(self, layout: Layout, x: torch.Tensor, signal: Signal) -> Iterator[None]:
        """Count every call of the network inside the block; x is its input."""
        self.layout = layout
        handles = []
        for name, module in self.network.named_modules():
            handles += self._hooks(name, module)
        for value in (*self.network.parameters(), *self.network.buffers()):
            self.tags.set(value, WEIGHT)
        self.tags.set(x, Tag(signal, (INPUT,)))
        try:
            # The fused attention kernel would hide its products; torch's fast path of encoder layers likewise.
            with sdpa_kernel(SDPBackend.MATH), _without_fast_path(), _Operations(self):
                yield
        finally:
            for handle in handles:
                handle.remove()
            self._paths.clear()
            self._inside = 0

    @contextmanager
    def at_root(self) -> Iterator[None]:
        """Within `counting`, count operations that run outside of every module's call as the network's own."""
        self._paths.append(("", {}))
        yield
        self._leave()

    def call_of_neurons(self) -> Literal["sequence", "step", "batch"]:
        """How a network with these neurons is called.

        Raises: ValueError if they disagree, or if their class does not say.
        """
        found = {kind.all_steps for kind in self._kinds.values() if kind.all_steps is not None}
        if len(found) == 2:
            raise ValueError("count: some neurons take all steps and some one step at a time; say call=...")
        if not found:
            # Our networks take [T, B, ...] whether they spike or not.
            return "sequence" if any(isinstance(module, Stack) for module in self.network.modules()) else "batch"
        return "sequence" if found.pop() else "step"

    @property
    def looks_inside(self) -> bool:
        """False while a layer runs that is counted as a whole, or outside of the network."""
        return self._inside == 0 and bool(self._paths)

    def _hooks(self, name: str, module: nn.Module) -> list[Any]:
        count = self._counter_of(name, module)
        if count is None:
            return [
                module.register_forward_pre_hook(lambda *_: self._paths.append((name, {})), prepend=True),
                module.register_forward_hook(lambda *_: self._leave()),
            ]
        calls: list[tuple[Tag, torch.Tensor | None]] = []
        kind = self._kinds.get(name)

        def enter(module: nn.Module, arguments: Any, given: dict[str, Any]) -> None:
            self._paths.append((name, {}))
            self._inside += 1
            membrane = membrane_of(module, kind) if kind else None
            calls.append((self._input_tag(arguments, given), None if membrane is None else membrane.detach().clone()))

        def leave(module: nn.Module, arguments: Any, given: dict[str, Any], output: Any) -> None:
            with torch.utils._python_dispatch._disable_current_modes():
                count(module, tensors((arguments, given)), output, *calls.pop())
            self._inside -= 1
            self._leave()

        return [
            module.register_forward_pre_hook(enter, prepend=True, with_kwargs=True),
            module.register_forward_hook(leave, with_kwargs=True),
        ]

    def label(self, operation: str) -> str:
        """The next name for an operation of the module that runs now."""
        path, used = self._paths[-1]
        used[operation] = used.get(operation, 0) + 1
        return f"{path}.{operation}{used[operation]}" if path else f"{operation}{used[operation]}"

    def _leave(self) -> None:
        self._paths.pop()

    def _input_tag(self, arguments: Any, given: Any) -> Tag:
        if self._inside > 1:
            # A connection inside a layer of neurons carries that layer's spikes of the step before.
            for path, _ in reversed(self._paths[:-1]):
                if path in self._kinds:
                    return Tag(self._kinds[path].signal, (path,))
        found = tensors((arguments, given))
        return self.tags.get(found[0]) if found else CONSTANT

    def _counter_of(self, name: str, module: nn.Module) -> Callable[..., None] | None:
        """The function that counts a call of this module as a whole; None for modules that are looked into."""
        if name in self._kinds:
            return lambda *call: self._neurons(name, *call)
        if isinstance(module, nn.Linear):
            return lambda *call: self._connection(layers.count_linear, name, *call)
        if isinstance(module, layers.CONVOLUTIONS):
            return lambda *call: self._connection(layers.count_conv, name, *call)
        if isinstance(module, CELLS):
            return lambda *call: self._cell(name, *call)
        if isinstance(module, layers.NORMS):
            return lambda *call: self._norm(name, *call)
        if name in self._parts_of_maxima:
            return lambda *call: None
        if isinstance(module, (*layers.AVERAGE_POOLS, *layers.ADAPTIVE_POOLS, *layers.MAX_POOLS)):
            return lambda *call: self._pool(name, *call)
        if passes_maxima(module):
            return lambda *call: self._maxima(name, *call)
        if isinstance(module, layers.ACTIVATIONS):
            return lambda *call: self._activation(name, *call)
        return None

    def _connection(
        self, count: Callable[..., None], name: str, module: nn.Module, x: list[Any], y: Any, tag: Tag, _: Any
    ) -> None:
        count(self.records, self.maps, name, module, x[0], y, tag, self.layout)
        self.tags.set(y, Tag(ANALOG, (name,)))

    def _cell(self, name: str, module: Any, x: list[torch.Tensor], y: Any, tag: Tag, _: Any) -> None:
        state = self.tags.get(x[1]) if len(x) > 1 else None
        count_cell(self.records, self.maps, name, module, x, tag, state, self.layout)
        self.tags.set_all(y, Tag(ANALOG, (name,)))

    def _norm(self, name: str, module: nn.Module, x: list[torch.Tensor], y: torch.Tensor, tag: Tag, _: Any) -> None:
        layers.count_norm(self.records, name, module, x[0], y, tag, self.layout)
        self.tags.set(y, Tag(ANALOG, (name,)))

    def _pool(self, name: str, module: nn.Module, x: list[torch.Tensor], y: torch.Tensor, tag: Tag, _: Any) -> None:
        sums = layers.count_pool(self.records, name, module, x[0], y, tag, self.layout)
        self.tags.set(y, Tag(summed(tag.signal or ANALOG, sums), (name,)))

    def _maxima(self, name: str, module: nn.Module, x: list[Any], y: torch.Tensor, tag: Tag, _: Any) -> None:
        layers.count_maxima(self.records, name, x[0], y, tag, self.layout)
        # The greatest sum of a window moves by no more than the greatest entry that came.
        self.tags.set(y, Tag(tag.signal or ANALOG, (name,)))

    def _activation(self, name: str, module: nn.Module, x: list[Any], y: torch.Tensor, tag: Tag, _: Any) -> None:
        layers.count_activation(self.records, name, x[0], y, tag, self.layout)
        signal = tag.signal if isinstance(module, nn.ReLU) and tag.signal else ANALOG
        self.tags.set(y, Tag(replace(signal, signed=False), (name,)))

    def _neurons(self, name: str, module: nn.Module, x: list[Any], output: Any, tag: Tag, before: Any) -> None:
        kind, y = self._kinds[name], tensors(output)[0]
        at = self.layout
        leading = y.shape[:2] if kind.all_steps else y.shape[:1] if kind.all_steps is False else y.shape[:-1]
        rows = at.rows(leading, name, may_hold_tokens=kind.all_steps is None)
        shape = tuple(y.shape[rows.axes :])
        per_step = y.numel() // (rows.steps * rows.samples)
        geometry = {
            "input_shape": shape,
            "output_shape": shape,
            "neuron_count": per_step,
            "state_variables": kind.state_variables,
            "neuron_model": kind.model,
            "leaky": kind.leaky,
            "hard_reset": kind.hard_reset,
            "output_signal": kind.signal,
        }
        spikes = nonzeros(y, rows.steps, rows.samples)
        graded = kind.signal.levels > 1
        self.records.of(name, "neuron", geometry).add(
            tag,
            output_events=spikes,
            output_magnitude=magnitudes(y, rows.steps, rows.samples, kind.unit)
            if graded
            else spikes * (kind.signal.levels == 1),
            neuron_updates=rows.every(per_step),
            membrane_changes=self._membrane_changes(name, module, before, rows, per_step),
        )
        self.tags.set_all(output, Tag(ANALOG, (name,)))
        self.tags.set(y, Tag(kind.signal, (name,)))

    def _membrane_changes(
        self, name: str, module: nn.Module, before: torch.Tensor | None, rows: Rows, per_step: int
    ) -> Events:
        after = membrane_of(module, self._kinds[name])
        if after is None or rows.steps != 1:
            return rows.every(0)
        if name not in self._updated or before is None or before.shape != after.shape:
            self._updated.add(name)
            return rows.every(per_step)  # every membrane is new in the first step
        return nonzeros(after - before, 1, rows.samples)


@contextmanager
def _without_fast_path() -> Iterator[None]:
    enabled = torch.backends.mha.get_fastpath_enabled()
    torch.backends.mha.set_fastpath_enabled(False)
    try:
        yield
    finally:
        torch.backends.mha.set_fastpath_enabled(enabled)


class _Operations(TorchDispatchMode):
    """Tags the result of every operation, and counts those that are not part of a counted layer."""

    def __init__(self, counter: TorchCounter) -> None:
        super().__init__()
        self.counter = counter

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        counter = self.counter
        out = func(*args, **(kwargs or {}))
        if not counter.looks_inside:
            counter.tags.forget(out, (args, kwargs))
            return out
        name = func._schema.name
        arguments = (*args, *(kwargs or {}).values())
        tag = count_operation(counter, name, args, out)
        if tag is None:
            tag = tag_of_result(counter.tags, name, arguments, out)
        counter.tags.set_all(out, tag)
        return out
