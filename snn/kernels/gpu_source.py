"""Generates the source text of the GPU kernels (Triton) of one neuron: all T steps, forward and backward.

One program takes a block of BLOCK neurons and loops over time with their states in registers. Pointers to a row of one
step (`x_t`, `z_t`, ...) are scalars that start at the block and move by one row per step, so no offset ever overflows.
Values are held in `spec.dtype` whatever the dtype of x is; they are converted where they are loaded and stored.

The backward kernel recomputes the states of its block from the input, keeps the few values that the adjoint reads
again, then walks back through time. One kept value waits in the rows of g_x itself, which the adjoint overwrites: that
needs rows as precise as the states, and a value on which g_x depends, because only then can no thread of the program
store g_x before another has loaded the value. All others wait in `saved`, which holds T steps of as many neurons as the
grid covers at once; a program takes one block after the other and uses its part of `saved` again. A barrier stands
between writing and reading, since Triton may give an element to different threads there.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, field

from snn.kernels.emit import Dialect, Emitter
from snn.kernels.graph import Node, in_order
from snn.kernels.kernel_text import KernelSpec, header, hoisted_constants, indented, lane_names, scalar_names
from snn.kernels.lower import BackwardStep, backward_step, forward_step
from snn.kernels.trace import TracedStep
from snn.surrogate import ClosedForm

CONFIGS = ((128, 4), (256, 2), (512, 4), (1024, 4))
"""(BLOCK, num_warps) among which the first call of a size chooses: 1, 4, 4 and 8 neurons per thread.

Never less than one: threads without a neuron of their own would compute another's again, and read its row of g_x late.
"""
LARGEST_BLOCK = max(block for block, _ in CONFIGS)
_LARGEST_FLOAT32 = 3.4028234663852886e38


@dataclass(frozen=True)
class GpuSpec:
    """What fixes a GPU kernel besides the traced step.

    Attributes:
        kernel: dtype of the states, parameters per neuron, learnable parameters, recorded states.
        by_address: scalars ("p_tau", "s_v_start", "surrogate_alpha") that are read from the device's memory.
        numbers: states that start at one number, the same for every neuron.
        arriving: gradients that reach the backward kernel: "g_out", "g_s_v_end" of a last state, "g_s_v_seq" of a
            recorded sequence; all others are zero.
        narrow: x, output and g_x are less precise than the states.
    """

    kernel: KernelSpec
    by_address: frozenset[str] = frozenset()
    numbers: frozenset[str] = frozenset()
    arriving: frozenset[str] = frozenset()
    narrow: bool = False


@dataclass(frozen=True)
class GpuSource:
    """Generated text of the kernel `kind`, the names of its arguments, and the scratch that it needs.

    Beside the kernel the text defines `tuned()`, which returns the kernel with its block size chosen by timing.

    Attributes:
        saved_rows: rows per step and neuron in `saved`; 0 for a kernel without that argument.
    """

    name: str
    kind: str
    text: str
    arguments: tuple[str, ...]
    saved_rows: int


def triton_dialect(dtype: str) -> Dialect:
    """Operations that round as IEEE 754 says; Triton's float32 operators for division and roots do not."""
    call = {name: f"{name}_{dtype}" for name in ("exp", "tanh", "log", "rint")}
    call |= {"abs": "tl.abs", "sqrt": "tl.sqrt"}
    if dtype == "float32":
        call |= {"div": "tl.div_rn", "sqrt": "tl.sqrt_rn"}

    def const(value: float) -> str:
        text = repr(value) if math.isfinite(value) else f'float("{value}")'
        if dtype == "float32" and (abs(value) <= _LARGEST_FLOAT32 or not math.isfinite(value)):
            return text  # a bare literal is a float32
        return f"tl.full((), {text}, real)"

    return Dialect(call, lambda c, a, b: f"tl.where({c}, {a}, {b})", const)


def forward_source(step: TracedStep, form: ClosedForm, spec: GpuSpec) -> GpuSource:
    """The kernel `forward`: reads x, starting states and parameters, writes the output, end states and sequences."""
    return _Writer(step, form, spec).forward()


