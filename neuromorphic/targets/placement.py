"""Splitting layers into blocks that fit a core, and blocks onto cores."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from math import ceil, prod

import numpy as np

from neuromorphic.targets.geometry import PlacedLayer, without_pooling
from neuromorphic.targets.memory import axon_words, padded_kernel_entries, padded_neuron_entries, shared_words
from neuromorphic.targets.sheet import Target


@dataclass(frozen=True)
class Refusal:
    """A limit that the network breaks.

    Attributes:
        limit: the data sheet's entry.
        layer: name, "" for the whole network.
        needed, allowed: what the network needs and what the chip has.
        fix: the smallest change that helps.
    """

    limit: str
    layer: str
    needed: float
    allowed: float
    fix: str

    @property
    def excess(self) -> float:
        return self.needed - self.allowed

    def __str__(self) -> str:
        where = f" of {self.layer!r}" if self.layer else ""
        return f"{self.limit}{where}: {self.needed:g} needed, {self.allowed:g} allowed ({self.excess:g} too many); {self.fix}"


class DoesNotFit(Exception):  # noqa: N818 - carries a refusal from a block to the mapper, which raises the error
    """One layer cannot be split small enough."""

    def __init__(self, refusal: Refusal) -> None:
        super().__init__(str(refusal))
        self.refusal = refusal


@dataclass(frozen=True)
class Block:
    """A piece of a layer on one core: output channels and positions, both as half-open ranges.

    Attributes:
        layer: index of the layer.
        neurons, input_axons, synapses: on the core; synapses as weights that act, shared or not.
        output_axons: (neuron, receiving core) pairs.
        words: synaptic memory in the sheet's words; 0 where the sheet names no memory of a core.
    """

    layer: int
    channels: tuple[int, int]
    positions: tuple[int, int]
    neurons: int
    input_axons: int
    output_axons: int
    synapses: int
    words: int

    def uses(self) -> dict[str, int]:
        """Amounts by the data sheet's limit of a core."""
        return {
            "fabric.neurons_per_core": self.neurons,
            "connections.input_axons_per_core": self.input_axons,
            "connections.output_axons_per_core": self.output_axons,
            "memory.words_per_core": self.words,
        }


@dataclass
class Core:
    """Blocks that share a core, of different layers or of one, and what they use of each limit."""

    blocks: list[Block] = field(default_factory=list)
    uses: dict[str, int] = field(default_factory=dict)

    def add(self, block: Block) -> None:
        """Put one more block on the core."""
        self.blocks.append(block)
        for name, amount in block.uses().items():
            self.uses[name] = self.used(name) + amount

    def used(self, limit: str) -> int:
        """Amount of one limit over all blocks."""
        return self.uses.get(limit, 0)


def core_limits(target: Target) -> dict[str, int]:
    """Limits of one core that the sheet states; bytes of a core count as words where it names no words."""
    limits = {}
    for name in (
        "fabric.neurons_per_core",
        "connections.input_axons_per_core",
        "connections.output_axons_per_core",
        "memory.words_per_core",
    ):
        found = target.limit(name)
        if found is not None:
            limits[name] = found
    if "memory.words_per_core" not in limits and target.value("memory.format") == "weight-list":
        found = target.limit("memory.bytes_per_core")
        if found is not None:
            limits["memory.words_per_core"] = found
    return limits


