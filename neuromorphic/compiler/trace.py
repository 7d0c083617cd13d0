"""From a torch module to the graph of its layers, by running it once and watching.

The module runs on one time step of a batch of two. Modules of `layer_table.MODULES` and neurons are recorded as layers;
all other modules are followed into their `forward`, whose tensor functions are recorded too. So any Python code may
stand around the layers, and shapes come from torch itself.
"""

from __future__ import annotations

import copy
import sys
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from math import prod
from pathlib import Path
from typing import Any

import torch
from spikingjelly.activation_based.base import MemoryModule
from torch import nn
from torch.overrides import TorchFunctionMode

import snn
from neuromorphic.compiler.functions import ARITHMETIC, IGNORED, MOVES, UNCHANGED, arithmetic, moved, over_time
from neuromorphic.compiler.graph import Add, Input, Layer, LayerGraph, Op, OverTime, Shape, Take
from neuromorphic.compiler.layer_table import builder, linear_form
from neuromorphic.compiler.neurons import is_neuron
from neuromorphic.compiler.nir_layers import Late
from snn.errors import ShapeError, UnsupportedError
from snn.neurons.recurrent import RecurrentLIF

SAMPLES = 2  # a second sample shows which dimension is the batch
_OURS = (Path(__file__).parents[1], Path(snn.__file__).parent)
_CONTAINERS = ("Sequential", "ModuleList", "ModuleDict", "SeqToANNContainer", "MultiStepContainer", "StepModeContainer")


@dataclass
class Value:
    """A tensor of the run: the layer that made it, and whether it still has its time dimension."""

    layer: str
    in_time: bool
    tensor: torch.Tensor  # kept alive, since tensors are known by their id


@dataclass
class _Recording:
    """Layers so far, and the tensors that stand for them."""

    layers: dict[str, Layer] = field(default_factory=dict)
    values: dict[int, Value] = field(default_factory=dict)
    path: list[str] = field(default_factory=list)  # names of the modules whose forward is running
    reshaping: set[str] = field(default_factory=set)  # names of Flatten modules
    depth: int = 0  # inside so many recorded modules, whose own functions are not looked at

    def add(self, op: Op, inputs: tuple[str, ...], shape: Shape, hint: str, late: frozenset[str] = frozenset()) -> str:
        name, number = hint, 1
        while name in self.layers:
            number += 1
            name = f"{hint}#{number}"
        self.layers[name] = Layer(name, op, inputs, shape, late, user_line())
        return name

    def mark(self, tensor: torch.Tensor, layer: str, in_time: bool) -> None:
        self.values[id(tensor)] = Value(layer, in_time, tensor)

    def known(self, item: Any) -> Value | None:
        return self.values.get(id(item)) if isinstance(item, torch.Tensor) else None

    def features(self, value: Value) -> Shape:
        return self.layers[value.layer].shape

    @property
    def here(self) -> str:
        return self.path[-1] if self.path else "network"

    def hint(self, function: str) -> str:
        """What to call the layer of a function: after a module that does nothing else, or after both."""
        return self.here if self.here in self.reshaping else f"{self.here}.{function.strip('_')}"