def backward_source(step: TracedStep, form: ClosedForm, spec: GpuSpec) -> GpuSource:
    """The kernel `backward`: reads x, arriving gradients and parameters, writes the gradients of all of these."""
    return _Writer(step, form, spec).backward()


def ordered_for_g_x(plain: BackwardStep) -> tuple[list[Node], bool]:
    """The values to keep apart from x, and whether the first may wait in the rows of g_x (g_x depends on it)."""
    kept = plain.kept_apart
    under_g_x = {id(node) for node in in_order([plain.g_input])}
    kept.sort(key=lambda node: id(node) not in under_g_x)  # stable: those on which g_x depends come first
    return kept, bool(kept) and id(kept[0]) in under_g_x


@dataclass
class _Text:
    """The parts of a kernel's text."""

    arguments: list[str]
    before: list[str] = field(default_factory=list)  # once
    block: list[str] = field(default_factory=list)  # for each block of neurons
    saved_rows: int = 0


class _Writer:
    """Writes the kernels of one traced step."""

    def __init__(self, step: TracedStep, form: ClosedForm, spec: GpuSpec) -> None:
        self.step, self.form, self.spec = step, form, spec
        self.dialect = triton_dialect(spec.kernel.dtype)
        self.states = [f"s_{name}" for name in step.new_states]
        self.arrays = [f"p_{name}" for name in step.values if name in spec.kernel.arrays]
        self.recorded = [f"s_{name}" for name in spec.kernel.recorded]
        self.learnable = [f"g_p_{name}" for name in spec.kernel.learnable]
        self._keep = spec.kernel.keep
        self._lane_names = lane_names(step, spec.kernel, x="x_now")
        self._scalars = scalar_names(step, form, spec.kernel)

    def forward(self) -> GpuSource:
        plain = forward_step(self.step, self.form)
        by_name = {f"s_{name}": node for name, node in plain.new_states.items()}
        kept = backward_step(self.step, self.form, self.spec.kernel.learnable).kept_apart if self._keep else []
        roots = [plain.output, *by_name.values(), *kept]
        constants, before = hoisted_constants(self._scalars, self.dialect, roots)
        emitter = Emitter(self.dialect, constants | self._lane_names)
        body = [_LOAD_X, *emitter.define(roots), _store("z_t", self._wide(emitter, plain.output), "z")]
        body += [_store(f"{name}_seq_t", self._wide(emitter, by_name[name])) for name in self.recorded]
        body += [_store(f"kept{k}_t", self._wide(emitter, node)) for k, node in enumerate(kept)]
        body += self._assign(self.states, emitter, list(by_name.values()))
        sequences = [*(f"{name}_seq" for name in self.recorded), *(f"kept{k}" for k in range(len(kept)))]
        rows = ["z", *sequences]
        body += ["x_t += x_stride", *(f"{row}_t += neurons" for row in rows)]

        text = _Text(["x", "x_stride", "z"], before)
        for name in self.states:
            text.arguments += [f"{name}_start", f"{name}_end"]
        text.arguments += sequences
        text.block += self._load_block() + [f"{row}_t = {row} + low" for row in ["x", *rows]]
        text.block += ["for t in range(steps):", *indented(body)]
        text.block += [_store(f"{name}_end + low", name) for name in self.states]
        return self._kernel("forward", text)

    def backward(self) -> GpuSource:
        plain = backward_step(self.step, self.form, self.spec.kernel.learnable)
        kept, reuses_g_x = (plain.kept_apart, False) if self._keep else ordered_for_g_x(plain)
        reuses_g_x = reuses_g_x and not self.spec.narrow
        kept_rows = [f"kept{k}" for k in range(len(kept))] if self._keep else []
        g_states, g_params = list(plain.g_states.values()), list(plain.g_params.values())
        gradients = [plain.g_input, *g_states, *g_params]
        roots = [*kept, *plain.new_states.values(), *gradients]
        constants, before = hoisted_constants(self._scalars, self.dialect, roots)
        text = _Text(["x", "x_stride", "g_x"], before, saved_rows=0 if self._keep else len(kept) - reuses_g_x)
        saved = [f"saved_t + {k} * saved_stride" if k else "saved_t" for k in range(text.saved_rows)]
        places = [f"{row}_t" for row in kept_rows] or (["g_x_t", *saved] if reuses_g_x else saved)
        saved_row = ["saved_t"] if saved else []
        saved_step = f"{text.saved_rows} * saved_stride"

        emitter = Emitter(self.dialect, constants | self._lane_names)
        recompute = [_LOAD_X, *emitter.define([*kept, *plain.new_states.values()])]
        recompute += [_store(place, self._wide(emitter, node)) for place, node in zip(places, kept, strict=True)]
        recompute += self._assign(self.states, emitter, list(plain.new_states.values()))
        recompute += ["x_t += x_stride", "g_x_t += neurons", *(f"{row} += {saved_step}" for row in saved_row)]

        kept_names = {node: f"value{k}" for k, node in enumerate(kept)}
        emitter = Emitter(self.dialect, constants | self._lane_names | kept_names)
        reads_x = any(node.op == "input" for node in plain.kept)
        sequences = [f"g_{name}_seq" for name in self.recorded]
        arriving = [name for name in ["g_out", *sequences] if name in self.spec.arriving]
        adjoint = ["x_t -= x_stride"] if reads_x else []
        adjoint += ["g_x_t -= neurons", *(f"{row} -= {saved_step}" for row in saved_row)]
        adjoint += [f"{name}_t -= neurons" for name in [*arriving, *kept_rows]]
        adjoint += [_LOAD_X] if reads_x else []
        adjoint += [f"{name} = {_load(place)}" for name, place in zip(kept_names.values(), places, strict=True)]
        adjoint += ["g_z = " + (f"{_load('g_out_t')}.to(real)" if "g_out" in arriving else "zero")]
        adjoint += [f"g_{name} += {_load(f'g_{name}_seq_t')}" for name in self.recorded if f"g_{name}_seq" in arriving]
        adjoint += [*emitter.define(gradients), _store("g_x_t", self._wide(emitter, plain.g_input), "g_x")]
        adjoint += [f"{name} += {emitter.read(node)}" for name, node in zip(self.learnable, g_params, strict=True)]
        adjoint += self._assign([f"g_{name}" for name in self.states], emitter, g_states)

        text.arguments += [*arriving, *kept_rows]
        for name in self.states:
            text.arguments += [f"{name}_start"]
            text.arguments += [f"g_{name}_end"] if f"g_{name}_end" in self.spec.arriving else []
            text.arguments += [f"g_{name}_start"] if name not in self.spec.numbers else []
        text.arguments += [f"{name}_out" for name in self.learnable]
        text.before += ["zero = tl.full([BLOCK], 0.0, real)"]
        ends = ["g_x", *arriving, *kept_rows]
        if kept and not self._keep:
            ends = arriving
            text.block += [*self._load_block(), "x_t = x + low", "g_x_t = g_x + low"]
            text.block += ["saved_t = saved + program * BLOCK"] if saved else []
            text.block += ["for t in range(steps):", *indented(recompute), "tl.debug_barrier()"]
        else:  # the adjoint reads nothing of the forward step but, at most, its input and what that kernel kept
            text.block += [*self._load_block(), "x_t = x + low + past_the_end * x_stride"]
        text.block += [f"{name}_t = {name} + low + past_the_end * neurons" for name in ends]
        for name in self.states:
            arrives = f"g_{name}_end" in self.spec.arriving
            text.block += [f"g_{name} = " + (_load(f"g_{name}_end + low") if arrives else "zero")]
        text.block += [f"{name} = zero" for name in self.learnable]
        text.block += ["for t in range(steps):", *indented(adjoint)]
        text.block += [
            _store(f"g_{name}_start + low", f"g_{name}") for name in self.states if name not in self.spec.numbers
        ]
        text.block += [_store(f"{name}_out + low", name) for name in self.learnable]
        text.block += ["tl.debug_barrier()"] if saved else []
        text.before += ["past_the_end = steps.to(tl.int64)"] if ends else []
        return self._kernel("backward", text)

    def _wide(self, emitter: Emitter, node: Node) -> str:
        """A node as a value per neuron: what no neuron changes is a scalar until here."""
        order = in_order([node])
        varies = any(leaf in self._lane_names for leaf in order)
        text = emitter.read(node)
        return text if varies else f"tl.full([BLOCK], {text}, real)"

    def _assign(self, targets: list[str], emitter: Emitter, nodes: list[Node]) -> list[str]:
        """All targets at once, since one's new value may be read from another's old one."""
        pairs = [(name, self._wide(emitter, node)) for name, node in zip(targets, nodes, strict=True)]
        pairs = [(name, value) for name, value in pairs if name != value]
        return [f"{', '.join(name for name, _ in pairs)} = {', '.join(value for _, value in pairs)}"] if pairs else []

    def _load_block(self) -> list[str]:
        lines = ["n = low + lanes", "mask = n < neurons"]
        for name in self.states:
            number = name in self.spec.numbers
            lines.append(
                f"{name} = " + (f"tl.full([BLOCK], {name}_start, real)" if number else _load(f"{name}_start + low"))
            )
        for name in self.arrays:
            place = f"{name}_values + (n // {name}_inner) % {name}_count"
            lines.append(f"{name} = tl.load({place}, mask=mask, other=1.0)")
        return lines

    def _kernel(self, kind: str, text: _Text) -> GpuSource:
        scalars = [f"{name}_start" for name in self.states if name in self.spec.numbers]
        for name in self.step.values:
            if f"p_{name}" in self.arrays:
                text.arguments += [f"p_{name}_{part}" for part in ("values", "count", "inner")]
            else:
                scalars.append(f"p_{name}")
                text.arguments.append(f"p_{name}")
        surrogate = [f"surrogate_{name}" for name in self.form.params]
        text.arguments += surrogate
        loads = [f"{name} = tl.load({name})" for name in [*scalars, *surrogate] if name in self.spec.by_address]
        text.arguments += ["saved", "saved_stride"] if text.saved_rows else []
        text.arguments += ["steps", "neurons", "steps_key", "neurons_key"]

        lines = [*loads, *text.before, "lanes = tl.arange(0, BLOCK)", "program = tl.program_id(0).to(tl.int64)"]
        if text.saved_rows:
            lines.append("for low in range(program * BLOCK, neurons, tl.num_programs(0) * BLOCK):")
            lines += indented(text.block)
        else:
            lines += ["low = program * BLOCK", *text.block]
        return GpuSource(*self._file(kind, text.arguments, lines), tuple(text.arguments), text.saved_rows)

    def _file(self, kind: str, arguments: list[str], lines: list[str]) -> tuple[str, str, str]:
        dtype = self.spec.kernel.dtype
        body = "\n".join(lines)
        called = [f"{name}_{dtype}" for name in ("exp", "log", "rint", "tanh") if f"{name}_{dtype}(" in body]
        configs = [f'triton.Config({{"BLOCK": {block}}}, num_warps={warps}),' for block, warps in CONFIGS]
        text = [
            *header(kind, self.step, self.form, dtype),
            "import triton",
            "import triton.language as tl",
            "",
            *([f"from snn.kernels.gpu_math import {', '.join(called)}", ""] if called else []),
            f"real = tl.constexpr(tl.{dtype})",
            "",
            "",
            '@triton.jit(do_not_specialize=["steps", "steps_key", "neurons_key"])',
            f"def {kind}(",
            *indented([f"{name}," for name in [*arguments, "BLOCK: tl.constexpr"]]),
            "):",
            *indented(lines),
            "",
            "",
            "def tuned():",
            "    return triton.autotune(",
            "        configs=[",
            *indented(indented(indented(configs))),
            "        ],",
            '        key=["steps_key", "neurons_key"],',
            f"    )({kind})",
            "",
        ]
        form = [self.form.name] if kind == "backward" else []
        name = "_".join(["triton", self.step.model.name, kind, *form, dtype])
        return name, kind, "\n".join(text)


_LOAD_X = "x_now = tl.load(x_t + lanes, mask=mask, other=0.0).to(real)"


def _load(row: str) -> str:
    return f"tl.load({row} + lanes, mask=mask, other=0.0)"


def _store(row: str, value: str, like: str | None = None) -> str:
    converted = value if like is None else f"{value}.to({like}.dtype.element_ty)"
    return f"tl.store({row} + lanes, {converted}, mask=mask)"
