"""Generates the source text of CPU kernels that go over a batch once, one step of a neuron at a time.

A lane is one place of a sample [...]; a batch [B, ...] is B rows of lanes. Blocks of lanes stand outside, samples inside,
lanes innermost, so that values per lane (parameters, sums over the samples) stay in cache and the innermost loop
vectorises. What a kernel computes is a `LaneMap`: expressions of the traced step that are written for every neuron,
and others that are summed over the samples.
"""

from __future__ import annotations

import functools
from collections.abc import Iterable, Mapping
from dataclasses import dataclass

from snn.kernels.cpu_source import GAP, ROW_VALUES, KernelSource, module_text, numba_dialect
from snn.kernels.emit import Emitter
from snn.kernels.graph import LEAVES, Node, in_order
from snn.kernels.kernel_text import header, hoisted_constants, indented
from snn.kernels.trace import TracedStep
from snn.surrogate import ClosedForm

_PREFIX = {"input": "", "state": "s_", "param": "p_", "surrogate": "surrogate_", "grad": "g_"}


def leaf_name(leaf: Node) -> str:
    """A leaf's name in the kernels: x, s_v, p_tau, surrogate_alpha, g_z."""
    return f"{_PREFIX[leaf.op]}{leaf.value}"


@dataclass(frozen=True, eq=False)
class LaneMap:
    """What one kernel computes, in plain expressions of the step's graph.

    Attributes:
        kind: a word for the kernel's file.
        writes: name -> value that is written for every neuron.
        sums: name -> value that is summed over the samples.
    """

    kind: str
    step: TracedStep
    form: ClosedForm
    writes: Mapping[str, Node]
    sums: Mapping[str, Node]

    @functools.cached_property
    def leaves(self) -> dict[str, Node]:
        """What is read, by name."""
        found = in_order([*self.writes.values(), *self.sums.values()])
        return {leaf_name(node): node for node in found if node.op in LEAVES and node.op != "const"}


@functools.lru_cache(maxsize=4096)
def lane_source(lane_map: LaneMap, rows: tuple[str, ...], lanes: tuple[str, ...], dtype: str) -> KernelSource:
    """The kernel of `lane_map`.

    Its arguments: `samples`; the rows [B, N] that it reads, then those that it writes, each with its step (1, or 0 for one
    row [1, N] that holds for all samples); (values, inner) of what is given per lane; numbers; the sums [N]; first and last
    lane; scratch.

    Args:
        rows: what is read for every neuron; lanes: what is given per lane. All else is a number.
    """
    scalars = [name for name in lane_map.leaves if name not in rows and name not in lanes]
    roots = [*lane_map.writes.values(), *lane_map.sums.values()]
    dialect = numba_dialect(dtype)
    names = {lane_map.leaves[name]: name for name in scalars}
    constants, before = hoisted_constants(names, dialect, roots)
    emitter = Emitter(dialect, constants | {lane_map.leaves[name]: name for name in (*rows, *lanes)})
    body = [f"{name} = {name}_row[j]" for name in rows]
    body += [f"{name} = work[{name}_place + j]" for name in lanes]
    body += emitter.define(roots)
    body += [f"to_{name}_row[j] = {emitter.read(node)}" for name, node in lane_map.writes.items()]
    body += [f"work[sum_{name}_place + j] += {emitter.read(node)}" for name, node in lane_map.sums.items()]

    row_names = [*rows, *(f"to_{name}" for name in lane_map.writes)]
    sums = [f"sum_{name}" for name in lane_map.sums]
    in_work = [*lanes, *sums]
    width = ROW_VALUES // max(len(in_work), 1)
    arguments = ["samples", *(f"{name}_{part}" for name in row_names for part in ("rows", "step"))]
    arguments += [part for name in lanes for part in (f"{name}_values", f"{name}_inner")]
    arguments += [*scalars, *sums, "first", "last", "work"]
    lines = [
        *before,
        f"for low in range(first, last, {width}):",
        *indented(
            [
                f"n = min({width}, last - low)",
                *(f"spread(work, {name}_place, {name}_values, {name}_inner, low, n)" for name in lanes),
                *_each_lane([f"work[{name}_place + j] = real(0.0)" for name in sums]),
                "for sample in range(samples):",
                *indented(
                    [
                        *(f"{name}_row = {name}_rows[sample * {name}_step, low : low + n]" for name in row_names),
                        *_each_lane(body),
                    ]
                ),
                *_each_lane([f"{name}[low + j] = work[{name}_place + j]" for name in sums]),
            ]
        ),
    ]
    head = header(lane_map.kind, lane_map.step, lane_map.form, dtype)
    places = [f"{name}_place = {k * (width + GAP)}" for k, name in enumerate(in_work)]
    text = module_text(head, places, lane_map.kind, arguments, lines, dtype)
    name = "_".join([lane_map.step.model.name, lane_map.kind, lane_map.form.name, dtype])
    return KernelSource(name, text, width, len(in_work) * (width + GAP), None)


def _each_lane(body: Iterable[str]) -> list[str]:
    lines = list(body)
    return ["for j in range(n):", *indented(lines)] if lines else []
