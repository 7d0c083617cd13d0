"""The layer around a declared neuron: parameters, state, step modes and backend."""

from __future__ import annotations

import sys
import warnings
from collections.abc import Mapping, Sequence
from typing import Any, Final

import torch
from spikingjelly.activation_based import surrogate as sj
from spikingjelly.activation_based.base import MemoryModule
from torch import nn

from snn.declaration import NeuronModel
from snn.errors import ShapeError, UnsupportedError, closest
from snn.kernels.backend import BACKENDS, Choice, choose
from snn.kernels.call import NeuronCall, NeuronResult
from snn.kernels.trace import is_switch
from snn.neurons.membrane import MembraneNorm, has_threshold, run_with_norm

State = dict[str, torch.Tensor]
"""Name of a state -> its values, shaped like one step of the input."""


class _NotGiven:
    """Tells a call without `state` from one with `state=None`, which asks for a fresh start and for the state back."""

    def __repr__(self) -> str:
        return "<not given>"


NOT_GIVEN: Final = _NotGiven()


class Neuron(MemoryModule):
    """A layer of declared neurons.

    In step mode "m" the input is [T, B, ...] and every call starts from a fresh state, so no reset can be forgotten;
    state is carried from call to call only when it is handed over: `y, state = layer(x, state=state)`, beginning with
    `state=None`. In step mode "s" the input is one step [B, ...] and the layer streams: its state stays until
    `reset()` (or SpikingJelly's `functional.reset_net(net)`).

    Args:
        model: what `neuron_model` returned.
        values: parameters that differ from the model's defaults: numbers, or tensors that broadcast against one step
            of the input ([C, 1, 1] for a value per channel, [N] per neuron); switches (None, booleans) as in the model.
        learnable: names of the parameters to train.
        surrogate_function: SpikingJelly surrogate object; its derivative stands for that of the spike.
        step_mode: "s" or "m".
        backend: "auto" takes generated kernels where they can run and the reference elsewhere; "reference", "numba" and
            "triton" insist. `chosen_backend(x)` tells what runs and why.
        store_v_seq: True keeps the membrane of every step of the last call in `v_seq` [T, B, ...].
        membrane_norm: normalisation of the membrane between charge and fire, such as `snn.layers.MPBN`.

    Raises:
        TypeError: an unknown parameter; the text names the closest one.
        ValueError: an unknown backend or step mode, or `learnable` names a switch.
        ShapeError: from a call whose state or parameters do not fit the input; the text names the layer.

    >>> layer = Neuron(leaky, {"leak": 0.5}, step_mode="m")
    >>> layer(torch.tensor([1.0, 0.5, 0.5, 0.5]).view(4, 1)).flatten().tolist()
    [1.0, 0.0, 0.0, 0.0]
    """

    def __init__(
        self,
        model: NeuronModel,
        values: Mapping[str, Any] | None = None,
        *,
        learnable: Sequence[str] = (),
        surrogate_function: nn.Module | None = None,
        step_mode: str = "s",
        backend: str = "auto",
        store_v_seq: bool = False,
        membrane_norm: MembraneNorm | None = None,
    ) -> None:
        super().__init__()
        if membrane_norm is not None and not has_threshold(model):
            raise UnsupportedError(
                f"{type(self).__name__}: membrane_norm needs a step that fires by over_threshold(h, threshold), "
                f"{model.name!r} does not"
            )
        self.model = model
        self.membrane_norm = membrane_norm
        values = dict(model.params) | dict(values or {})
        for name in (set(values) | set(learnable)) - set(model.params):
            raise TypeError(f"{type(self).__name__}: no parameter {name!r}{closest(name, model.params)}")
        if backend not in BACKENDS:
            raise ValueError(f"{type(self).__name__}: backend must be one of {BACKENDS}, got {backend!r}")
        for name, value in values.items():
            self._register_value(name, value, name in learnable)
        self.surrogate_function = sj.Sigmoid() if surrogate_function is None else surrogate_function
        self.backend = backend
        self.step_mode = step_mode
        self.store_v_seq = store_v_seq
        self.v_seq: torch.Tensor | None = None
        for name, start in model.start(values).items():
            self.register_memory(name, float(start) if isinstance(start, int | float) else 0.0)
        self._warned = False

    def _register_value(self, name: str, value: Any, learnable: bool) -> None:
        if learnable:
            if is_switch(value):
                raise ValueError(f"{type(self).__name__}: {name}={value} is a switch and cannot be learnable")
            setattr(self, name, nn.Parameter(torch.as_tensor(value, dtype=torch.get_default_dtype()).clone()))
        elif isinstance(value, torch.Tensor):
            self.register_buffer(name, value)
        else:
            setattr(self, name, float(value) if isinstance(value, int) and not isinstance(value, bool) else value)

    def set_value(self, name: str, value: float | torch.Tensor) -> None:
        """Replaces a parameter of the model by a fixed value; it is no longer learned."""
        if name not in self.model.params:
            raise TypeError(f"{type(self).__name__}: no parameter {name!r}{closest(name, self.model.params)}")
        delattr(self, name)
        self._register_value(name, value, learnable=False)

    def call_params(self) -> dict[str, Any]:
        """The model's parameters for a call; a layer that stores them in another form overrides this."""
        return {name: getattr(self, name) for name in self.model.params}

    def forward(
        self, x: torch.Tensor, *, state: State | _NotGiven | None = NOT_GIVEN, detach_state: bool = True
    ) -> torch.Tensor | tuple[torch.Tensor, State]:
        """Spikes for `x`; with `state` given also the state after the last step.

        Args:
            x: currents [T, B, ...] in step mode "m", [B, ...] in step mode "s".
            state: state to start from; None for a fresh start.
            detach_state: False lets gradients flow through the returned state into this call.

        Returns:
            Output like x, or (output, state).
        """
        self._check_input(x)
        x_seq = x if self.step_mode == "m" else x.unsqueeze(0)
        carried = not isinstance(state, _NotGiven)
        start = self.model.start(self.call_params())
        if not isinstance(state, _NotGiven) and state is not None:
            self._check_state(state, x_seq)
            start |= state
        elif not carried and self.step_mode == "s":
            streamed = {name: value for name, value in self.named_memories() if isinstance(value, torch.Tensor)}
            self._check_state(streamed, x_seq)
            start |= streamed
        if self.membrane_norm is not None:
            self.membrane_norm.check_call(x_seq, any(isinstance(value, torch.Tensor) for value in start.values()))
        result = self._run(x_seq, start)

        keep_graph = self.step_mode == "s" and not carried
        for name, value in result.states.items():
            self._memories[name] = value if keep_graph else value.detach()
        if self.store_v_seq:
            self.v_seq = result.sequences.get("v")
        y = result.output if self.step_mode == "m" else result.output.squeeze(0)
        if not carried:
            return y
        return y, {name: value.detach() if detach_state else value for name, value in result.states.items()}

    def _run(self, x_seq: torch.Tensor, start: Mapping[str, Any]) -> NeuronResult:
        params = self.call_params()
        recorded = ("v",) if self.store_v_seq and "v" in self.model.state else ()
        call = NeuronCall(self.model, x_seq, start, params, self.surrogate_function, recorded)
        return self.run_steps(self._choose(x_seq.device, params).backend, call)

    def run_steps(self, backend: str, call: NeuronCall) -> NeuronResult:
        """Runs all steps of a call; a layer whose steps depend on more than its own states overrides this."""
        return run_with_norm(self.membrane_norm, backend, call)

    def _choose(self, device: torch.device, params: Mapping[str, Any]) -> Choice:
        choice = choose(self.backend, self.model, params, self.surrogate_function, device)
        if choice.backend == "reference" and self.backend == "auto" and not self._warned:
            self._warned = True
            warnings.warn(f"{self._label()} runs on the reference path: {choice.reason}", stacklevel=4)
        return choice

    def chosen_backend(self, x: torch.Tensor) -> Choice:
        """The backend that a call with `x` would take, and why."""
        return choose(self.backend, self.model, self.call_params(), self.surrogate_function, x.device)

    def single_step_functional_forward(
        self, inputs: tuple[torch.Tensor, ...], states: tuple[object, ...], **kwargs: object
    ) -> tuple[tuple[torch.Tensor, ...], tuple[object, ...]]:
        """SpikingJelly's explicit-state form of one step."""
        result = self._run(inputs[0].unsqueeze(0), dict(zip(self.model.state, states, strict=True)))
        return (result.output.squeeze(0),), tuple(result.states.values())

    def multi_step_functional_forward(
        self, inputs: tuple[torch.Tensor, ...], states: tuple[object, ...], **kwargs: object
    ) -> tuple[tuple[torch.Tensor, ...], tuple[object, ...]]:
        """SpikingJelly's explicit-state form of T steps."""
        result = self._run(inputs[0], dict(zip(self.model.state, states, strict=True)))
        return (result.output,), tuple(result.states.values())

    def reset(self) -> None:
        """Back to the starting state."""
        for name, value in self._memories_rv.items():
            self._memories[name] = value
        self.v_seq = None

    def extra_repr(self) -> str:
        shown = []
        for name in self.model.params:
            value = getattr(self, name, None)
            shown.append(f"{name}=tensor{tuple(value.shape)}" if isinstance(value, torch.Tensor) else f"{name}={value}")
        return ", ".join([*shown, f"step_mode={self.step_mode!r}", f"backend={self.backend!r}"])

    def _check_input(self, x: torch.Tensor) -> None:
        if not isinstance(x, torch.Tensor) or not x.is_floating_point():
            got = f"{x.dtype} tensor" if isinstance(x, torch.Tensor) else type(x).__name__
            raise TypeError(f"{self._label()}: input must be a floating-point tensor, got {got}")
        least, form = (2, "[T, B, ...]") if self.step_mode == "m" else (1, "[B, ...]")
        if x.dim() < least or x.shape[0] == 0:
            raise ShapeError(
                f'{self._label()}: input must be {form} in step mode "{self.step_mode}", got shape {tuple(x.shape)}'
            )

    def _check_state(self, state: Mapping[str, Any], x_seq: torch.Tensor) -> None:
        if not set(state) <= set(self.model.state):
            raise ValueError(f"{self._label()}: state must hold {sorted(self.model.state)}, got {sorted(state)}")
        expected = x_seq.shape[1:]
        for name, value in state.items():
            if value.shape != expected:
                raise ShapeError(
                    f"{self._label()}: state {name!r} has shape {tuple(value.shape)}, one step of the input has "
                    f"{tuple(expected)}; call reset_net(net) or pass state=None between sequences"
                )
            if value.device != x_seq.device:
                raise ValueError(
                    f"{self._label()}: state {name!r} is on {value.device}, the input is on {x_seq.device}"
                )

    def _label(self) -> str:
        name = _name_within_caller(self)
        return f"{type(self).__name__} {name!r}" if name else type(self).__name__


def _name_within_caller(module: nn.Module) -> str:
    """The dotted name of `module` in the outermost network whose forward is running now; "" when called on its own."""
    name = ""
    frame = sys._getframe()
    seen: set[int] = set()
    while frame := frame.f_back:  # type: ignore[assignment]
        caller = frame.f_locals.get("self")
        if isinstance(caller, nn.Module) and caller is not module and id(caller) not in seen:
            seen.add(id(caller))
            name = next((path for path, child in caller.named_modules() if child is module), name)
    return name
