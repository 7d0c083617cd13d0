"""Generates the module of an event network: one update per kind of neurons, and the loop over steps and instructions.

The update is the declared scalar step, written by the same emitter as the kernels of the torch layers, so that both
round alike. The text is a readable file in the kernel cache; Numba keeps its compiled code beside it.
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from types import ModuleType

from neuromorphic.compiler.graph import Fire
from neuromorphic.compiler.kernels.machine import NEURON, OWN
from neuromorphic.compiler.lazy import POWERS
from neuromorphic.compiler.neurons import fires_binary
from snn.kernels.cpu_source import numba_dialect
from snn.kernels.emit import Emitter
from snn.kernels.graph import rewrite
from snn.kernels.kernel_text import PAD, KernelSpec, header, hoisted_constants, indented, lane_names, scalar_names
from snn.kernels.lower import ForwardStep, forward_step
from snn.kernels.source_cache import load_source
from snn.kernels.trace import TracedStep, is_switch, trace
from snn.surrogate import ClosedForm


@dataclass(frozen=True, eq=False)
class Kind:
    """One generated update.

    Attributes:
        step, form: the traced step and its spike.
        arrays: parameters with one value per neuron; all others are single numbers.
        binary: the output is 0 or 1 and leaves as an event list; else it is written as dense values.
        lazy: only touched pixels are updated; what they missed is made up by powers of the states' decays.
    """

    step: TracedStep
    form: ClosedForm
    arrays: frozenset[str]
    binary: bool
    lazy: bool = False

    @property
    def key(self) -> tuple[object, ...]:
        """Equal for layers that share an update."""
        switches = tuple(sorted(self.step.switches.items()))
        return (self.step.model, switches, self.form.name, self.arrays, self.binary, self.lazy)

    def columns(self) -> list[str]:
        """What the neuron's own columns of a program row hold, in order."""
        names = [f"s_{name}" for name in self.step.new_states]
        names += [f"p_{name}" for name in self.step.values]
        names += [f"surrogate_{name}" for name in self.form.params]
        return names + (["decays", "width"] if self.lazy else [])


def kind_of(op: Fire, lazy: bool = False) -> Kind:
    """The update that a layer of neurons needs."""
    step = trace(op.model, op.params)
    arrays = frozenset(name for name in step.values if not is_switch(op.params[name]) and _is_array(op.params[name]))
    return Kind(step, op.form, arrays, fires_binary(op), lazy)


def _is_array(value: object) -> bool:
    return not isinstance(value, int | float)


def load(kinds: Sequence[Kind], dtype: str) -> ModuleType:
    """The module with `advance` for these kinds of neurons, from the cache where its text is there already.

    What does not depend on the neurons is a module of its own, so that it is compiled once for each dtype.
    """
    machine = load_source(f"event_machine_{dtype}", _MACHINE.format(dtype=dtype, digest=_digest()))
    return load_source(f"event_network_{dtype}", module_source(kinds, dtype, machine.__name__))


def module_source(kinds: Sequence[Kind], dtype: str, machine: str) -> str:
    """The text of the module; `machine` is the name of the module of the other instructions."""
    parts = [_HEADER.format(dtype=dtype, digest=_digest(), machine=machine, powers=POWERS)]
    parts += [_update(number, kind, dtype) for number, kind in enumerate(kinds)]
    dispatch = []
    for number in range(len(kinds)):
        word = "elif" if number else "if"
        dispatch.append(f"{word} row[0] == {NEURON + number}:")
        dispatch.append(f"{PAD}return update_{number}(row, clock, state, weights, places, values, lists, flags)")
    return "\n\n".join([*parts, _ADVANCE.format(dispatch="\n".join(indented([*dispatch, "return 0"])))])


@cache
def _digest() -> str:
    """Of all texts whose functions are inlined, so that no compiled module outlives them."""
    here = Path(__file__).parent
    files = [*sorted((here / "kernels").glob("*.py")), here.parents[0] / "engine" / "kernels" / "step.py"]
    return hashlib.sha256(b"".join(file.read_bytes() for file in files)).hexdigest()[:12]


