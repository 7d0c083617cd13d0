"""From a trained network to the graph of its calls, with the line of the user's model for each of them."""

from __future__ import annotations

import copy
import inspect
import re
from pathlib import Path
from types import TracebackType
from typing import Any

import torch
from torch import fx, nn
from torch.nn.utils import parametrize

import snn
from snn.conversion.encoder_layers import Encoder, EncoderLayer, traceable
from snn.errors import UnsupportedError

_LIBRARIES = (Path(torch.__file__).parent, Path(snn.__file__).parent)
_FOLLOWED = (nn.Sequential, nn.ModuleList, nn.ModuleDict, Encoder, EncoderLayer)
_HOOKS = ("_forward_hooks", "_forward_pre_hooks")


def trace_network(ann: nn.Module) -> fx.GraphModule:
    """The calls of a network in evaluation, as a graph over a copy of it.

    Layers of torch, and classes derived from them that leave `forward` as it is, stay whole; all other modules are
    followed into, and so are torch's transformer encoders. Each node's `meta` has "path", the dotted name of the module
    whose code makes the call, and "where", the file and line of that code ("" where only library code makes it).

    Raises:
        TypeError: `ann` is no module.
        UnsupportedError: the forward depends on the data, takes several inputs, or a layer has hooks; the text names
            the line.
    """
    if not isinstance(ann, nn.Module):
        raise TypeError(f"convert: ann must be a torch.nn.Module, got a {type(ann).__name__}")
    network = copy.deepcopy(_unwrapped(ann)).eval().requires_grad_(False)
    _make_plain(network)
    network = traceable(network)
    tracer = _Tracer()
    try:
        graph = tracer.trace(network, concrete_args=_defaults(network))
    except UnsupportedError:
        raise
    except Exception as error:
        line = _innermost_line(error.__traceback__)
        place = f"at {line}, " if line else ""
        raise UnsupportedError(
            f"convert: the forward of {type(network).__name__} cannot be followed {place}{_reason(error)}"
        ) from error
    traced = fx.GraphModule(tracer.root, graph, type(network).__name__)
    inputs = [node for node in graph.nodes if node.op == "placeholder"]
    for node in inputs[1:]:
        if node.users:
            raise UnsupportedError(f"convert: the network must take one input, {node.target!r} is a second one")
        graph.erase_node(node)
    (output,) = (node for node in graph.nodes if node.op == "output")
    if not isinstance(output.args[0], fx.Node):
        raise UnsupportedError(
            f"convert: the network must return one tensor, it returns a {type(output.args[0]).__name__}; "
            "wrap it in a module that returns the logits"
        )
    return traced


class _Tracer(fx.Tracer):
    def __init__(self) -> None:
        super().__init__()
        self.record_stack_traces = False

    def is_leaf_module(self, m: nn.Module, module_qualified_name: str) -> bool:
        if isinstance(m, _FOLLOWED):
            return False
        forward = inspect.getmodule(type(m).forward)
        inner = inspect.getmodule(getattr(type(m), "_conv_forward", type(m).forward))
        return all(found is not None and _is_layer_code(found.__name__) for found in (forward, inner))

    def create_proxy(self, kind: str, target: Any, *args: Any, **kwargs: Any) -> fx.Proxy:
        proxy = super().create_proxy(kind, target, *args, **kwargs)
        stack = list(self.module_stack.values())
        if kind == "call_module":
            stack = stack[:-1]
        proxy.node.meta["path"] = stack[-1][0] if stack else ""
        proxy.node.meta["where"] = _calling_line()
        return proxy


def _is_layer_code(module: str) -> bool:
    return module.startswith(("torch.nn.", "torch.ao.nn.", "snn.conversion."))


def _is_library(file: str) -> bool:
    return file.startswith("<") or any(folder in Path(file).parents for folder in _LIBRARIES)


def _calling_line() -> str:
    """file:line of the innermost code of the user's model; code outside the tracing call does not count."""
    frame = inspect.currentframe()
    while frame is not None and frame.f_code is not trace_network.__code__:
        if not _is_library(frame.f_code.co_filename):
            return f"{Path(frame.f_code.co_filename).name}:{frame.f_lineno}"
        frame = frame.f_back
    return ""


def _innermost_line(traceback: TracebackType | None) -> str:
    line = ""
    while traceback is not None:
        file = traceback.tb_frame.f_code.co_filename
        if not _is_library(file):
            line = f"{Path(file).name}:{traceback.tb_lineno}"
        traceback = traceback.tb_next
    return line


def _reason(error: Exception) -> str:
    text = str(error).partition("\n")[0]
    if "control flow" in text:
        return "it decides by the values or the size of a tensor; write it without that decision"
    if re.search(r"iterat|unpack|len", text):
        return "it counts or iterates over a tensor; write the number of parts out (chunk, unbind with fixed indices)"
    return f"it raised {type(error).__name__}: {text}"


def _unwrapped(ann: nn.Module) -> nn.Module:
    """The network inside torch.compile's and the parallel wrappers."""
    inner: Any = ann
    while True:
        if isinstance(inner, nn.DataParallel | nn.parallel.DistributedDataParallel):
            inner = inner.module
        elif type(inner).__name__ == "OptimizedModule":
            inner = inner._orig_mod
        else:
            return inner


def _make_plain(network: nn.Module) -> None:
    """Writes parametrised weights out; refuses hooks, which would run at other times and on other shapes."""
    for name, module in list(network.named_modules()):
        if parametrize.is_parametrized(module):
            _write_out(module)
        if any(getattr(module, hooks) for hooks in _HOOKS):
            raise UnsupportedError(
                f"convert: layer {name!r} ({type(module).__name__}) has forward hooks, which a conversion cannot keep; "
                "remove them first"
            )


def _write_out(module: Any) -> None:
    """Makes a parametrised layer a plain one; torch's own removal would change the class of the user's layer too."""
    with torch.no_grad():
        weights = {name: getattr(module, name).clone() for name in module.parametrizations}
    module.__class__ = parametrize.type_before_parametrizations(module)
    del module._modules["parametrizations"]
    for name, weight in weights.items():
        module.register_parameter(name, nn.Parameter(weight, requires_grad=False))


def _defaults(network: nn.Module) -> dict[str, Any]:
    """Values of the arguments of `forward` after the first."""
    arguments = list(inspect.signature(network.forward).parameters.values())
    defaults: dict[str, Any] = {}
    for argument in arguments[1:]:
        if argument.kind in (argument.VAR_POSITIONAL, argument.VAR_KEYWORD):
            continue
        if argument.default is argument.empty:
            raise UnsupportedError(
                f"convert: the forward of {type(network).__name__} must take one input, {argument.name!r} is a second"
            )
        defaults[argument.name] = argument.default
    return defaults
