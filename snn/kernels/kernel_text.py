"""What the generators of CPU and GPU kernels write alike: the specification, hoisted constants and the header.

In the text of every kernel a state v is `s_v`, a parameter tau is `p_tau`, a surrogate's alpha is `surrogate_alpha` and
the gradient of any of these starts with `g_`, so no name of a model meets a name of the kernel.
"""

from __future__ import annotations

import inspect
from dataclasses import dataclass

from snn.kernels.emit import Dialect, Emitter
from snn.kernels.graph import Node, in_order
from snn.kernels.trace import OUTPUT, TracedStep
from snn.surrogate import ClosedForm

PAD = "    "


@dataclass(frozen=True)
class KernelSpec:
    """What fixes a kernel besides the traced step.

    Attributes:
        dtype: "float32" or "float64".
        arrays: parameters given per neuron or per channel; all others are scalars.
        learnable: parameters whose gradient the backward kernel returns.
        recorded: states whose whole sequence is written by the forward kernel.
        keep: the forward kernel writes what the backward kernel reads again; otherwise the latter recomputes it.
    """

    dtype: str
    arrays: frozenset[str] = frozenset()
    learnable: tuple[str, ...] = ()
    recorded: tuple[str, ...] = ()
    keep: bool = False


def lane_names(step: TracedStep, spec: KernelSpec, x: str) -> dict[Node, str]:
    """Names of the leaves that differ from neuron to neuron; `x` is how the kernel reads the input of one step."""
    leaf = step.graph.leaf
    names = {leaf("input", "x"): x, leaf("grad", OUTPUT): "g_z"}
    for name in step.new_states:
        names |= {leaf("state", name): f"s_{name}", leaf("grad", f"s_{name}"): f"g_s_{name}"}
    return names | {leaf("param", name): f"p_{name}" for name in spec.arrays}


def scalar_names(step: TracedStep, form: ClosedForm, spec: KernelSpec) -> dict[Node, str]:
    """Names of the leaves that are the same for all neurons."""
    leaf = step.graph.leaf
    names = {leaf("param", name): f"p_{name}" for name in step.values if name not in spec.arrays}
    return names | {leaf("surrogate", name): f"surrogate_{name}" for name in form.params}


def hoisted_constants(names: dict[Node, str], dialect: Dialect, roots: list[Node]) -> tuple[dict[Node, str], list[str]]:
    """Names of what depends on the scalars `names` alone, and the lines that compute it before the loops."""
    order = in_order(roots)
    fixed: set[Node] = set()
    for node in order:
        if node.op == "const" or node in names or (node.args and fixed.issuperset(node.args)):
            fixed.add(node)
    read_outside = {arg for node in order if node not in fixed for arg in node.args} | set(roots)
    emitter = Emitter(dialect, names, prefix="k")
    lines = emitter.define([node for node in order if node in fixed and node.args and node in read_outside])
    return {node: name for node, name in emitter.names.items() if not name.startswith("(")}, lines


def header(kind: str, step: TracedStep, form: ClosedForm, dtype: str) -> list[str]:
    """The docstring of a generated file: what it computes and the step function that it was traced from."""
    switches = ", ".join(f"{name}={value}" for name, value in step.switches.items()) or "no switches"
    try:
        text = inspect.getsource(step.model.step).replace("\\", "\\\\").replace('"""', "'''").rstrip()
    except (OSError, TypeError):
        text = "(its source text is not available)"
    return [
        f'"""{kind.capitalize()} kernel of neuron {step.model.name!r}, {dtype}.',
        "",
        f"Surrogate {form.name}; {switches}.",
        "",
        "Generated; edits are lost. The step that it was traced from:",
        "",
        *indented(text.splitlines()),
        '"""',
        "",
    ]


def indented(lines: list[str]) -> list[str]:
    """The lines one level deeper."""
    return [PAD + line for line in lines]
