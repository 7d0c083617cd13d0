"""Generates the source text of the CPU kernels of one neuron: all T steps, forward and backward.

Every kernel has the same shape: blocks of WIDTH neurons outside, time inside, neurons innermost, so that states stay in
cache and the innermost loop vectorises. `work` holds one row of WIDTH values per state and per-neuron parameter. The
backward kernel recomputes the states of a block from the input, keeps the few values that the adjoint reads again (the
first of them in the rows of g_x itself, which the adjoint overwrites), then walks back through time. With `spec.keep`
the forward kernel writes these values and nothing is recomputed.
"""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from pathlib import Path

from snn.kernels.emit import Dialect, Emitter
from snn.kernels.graph import Node
from snn.kernels.kernel_text import PAD, KernelSpec, header, hoisted_constants, indented, lane_names, scalar_names
from snn.kernels.lower import BackwardStep, backward_step, forward_step
from snn.kernels.trace import TracedStep
from snn.surrogate import ClosedForm

ROW_VALUES = 1 << 17  # values of all rows of a block, half a second-level cache in float32; long rows stream best
NARROW = 1024  # neurons in a block that keeps an array of T rows beside it
GAP = 80  # values between rows, so that equal places of two rows do not meet in one cache set


@dataclass(frozen=True)
class KernelSource:
    """Generated text, and the scratch that its function expects.

    Attributes:
        width: neurons in a block.
        work_values: length of `work`.
        saved_rows: rows of `width` values per step in `saved`; None for a kernel without that argument.
    """

    name: str
    text: str
    width: int
    work_values: int
    saved_rows: int | None


def numba_dialect(dtype: str) -> Dialect:
    call = {
        "exp": f"exp_{dtype}",
        "tanh": f"tanh_{dtype}",
        "log": "np.log",
        "sqrt": "np.sqrt",
        "abs": "abs",
        "rint": "np.rint",
    }
    return Dialect(call, lambda c, a, b: f"{a} if {c} else {b}", lambda value: f"real({value!r})")


def forward_source(step: TracedStep, form: ClosedForm, spec: KernelSpec) -> KernelSource:
    """The kernel `forward`: reads x, starting states and parameters, writes the output, end states and sequences."""
    return _Writer(step, form, spec).forward()


def backward_source(step: TracedStep, form: ClosedForm, spec: KernelSpec) -> KernelSource:
    """The kernel `backward`: reads x, arriving gradients and parameters, writes the gradients of all of these."""
    return _Writer(step, form, spec).backward()