def layer_graph(module: nn.Module, example_input: torch.Tensor, time_first: bool | None = None) -> LayerGraph:
    """The layers of a torch network and how they are wired.

    Args:
        module: a network of ours or SpikingJelly's; it is copied, not changed.
        example_input: [T, B, ...] for a network over sequences, [B, ...] for one over single steps; the module's dtype.
        time_first: which of the two; None looks at the step mode of the neurons.
    Raises:
        UnsupportedError: a layer or function that has no event form, by its name and line.
        ShapeError: a tensor of another layout.
    """
    if not isinstance(example_input, torch.Tensor) or not example_input.is_floating_point():
        raise TypeError(f"example_input must be a floating-point tensor, got {_kind(example_input)}")
    time_first = runs_over_time(module) if time_first is None else time_first
    least = 3 if time_first else 2
    if example_input.dim() < least or example_input.numel() == 0:
        form = "[T, B, ...]" if time_first else "[B, ...]"
        raise ShapeError(f"example_input must be {form}, got shape {tuple(example_input.shape)}")
    network = fresh_copy(module)
    step = example_input[0] if time_first else example_input
    step = step[:1].expand(SAMPLES, *step.shape[1:])
    x = (step.unsqueeze(0) if time_first else step).detach().clone()

    recording = _Recording()
    recording.mark(x, recording.add(Input(), (), tuple(step.shape[1:]), "input"), time_first)
    with torch.no_grad(), _watched(network, recording), _Functions(recording):
        y = network(x)
    value = recording.known(y)
    if value is None:
        raise UnsupportedError(
            f"the network must return one tensor made from its input, it returned {_kind(y)}"
            + (" of unknown origin" if isinstance(y, torch.Tensor) else "")
        )
    reduces = isinstance(recording.layers[value.layer].op, OverTime)
    if time_first and not value.in_time and not reduces:
        raise UnsupportedError(
            "the network returns one step for a sequence; return the sequence [T, B, ...], its mean(0) or its sum(0)"
        )
    return LayerGraph(_needed(recording.layers, value.layer), value.layer, time_first)


def runs_over_time(module: nn.Module) -> bool:
    """True if the network takes sequences [T, B, ...]: its neurons are in step mode "m", or it says `time_first`.

    Raises:
        ValueError: neurons of both step modes.
    """
    declared = getattr(module, "time_first", None)
    if isinstance(declared, bool):
        return declared
    modes = {getattr(layer, "step_mode", None) for layer in module.modules() if is_neuron(layer)}
    if modes == {"s", "m"}:
        raise ValueError("the network has neurons in both step modes; use functional.set_step_mode(net, 'm')")
    if modes == {"s"}:
        return any(type(layer).__name__ == "MultiStepContainer" for layer in module.modules())
    return True


def fresh_copy(module: nn.Module) -> nn.Module:
    """A copy on the CPU in evaluation mode, with all states reset."""
    copied: nn.Module = copy.deepcopy(module, _without_states(module)).cpu().eval()
    for layer in copied.modules():
        if isinstance(layer, MemoryModule):
            layer.reset()
    return copied


def _without_states(module: nn.Module) -> dict[int, Any]:
    """What `deepcopy` must not copy: states, which may be part of an autograd graph and are reset anyway."""
    tensors: dict[int, Any] = {}
    for layer in module.modules():
        if isinstance(layer, MemoryModule):
            held = [value for value in layer._memories.values() if isinstance(value, torch.Tensor)]
            tensors |= {id(value): value.detach() for value in held}
            sequence = getattr(layer, "v_seq", None)
            if isinstance(sequence, torch.Tensor):
                tensors[id(sequence)] = None
    return tensors


