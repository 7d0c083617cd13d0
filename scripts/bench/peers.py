"""What the benchmarks of the training kernels share: the same neuron from every installed library, clocks, memory, JSON.

Libraries that are not installed are left out; `pip install 'spikeloop[bench]'` brings all of them. Every library is run in
the way its documentation shows, on sequences [T, B, N]; sinabs gets its own order [B, T, N].
"""

from __future__ import annotations

import importlib.util
import json
import os
import platform
import statistics
import subprocess
import sys
import time
import warnings
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

import torch
from spikingjelly.activation_based import functional, neuron, surrogate
from torch import nn

import snn
from snn.surrogate import FastSigmoid

Row = dict[str, Any]


class Looped(nn.Module):
    """A neuron that takes one step at a time and hands its state back; `first()` makes the state to start from."""

    def __init__(self, cell: nn.Module, first: Callable[[], Any] = lambda: None) -> None:
        super().__init__()
        self.cell = cell
        self.first = first

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        state, outputs = self.first(), []
        for x_t in x:
            z, state = self.cell(x_t, state)
            outputs.append(z)
        return torch.stack(outputs)


class BatchFirst(nn.Module):
    """A neuron for [B, T, N]; its state is dropped before every call."""

    def __init__(self, layer: Any) -> None:
        super().__init__()
        self.layer = layer

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        self.layer.reset_states()
        return self.layer(x.transpose(0, 1)).transpose(0, 1)


class Fresh(nn.Module):
    """A neuron of SpikingJelly; its state is dropped before every call."""

    def __init__(self, node: nn.Module) -> None:
        super().__init__()
        self.node = node

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        functional.reset_net(self.node)
        return self.node(x)


def _spikingjelly() -> tuple[nn.Module, snn.LIF]:
    theirs = neuron.LIFNode(surrogate_function=surrogate.ATan(), step_mode="m")
    return Fresh(theirs), snn.LIF(surrogate_function=surrogate.ATan(), step_mode="m")


def _snntorch() -> tuple[nn.Module, snn.LIF]:
    import snntorch

    spike_grad = snntorch.surrogate.atan(alpha=2.0)
    theirs = snntorch.Leaky(beta=0.5, spike_grad=spike_grad, reset_mechanism="zero", reset_delay=False)
    ours = snn.LIF(decay_input=False, surrogate_function=surrogate.ATan(), step_mode="m")
    return Looped(theirs, theirs.reset_mem), ours


def _norse() -> tuple[nn.Module, snn.LIF]:
    import norse.torch as norse

    constants = {"v_leak": 0.0, "v_th": 1.0, "v_reset": 0.0}
    p = norse.LIFBoxParameters(
        tau_mem_inv=torch.tensor(500.0), method="super",
        **{name: torch.tensor(value) for name, value in constants.items()},
    )  # fmt: skip
    ours = snn.LIF(surrogate_function=FastSigmoid(alpha=1.0), step_mode="m")  # norse uses no other alpha
    return Looped(norse.LIFBoxCell(p=p)), ours


def _sinabs() -> tuple[nn.Module, snn.LIF]:
    import sinabs.activation as activation
    from sinabs.layers import LIF

    theirs = LIF(
        tau_mem=1.4426950408889634,  # exp(-1 / tau) = 1/2
        spike_fn=activation.SingleSpike,
        surrogate_grad_fn=activation.SingleExponential(grad_width=0.5, grad_scale=0.5),
    )
    ours = snn.LIF(v_reset=None, surrogate_function=surrogate.PiecewiseExp(2.0), step_mode="m")
    return BatchFirst(theirs), ours


LIBRARIES: dict[str, Callable[[], tuple[nn.Module, snn.LIF]]] = {
    "spikingjelly": _spikingjelly,
    "snntorch": _snntorch,
    "norse": _norse,
    "sinabs": _sinabs,
}
"""name -> (the library's LIF with a time constant of two steps, ours with the same equation and surrogate)."""


def installed() -> list[str]:
    """The libraries that are here."""
    return [name for name in LIBRARIES if importlib.util.find_spec(name) is not None]


def neurons(name: str) -> tuple[nn.Module, snn.LIF]:
    """(the library's neuron, ours with the same equation)."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return LIBRARIES[name]()


def check_neurons(names: Iterable[str]) -> None:
    """Stops the program unless each library's spikes and input gradients equal ours in float64.

    The spikes of sinabs may differ in a few of 100,000 neuron steps, since its decay is the exponential of a rounded number.
    """
    for name in names:
        theirs, ours = (layer.double() for layer in neurons(name))
        torch.manual_seed(0)
        x = (1.5 * torch.randn(50, 8, 250, dtype=torch.float64)).requires_grad_()
        weights = torch.randn_like(x)
        y, expected = ours(x), theirs(x)
        (g,), (wanted,) = (torch.autograd.grad(z, x, weights) for z in (y, expected))
        differing = int((y.detach() != expected.detach()).sum())
        same = (y == expected).all(0, keepdim=True).expand_as(x)  # a differing spike changes its neuron's later steps
        error = float((g - wanted)[same].abs().max() / wanted.abs().max())
        if differing > 10 or error > 1e-6:
            sys.exit(f"{name}: {differing} spikes of {x.numel()} differ, gradients by {error:.1e}; nothing is timed")


def interleaved(work: dict[str, Callable[[], object]], rounds: int) -> dict[str, dict[str, float]]:
    """Median and minimum time in ms; the peers take turns, so that a change in the machine's speed meets all of them."""
    times: dict[str, list[float]] = {name: [] for name in work}
    for call in work.values():
        call()
    for _ in range(rounds):
        for name, call in work.items():
            start = time.perf_counter()
            call()
            times[name].append(1e3 * (time.perf_counter() - start))
    return {name: {"median_ms": statistics.median(taken), "min_ms": min(taken)} for name, taken in times.items()}


def peak_mb(script: str, arguments: list[str]) -> float | None:
    """Peak memory that `work()` adds, in MB: `script --memory ...` prints it from a fresh process; None outside Linux."""
    if not Path("/proc/self/clear_refs").exists():
        return None
    command = [sys.executable, script, "--memory", *arguments]
    done = subprocess.run(command, capture_output=True, text=True, check=True, env=os.environ)
    return float(done.stdout.split()[-1])


def print_added_peak(warm_up: Callable[[], object], work: Callable[[], object]) -> None:
    """Prints how far the process's resident memory rises during `work`, in MB."""
    warm_up()
    Path("/proc/self/clear_refs").write_text("5")  # forget the peak so far
    before = _status_mb("VmRSS")
    work()
    print(_status_mb("VmHWM") - before)


def _status_mb(field: str) -> float:
    for line in Path("/proc/self/status").read_text().splitlines():
        if line.startswith(field + ":"):
            return int(line.split()[1]) / 1024
    raise RuntimeError(f"/proc/self/status has no {field}")


def write_json(path: Path | None, rows: list[Row]) -> None:
    """Writes the rows with a description of the machine; nothing if no path was asked for."""
    if path is None:
        return
    path.parent.mkdir(parents=True, exist_ok=True)
    machine = {
        "processor": platform.processor() or platform.machine(),
        "threads": torch.get_num_threads(),
        "torch": torch.__version__,
    }
    partial = path.with_suffix(path.suffix + ".part")
    partial.write_text(json.dumps({"machine": machine, "rows": rows}, indent=1) + "\n")
    partial.replace(path)
