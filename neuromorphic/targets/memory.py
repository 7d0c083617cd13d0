"""Synaptic memory of each kind of chip: how many words or entries a piece of a layer takes.

A sheet's `memory.format` picks one:
- "axon-entries": each arriving axon owns a list of its synapses on the core, in entries of at most 64, each rounded up to
  whole words (weights are not shared; an index for each synapse where targets are not consecutive);
- "shared-words": a convolution's weights are stored once per core, a dense layer's per synapse;
- "padded-kernels": kernels and feature maps padded to powers of two (one layer per core);
- "crossbar": every axon crosses every neuron of the core;
- "weight-list": weights one after the other.
"""

from __future__ import annotations

from math import ceil, log2


def entry_words(synapses: int, synapse_bits: int, overhead_bits: int = 10, word_bits: int = 64) -> int:
    """Words of one entry: ceil((n synapse_bits + overhead_bits) / word_bits).

    >>> entry_words(64, 16), entry_words(64, 8)
    (17, 9)
    """
    return ceil((synapses * synapse_bits + overhead_bits) / word_bits)


def axon_words(
    synapses: int, synapse_bits: int, overhead_bits: int = 10, word_bits: int = 64, entry_synapses: int = 64
) -> int:
    """Words of one axon with so many synapses on the core, in entries of at most `entry_synapses`.

    Source: the accounting of nengo-loihi.

    >>> [axon_words(n, 16) for n in (1, 65, 1024)], [axon_words(n, 8) for n in (1, 65, 1024)]
    ([1, 18, 272], [1, 10, 144])
    """
    full, rest = divmod(synapses, entry_synapses)
    words = full * entry_words(entry_synapses, synapse_bits, overhead_bits, word_bits)
    return words + (entry_words(rest, synapse_bits, overhead_bits, word_bits) if rest else 0)


def shared_words(rows: int, outputs: int, bits: int, word_bits: int = 64) -> int:
    """Words of weights that all positions of a core share: rows ceil(outputs bits / word_bits).

    Args:
        rows: C_in kh kw of a convolution, inputs of a dense layer.
        outputs: output channels (neurons of a dense layer) on the core.
        bits: of a weight, or of a whole synapse of a dense layer.
    Source: derived from compiler logs of published networks; a few layers there take one word more.

    >>> shared_words(3 * 9, 24, 8), shared_words(100, 50, 16)
    (81, 1300)
    """
    return rows * ceil(outputs * bits / word_bits)


def _padded_bits(size: int) -> int:
    return ceil(log2(size)) if size > 1 else 0


def padded_kernel_entries(inputs: int, kernel: tuple[int, int], outputs: int) -> int:
    """C_in 2^(ceil(log2(kh kw)) + ceil(log2 C_out)). Source: sinabs' DYNAP-CNN backend.

    >>> padded_kernel_entries(16, (3, 3), 32)
    8192
    """
    return inputs << (_padded_bits(kernel[0] * kernel[1]) + _padded_bits(outputs))


def padded_neuron_entries(outputs: int, height: int, width: int) -> int:
    """C_out 2^(ceil(log2 H) + ceil(log2 W)). Source: sinabs' DYNAP-CNN backend.

    >>> padded_neuron_entries(32, 64, 64)
    131072
    """
    return outputs << (_padded_bits(height) + _padded_bits(width))