def _update(number: int, kind: Kind, dtype: str) -> str:
    spec = KernelSpec(dtype, kind.arrays)
    dialect = numba_dialect(dtype)
    plain = forward_step(kind.step, kind.form)
    roots = [plain.output, *plain.new_states.values()]
    constants, hoisted = hoisted_constants(scalar_names(kind.step, kind.form, spec), dialect, roots)
    emitter = Emitter(dialect, constants | lane_names(kind.step, spec, x="x[j]"))
    columns = {name: OWN + k for k, name in enumerate(kind.columns())}
    states = [f"s_{name}" for name in kind.step.new_states]
    arrays = [f"p_{name}" for name in kind.step.values if name in kind.arrays]

    before = ["n = row[3]", "x_all = state[row[1] : row[1] + n]"]
    before += [f"{name}_all = state[row[{columns[name]}] : row[{columns[name]}] + n]" for name in states]
    before += [f"{name}_all = weights[row[{columns[name]}] : row[{columns[name]}] + n]" for name in arrays]
    scalars = [name for name in columns if name[:2] == "p_" or name.startswith("surrogate_")]
    before += [f"{name} = weights[row[{columns[name]}]]" for name in scalars if name not in arrays]
    before += hoisted
    body = [f"{name} = {name}_row[j]" for name in [*states, *arrays]]
    body += emitter.define(roots)
    body += [f"flags[j] = {emitter.read(plain.output)} != real(0.0)" if kind.binary else
             f"y_row[j] = {emitter.read(plain.output)}"]  # fmt: skip
    body += [
        f"{name}_row[j] = {emitter.read(node)}" for name, node in zip(states, plain.new_states.values(), strict=True)
    ]
    rows = [*states, *arrays]
    if kind.lazy:
        lines = [*before, *_lazy_loop(columns, rows, [*body, *_next_alone(kind, emitter, plain)])]
    else:
        lines = [*before, *_whole_loop(kind, rows, body)]
    text = [
        '@njit(cache=True, _nrt=False, error_model="numpy")',
        f"def update_{number}(row, clock, state, weights, places, values, lists, flags):",
        *indented([*header("update", kind.step, kind.form, dtype)[:-1], *lines]),
    ]
    return "\n".join(text)


def _whole_loop(kind: Kind, rows: list[str], body: list[str]) -> list[str]:
    """All neurons in one vector loop; the input buffer goes back to its base."""
    lines = ["x, base = x_all, weights[row[18] : row[18] + n]"]
    lines += [f"{name}_row = {name}_all" for name in rows]
    lines += [] if kind.binary else ["y_row = state[row[2] : row[2] + n]"]
    lines += ["for j in range(n):", *indented([*body, "x[j] = base[j]"])]
    if not kind.binary:
        return [*lines, "return n"]
    lines += ["k = row[2]", "start = lists[k, 0]", "ids = places[start : start + lists[k, 1]]"]
    return [*lines, "lists[k, 2] = collect(flags, n, 0, ids, 0)", "lists[k, 3] = 0", "return n"]


def _next_alone(kind: Kind, emitter: Emitter, plain: ForwardStep) -> list[str]:
    """Whether the neuron would fire at the next step without input, which keeps its pixel among the touched ones."""
    graph = kind.step.graph
    rules = {"input": lambda node, args: graph.const(0.0), "state": lambda node, args: plain.new_states[node.value]}
    alone = rewrite({"z": plain.output}, graph, rules)["z"]
    return [*emitter.define([alone]), f"hot = hot | ({emitter.read(alone)} != real(0.0))"]


def _lazy_loop(columns: dict[str, int], rows: list[str], body: list[str]) -> list[str]:
    """Only pixels that something reached in this step, or that would fire without input.

    The states of a pixel are first multiplied by their decay to the power of the steps that it was left alone.
    """
    states = [name for name in rows if name.startswith("s_")]
    catch_up = [f"{name}_row[j] *= factor" for name in states]
    return [
        f"width = row[{columns['width']}]",
        f"decays = weights[row[{columns['decays']}] : row[{columns['decays']}] + POWERS]",
        "pixels, first = row[26], row[25]",
        "marks, touched = places[first : first + pixels], places[first + pixels : first + 2 * pixels + 1]",
        "last = places[row[20] : row[20] + pixels]",
        "k = row[2]",
        "ids = places[lists[k, 0] : lists[k, 0] + lists[k, 1]]",
        "sent, kept, number = 0, 0, touched[0]",
        "for m in range(number):",
        *indented(
            [
                "pixel = touched[1 + m]",
                "low = pixel * width",
                "x = x_all[low : low + width]",
                *(f"{name}_row = {name}_all[low : low + width]" for name in rows),
                "missed = clock - last[pixel]",
                "while missed > 0:",
                *indented(
                    [
                        "factor = decays[min(missed, POWERS - 1)]",
                        "missed -= POWERS - 1",
                        "for j in range(width):",
                        *indented(catch_up),
                    ]
                ),
                "hot = False",
                "for j in range(width):",
                *indented([*body, "x[j] = real(0.0)"]),
                "last[pixel] = clock + 1",
                "for j in range(width):",
                *indented(["ids[sent] = low + j", "sent += flags[j] != 0"]),
                "if hot:",
                *indented(["kept += 1", "touched[kept] = pixel"]),
                "else:",
                *indented(["marks[pixel] = 0"]),
            ]
        ),
        "touched[0] = kept",
        "lists[k, 2], lists[k, 3] = sent, 0",
        "return number * width",
    ]


