"""Energy and time of a placed network from the prices of a data sheet; pure functions of counts."""

from __future__ import annotations

from dataclasses import dataclass

from neuromorphic.targets.sheet import Entry, Target


@dataclass(frozen=True)
class Activity:
    """What one inference does on the placed network.

    Attributes:
        synops: synaptic operations; updates: neuron updates (each neuron at each step).
        messages: spikes times the cores that receive them; hops_x, hops_y: tile borders that they cross.
        products: multiply-accumulates of a device that skips nothing.
        steps: time steps.
    """

    synops: float
    updates: float
    messages: float
    hops_x: float
    hops_y: float
    products: float
    steps: int


@dataclass(frozen=True)
class EnergyTerm:
    """One addend in pJ per inference, over the range of its price."""

    term: str
    count: float
    low_pj: float
    typical_pj: float
    high_pj: float
    source: str


def placement_energy(target: Target, activity: Activity, seconds: float | None) -> tuple[list[EnergyTerm] | None, str]:
    """Addends of the energy of one inference, and what a reader must know.

    E = synops e_syn + updates e_neuron + messages e_local + hops_x e_x + hops_y e_y + P_static t where prices are of single
    events; synops e_syn (+ updates e_neuron) where prices are all-in, to which nothing may be added. Whether an update
    is active or inactive is not known from counts: the range spans both, the typical value takes all as active.

    Args:
        seconds: duration of one inference, for static power; None where it is not known.
    Returns: the addends, or None with the reason where the sheet does not price them.
    """
    scope = target.energy_scope
    if scope is None:
        missing = next(
            (name for name in ("synop_pj", "neuron_update_pj") if target.entry(f"energy.per_event.{name}") is None),
            "synop_pj",
        )
        return None, f"no energy: {target.name} has no published energy.per_event.{missing} and no all-in energy"
    prices = target.sections[f"energy.{scope}"]
    terms: list[EnergyTerm] = []

    def add(term: str, count: float, entry: Entry | None) -> None:
        if entry is not None:
            source = "; ".join(target.sources[key] for key in entry.source)
            values = (count * entry.low, count * entry.value, count * entry.high)
            terms.append(EnergyTerm(term, count, *values, source))

    if "synop_pj" in prices:
        add("synaptic operations", activity.synops, prices["synop_pj"])
    else:
        add("products", activity.products, prices["mac_pj"])
    if "neuron_update_pj" in prices:
        per_run = activity.updates if "synop_pj" in prices else activity.updates / max(1, activity.steps)
        add("neuron updates", per_run, prices["neuron_update_pj"])
    if scope == "all_in":
        return terms, "all-in price: routing and static power are inside, nothing is added"
    if "neuron_active_pj" in prices:
        active, idle = prices["neuron_active_pj"], prices["neuron_inactive_pj"]
        add(
            "neuron updates",
            activity.updates,
            Entry(active.value, idle.low, active.high, active.source, active.evidence),
        )
    add("messages", activity.messages, prices.get("spike_local_pj"))
    hop = prices.get("hop_pj")
    add("hops east-west", activity.hops_x, prices.get("hop_x_pj", hop))
    add("hops north-south", activity.hops_y, prices.get("hop_y_pj", hop))
    power = target.entry("power.static_mw")
    if power is not None and seconds is not None:
        nanojoules = Entry(power.value * 1e9, power.low * 1e9, power.high * 1e9, power.source, power.evidence)
        add("static", seconds, nanojoules)  # mW s = 1e9 pJ
        return terms, ""
    return terms, "static energy is left out: " + (
        "static power" if power is None else "the duration"
    ) + " is not known"


def step_seconds(
    target: Target, tiles: int, core_synops: float, core_neurons: int, step_us: float | None
) -> tuple[float | None, str]:
    """Length of a time step and where it comes from.

    max(fastest step, barrier + synops t_syn + neurons t_active) of the busiest core where the sheet has these times; the
    given or the sheet's step otherwise.

    Args:
        tiles: used tiles; the barrier goes from its low to its high value over 1 to 32 of them.
        core_synops: synaptic operations of the busiest core in one step, mean; core_neurons: its neurons.
        step_us: a step that the user wants; a chip that needs longer keeps its own.
    """
    synop, active = target.value("time.synop_ns"), target.value("time.neuron_active_ns")
    computed = None
    if synop is not None and active is not None:
        barrier = target.entry("time.barrier_ns")
        wait = 0.0
        if barrier is not None:
            wait = barrier.low + (barrier.high - barrier.low) * min(max(tiles - 1, 0), 31) / 31
        floor = target.limit("time.fastest_step_us") or 0.0
        computed = max(floor * 1e-6, (wait + core_synops * synop + core_neurons * active) * 1e-9)
    if step_us is not None:
        given = step_us * 1e-6
        return (given, "given") if computed is None or given >= computed else (computed, "busiest core")
    if computed is not None:
        return computed, "busiest core"
    listed = target.value("time.step_us")
    return (None, "") if listed is None else (listed * 1e-6, "data sheet")
