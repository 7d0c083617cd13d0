"""The GPU backend: runs the generated Triton kernels on CUDA tensors, forwards and backwards.

Nothing here waits for the device: scalar parameters that live there are handed over by address, sums over neurons are
made there. Only the first call of a size waits, since it times block sizes. With TRITON_INTERPRET=1 in the environment
before the first call, CPU tensors are accepted and run the kernels in Triton's interpreter, slowly, for tests.
"""

from __future__ import annotations

import functools
import importlib.util
import os
from collections.abc import Callable, Mapping
from contextlib import nullcontext
from dataclasses import dataclass, replace
from typing import Any

import torch

from snn.errors import UnsupportedError
from snn.kernels.call import NeuronCall
from snn.kernels.gpu_source import LARGEST_BLOCK, GpuSource, GpuSpec, backward_source, forward_source
from snn.kernels.plan import Plan, plan_run
from snn.kernels.signature import Signature
from snn.kernels.source_cache import load_source
from snn.kernels.trace import TracedStep
from snn.surrogate import ClosedForm

NARROW = (torch.float16, torch.bfloat16)
LANES_PER_PROCESSOR = 4096  # neurons whose kept values lie in memory at once, for each multiprocessor
INTERPRETED_BLOCK = 16
INTERPRETED_LANES = 32


@functools.cache
def triton_is_installed() -> bool:
    """True where `import triton` will find something."""
    return importlib.util.find_spec("triton") is not None


def obstacle_on(device: torch.device) -> str | None:
    """Why no GPU kernel can run on tensors of `device`, or None."""
    if device.type != "cuda":
        return f"tensors are on {device}, Triton kernels need them on a CUDA device"
    if not triton_is_installed():
        return "Triton is not installed; torch's CUDA builds for Linux bring it, elsewhere try pip install triton"
    if torch.version.hip is None and (capability := torch.cuda.get_device_capability(device)) < (7, 0):
        return f"Triton needs compute capability 7.0, {device} has {'.'.join(map(str, capability))}"
    return None


