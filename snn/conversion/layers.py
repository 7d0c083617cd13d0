"""Layers of a converted network that have a memory: the spiking layer, and the interface of all of them."""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import nn

from snn.declaration import NeuronModel
from snn.errors import ShapeError
from snn.neurons.neuron import Neuron


class Timed(nn.Module, ABC):
    """A layer that sees the steps of a run in order and remembers.

    `sequence` continues from what earlier calls left until `reset`. One step is a sequence of length 1.
    """

    @abstractmethod
    def sequence(self, *x: torch.Tensor) -> torch.Tensor:
        """Outputs [T, B, ...] for inputs [T, B, ...]."""

    @abstractmethod
    def reset(self) -> None:
        """Forgets all steps."""

    def forward(self, *x: torch.Tensor, over_time: bool = False) -> torch.Tensor:
        """Output [B, ...] of one step; with over_time=True `sequence`, so that forward hooks see it."""
        if over_time:
            return self.sequence(*x)
        return self.sequence(*(part.unsqueeze(0) for part in x)).squeeze(0)


@dataclass
class LayerRecord:
    """What a spiking layer did in one run, for every neuron and sample [B, ...].

    Attributes:
        input_sum: sum of the input current.
        output_sum: sum of the output, spike values included.
        events: number of steps with a spike.
        membrane: at the end of the run, in the unit of the input.
        initial: membrane at its beginning.
        steps: length of the run.
    """

    input_sum: torch.Tensor
    output_sum: torch.Tensor
    events: torch.Tensor
    membrane: torch.Tensor
    initial: torch.Tensor
    steps: int