class _Functions(TorchFunctionMode):
    """Records the tensor functions that run outside recorded modules."""

    def __init__(self, recording: _Recording) -> None:
        super().__init__()
        self.recording = recording

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs = kwargs or {}
        if self.recording.depth:
            return func(*args, **kwargs)
        name = getattr(func, "__name__", str(func))
        sources = [value for item in _flat((args, kwargs)) if (value := self.recording.known(item)) is not None]
        result = func(*args, **kwargs)
        if sources and name == "__iter__":
            result = tuple(result)
            self._record(name, lambda x: x.unbind(0), args, kwargs, sources, result)
            return iter(result)
        if sources:
            self._record(name, func, args, kwargs, sources, result)
        return result

    def _record(self, name: str, func: Any, args: Any, kwargs: Any, sources: list[Value], result: Any) -> None:
        recording = self.recording
        if name in IGNORED:
            return
        made = [item for item in _flat(result) if isinstance(item, torch.Tensor)]
        if not made:
            if name in ("item", "__bool__", "__float__", "__int__", "tolist", "numpy", "equal"):
                raise UnsupportedError(f"{_place(recording)}: {name} makes the network depend on the data")
            return
        if any(isinstance(recording.layers[source.layer].op, OverTime) for source in sources):
            raise UnsupportedError(f"{_place(recording)}: {name} after the sum or mean over time is not supported")
        if name in UNCHANGED:
            recording.mark(made[0], sources[0].layer, sources[0].in_time)
            return
        reduced = over_time(name, args, kwargs, sources[0].in_time) if len(sources) == 1 else None
        if reduced is not None:
            layer = recording.add(reduced, (sources[0].layer,), recording.features(sources[0]), recording.hint(name))
            recording.mark(made[0], layer, False)
            return
        if name in ARITHMETIC:
            self._arithmetic(name, args, sources, made[0])
            return
        if name not in MOVES:
            raise UnsupportedError(f"{_place(recording)}: {name} has no event form")
        for number, (index, in_time, shape) in enumerate(self._moves(name, func, args, kwargs, sources, len(made))):
            names = tuple(source.layer for source in sources)
            layer = recording.add(Take(index), names, shape, recording.hint(name))
            recording.mark(made[number], layer, in_time)

    def _moves(self, name: str, func: Any, args: Any, kwargs: Any, sources: list[Value], count: int) -> list[Any]:
        shapes = [(tuple(source.tensor.shape), prod(self.recording.features(source))) for source in sources]
        tensors = [source.tensor for source in sources]
        with torch._C.DisableTorchFunction():
            found = moved(func, args, kwargs, tensors, shapes)
        if isinstance(found, str) or len(found) != count:
            reason = found if isinstance(found, str) else "it returns tensors of unknown origin"
            raise UnsupportedError(f"{_place(self.recording)}: {name} has no event form ({reason})")
        return found

    def _arithmetic(self, name: str, args: Any, sources: list[Value], result: torch.Tensor) -> None:
        recording = self.recording
        operands = [value if (value := recording.known(item)) is not None else item for item in args]
        if len({source.in_time for source in sources}) > 1 or len(operands) < 2:
            raise UnsupportedError(f"{_place(recording)}: {name} mixes a sequence with a single step")
        shapes = {recording.features(source) for source in sources}
        if len(shapes) > 1:
            raise UnsupportedError(f"{_place(recording)}: {name} of features {sorted(shapes)} would broadcast")
        shape = shapes.pop()
        steps = arithmetic(name, operands, shape, sources[0].in_time, _place(recording))
        inputs = tuple(value.layer for value in operands if isinstance(value, Value))
        hint = recording.hint(name)
        scaled = [
            layer if op is None else recording.add(op, (layer,), shape, hint)
            for layer, op in zip(inputs, steps, strict=True)
        ]
        layer = recording.add(Add(), tuple(scaled), shape, hint) if len(scaled) > 1 else scaled[0]
        recording.mark(result, layer, sources[0].in_time)


@contextmanager
def _watched(network: nn.Module, recording: _Recording) -> Iterator[None]:
    """Hooks on every module: names of what runs, recorded modules, refusal of unknown ones."""
    handles = []
    for name, module in network.named_modules():
        if name and isinstance(module, nn.Flatten | nn.Unflatten):
            recording.reshaping.add(name)
        handles.append(module.register_forward_pre_hook(_before(name, recording), with_kwargs=True))
        handles.append(module.register_forward_hook(_after(name, recording), with_kwargs=True))
    try:
        yield
    finally:
        for handle in handles:
            handle.remove()


def _before(name: str, recording: _Recording) -> Any:
    def hook(module: nn.Module, args: Any, kwargs: Any) -> None:
        if recording.depth == 0:
            if name:
                recording.path.append(name)
            if builder(module) is None and _is_opaque(module):
                at = f" (at {line})" if (line := user_line()) else ""
                raise UnsupportedError(f"layer {name!r}{at}: {type(module).__name__} has no event form")
        if recording.depth or builder(module) is not None:
            recording.depth += 1

    return hook