_HEADER = '''"""Event network, {dtype}. Generated; edits are lost. Kernels {digest}."""

import numpy as np
from numba import njit

from neuromorphic.engine.kernels.step import collect
from snn.kernels.cpu_math import exp_{dtype}, tanh_{dtype}
from {machine} import between_lists, connection, delayed_connection, on_buffers, output, read_input

real = np.{dtype}
POWERS = {powers}
'''

_MACHINE = '''"""Instructions of event networks, {dtype}. Generated; edits are lost. Kernels {digest}."""

from numba import njit

from neuromorphic.compiler.kernels import machine

SETTINGS = {{"cache": True, "_nrt": False, "error_model": "numpy"}}


@njit(**SETTINGS)
def connection(row, t, repeated, state, weights, places, values, lists):
    return machine.connection(row, t, repeated, state, weights, places, values, lists)


@njit(**SETTINGS)
def delayed_connection(row, clock, state, weights, places, values, lists):
    return machine.delayed_connection(row, clock, state, weights, places, values, lists)


@njit(**SETTINGS)
def between_lists(row, clock, state, weights, places, values, lists):
    return machine.between_lists(row, clock, state, weights, places, values, lists)


@njit(**SETTINGS)
def output(row, state, weights, places, values, lists, out):
    machine.output(row, state, weights, places, values, lists, out)


@njit(**SETTINGS)
def on_buffers(row, state, weights, places, values, lists):
    return machine.on_buffers(row, state, weights, places, values, lists)


@njit(**SETTINGS)
def read_input(row, t, x, given_ids, given_values, bounds, places, values, lists):
    machine.read_input(row, t, x, given_ids, given_values, bounds, places, values, lists)
'''

_ADVANCE = '''
@njit(cache=True, _nrt=False, error_model="numpy")
def update(row, clock, state, weights, places, values, lists, flags):
    """The update of the row's kind of neurons; returns the number of updates."""
{dispatch}


@njit(cache=True, _nrt=False, error_model="numpy", nogil=True)
def advance(steps, program, state, weights, places, values, lists, flags, clock, x, given_ids, given_values, bounds, out,
            counts):
    """Runs all instructions `steps` times; x [T or 1, n] or events (bounds [T + 1]) come in, out [T, columns] goes out.

    One row of x stands for all steps. `counts` [T, instructions, 2] takes the events and operations of each
    instruction where it is not empty.
    """
    repeated = x.shape[0] == 1 and steps > 1
    counting = counts.shape[0] > 0
    for t in range(steps):
        for k in range(program.shape[0]):
            row = program[k]
            op = row[0]
            work = 0
            if op >= 100:
                work = update(row, clock[0], state, weights, places, values, lists, flags)
            elif 2 <= op <= 6:
                work = connection(row, t, repeated, state, weights, places, values, lists)
            elif op == 7 or op == 11 or op == 15:
                work = between_lists(row, clock[0], state, weights, places, values, lists)
            elif op == 16:
                work = delayed_connection(row, clock[0], state, weights, places, values, lists)
            elif op == 0:
                if t == 0 or not repeated:
                    read_input(row, t, x, given_ids, given_values, bounds, places, values, lists)
            elif op == 13 or op == 14:
                output(row, state, weights, places, values, lists, out[t])
            else:
                work = on_buffers(row, state, weights, places, values, lists)
            if counting:
                counts[t, k, 1] = work
                if 2 <= op <= 7 or op == 11 or op == 15 or op == 16:
                    counts[t, k, 0] = lists[row[1], 2]
                elif op >= 100 and row[4]:
                    counts[t, k, 0] = lists[row[2], 2]
        clock[0] += 1
'''