@dataclass(frozen=True)
class _Kernel:
    """A kernel: an autotuned Triton function, or the same text in Triton's interpreter."""

    function: Any
    source: GpuSource
    interpreted: bool

    def launch(self, values: Mapping[str, Any], x: torch.Tensor, real: torch.dtype) -> None:
        """Runs all programs on x's device and its current stream; `values` holds the arguments but the sizes."""
        neurons = x.shape[1:].numel()
        if neurons == 0:
            return
        lanes = self._lanes(neurons, x.device)

        def grid(meta: Mapping[str, Any]) -> tuple[int]:
            return (-(-lanes // meta["BLOCK"]),)

        with torch.cuda.device(x.device) if x.is_cuda else nullcontext():
            self.run(grid, self._arguments(values, lanes, x, real))

    def run(self, grid: Callable[[Mapping[str, Any]], tuple[int]], arguments: list[Any]) -> None:
        """Hands the launch to Triton; products and sums are not fused, so that spikes do not depend on the device."""
        if self.interpreted:
            self.function[grid](*arguments, BLOCK=INTERPRETED_BLOCK)
        else:
            self.function[grid](*arguments, enable_fp_fusion=False)

    def _arguments(self, values: Mapping[str, Any], lanes: int, x: torch.Tensor, real: torch.dtype) -> list[Any]:
        steps, neurons = x.shape[0], x.shape[1:].numel()
        sizes: dict[str, Any] = {
            "steps": steps,
            "neurons": neurons,
            "steps_key": (steps - 1).bit_length(),
            "neurons_key": (neurons - 1).bit_length(),
        }
        if self.source.saved_rows:
            saved = torch.empty(steps * self.source.saved_rows * lanes, dtype=real, device=x.device)
            sizes |= {"saved": saved, "saved_stride": lanes}
        given = {**values, **sizes}
        return [given[name] for name in self.source.arguments]

    def _lanes(self, neurons: int, device: torch.device) -> int:
        """Neurons that the grid covers at once: all, or those that have a place in `saved` (whole blocks)."""
        if not self.source.saved_rows:
            return neurons
        most, block = INTERPRETED_LANES, INTERPRETED_BLOCK
        if not self.interpreted:
            most = LANES_PER_PROCESSOR * torch.cuda.get_device_properties(device).multi_processor_count
            block = LARGEST_BLOCK
        return min(most, -(-neurons // block) * block)


_kernels: dict[tuple[TracedStep, str, str, GpuSpec], _Kernel] = {}


def _kernel(generate: Callable[..., GpuSource], step: TracedStep, form: ClosedForm, spec: GpuSpec) -> _Kernel:
    key = (step, generate.__name__, form.name, spec)
    if key not in _kernels:
        from triton.runtime.interpreter import InterpretedFunction

        source = generate(step, form, spec)
        module = load_source(source.name, source.text)
        function = getattr(module, source.kind)
        interpreted = isinstance(function, InterpretedFunction)  # there is nothing to time then
        _kernels[key] = _Kernel(function if interpreted else module.tuned(), source, interpreted)
    return _kernels[key]


def _interpreting() -> bool:
    return triton_is_installed() and os.environ.get("TRITON_INTERPRET") == "1"


def on_device(call: NeuronCall) -> NeuronCall:
    """The call with every tensor on x's device; a single constant in the host's memory becomes a number."""

    def moved(value: Any) -> Any:
        if not isinstance(value, torch.Tensor) or value.device == call.x.device:
            return value
        if value.device.type == "cpu" and value.numel() == 1 and not value.requires_grad:
            return float(value)
        return value.to(call.x.device, non_blocking=True)

    return replace(
        call,
        states={name: moved(value) for name, value in call.states.items()},
        params={name: moved(value) for name, value in call.params.items()},
    )


def _inputs(plan: Plan, x: torch.Tensor, starts: Mapping[str, torch.Tensor]) -> tuple[dict[str, Any], frozenset[str]]:
    """What both kernels read: x, starting states, parameters, surrogate; and which scalars are given by address."""
    signature = plan.signature
    static = x.shape[0] > 1 and x.stride(0) == 0
    rows = (x[:1] if static else x).contiguous()
    values: dict[str, Any] = {"x": rows, "x_stride": 0 if static else x.shape[1:].numel()}
    values |= {f"s_{name}_start": value.contiguous() for name, value in starts.items()}
    numbers = {f"s_{name}_start": value for name, value in signature.start_values.items()}
    numbers |= {f"p_{name}": value for name, value in signature.scalars.items()}
    surrogate = zip(signature.form.params, signature.surrogate_values, strict=True)
    numbers |= {f"surrogate_{name}": value for name, value in surrogate}
    by_address = {f"p_{name}": layout.values for name, layout in plan.layouts.items() if name not in plan.spec.arrays}
    if plan.spec.dtype == "float64":  # Triton passes a Python float as float32
        by_address |= {
            name: torch.full((1,), value, dtype=torch.float64, device=x.device) for name, value in numbers.items()
        }
        numbers = {}
    for name in plan.spec.arrays:
        layout = plan.layouts[name]
        values |= {
            f"p_{name}_values": layout.values,
            f"p_{name}_count": layout.values.numel(),
            f"p_{name}_inner": layout.inner,
        }
    return values | numbers | by_address, frozenset(by_address)


def _gpu_spec(plan: Plan, by_address: frozenset[str]) -> GpuSpec:
    return GpuSpec(
        kernel=plan.spec,
        by_address=by_address,
        numbers=frozenset(f"s_{name}" for name in plan.signature.start_values),
    )


def _real(x: torch.Tensor) -> torch.dtype:
    return torch.float64 if x.dtype == torch.float64 else torch.float32


def forward(
    signature: Signature, x: torch.Tensor, starts: Mapping[str, torch.Tensor], params: Mapping[str, torch.Tensor]
) -> list[torch.Tensor]:
    """A run over x [T, ...]: output, end states, recorded sequences and kept values.

    States are float32 for an input in float16, bfloat16 or float32 and float64 for float64; the output has the input's
    dtype.

    Raises:
        UnsupportedError: the tensors are not on a CUDA device and Triton does not interpret, or Triton is missing.
    """
    if (obstacle := obstacle_on(x.device)) and not (x.device.type == "cpu" and _interpreting()):
        raise UnsupportedError(f"backend 'triton': {obstacle}")
    real = _real(x)
    plan = plan_run(signature, x.shape[1:], params, real)
    output = torch.empty(x.shape, dtype=x.dtype, device=x.device)
    ends = {name: torch.empty(x.shape[1:], dtype=real, device=x.device) for name in signature.states}
    names = [*(f"s_{name}_seq" for name in signature.recorded), *(f"kept{k}" for k in range(signature.kept_count))]
    sequences = {name: torch.empty(x.shape, dtype=real, device=x.device) for name in names}
    values, by_address = _inputs(plan, x, starts)
    values |= {"z": output, **{f"s_{name}_end": end for name, end in ends.items()}, **sequences}
    spec = _gpu_spec(plan, by_address)
    if not signature.keep:
        spec = replace(spec, kernel=replace(plan.spec, learnable=()))
    _kernel(forward_source, signature.step, signature.form, spec).launch(values, x, real)
    return [output, *ends.values(), *sequences.values()]


def backward(
    signature: Signature,
    x: torch.Tensor,
    starts: Mapping[str, torch.Tensor],
    params: Mapping[str, torch.Tensor],
    kept: list[torch.Tensor],
    arriving: list[torch.Tensor | None],
) -> list[torch.Tensor]:
    """Gradients of x (in its dtype), of the starting states and of the learnable parameters.

    Args:
        kept: what the forward run returned of it.
        arriving: gradients of the output, the end states and the recorded sequences; None stands for zeros.
    """
    real = _real(x)
    plan = plan_run(signature, x.shape[1:], params, real)
    g_x = torch.empty(x.shape, dtype=x.dtype, device=x.device)
    g_starts = {name: torch.empty(x.shape[1:], dtype=real, device=x.device) for name in signature.start_names}
    g_params = {name: torch.empty(x.shape[1:].numel(), dtype=real, device=x.device) for name in signature.learnable}
    names = ["g_out", *(f"g_s_{name}_end" for name in signature.states)]
    names += [f"g_s_{name}_seq" for name in signature.recorded]
    given = {
        name: gradient.detach().contiguous()
        for name, gradient in zip(names, arriving, strict=True)
        if gradient is not None
    }
    values, by_address = _inputs(plan, x, starts)
    values |= {"g_x": g_x, **given, **{f"kept{k}": value.contiguous() for k, value in enumerate(kept)}}
    values |= {f"g_s_{name}_start": gradient for name, gradient in g_starts.items()}
    values |= {f"g_p_{name}_out": gradient for name, gradient in g_params.items()}
    spec = replace(_gpu_spec(plan, by_address), arriving=frozenset(given), narrow=x.dtype in NARROW)
    _kernel(backward_source, signature.step, signature.form, spec).launch(values, x, real)
    return [g_x, *g_starts.values(), *plan.parameter_gradients(g_params, params)]
