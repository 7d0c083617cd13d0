"""The neurons of NIR as declared steps: continuous equations with a named discretisation.

Notation: a = dt / tau, b = exp(-dt / tau), one pair for each time constant. `Policy` says which of them is taken, what
an input means and what a spike does; a file does not.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import torch

from snn.declaration import NeuronModel, neuron_model
from snn.errors import UnsupportedError
from snn.neurons import Neuron
from snn.ops import select, spike

INTEGRATIONS = ("euler", "euler_sim", "zoh", "impulse")
INPUTS = ("current", "jump")
RESETS = ("value", "subtract", "subtract_next")


@dataclass(frozen=True)
class Policy:
    """What NIR leaves open.

    Attributes:
        dt: step in seconds.
        integration: "euler" v + a (v_leak - v + r x), synaptic current first, then v with the new current; "euler_sim"
            both from the old values; "zoh" exact for an input constant over the step; "impulse" exact decay, then a
            jump by a r x.
        input: "current" as above; "jump" without the factor a of the first equation (an input of 1 is an impulse).
        reset: "value" sets v_reset, "subtract" takes v_threshold - v_reset off, "subtract_next" takes it off at the next
            step, after the decay (snnTorch's default).
        fires_at_threshold: False fires above v_threshold, as NIR says; True also at it.
    """

    dt: float
    integration: str = "euler"
    input: str | None = None
    reset: str = "value"
    fires_at_threshold: bool = False

    def __post_init__(self) -> None:
        for name, accepted in (("integration", INTEGRATIONS), ("reset", RESETS), ("input", (None, *INPUTS))):
            if getattr(self, name) not in accepted:
                raise ValueError(f"{name} must be one of {accepted}, got {getattr(self, name)!r}")
        if not self.dt > 0:
            raise ValueError(f"dt_ms must be > 0, got {self.dt * 1e3}")


_SWITCHES: dict[str, float | bool | None] = {
    "v_leak": None,
    "v_threshold": 1.0,
    "v_reset": 0.0,
    "fires": True,
    "at_threshold": False,
    "subtract": False,
}


def _fired(h: Any, p: Any) -> Any:
    return spike(h - p.v_threshold) if p.at_threshold else 1.0 - spike(p.v_threshold - h)


def _after(h: Any, z: Any, p: Any) -> Any:
    return h - z * (p.v_threshold - p.v_reset) if p.subtract else select(z, p.v_reset, h)


def _relaxed(v: Any, decay: Any, p: Any) -> Any:
    return v * decay if p.v_leak is None else p.v_leak + (v - p.v_leak) * decay


@neuron_model(state={"v": 0.0}, params={"decay": 1.0, "gain": 1.0, **_SWITCHES})
def first_order(x: Any, s: Any, p: Any) -> tuple[Any, dict[str, Any]]:
    h = _relaxed(s.v, p.decay, p) + p.gain * x
    if not p.fires:
        return h, {"v": h}
    z = _fired(h, p)
    return z, {"v": _after(h, z, p)}


@neuron_model(state={"v": 0.0, "z": 0.0}, params={"decay": 1.0, "gain": 1.0, **_SWITCHES})
def first_order_late(x: Any, s: Any, p: Any) -> tuple[Any, dict[str, Any]]:
    h = _relaxed(s.v, p.decay, p) + p.gain * x - s.z * (p.v_threshold - p.v_reset)
    z = _fired(h, p)
    return z, {"v": h, "z": z}


_SECOND: dict[str, float | bool | None] = {
    "i_decay": 0.5, "i_gain": 1.0, "decay": 0.5, "from_new": 1.0, "from_old": None, "direct": None, **_SWITCHES,
}  # fmt: skip


def _second(x: Any, s: Any, p: Any) -> tuple[Any, Any]:
    i = s.i * p.i_decay + p.i_gain * x
    h = _relaxed(s.v, p.decay, p)
    if p.from_new is not None:
        h = h + p.from_new * i
    if p.from_old is not None:
        h = h + p.from_old * s.i
    if p.direct is not None:
        h = h + p.direct * x
    return i, h


@neuron_model(state={"v": 0.0, "i": 0.0}, params=_SECOND)
def second_order(x: Any, s: Any, p: Any) -> tuple[Any, dict[str, Any]]:
    i, h = _second(x, s, p)
    if not p.fires:
        return h, {"v": h, "i": i}
    z = _fired(h, p)
    return z, {"v": _after(h, z, p), "i": i}


@neuron_model(state={"v": 0.0, "i": 0.0, "z": 0.0}, params=_SECOND)
def second_order_late(x: Any, s: Any, p: Any) -> tuple[Any, dict[str, Any]]:
    i, h = _second(x, s, p)
    h = h - s.z * (p.v_threshold - p.v_reset)
    z = _fired(h, p)
    return z, {"v": h, "i": i, "z": z}


@neuron_model(state={}, params={"v_threshold": 1.0, "at_threshold": False})
def threshold(x: Any, s: Any, p: Any) -> tuple[Any, dict[str, Any]]:
    return _fired(x, p), {}


class NIRNeuron(Neuron):
    """A neuron of NIR with its stored parameters and a policy; the step's numbers are computed from them at each call.

    Args:
        kind: "I", "LI", "IF", "LIF", "CubaLI", "CubaLIF" or "Threshold".
        parameters: the fields of the node, one value per neuron each.
        policy: see `Policy`.
    Raises: ValueError for a time constant that is not positive, or an IF whose r says neither impulse nor current.
    """

    def __init__(self, kind: str, parameters: Mapping[str, torch.Tensor], policy: Policy) -> None:
        self.kind, self.policy = kind, policy
        late = policy.reset == "subtract_next"
        if kind == "Threshold":
            model = threshold
        elif kind in ("CubaLI", "CubaLIF"):
            model = second_order_late if late and kind == "CubaLIF" else second_order
        else:
            model = first_order_late if late and kind in ("IF", "LIF") else first_order
        super().__init__(model, {}, step_mode="m")
        for name in model.params:
            delattr(self, name)
        self.fields = tuple(parameters)
        for name, value in parameters.items():
            self.register_buffer(name if name != "r" else "resistance", value.clone())
        for name in ("tau", "tau_syn", "tau_mem"):
            if name in parameters and not bool((parameters[name] > 0).all()):
                raise ValueError(f"{name} must be > 0 s, got {parameters[name].min().item()}")
        _numbers(self)  # an unusable combination shows now

    def field(self, name: str) -> torch.Tensor:
        """A stored parameter of the node by its NIR name."""
        value = getattr(self, "resistance" if name == "r" else name)
        assert isinstance(value, torch.Tensor)
        return value

    def call_params(self) -> dict[str, Any]:
        """The step's numbers."""
        values = _numbers(self)
        return {name: values[name] for name in self.model.params}


def _numbers(layer: NIRNeuron) -> dict[str, Any]:
    p, kind = layer.policy, layer.kind
    found: dict[str, Any] = {"at_threshold": p.fires_at_threshold, "subtract": p.reset == "subtract"}
    found["fires"] = kind in ("IF", "LIF", "CubaLIF", "Threshold")
    if kind == "Threshold":
        return found | {"v_threshold": layer.field("threshold")}
    leak = layer.field("v_leak") if "v_leak" in layer.fields else None
    found["v_leak"] = None if leak is None or not bool(leak.any()) else leak
    found["v_threshold"] = layer.field("v_threshold") if found["fires"] else 1.0
    found["v_reset"] = layer.field("v_reset") if found["fires"] else 0.0
    if kind in ("I", "IF"):
        return found | {"decay": 1.0, "gain": _impulse_weight(layer)}
    if kind in ("LI", "LIF"):
        decay, rate = _decay(layer.field("tau"), p)
        return found | {"decay": decay, "gain": layer.field("r") * (1.0 if p.input == "jump" else rate)}
    return found | _second_numbers(layer)


def _decay(tau: torch.Tensor, p: Policy) -> tuple[torch.Tensor, torch.Tensor]:
    """Factor per step and the weight of a constant input, for one time constant."""
    step = p.dt / tau
    if p.integration in ("euler", "euler_sim"):
        return 1.0 - step, step
    decay = torch.exp(-step)
    return decay, 1.0 - decay if p.integration == "zoh" else step


def _second_numbers(layer: NIRNeuron) -> dict[str, Any]:
    p = layer.policy
    tau_syn, tau_mem, r = layer.field("tau_syn"), layer.field("tau_mem"), layer.field("r")
    w_in = layer.field("w_in")
    i_decay, i_rate = _decay(tau_syn, p)
    decay, rate = _decay(tau_mem, p)
    found: dict[str, Any] = {"i_decay": i_decay, "decay": decay, "from_new": r * rate, "from_old": None, "direct": None}
    found["i_gain"] = w_in * (1.0 if p.input == "jump" else i_rate)
    if p.integration == "euler_sim":
        found |= {"from_new": None, "from_old": r * rate}
    if p.integration == "zoh":
        if p.input == "jump":
            raise UnsupportedError(
                "integration 'zoh' takes the input as a current; 'jump' goes with 'impulse' or 'euler'"
            )
        same = torch.isclose(tau_syn, tau_mem)
        apart = torch.where(same, torch.ones_like(tau_syn), tau_syn - tau_mem)
        old = torch.where(same, r * p.dt / tau_mem * i_decay, r * tau_syn / apart * (i_decay - decay))
        found |= {"from_new": None, "from_old": old, "direct": r * w_in * (1.0 - decay) - w_in * old}
    return found


def _impulse_weight(layer: NIRNeuron) -> torch.Tensor:
    """What an input of 1 adds to v of I and IF: r for a jump, dt r for a current.

    Without a choice: r dt = 1 (to 1e-6) is a current that adds 1, r = 1 is an impulse that adds 1; else the caller must say.
    """
    r, p = layer.field("r"), layer.policy
    if p.input is not None:
        return r if p.input == "jump" else p.dt * r
    if bool(((r * p.dt - 1.0).abs() < 1e-6).all()) or bool((r == 1.0).all()):
        return torch.ones_like(r)
    raise ValueError(
        f"{layer.kind} with r = {r.flatten()[0].item():g} at dt = {p.dt:g} s: pass input='jump' (v + r x) or "
        "input='current' (v + dt r x)"
    )


MODELS: tuple[NeuronModel, ...] = (first_order, first_order_late, second_order, second_order_late, threshold)