def _after(name: str, recording: _Recording) -> Any:
    def hook(module: nn.Module, args: Any, kwargs: Any, output: Any) -> None:
        if recording.depth:
            recording.depth -= 1
        if recording.depth == 0:
            if builder(module) is not None:
                _record_module(module, name or "network", args, output, recording)
            if name:
                recording.path.pop()

    return hook


def _is_opaque(module: nn.Module) -> bool:
    """True for a library module that computes something of its own."""
    if isinstance(module, nn.Flatten | nn.Unflatten) or type(module).__name__ in _CONTAINERS:
        return False
    return isinstance(module, MemoryModule) or type(module).__module__.startswith(("torch.nn.", "spikingjelly."))


def _record_module(module: nn.Module, name: str, args: Any, output: Any, recording: _Recording) -> None:
    value = recording.known(args[0]) if args else None
    if value is None:
        return
    result = output[0] if isinstance(output, tuple) else output
    if not isinstance(result, torch.Tensor):
        raise UnsupportedError(f"layer {name!r}: it must return a tensor, got {_kind(output)}")
    shape = recording.features(value)
    mode = getattr(module, "step_mode", None)
    if is_neuron(module):
        if name in recording.layers:
            raise UnsupportedError(f"layer {name!r}: neurons that are called twice in one step are not supported")
        if mode != ("m" if value.in_time else "s"):
            raise UnsupportedError(
                f"layer {name!r}: step mode {mode!r} on {'a sequence' if value.in_time else 'a single step'}"
            )
    build = builder(module)
    assert build is not None
    built = build(module, shape, name)
    lead = result.dim() - len(built.shape)
    if tuple(result.shape[lead:]) != built.shape or lead != (2 if value.in_time else 1):
        raise ShapeError(f"layer {name!r}: input {tuple(args[0].shape)} is not laid out as the layer expects")
    source = value.layer
    if isinstance(module, RecurrentLIF):
        feedback = linear_form(module.recurrent, shape, f"{name}.recurrent")
        back = recording.add(feedback.op, (name,), shape, f"{name}.recurrent", frozenset({name}))
        source = recording.add(Add(), (source, back), shape, f"{name}.input")
    late: frozenset[str] = frozenset()
    if isinstance(module, Late):
        source = name[: name.rindex("late.")] + module.source
        late = frozenset({source})
    layer = recording.add(built.op, (source,), built.shape, name, late)
    recording.mark(result, layer, value.in_time)


def _needed(layers: Mapping[str, Layer], output: str) -> dict[str, Layer]:
    """The layers that the output depends on, in order; the input always."""
    wanted, stack = set(), [output]
    while stack:
        name = stack.pop()
        if name not in wanted:
            wanted.add(name)
            stack.extend(layers[name].inputs)
    return {name: layer for name, layer in layers.items() if name in wanted or isinstance(layer.op, Input)}


def user_line() -> str:
    """file:line of the innermost frame outside torch, SpikingJelly and this package; "" if there is none."""
    frame = sys._getframe(1)
    while frame := frame.f_back:  # type: ignore[assignment]
        file = Path(frame.f_code.co_filename)
        inside = {"torch", "spikingjelly"}.intersection(file.parts) or any(folder in file.parents for folder in _OURS)
        if not inside and isinstance(frame.f_locals.get("self"), nn.Module):
            return f"{file.name}:{frame.f_lineno}"
    return ""


def _place(recording: _Recording) -> str:
    line = user_line()
    return f"in {recording.here!r}" + (f" (at {line})" if line else "")


def _flat(item: Any) -> Iterator[Any]:
    if isinstance(item, tuple | list):
        for part in item:
            yield from _flat(part)
    elif isinstance(item, dict):
        yield from _flat(list(item.values()))
    else:
        yield item


def _kind(item: Any) -> str:
    return f"a {item.dtype} tensor" if isinstance(item, torch.Tensor) else f"a {type(item).__name__}"
