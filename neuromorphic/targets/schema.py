"""What a chip's data sheet may say: sections, entries, their kinds and ranges.

The unit of a number is the end of its name (`_pj`, `_mw`, `_ns`, `_us`, `_mm2`, `_mhz`, `_bits`); counts have none.
"""

from __future__ import annotations

from dataclasses import dataclass

EVIDENCE = ("measured", "simulated", "vendor", "code", "derived", "quoted")
"""How a number is known: measured on silicon; simulated before silicon; said by the maker; read in a public tool that
programs the chip; derived from other sourced numbers; quoted widely without a source that could be checked."""

MEMORY_FORMATS = ("axon-entries", "shared-words", "padded-kernels", "crossbar", "weight-list")
"""How synapses occupy memory; `neuromorphic.targets.memory` has the equation of each."""

ARITHMETIC = ("cuba", "bit-shift", "event-if", "event-lif", "axon-type", "fixed-point", "none")
"""Integer neurons; `neuromorphic.targets.arithmetic` has the update order of each."""

MODELS = ("if", "lif", "cuba", "adaptive", "any")
"""Families of neurons that a chip can run; "any" is a chip whose neurons are programs."""


@dataclass(frozen=True)
class Field:
    """One entry that a section may have.

    Attributes:
        kind: "count" (whole number), "number", "text", "flag", "counts" or "texts" (lists).
        least: smallest accepted number.
        choices: accepted texts; empty accepts any.
    """

    kind: str
    least: float = 0.0
    choices: tuple[str, ...] = ()


_COUNT = Field("count")
_SIGNED = Field("count", least=-(2.0**63))
_NUMBER = Field("number")
_TEXT = Field("text")
_FLAG = Field("flag")
_COUNTS = Field("counts")


def _all(field: Field, names: str) -> dict[str, Field]:
    return dict.fromkeys(names.split(), field)


_ENERGY = "synop_pj neuron_update_pj mac_pj"

SECTIONS: dict[str, dict[str, Field]] = {
    "fabric": {
        "process": _TEXT,
        **_all(_NUMBER, "process_nm area_mm2 transistors clock_mhz supply_v"),
        **_all(_COUNT, "cores neurons_per_core neurons_per_core_budget neuron_groups_per_core cores_per_tile"),
        **_all(_COUNT, "neurons synapses hidden_neurons output_neurons"),
    },
    "connections": {
        **_all(_COUNT, "input_axons_per_core output_axons_per_core fan_in fan_out destinations_per_core"),
        **_all(_COUNT, "inputs outputs classes channels_max kernel_max padding_max input_side_max output_side_max"),
        **_all(_COUNTS, "strides pooling"),
        **_all(_FLAG, "recurrence groups square_kernels convolutions"),
        "axons_per_target": _COUNT,
    },
    "memory": {
        "format": Field("text", choices=MEMORY_FORMATS),
        **_all(_COUNT, "words_per_core word_bits bytes_per_core bytes_on_chip entry_synapses entry_overhead_bits"),
        **_all(_COUNTS, "index_bits core_kernel_entries core_neuron_entries"),
        **_all(_COUNT, "dense_synapse_bits bias_entries_per_core weights"),
    },
    "weights": {
        "bits": _COUNTS,
        **_all(_SIGNED, "low high"),
        **_all(_COUNT, "step distinct_per_neuron"),
        "sign": Field("text", choices=("synapse", "source", "row")),
    },
    "neuron": {
        "arithmetic": Field("text", choices=ARITHMETIC),
        "models": Field("texts", choices=MODELS),
        "reset": Field("texts", choices=("zero", "subtract", "value")),
        "strict_threshold": _FLAG,
        "leak": Field("text", choices=("exponential", "linear")),
        **_all(_COUNT, "state_bits decay_bits threshold_max bias_mantissa_bits bias_exponent_max refractory_max"),
        **_all(_COUNT, "shift_max compartment_configs threshold_configs synapse_configs"),
        "threshold_min": _SIGNED,
    },
    "spikes": {"graded": _FLAG, **_all(_COUNT, "payload_bits per_step input_per_step output_per_step")},
    "delays": _all(_COUNT, "least_steps most_steps guaranteed_steps"),
    "learning": {"rules": _TEXT},
    "execution": {"event_driven": _FLAG, "real_time": _FLAG, "layer_latency_steps": _COUNT},
    "time": {
        **_all(_NUMBER, "step_us fastest_step_us latency_us barrier_ns synop_ns neuron_active_ns neuron_inactive_ns"),
        **_all(_NUMBER, "spike_local_ns hop_x_ns hop_y_ns learning_update_ns clocks_per_round"),
        **_all(_NUMBER, "spikes_per_second synops_per_second"),
    },
    "energy.per_event": {
        **_all(_NUMBER, f"{_ENERGY} neuron_active_pj neuron_inactive_pj learning_update_pj"),
        **_all(_NUMBER, "spike_local_pj hop_x_pj hop_y_pj hop_pj bit_sram_pj bit_core_pj bit_off_chip_pj reset_pj"),
        **_all(
            _NUMBER, "mac_fp32_pj ac_fp32_pj mac_fp16_pj ac_fp16_pj mac_int32_pj ac_int32_pj mac_int8_pj ac_int8_pj"
        ),
        **_all(_NUMBER, "sram_8kb_64bit_pj sram_32kb_64bit_pj sram_1mb_64bit_pj dram_64bit_pj"),
    },
    "energy.all_in": _all(_NUMBER, _ENERGY),
    "power": _all(_NUMBER, "static_mw static_per_core_mw idle_mw active_mw board_mw"),
}

WORKLOAD: dict[str, Field] = {
    **_all(
        _NUMBER, "power_mw static_mw dynamic_mw inference_mj dynamic_inference_mj frames_per_second frames_per_joule"
    ),
    **_all(_COUNT, "cores steps_per_frame"),
    **_all(_NUMBER, "accuracy_percent synops_per_second synops_per_joule"),
}
"""Entries of a `[[measured]]` workload, next to its free text `workload`."""
