"""The converted network: runs, read-outs, records, and its view as an ordinary network over single steps."""

from __future__ import annotations

import copy
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from typing import Any, Literal

import torch
from spikingjelly.activation_based import functional
from torch import fx, nn

from snn.conversion.execution import Execution
from snn.conversion.layers import LayerRecord, SpikingLayer, Timed
from snn.conversion.recurrent import SpikingRecurrent
from snn.errors import ShapeError

Coding = Literal["rate", "sum"]
CHUNK_VALUES = 1 << 22
"""Elements of the largest layer that one chunk of time may hold."""
LEAST_READ_STEPS = 4


class Preparation(ABC):
    """Something that sets the starting state of the spiking layers for each batch before a run."""

    @property
    @abstractmethod
    def steps(self) -> int:
        """Steps that it runs each layer for."""

    @abstractmethod
    def prepare(self, network: ConvertedNetwork, x: torch.Tensor) -> None:
        """Called after all layers have been reset."""


class ConvertedNetwork(nn.Module):
    """A network whose activations are spiking layers.

    In a run all layers are updated in every step, the input's side first. With coding "rate" the input and all biases
    are given in every step and the read-out is the mean over the steps; with "sum" they are given in the first step
    alone, and the read-out is the sum until no layer sends anything any more.

    Args:
        source: the canonical source network.
        body: the same with spiking layers.
        coding: "rate" or "sum".
        T: steps of a run that does not say how many.
        notes: what was changed on the way.
        preparation: sets starting states before each run, or None.

    Attributes:
        skipped_steps: steps at the beginning that the read-out leaves out (rate coding). A run that would leave fewer
            than 4 leaves out all but its last 5.
    Input: [B, ...], as the source network takes it.
    Returns: logits [B, classes], or with return_all_steps=True the read-outs after 1, 2, ... T steps [T, B, classes].
    Raises: ShapeError for an input that does not fit; ValueError for T < 1 or a network without thresholds.
    """

    skipped_steps: torch.Tensor

    def __init__(
        self,
        source: fx.GraphModule,
        body: fx.GraphModule,
        coding: Coding,
        T: int,
        notes: list[str] | None = None,
        preparation: Preparation | None = None,
    ) -> None:
        super().__init__()
        self.source, self.body = source, body
        self.coding = coding
        self.T = T
        self.notes = list(notes or [])
        self.preparation = preparation
        self.register_buffer("skipped_steps", torch.tensor(0))
        self._execution = Execution(body, constant_input=coding == "rate")

    def __deepcopy__(self, memo: dict[int, object]) -> ConvertedNetwork:
        source, body = copy.deepcopy(self.source, memo), copy.deepcopy(self.body, memo)
        copied = ConvertedNetwork(source, body, self.coding, self.T, self.notes, copy.deepcopy(self.preparation, memo))
        copied.skipped_steps = self.skipped_steps.clone()
        copied.training = self.training
        return copied

    def layers(self) -> dict[str, SpikingLayer]:
        """The spiking layers in the order of the network, by the name of the activation that each stands for."""
        called = (self._execution.layer(node) for node in self._execution.order)
        return {layer.name: layer for layer in called if isinstance(layer, SpikingLayer)}

    def recurrent(self) -> dict[str, SpikingRecurrent]:
        """The recurrent layers in the order of the network, by the name of the layer that each stands for."""
        called = (self._execution.layer(node) for node in self._execution.order)
        return {layer.name: layer for layer in called if isinstance(layer, SpikingRecurrent)}

    def timed(self) -> list[Timed]:
        """All layers with a memory."""
        return [layer for layer in self.body.modules() if isinstance(layer, Timed)]

    def reset(self) -> None:
        """Forgets all steps. Every run begins with it."""
        for layer in self.timed():
            layer.reset()

    def forward(self, x: torch.Tensor, T: int | None = None, return_all_steps: bool = False) -> torch.Tensor:
        steps = self._checked(x, T)
        if not return_all_steps and self.coding == "rate":
            skipped = self.skipped(steps)
            total = x.new_zeros(())
            for first, outputs in self.run(x, steps):
                total = total + outputs[max(0, skipped - first) :].sum(0)
            return total / (steps - skipped)
        chunks = [outputs for _, outputs in self.run(x, steps)]
        sums = torch.cat(chunks).cumsum(0)
        if not return_all_steps:
            return sums[-1]
        if self.coding == "sum":
            return torch.cat([sums, sums[-1:].expand(steps - len(sums), *sums.shape[1:])])
        return torch.stack([self._mean(sums, count) for count in range(1, steps + 1)])

    def run(self, x: torch.Tensor, steps: int) -> Iterator[tuple[int, torch.Tensor]]:
        """Runs from a fresh state; gives (number of the chunk's first step, output [steps of the chunk, B, ...]).

        A run with coding "sum" ends early when a step has passed in which no layer sent anything.
        """
        self.reset()
        if self.preparation is not None:
            self.preparation.prepare(self, x)
        yield from self.steps_from_here(x, steps)

    def steps_from_here(self, x: torch.Tensor, steps: int) -> Iterator[tuple[int, torch.Tensor]]:
        """As `run`, from the state as it is."""
        plan, done = self._execution, 0
        rate = self.coding == "rate"
        still = plan.still(x) if rate else {}
        while done < steps:
            count = min(steps - done, self._chunk_length(done))
            moving = None if rate else _first_only(x, count, done)
            outputs = plan.chunk(still, moving, count, driven=rate or done == 0)
            yield done, outputs
            done += count
            if not rate and not plan.last_step_sent:
                return

    def run_in_one_chunk(self, x: torch.Tensor, steps: int) -> torch.Tensor:
        """Outputs [steps, B, ...] from the state as it is, each layer over all steps before the next (rate coding)."""
        outputs: torch.Tensor = self._execution.chunk(self._execution.still(x), None, steps)
        return outputs

    def parts(self, x: torch.Tensor, steps: int) -> list[tuple[int, Callable[[], torch.Tensor | None]]]:
        """A run from a fresh state as calls to make in this order, each of (steps, what runs all of them at once).

        Parts are steps that do the same: a preparation, then the run; with coding "sum" the step with the input, then the
        others, to the last. They are for counters, which have to know how many steps a call makes; their outputs
        [steps, B, ...] together (a preparation has none) are those of `run`.
        """
        self.reset()
        if self.coding == "rate":
            before = self.preparation
            first = [] if before is None else [(before.steps, lambda: before.prepare(self, x))]
            return [*first, (steps, lambda: self.run_in_one_chunk(x, steps))]
        plan = self._execution
        found = [(1, lambda: plan.chunk({}, _first_only(x, 1, 0), 1))]
        if steps > 1:
            found.append((steps - 1, lambda: plan.chunk({}, _first_only(x, steps - 1, 1), steps - 1, driven=False)))
        return found

    def _chunk_length(self, done: int) -> int:
        if done == 0:  # shows how large the layers are; with coding "sum" the only step with input
            return 1
        return max(1, CHUNK_VALUES // max(1, self._execution.largest))

    def _mean(self, sums: torch.Tensor, count: int) -> torch.Tensor:
        skipped = self.skipped(count)
        total = sums[count - 1] if skipped == 0 else sums[count - 1] - sums[skipped - 1]
        return total / (count - skipped)

    def skipped(self, steps: int) -> int:
        """First steps that the read-out of a run of so many steps leaves out."""
        wanted = int(self.skipped_steps)
        return wanted if steps - wanted >= LEAST_READ_STEPS else max(0, min(wanted, steps - LEAST_READ_STEPS - 1))

    def _checked(self, x: torch.Tensor, T: int | None) -> int:
        steps = self.T if T is None else T
        if not isinstance(steps, int) or isinstance(steps, bool) or steps < 1:
            raise ValueError(f"T must be a positive whole number of steps, got {steps!r}")
        if not isinstance(x, torch.Tensor) or not x.is_floating_point():
            got = f"a {x.dtype} tensor" if isinstance(x, torch.Tensor) else f"a {type(x).__name__}"
            raise TypeError(f"x must be a floating-point tensor [B, ...], got {got}")
        if x.dim() < 2 or len(x) == 0:
            raise ShapeError(f"x must be [B, ...] with at least one sample, got shape {tuple(x.shape)}")
        for name, layer in self.layers().items():
            if bool(layer.threshold.isnan().any()):
                raise ValueError(f"layer {name!r} has no threshold; calibrate the network or load its state_dict")
        return steps

    @contextmanager
    def record(self) -> Iterator[Mapping[str, LayerRecord]]:
        """Within this context every run leaves the sums of its spiking layers in the mapping, by layer name.

        A new run replaces those of the one before.
        """
        records = _Records(self.layers())
        for layer in self.layers().values():
            layer.start_recording(True)
        try:
            yield records
        finally:
            records.keep()
            for layer in self.layers().values():
                layer.start_recording(False)

    def single_step(self) -> SingleStep:
        """A copy as an ordinary network over single steps, for event engines, energy counters and exports.

        Raises:
            ValueError: coding "sum", whose steps differ, or a network with a preparation for each batch.
        """
        if self.coding != "rate" or self.preparation is not None:
            raise ValueError(
                "single_step: only rate-coded networks without preparation do the same in every step; "
                f"this one has coding {self.coding!r} and {'a' if self.preparation else 'no'} preparation"
            )
        return SingleStep(self)

    def _load_from_state_dict(self, state_dict: Mapping[str, Any], prefix: str, *args: Any) -> None:
        """Weights that the body shares with the source network become its own where the two differ in what is loaded."""
        for name, module in self.body.named_modules():
            for held in (module._parameters, module._buffers):
                for key, value in held.items():
                    path = f"{name}.{key}" if name else key
                    ours, theirs = (state_dict.get(f"{prefix}{part}.{path}") for part in ("body", "source"))
                    if value is not None and ours is not None and theirs is not None and not torch.equal(ours, theirs):
                        held[key] = copy.deepcopy(value)
        super()._load_from_state_dict(state_dict, prefix, *args)

    def extra_repr(self) -> str:
        return f"coding={self.coding!r}, T={self.T}, {len(self.layers())} spiking layers"


class SingleStep(nn.Module):
    """A converted network that takes one step at a time and keeps its state until `reset`.

    Input: one step [B, ...]. Returns: the read-out's current of that step [B, classes]; their mean over T steps is what
    the network gives that this view was taken from.
    """

    def __init__(self, network: ConvertedNetwork) -> None:
        super().__init__()
        self.body = copy.deepcopy(network.body)
        functional.set_step_mode(self.body, "s")
        self.reset()

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        y: torch.Tensor = self.body(x)
        return y

    def reset(self) -> None:
        """Back to the state before the first step."""
        for layer in self.body.modules():
            if isinstance(layer, Timed):
                layer.reset()


class _Records(Mapping[str, LayerRecord]):
    """The records of the last run: read from the layers while they record, kept afterwards."""

    def __init__(self, layers: dict[str, SpikingLayer]) -> None:
        self._layers = layers
        self._kept: dict[str, LayerRecord] | None = None

    def keep(self) -> None:
        self._kept = self._now()

    def _now(self) -> dict[str, LayerRecord]:
        if self._kept is not None:
            return self._kept
        return {name: layer.record for name, layer in self._layers.items() if layer.record is not None}

    def __getitem__(self, name: str) -> LayerRecord:
        return self._now()[name]

    def __iter__(self) -> Iterator[str]:
        return iter(self._now())

    def __len__(self) -> int:
        return len(self._now())


def _first_only(x: torch.Tensor, count: int, done: int) -> torch.Tensor:
    """Input of the steps from `done`: x in the very first, zeros afterwards."""
    if done == 0 and count == 1:
        return x.unsqueeze(0)
    return x.new_zeros(()).expand(count, *x.shape)