def block_words(target: Target, layer: PlacedLayer, channels: int, reached: np.ndarray, bits: int) -> int:
    """Synaptic memory of a block.

    Args:
        channels: output channels of the block.
        reached: [H, W] of the source: positions of the block that an input there reaches.
        bits: of a weight.
    """
    form = target.value("memory.format")
    if form == "shared-words":
        word = target.value("memory.word_bits", 64)
        if layer.linear:
            # The sheet's width is of 8-bit weights; index and delay bits come on top of any weight.
            synapse = bits + target.value("memory.dense_synapse_bits", 8) - 8
            return shared_words(prod(layer.source), channels, synapse, word)
        per_group = layer.source[0] // layer.groups
        return shared_words(per_group * prod(layer.kernel), channels, bits, word)
    if form == "axon-entries":
        return _axon_entry_words(target, layer, channels, reached, bits)
    if form == "weight-list":
        per_channel = prod(layer.source) if layer.linear else layer.source[0] // layer.groups * prod(layer.kernel)
        shared = layer.linear or bool(target.value("connections.convolutions", False))
        count = channels * per_channel * (1 if shared else max(1, int(reached.sum()) // max(1, prod(layer.kernel))))
        return ceil(count * bits / 8)
    return 0


def _axon_entry_words(target: Target, layer: PlacedLayer, channels: int, reached: np.ndarray, bits: int) -> int:
    neurons = channels * (1 if layer.linear else layer.positions)
    index = 0
    if not layer.linear:  # targets of a convolution are not consecutive
        choices = [b for b in target.value("memory.index_bits", (0,)) if 2**b >= min(neurons, 4096)]
        index = min(choices) if choices else max(target.value("memory.index_bits", (0,)))
    overhead, word = target.value("memory.entry_overhead_bits", 0), target.value("memory.word_bits", 64)
    entry = target.value("memory.entry_synapses", 64)
    # Channels of one group; every input channel of it has the same number of targets.
    targets = channels if layer.groups == 1 else max(1, ceil(channels / layer.groups))
    counts, times = np.unique(reached[reached > 0], return_counts=True)
    total = 0
    for count, repeated in zip(counts.tolist(), times.tolist(), strict=True):
        total += repeated * axon_words(count * targets, bits + index, overhead, word, entry)
    return total * layer.source[0]


def make_block(
    target: Target,
    number: int,
    layer: PlacedLayer,
    channels: tuple[int, int],
    positions: tuple[int, int],
    bits: int,
    receivers: Callable[[tuple[int, int]], int],
) -> Block:
    """A block with what it uses.

    Args:
        receivers: positions -> sum over them of the number of cores that a spike there goes to.
    """
    reached = layer.inputs_of(*positions)
    width, length = channels[1] - channels[0], positions[1] - positions[0]
    per_group = layer.size[0] // layer.groups
    groups = 1 if layer.linear else ceil(channels[1] / per_group) - channels[0] // per_group
    axons = int((reached > 0).sum()) * layer.source[0] // layer.groups * groups
    synapses = int(reached.sum()) * (layer.source[0] // layer.groups) * width
    if layer.recurrent:
        axons += layer.neurons
        synapses += layer.neurons * width * length
    words = block_words(target, layer, width, reached, bits)
    if layer.recurrent:
        words += _feedback_words(target, layer, width * length, bits)
    return Block(number, channels, positions, width * length, axons, width * receivers(positions), synapses, words)


def _feedback_words(target: Target, layer: PlacedLayer, neurons: int, bits: int) -> int:
    form = target.value("memory.format")
    if form == "axon-entries":
        overhead = target.value("memory.entry_overhead_bits", 0)
        return layer.neurons * axon_words(neurons, bits, overhead, target.value("memory.word_bits", 64))
    if form == "shared-words":
        synapse = bits + target.value("memory.dense_synapse_bits", 8) - 8
        return shared_words(layer.neurons, neurons, synapse, target.value("memory.word_bits", 64))
    return ceil(layer.neurons * neurons * bits / 8) if form == "weight-list" else 0


def split(
    target: Target,
    number: int,
    layer: PlacedLayer,
    bits: int,
    receivers: Callable[[tuple[int, int]], int],
) -> list[Block]:
    """The layer in as few blocks as fit, each as large as it can be.

    A convolution is cut along its positions, since its channels share weights, and along channels where one position is
    too large; a linear layer is cut along its outputs.

    Raises: DoesNotFit where the smallest piece breaks a limit.
    """
    limits = core_limits(target)
    blocks: list[Block] = []

    def built(channels: tuple[int, int], positions: tuple[int, int]) -> Block:
        return make_block(target, number, layer, channels, positions, bits, receivers)

    def fits(block: Block) -> bool:
        uses = block.uses()
        return all(uses[name] <= limit for name, limit in limits.items())

    channels, positions = layer.size[0], layer.positions
    # A position in the middle has all its inputs; one at the border has fewer.
    middle = layer.size[1] // 2 * layer.size[2] + layer.size[2] // 2
    width = _largest(channels, lambda count: fits(built((0, count), (middle, middle + 1))))
    if width == 0:
        raise DoesNotFit(_smallest_piece(target, layer, built((0, 1), (middle, middle + 1)), limits))
    for low in range(0, channels, width):
        part = (low, min(low + width, channels))
        start = 0
        while start < positions:

            def piece_fits(count: int, part: tuple[int, int] = part, start: int = start) -> bool:
                return fits(built(part, (start, start + count)))

            count = _largest(positions - start, piece_fits)
            if count == 0:
                raise DoesNotFit(_smallest_piece(target, layer, built(part, (start, start + 1)), limits))
            blocks.append(built(part, (start, start + count)))
            start += count
    return blocks


def _largest(most: int, fits: Callable[[int], bool]) -> int:
    """The largest n <= most that fits, by bisection; 0 where not even 1 does."""
    if fits(most):
        return most
    low, high = 0, most
    while high - low > 1:
        middle = (low + high) // 2
        low, high = (middle, high) if fits(middle) else (low, middle)
    return low


def _smallest_piece(target: Target, layer: PlacedLayer, block: Block, limits: dict[str, int]) -> Refusal:
    uses = block.uses()
    name = next(name for name, limit in limits.items() if uses[name] > limit)
    needed, allowed = uses[name], limits[name]
    if name == "connections.input_axons_per_core":
        parts = ceil(needed / allowed)
        fix = f"cut the inputs of {layer.name!r} into {parts} groups of at most {allowed}"
    elif name == "connections.output_axons_per_core":
        fix = f"feed at most {allowed} cores from each neuron of {layer.name!r}"
    else:
        fix = f"reduce the {prod(layer.source)} inputs or the weight bits of {layer.name!r}"
    return Refusal(name, layer.name, needed, allowed, fix)


def pack(blocks: Sequence[Block], target: Target) -> list[Core]:
    """Blocks onto cores in order, each onto the first core that still has room for it."""
    limits = core_limits(target)
    cores: list[Core] = []
    for block in blocks:
        uses = block.uses()
        for core in cores:
            if all(core.used(name) + uses[name] <= limit for name, limit in limits.items()):
                core.add(block)
                break
        else:
            cores.append(Core())
            cores[-1].add(block)
    return cores


def match_whole_layers(layers: Sequence[PlacedLayer], target: Target) -> list[Core]:
    """One layer per core where cores differ in size: a maximum matching of layers and cores.

    Raises: DoesNotFit where a layer fits no core, or there is no assignment of all layers.
    """
    from scipy.sparse import csr_array
    from scipy.sparse.csgraph import maximum_bipartite_matching

    kernel_room = target.require("memory.core_kernel_entries", "placement").value
    neuron_room = target.require("memory.core_neuron_entries", "placement").value
    needs = [entries_of(layer) for layer in layers]
    fits = np.array(
        [
            [k <= room_k and n <= room_n for room_k, room_n in zip(kernel_room, neuron_room, strict=True)]
            for k, n in needs
        ]
    ).reshape(len(layers), len(kernel_room))
    for layer, (kernels, neurons), possible in zip(layers, needs, fits, strict=True):
        if not possible.any():
            raise DoesNotFit(_too_large(layer, kernels, neurons, kernel_room, neuron_room))
    if len(layers) > len(kernel_room):
        fix = f"use {len(kernel_room)} layers or fewer"
        raise DoesNotFit(Refusal("fabric.cores", "", len(layers), len(kernel_room), fix))
    matched = maximum_bipartite_matching(csr_array(fits.astype(np.int8)), perm_type="column") if layers else []
    if (missing := int((np.asarray(matched) < 0).sum())) > 0:
        fix = f"shrink {missing} of the layers to a smaller core ({max(kernel_room)} kernel entries are rare)"
        raise DoesNotFit(Refusal("fabric.cores", "", len(layers), len(layers) - missing, fix))
    cores = [Core() for _ in kernel_room]
    for number, (layer, place) in enumerate(zip(layers, matched, strict=True)):
        kernels, _ = needs[number]
        axons = prod(layer.source)
        cores[place].add(
            Block(
                number,
                (0, layer.size[0]),
                (0, layer.positions),
                layer.neurons,
                axons,
                0,
                int(layer.inputs_of(0, layer.positions).sum()) * layer.source[0] // layer.groups * layer.size[0],
                kernels,
            )
        )
    return cores


def entries_of(layer: PlacedLayer) -> tuple[int, int]:
    """(kernel entries, neuron entries) of a layer whose memories are padded to powers of two; a linear layer is a
    convolution with a kernel as large as the map in front of it."""
    seen = without_pooling(layer)
    kernel = (seen.source[1], seen.source[2]) if layer.linear else seen.kernel
    return (
        padded_kernel_entries(seen.source[0], kernel, layer.size[0]),
        padded_neuron_entries(layer.size[0], layer.size[1], layer.size[2]),
    )


def _too_large(
    layer: PlacedLayer, kernels: int, neurons: int, kernel_room: Sequence[int], neuron_room: Sequence[int]
) -> Refusal:
    pairs = list(zip(kernel_room, neuron_room, strict=True))
    channels = layer.size[0]
    seen = without_pooling(layer)
    kernel = (seen.source[1], seen.source[2]) if layer.linear else seen.kernel
    for fewer in range(channels, 0, -1):
        k = padded_kernel_entries(seen.source[0], kernel, fewer)
        n = padded_neuron_entries(fewer, layer.size[1], layer.size[2])
        if any(k <= room_k and n <= room_n for room_k, room_n in pairs):
            fix = f"give {layer.name!r} {fewer} output channels instead of {channels}"
            break
    else:
        fix = f"pool in front of {layer.name!r} or cut its input channels"
    if neurons > max(neuron_room):
        return Refusal("memory.core_neuron_entries", layer.name, neurons, max(neuron_room), fix)
    if kernels > max(kernel_room):
        return Refusal("memory.core_kernel_entries", layer.name, kernels, max(kernel_room), fix)
    room = max(room_k for room_k, room_n in pairs if neurons <= room_n)
    return Refusal("memory.core_kernel_entries", layer.name, kernels, room, fix)