class SpikingLayer(Timed):
    """Spiking neurons in the place of one activation of the source network; each spike carries the value `threshold`.

    Args:
        name: of the activation in the source network.
        model: declared neuron with parameters "theta" and "v_start" that gives spike counts per step.
        values: its other parameters.
        lowest, highest: least and greatest count of a step, in the mean over a run.
        step_counts: least and greatest count of one step; None takes `lowest` and `highest`.
        run_bounds: least and greatest sum of counts in a run; None where only `lowest` or `highest` bounds it.
        ceiling: greatest value of the activation, inf for ReLU.
        unit_membrane: True if the neuron's state "v" counts in thresholds, not in the unit of the input.

    Attributes:
        threshold: value of one spike, in the unit of the source network: a number, or [C, 1, 1] per channel.
        initial: membrane before the first step in the same unit; also per neuron [C, H, W].
        correction: current added in every step; per channel as `threshold`.
        mask: 0 for neurons whose spikes are not sent in this run, per sample; None for none.
    """

    correction: torch.Tensor

    def __init__(
        self,
        name: str,
        model: NeuronModel,
        values: Mapping[str, Any] | None = None,
        *,
        lowest: int = 0,
        highest: int = 1,
        step_counts: tuple[int, int] | None = None,
        run_bounds: tuple[int | None, int | None] = (None, None),
        ceiling: float = math.inf,
        unit_membrane: bool = False,
    ) -> None:
        super().__init__()
        unknown = torch.tensor(math.nan)
        self.name = name
        self.neuron = Neuron(
            model, {"theta": unknown.clone(), "v_start": unknown.clone(), **(values or {})}, step_mode="m"
        )
        self.lowest, self.highest, self.run_bounds = lowest, highest, run_bounds
        self.step_counts = (lowest, highest) if step_counts is None else step_counts
        self.ceiling = ceiling
        self.unit_membrane = unit_membrane
        self.register_buffer("correction", torch.tensor(0.0))
        self.mask: torch.Tensor | None = None
        self._state: dict[str, torch.Tensor] | None = None
        self._record: LayerRecord | None = None
        self._recording = False

    @property
    def threshold(self) -> torch.Tensor:
        return self.neuron.theta

    @property
    def initial(self) -> torch.Tensor:
        start = self.neuron.v_start
        return start * self.threshold if self.unit_membrane else start

    def set_threshold(self, threshold: torch.Tensor, start: float | torch.Tensor = 0.5) -> None:
        """Sets the value of a spike and the membrane before the first step, `start` in thresholds.

        Raises:
            ValueError: a threshold is not a positive finite number.
        """
        if not bool((threshold > 0).all() and torch.isfinite(threshold).all()):
            worst = threshold.min().item() if bool((threshold > 0).all().logical_not()) else threshold.max().item()
            raise ValueError(f"layer {self.name!r}: every threshold must be positive and finite, got {worst}")
        self.neuron.set_value("theta", threshold.clone())
        start = torch.as_tensor(start, dtype=threshold.dtype, device=threshold.device)
        self.neuron.set_value("v_start", start.clone() if self.unit_membrane else start * threshold)

    def set_initial(self, initial: torch.Tensor) -> None:
        """Sets the membrane before the first step, in the unit of the input."""
        self.neuron.set_value("v_start", initial / self.threshold if self.unit_membrane else initial.clone())

    def set_correction(self, correction: torch.Tensor) -> None:
        """Sets the current that is added in every step, in the unit of the input."""
        self.correction = correction.clone()

    def count_bounds(self, steps: int) -> tuple[int, int]:
        """Least and greatest spike count of a run of so many steps."""
        least, most = self.run_bounds
        return self.lowest * steps if least is None else least, self.highest * steps if most is None else most

    @property
    def membrane(self) -> torch.Tensor:
        """The membrane after the last step [B, ...], in the unit of the input.

        Raises:
            RuntimeError: there was none since the last reset.
        """
        if self._state is None:
            raise RuntimeError(f"layer {self.name!r} has not run since its last reset")
        return self._in_source_unit(self._state["v"])

    @property
    def record(self) -> LayerRecord | None:
        return self._record

    def start_recording(self, on: bool) -> None:
        """Begins or ends keeping the sums of a run."""
        self._recording = on
        self._record = None

    def membrane_run(self, current: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """Spike counts and membranes before the reset, in thresholds, of a run over `current` [T, B, ...] from the start.

        The layer is left reset.
        """
        self.reset()
        self.neuron.store_v_seq = True
        try:
            counts, _ = self.neuron(self._corrected(current), state=None)
            v = self.neuron.v_seq
        finally:
            self.neuron.store_v_seq = False
            self.reset()
        assert v is not None
        return counts, (v if self.unit_membrane else v / self.threshold) + counts

    def start_from(self, membrane: torch.Tensor, mask: torch.Tensor | None = None) -> None:
        """Begins a run at the membrane [B, ...] of this sample batch, with a mask of neurons that send."""
        self.reset()
        self._state = {"v": membrane / self.threshold if self.unit_membrane else membrane}
        self.mask = mask

    def reset(self) -> None:
        self._state = None
        self._record = None
        self.mask = None
        self.neuron.reset()

    def forward(self, *x: torch.Tensor, over_time: bool = False) -> torch.Tensor:
        if over_time or self.neuron.step_mode == "m":
            return super().forward(*x, over_time=over_time)
        return self.neuron(self._corrected(x[0])) * self.threshold

    def sequence(self, *x: torch.Tensor) -> torch.Tensor:
        current = self._corrected(x[0])
        before = self._state
        try:
            counts, self._state = self.neuron(current, state=before)
        except ShapeError as error:
            raise ShapeError(f"layer {self.name!r}: {error}") from error
        if self.mask is not None:
            counts = counts * self.mask
        if self._recording:
            self._keep(current, counts, before)
        return counts * self.threshold

    def _keep(self, current: torch.Tensor, counts: torch.Tensor, before: dict[str, torch.Tensor] | None) -> None:
        input_sum, output_sum = current.sum(0), counts.sum(0) * self.threshold
        events = (counts != 0).sum(0)
        if self._record is None:
            start = self.neuron.v_start if before is None else before["v"]
            initial = self._in_source_unit(start).expand(input_sum.shape)
            self._record = LayerRecord(input_sum, output_sum, events, self.membrane, initial, len(counts))
            return
        record = self._record
        record.input_sum = record.input_sum + input_sum
        record.output_sum = record.output_sum + output_sum
        record.events = record.events + events
        record.membrane = self.membrane
        record.steps += len(counts)

    def _corrected(self, current: torch.Tensor) -> torch.Tensor:
        return current + self.correction if self.correction.dim() else current

    def _in_source_unit(self, v: torch.Tensor) -> torch.Tensor:
        return v * self.threshold if self.unit_membrane else v

    def _load_from_state_dict(self, state_dict: Mapping[str, Any], prefix: str, *args: Any) -> None:
        """Buffers take the shapes that are loaded: they are known after calibration only."""
        for name in ("theta", "v_start"):
            if (value := state_dict.get(f"{prefix}neuron.{name}")) is not None:
                self.neuron.set_value(name, torch.empty_like(value, device=self.threshold.device))
        if (value := state_dict.get(f"{prefix}correction")) is not None:
            self.correction = torch.empty_like(value, device=self.correction.device)
        super()._load_from_state_dict(state_dict, prefix, *args)

    def extra_repr(self) -> str:
        theta = self.threshold
        shown = f"{theta.item():.4g}" if theta.dim() == 0 else f"tensor{tuple(theta.shape)}"
        return f"{self.name!r}, {self.neuron.model.name}, threshold={shown}, counts={self.lowest}..{self.highest}"
