"""An integer network: coded input, layers of integer neurons, and a read-out in the units of the float network."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass

import numpy as np
import torch
from torch import nn

from neuromorphic.targets.connections import Shape
from neuromorphic.targets.layers import Flatten, IntegerLayer, SumPool
from neuromorphic.targets.straight_through import bounded, nearest
from snn.errors import ShapeError


@dataclass(frozen=True)
class AnalogInput:
    """An analog input as integers: round(x scale) within low..high (halves to even)."""

    scale: float
    low: int
    high: int


class IntegerNetwork(nn.Module):
    """Stages in order over a whole sequence, in exactly the target's integers.

    `network(x)` runs in torch and can be trained; `network.run(x)` runs the same integers in compiled loops.

    Args:
        stages: name -> `IntegerLayer`, `SumPool` or `Flatten`.
        analog: how an analog input becomes integers; None takes whole numbers (spikes or counts) only.
        output_scale: integers per unit of the output; a number, or one per output; 1 for spikes.
    Input: [T, B, ...]. Returns: [T, B, ...] in the dtype of the input, the last stage's integers / output_scale.
    Raises: ValueError for an input that is not whole numbers where `analog` is None.
    """

    output_scale: torch.Tensor

    def __init__(
        self,
        stages: Mapping[str, nn.Module],
        analog: AnalogInput | None = None,
        output_scale: float | torch.Tensor = 1.0,
    ) -> None:
        super().__init__()
        for name, stage in stages.items():
            if not isinstance(stage, IntegerLayer | SumPool | Flatten):
                raise TypeError(
                    f"IntegerNetwork: stage {name!r} must be an IntegerLayer, SumPool or Flatten, got {type(stage).__name__}"
                )
        self.names = list(stages)
        self.stages = nn.ModuleList(stages.values())
        self.analog = analog
        self.register_buffer("output_scale", torch.as_tensor(output_scale, dtype=torch.float64))

    def coded(self, x: torch.Tensor) -> torch.Tensor:
        """The integers that enter the first stage, float64."""
        if self.analog is None:
            whole = x.detach().double()
            if not bool((whole == torch.round(whole)).all()):
                raise ValueError(
                    "IntegerNetwork: input must hold whole numbers (spikes or counts); this network has no analog input"
                )
            return x.double()
        return bounded(nearest(x.double() * self.analog.scale), self.analog.low, self.analog.high)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        y = self.coded(x)
        for stage in self.stages:
            y = stage(y)
        return (y / self.output_scale).to(x.dtype)

    def layer_outputs(self, x: torch.Tensor) -> dict[str, torch.Tensor]:
        """Integers that each `IntegerLayer` sends, by name; [T, B, ...] float64."""
        y, found = self.coded(x), {}
        for name, stage in zip(self.names, self.stages, strict=True):
            y = stage(y)
            if isinstance(stage, IntegerLayer):
                found[name] = y
        return found

    def run(self, x: torch.Tensor) -> torch.Tensor:
        """`forward` without gradients, in compiled loops that skip silent inputs; equal bit for bit."""
        return self.frozen(tuple(x.shape[2:]))(x)

    @torch.no_grad()
    def frozen(self, shape: Shape) -> Callable[[torch.Tensor], torch.Tensor]:
        """`run` for inputs of one shape, with the integers of now: later changes of the network do not reach it."""
        runs, size = [], shape
        for stage in self.stages:
            runs.append(stage.compiled(size))  # type: ignore[operator]
            size = stage.output_shape(size)  # type: ignore[operator]
        scale = self.output_scale.clone()

        @torch.no_grad()
        def run(x: torch.Tensor) -> torch.Tensor:
            if tuple(x.shape[2:]) != shape:
                raise ShapeError(f"IntegerNetwork: one input must have shape {shape}, got {tuple(x.shape[2:])}")
            array = np.ascontiguousarray(self.coded(x).flatten(2).cpu().numpy().astype(np.int32))
            for step in runs:
                array = step(array.astype(np.int32, copy=False))
            out = torch.from_numpy(array.astype(np.float64)).view(*x.shape[:2], *size).to(x.device)
            return (out / scale).to(x.dtype)

        return run

    def shapes(self, shape: Shape) -> list[Shape]:
        """Shape of each stage's output for inputs of one shape."""
        found = []
        for stage in self.stages:
            shape = stage.output_shape(shape)  # type: ignore[operator]
            found.append(shape)
        return found
