"""The reference backend: the step function itself, on tensors, one step after the other."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import torch

from snn.kernels.call import NeuronCall, NeuronResult
from snn.kernels.trace import is_switch
from snn.ops import fire_with


def run_reference(call: NeuronCall) -> NeuronResult:
    """Every step in eager torch, differentiable through the surrogate; defines what the kernels must give."""
    dtype = torch.float32 if call.x.dtype in (torch.float16, torch.bfloat16) else call.x.dtype
    x = call.x.to(dtype)

    def as_value(value: Any) -> Any:
        return value if is_switch(value) else torch.as_tensor(value, dtype=dtype, device=x.device)

    params = SimpleNamespace(**{name: as_value(value) for name, value in call.params.items()})
    states = {name: as_value(value).expand(x.shape[1:]) for name, value in call.states.items()}
    outputs: list[torch.Tensor] = []
    sequences: dict[str, list[torch.Tensor]] = {name: [] for name in call.recorded}
    with fire_with(call.surrogate):
        for x_t in x:
            z, states = call.model.step(x_t, SimpleNamespace(**states), params)
            outputs.append(z)
            for name, sequence in sequences.items():
                sequence.append(states[name])
    stacked = {name: torch.stack(sequence) for name, sequence in sequences.items()}
    return NeuronResult(torch.stack(outputs).to(call.x.dtype), states, stacked)
