"""KerasSpiking's device figures: energy per synaptic operation and per neuron update, nothing else.

nengo/keras-spiking, ModelEnergy. It multiplies connections (padding counted) with the mean magnitude of the input, also
where the input is analog; here the share of non-zero entries takes its place for spikes, and analog input is dense.
"""

from __future__ import annotations

from typing import Final, NamedTuple

from neuromorphic.energy.counts import Counts, LayerCounts
from neuromorphic.energy.estimates import Estimate, Row, exact, row
from neuromorphic.energy.models.conventions import rate_synops
from snn.errors import closest

SOURCE: Final = "KerasSpiking (nengo/keras-spiking), ModelEnergy"


class Device(NamedTuple):
    """pJ per synaptic operation and per neuron update; event-driven devices skip silent inputs."""

    synop_pj: float
    neuron_pj: float
    is_event_driven: bool
    title: str


DEVICES: Final[dict[str, Device]] = {
    "loihi": Device(27.1, 81.0, True, "Loihi, 14 nm (23.6 pJ and a mean hop of 3.5 pJ)"),
    "spinnaker": Device(13.3e3, 26e3, True, "SpiNNaker, 130 nm"),
    "spinnaker2": Device(450.0, 2190.0, True, "SpiNNaker 2 prototype"),
    "cpu": Device(8.6e3, 8.6e3, False, "Intel i7-4960X"),
    "gpu": Device(300.0, 300.0, False, "Nvidia Titan Black"),
    "arm": Device(900.0, 900.0, False, "ARM Cortex-A"),
}


def keras_spiking(counts: Counts, device: str = "loihi", input_magnitude: float | None = None) -> Estimate:
    """Synaptic operations and neuron updates on one of KerasSpiking's devices.

    Args:
        counts: of the network.
        device: one of `DEVICES`. Devices that are not event-driven do every product once, as an ANN.
        input_magnitude: mean magnitude of an analog network input, which KerasSpiking takes for its rate; None charges
            analog input densely.
    Raises: ValueError for an unknown device.
    """
    if device not in DEVICES:
        raise ValueError(f"device: unknown {device!r}{closest(device, DEVICES)}")
    kind = DEVICES[device]
    synop = exact(kind.synop_pj, "pJ per synaptic operation", kind.title, SOURCE)
    update = exact(kind.neuron_pj, "pJ per neuron update", kind.title, SOURCE)
    rows: list[Row] = [
        row(layer.name, "synaptic operations", _operations(layer, kind, input_magnitude), synop)
        for layer in counts.connections
    ]
    for layer in counts.neurons:
        steps = layer.steps if kind.is_event_driven else 1
        rows.append(row(layer.name, "neuron updates", layer.neuron_count * steps, update))
    notes = ("no static power, memory or routing beyond what the two figures hold",)
    return Estimate("keras-spiking", f"{kind.title}: connections times rate times steps", tuple(rows), notes=notes)


def _operations(layer: LayerCounts, kind: Device, input_magnitude: float | None) -> float:
    connections = layer.dense_synops_padded
    if not kind.is_event_driven:
        return connections
    if layer.input_signal.kind == "spikes":
        return rate_synops(layer)
    magnitude = input_magnitude if input_magnitude is not None and layer.inputs == ("input",) else 1.0
    return connections * magnitude * layer.steps