class _Writer:
    """Writes the kernels of one traced step."""

    def __init__(self, step: TracedStep, form: ClosedForm, spec: KernelSpec) -> None:
        self.step, self.form, self.spec = step, form, spec
        self.dialect = numba_dialect(spec.dtype)
        self.states = [f"s_{name}" for name in step.new_states]
        self.arrays = [f"p_{name}" for name in step.values if name in spec.arrays]
        self.recorded = [f"s_{name}" for name in spec.recorded]
        self.learnable = [f"g_p_{name}" for name in spec.learnable]
        self._lane_names = lane_names(step, spec, x="x_t[j]")

    def forward(self) -> KernelSource:
        plain = forward_step(self.step, self.form)
        new_states = list(plain.new_states.values())
        kept = backward_step(self.step, self.form, self.spec.learnable).kept_apart if self.spec.keep else []
        constants, names = self._constants([plain.output, *new_states, *kept])
        emitter = Emitter(self.dialect, constants | self._lane_names)
        body = [f"{name} = work[{name}_row + j]" for name in self.states + self.arrays]
        body += emitter.define([plain.output, *new_states, *kept])
        body += [f"z_t[j] = {emitter.read(plain.output)}"]
        body += [f"kept{k}_seq_t[j] = {emitter.read(node)}" for k, node in enumerate(kept)]
        body += self._write_states([emitter.read(node) for node in new_states])
        by_name = {f"s_{name}": node for name, node in plain.new_states.items()}
        body += [f"{name}_seq_t[j] = {emitter.read(by_name[name])}" for name in self.recorded]

        arguments = ["x", "x_step", "z"]
        arguments += [f"{name}_{part}" for name in self.states for part in ("start", "start_step", "end")]
        rows_of_time = [f"{name}_seq" for name in [*self.recorded, *_numbered(kept)]]
        arguments += rows_of_time
        block = self._load_block() + self._time_loop(
            "range(z.shape[0])", [_X_T, *(_row(name) for name in ["z", *rows_of_time])], body
        )
        block += [line for name in self.states for line in _lanes(f"{name}_end[low + j] = work[{name}_row + j]")]
        rows = self.states + self.arrays
        return self._kernel("forward", arguments, [], names, block, rows, None, ROW_VALUES // max(len(rows), 1))

    def backward(self) -> KernelSource:
        plain = backward_step(self.step, self.form, self.spec.learnable)
        kept, keep = plain.kept_apart, self.spec.keep
        rows = self.states + self.arrays + self.learnable
        wide = keep or len(kept) <= 1
        width = ROW_VALUES // max(len(rows), 1) if wide else NARROW
        saved = [] if wide else ["saved_t = saved[t]"]
        if keep:
            places = [f"{name}_seq_t[j]" for name in _numbered(kept)]
        else:
            places = ["g_x_t[j]", *(f"saved_t[{k * width} + j]" for k in range(len(kept) - 1))][: len(kept)]
        gradients = [plain.g_input, *plain.g_states.values(), *plain.g_params.values()]
        constants, names = self._constants([*kept, *plain.new_states.values(), *gradients])

        arguments = ["x", "x_step", "g_out", "g_x"]
        for name in self.states:
            arguments += [f"{name}_start", f"{name}_start_step"]
            arguments += [f"g_{name}_end", f"g_{name}_end_step", f"g_{name}_start"]
        arriving = ["g_out", *(f"g_{name}_seq" for name in self.recorded)]
        kept_rows = [f"{name}_seq" for name in _numbered(kept)] if keep else []
        arguments += [*arriving[1:], *kept_rows]
        block = self._load_block()
        if not keep:
            recompute = self._recompute(plain, kept, places, constants)
            block += self._time_loop("range(g_x.shape[0])", [_X_T, _row("g_x"), *saved], recompute)
        for name in self.states:
            block += _lanes(f"work[{name}_row + j] = g_{name}_end[(low + j) * g_{name}_end_step]")
        for name in self.learnable:
            block += _lanes(f"work[{name}_row + j] = real(0.0)")
        slices = [_X_T] if any(node.op == "input" for node in plain.kept) else []
        slices += [*(_row(name) for name in ["g_x", *arriving, *kept_rows]), *saved]
        adjoint = self._adjoint(plain, kept, places, constants)
        block += self._time_loop("range(g_x.shape[0] - 1, -1, -1)", slices, adjoint)
        for name in self.states:
            block += _lanes(f"g_{name}_start[low + j] = work[{name}_row + j]")
        for name in self.learnable:
            block += _lanes(f"{name}_out[low + j] = work[{name}_row + j]")
        outputs = [f"{name}_out" for name in self.learnable]
        saved_rows = 0 if wide else len(kept) - 1
        return self._kernel("backward", arguments, outputs, names, block, rows, saved_rows, width)

    def _recompute(
        self, plain: BackwardStep, kept: list[Node], places: list[str], constants: dict[Node, str]
    ) -> list[str]:
        """One forward step that writes the kept values to their places."""
        emitter = Emitter(self.dialect, constants | self._lane_names)
        new_states = list(plain.new_states.values())
        body = [f"{name} = work[{name}_row + j]" for name in self.states + self.arrays]
        body += emitter.define([*kept, *new_states])
        body += [f"{place} = {emitter.read(node)}" for place, node in zip(places, kept, strict=True)]
        return body + self._write_states([emitter.read(node) for node in new_states])

    def _adjoint(
        self, plain: BackwardStep, kept: list[Node], places: list[str], constants: dict[Node, str]
    ) -> list[str]:
        """One step back in time."""
        kept_names = dict(zip(kept, _numbered(kept), strict=True))
        emitter = Emitter(self.dialect, constants | self._lane_names | kept_names)
        g_states, g_params = list(plain.g_states.values()), list(plain.g_params.values())
        body = [f"{name} = {place}" for name, place in zip(kept_names.values(), places, strict=True)]
        body += [f"{name} = work[{name}_row + j]" for name in self.arrays]
        body += ["g_z = g_out_t[j]"]
        for name in self.states:
            recorded = f" + g_{name}_seq_t[j]" if name in self.recorded else ""
            body += [f"g_{name} = work[{name}_row + j]{recorded}"]
        body += emitter.define([plain.g_input, *g_states, *g_params])
        body += [f"g_x_t[j] = {emitter.read(plain.g_input)}"]
        body += self._write_states([emitter.read(node) for node in g_states])
        return body + [
            f"work[{name}_row + j] += {emitter.read(node)}" for name, node in zip(self.learnable, g_params, strict=True)
        ]

    def _constants(self, roots: list[Node]) -> tuple[dict[Node, str], list[str]]:
        return hoisted_constants(scalar_names(self.step, self.form, self.spec), self.dialect, roots)

    def _write_states(self, values: list[str]) -> list[str]:
        return [f"work[{name}_row + j] = {value}" for name, value in zip(self.states, values, strict=True)]

    def _load_block(self) -> list[str]:
        lines: list[str] = []
        for name in self.states:
            lines += _lanes(f"work[{name}_row + j] = {name}_start[(low + j) * {name}_start_step]")
        for name in self.arrays:
            lines += [f"spread(work, {name}_row, {name}_values, {name}_inner, low, n)"]
        return lines

    def _time_loop(self, steps: str, slices: list[str], body: list[str]) -> list[str]:
        return [f"for t in {steps}:", *indented([*slices, *_lanes(*body)])]

    def _kernel(
        self, kind: str, arguments: list[str], outputs: list[str], constants: list[str], block: list[str],
        rows: list[str], saved_rows: int | None, width: int,
    ) -> KernelSource:  # fmt: skip
        for name in self.step.values:
            arguments += [f"p_{name}_values", f"p_{name}_inner"] if name in self.spec.arrays else [f"p_{name}"]
        arguments += [f"surrogate_{name}" for name in self.form.params]
        arguments += [*outputs, "first", "last", "work", *([] if saved_rows is None else ["saved"])]
        lines = [
            *constants,
            "for low in range(first, last, WIDTH):",
            f"{PAD}n = min(WIDTH, last - low)",
            *indented(block),
        ]
        dtype = self.spec.dtype
        head = header(kind, self.step, self.form, dtype)
        places = [f"WIDTH = {width}", *(f"{name}_row = {k * (width + GAP)}" for k, name in enumerate(rows))]
        form = [self.form.name] if kind == "backward" else []
        name = "_".join([self.step.model.name, kind, *form, dtype])
        text = module_text(head, places, kind, arguments, lines, dtype)
        return KernelSource(name, text, width, len(rows) * (width + GAP), saved_rows)


_X_T = "x_t = x[t * x_step, low : low + n]"


def _numbered(kept: list[Node]) -> list[str]:
    return [f"kept{k}" for k in range(len(kept))]


def _row(name: str) -> str:
    return f"{name}_t = {name}[t, low : low + n]"


def _lanes(*body: str) -> list[str]:
    return ["for j in range(n):", *indented(list(body))]


def module_text(
    head: list[str], places: list[str], kind: str, arguments: list[str], lines: list[str], dtype: str
) -> str:
    """A file with one kernel.

    Args:
        head: docstring of the file.
        places: constants of the module.
        kind: name of the function; `arguments` and `lines` are its own.
    """
    text = [
        *head,
        "import numpy as np",
        "from numba import njit",
        "",
        f"from snn.kernels.cpu_math import exp_{dtype}, spread, tanh_{dtype}  # {_digest_of_math()}",
        "",
        f"real = np.{dtype}",
        *places,
        "",
        "",
        '@njit(cache=True, nogil=True, error_model="numpy")',
        f"def {kind}({', '.join(arguments)}):",
        *indented(lines),
        "",
    ]
    return "\n".join(text)


def _digest_of_math() -> str:
    """Puts the text of the functions that kernels inline into their names, so that no compiled kernel outlives them."""
    return hashlib.sha256((Path(__file__).parent / "cpu_math.py").read_bytes()).hexdigest()[:8]
