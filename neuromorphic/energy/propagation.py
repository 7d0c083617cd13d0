"""What each tensor of a running network is declared to carry, followed from operation to operation.

A tensor is spikes because a layer of neurons made it, because the caller said so of the input, or because an operation
whose rule is listed here made it from spikes. No rule looks at a value.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass, replace
from math import prod
from typing import Any, Final

import torch

from neuromorphic.energy.counts import ANALOG, SPIKES, Signal


@dataclass(frozen=True)
class Tag:
    """Declared content of a tensor.

    Attributes:
        signal: None for constants that carry nothing (fresh zeros) and for weights.
        sources: names of the layers it comes from, in order.
        is_weight: parameter or buffer of the network, or made from such only.
    """

    signal: Signal | None
    sources: tuple[str, ...] = ()
    is_weight: bool = False

    @property
    def is_activation(self) -> bool:
        return self.signal is not None


BLANK: Final = Tag(None)
"""Fresh zeros and uninitialised memory: joining it with anything changes nothing."""
WEIGHT: Final = Tag(None, is_weight=True)
CONSTANT: Final = Tag(ANALOG)
"""Values from outside the network, such as positions: analog, from no layer."""


class Tags:
    """Tags by storage, so that views and in-place writes share one."""

    def __init__(self) -> None:
        self._by_storage: dict[int, Tag] = {}

    def get(self, x: torch.Tensor) -> Tag:
        return self._by_storage.get(_key(x), CONSTANT)

    def set(self, x: torch.Tensor, tag: Tag) -> None:
        if key := _key(x):
            self._by_storage[key] = tag

    def forget(self, value: Any, arguments: Any) -> None:
        """Tag new tensors as constants; those that share memory with an argument keep their tag."""
        held = {_key(x) for x in tensors(arguments)}
        for x in tensors(value):
            if _key(x) not in held:
                self.set(x, CONSTANT)

    def set_all(self, value: Any, tag: Tag) -> None:
        """Tag every tensor in a nested result."""
        for x in tensors(value):
            self.set(x, tag)


def _key(x: torch.Tensor) -> int:
    return 0 if x.layout != torch.strided else x.untyped_storage().data_ptr()


def tensors(value: Any) -> list[torch.Tensor]:
    """All tensors in a nested argument or result."""
    if isinstance(value, torch.Tensor):
        return [value]
    if isinstance(value, dict):
        value = value.values()
    if isinstance(value, list | tuple) or type(value).__name__ == "dict_values":
        return [x for part in value for x in tensors(part)]
    return []


def joined(tags: Iterable[Tag]) -> Tag:
    """One tensor made of several: the widest signal, all sources."""
    tags = list(tags)
    signals = [tag.signal for tag in tags if tag.signal is not None]
    sources = tuple(dict.fromkeys(source for tag in tags for source in tag.sources))
    if not signals:
        return WEIGHT if any(tag.is_weight for tag in tags) else BLANK
    return Tag(widest(signals), sources)


def widest(signals: Iterable[Signal]) -> Signal:
    """The signal that can hold any of the given ones."""
    signals = list(signals)
    if any(signal.kind == "analog" for signal in signals):
        return ANALOG
    return Signal("spikes", max(s.levels for s in signals), any(s.signed for s in signals))


def summed(signal: Signal, count: int) -> Signal:
    """The sum (or mean: the factor folds into the next weights) of `count` entries."""
    return signal if signal.kind == "analog" else replace(signal, levels=signal.levels * count)


Rule = Callable[[Tags, tuple[Any, ...], Any], Tag]


def _kept(tags: Tags, arguments: tuple[Any, ...], out: Any) -> Tag:
    return joined(tags.get(x) for x in tensors(arguments))


def _first(tags: Tags, arguments: tuple[Any, ...], out: Any) -> Tag:
    return tags.get(arguments[0])


def _first_list(tags: Tags, arguments: tuple[Any, ...], out: Any) -> Tag:
    return joined(tags.get(x) for x in tensors(arguments[0]))


def _blank(tags: Tags, arguments: tuple[Any, ...], out: Any) -> Tag:
    return BLANK


def _comparison(tags: Tags, arguments: tuple[Any, ...], out: Any) -> Tag:
    return Tag(SPIKES, _kept(tags, arguments, out).sources)


def _analog(tags: Tags, arguments: tuple[Any, ...], out: Any) -> Tag:
    tag = joined(tags.get(x) for x in tensors(arguments))
    return tag if tag.signal is None else replace(tag, signal=ANALOG)


def _filled(tags: Tags, arguments: tuple[Any, ...], out: Any) -> Tag:
    return BLANK if arguments[1] == 0 else CONSTANT


def _copied(tags: Tags, arguments: tuple[Any, ...], out: Any) -> Tag:
    target, source = arguments[0], arguments[1]
    whole = target.numel() * target.element_size() == target.untyped_storage().nbytes()
    return tags.get(source) if whole else joined([tags.get(target), tags.get(source)])


def _padded(tags: Tags, arguments: tuple[Any, ...], out: Any) -> Tag:
    value = arguments[2] if len(arguments) > 2 else 0
    return _first(tags, arguments, out) if value == 0 else _analog(tags, arguments, out)


def _negated(tags: Tags, arguments: tuple[Any, ...], out: Any) -> Tag:
    tag = tags.get(arguments[0])
    return replace(tag, signal=replace(tag.signal, signed=True)) if tag.signal and tag.signal.levels else tag


def _unsigned(tags: Tags, arguments: tuple[Any, ...], out: Any) -> Tag:
    tag = tags.get(arguments[0])
    return replace(tag, signal=replace(tag.signal, signed=False)) if tag.signal else tag


def _added(tags: Tags, arguments: tuple[Any, ...], out: Any, signed: bool = False) -> Tag:
    operands = [tags.get(x) for x in tensors(arguments[:2])]
    plain = [value for value in arguments[:2] if isinstance(value, int | float)]
    tag = joined(operands)
    signals = [operand.signal for operand in operands if operand.signal is not None]
    if not signals or any(operand.is_weight for operand in operands) or any(plain):
        return _analog(tags, arguments, out)
    if any(signal.kind == "analog" for signal in signals):
        return replace(tag, signal=ANALOG)
    levels = sum(signal.levels for signal in signals)
    return replace(tag, signal=Signal("spikes", levels, signed or any(signal.signed for signal in signals)))


def _subtracted(tags: Tags, arguments: tuple[Any, ...], out: Any) -> Tag:
    return _added(tags, arguments, out, signed=True)


def _subtracted_from(tags: Tags, arguments: tuple[Any, ...], out: Any) -> Tag:
    tag = tags.get(arguments[0])
    is_not = arguments[1] == 1 and tag.signal == SPIKES  # 1 - z is the logical not of a spike
    return tag if is_not else _analog(tags, arguments, out)


def _scaled(tags: Tags, arguments: tuple[Any, ...], out: Any) -> Tag:
    pairs = [(x, tags.get(x)) for x in tensors(arguments[:2])]
    # A weight that is a single number is a common factor, which folds into what follows.
    operands = [tag for x, tag in pairs if not (tag.is_weight and x.dim() == 0)] or [tag for _, tag in pairs]
    tag = joined(operands)
    signals = [operand.signal for operand in operands if operand.signal is not None]
    if any(operand.is_weight for operand in operands) and signals:
        return replace(tag, signal=ANALOG)
    if len(signals) < 2 or any(signal.kind == "analog" for signal in signals):
        return tag
    levels = prod(signal.levels for signal in signals)
    return replace(tag, signal=Signal("spikes", levels, any(signal.signed for signal in signals)))


def _divided(tags: Tags, arguments: tuple[Any, ...], out: Any) -> Tag:
    by_number = not isinstance(arguments[1], torch.Tensor)
    return tags.get(arguments[0]) if by_number else _analog(tags, arguments, out)


def _reduced(tags: Tags, arguments: tuple[Any, ...], out: Any) -> Tag:
    tag = tags.get(arguments[0])
    results = tensors(out)[0].numel()
    return replace(tag, signal=summed(tag.signal, arguments[0].numel() // max(results, 1))) if tag.signal else tag


def _pooled(tags: Tags, arguments: tuple[Any, ...], out: Any) -> Tag:
    tag = tags.get(arguments[0])
    return replace(tag, signal=summed(tag.signal, prod(_numbers(arguments[1])))) if tag.signal else tag


def _pooled_to_size(tags: Tags, arguments: tuple[Any, ...], out: Any) -> Tag:
    tag = tags.get(arguments[0])
    return replace(tag, signal=summed(tag.signal, window_of(arguments[0], out))) if tag.signal else tag


def window_of(x: torch.Tensor, y: torch.Tensor) -> int:
    """Largest number of entries that adaptive pooling from x to y puts into one."""
    axes = [(a, b) for a, b in zip(x.shape[-3:], y.shape[-3:], strict=True) if a != b]
    return prod(-(-a // b) + (1 if a % b else 0) for a, b in axes)


def _numbers(value: Any) -> tuple[int, ...]:
    return tuple(value) if isinstance(value, list | tuple) else (value,)


def _table(rule: Rule, names: str) -> dict[str, Rule]:
    return {f"aten::{name}": rule for name in names.split()}


RULES: Final[dict[str, Rule]] = {
    **_table(
        _first,
        "view _unsafe_view reshape permute transpose t expand slice select unsqueeze squeeze clone _to_copy contiguous "
        "detach alias split split_with_sizes unbind index index_select gather repeat roll flip as_strided narrow "
        "diagonal unfold movedim lift_fresh _reshape_alias view_as_real max_pool2d_with_indices max_pool3d_with_indices "
        "max_pool1d max_pool2d max_pool3d amax im2col pixel_shuffle pixel_unshuffle tril triu "
        "repeat_interleave upsample_nearest2d "
        "_adaptive_max_pool2d adaptive_max_pool2d adaptive_max_pool1d adaptive_max_pool3d take_along_dim swapaxes "
        "squeeze_ unsqueeze_ transpose_ t_ resize_",
    ),
    **_table(_first_list, "cat stack"),
    **_table(_kept, "where maximum minimum"),
    **_table(_blank, "zeros zeros_like new_zeros empty empty_like new_empty empty_strided zero_ new_empty_strided"),
    **_table(_filled, "full full_like fill fill_ new_full"),
    **_table(_copied, "copy_"),
    **_table(_padded, "constant_pad_nd masked_fill masked_fill_"),
    **_table(_unsigned, "relu relu_ abs abs_"),
    **_table(_negated, "neg neg_"),
    **_table(_comparison, "gt ge lt le eq ne logical_and logical_or logical_not logical_xor"),
    **_table(_comparison, "bitwise_and bitwise_or bitwise_not bitwise_xor"),
    **_table(_added, "add add_"),
    **_table(_subtracted, "sub sub_"),
    **_table(_subtracted_from, "rsub"),
    **_table(_scaled, "mul mul_"),
    **_table(_divided, "div div_"),
    **_table(_reduced, "sum mean"),
    **_table(_pooled, "avg_pool2d avg_pool1d avg_pool3d"),
    **_table(_pooled_to_size, "_adaptive_avg_pool2d adaptive_avg_pool1d _adaptive_avg_pool3d"),
}
"""What an operation's result carries; operations that are not listed make analog values of anything."""


def tag_of_result(tags: Tags, name: str, arguments: tuple[Any, ...], out: Any) -> Tag:
    """The tag of what `name` returned for `arguments`."""
    return RULES.get(name, _analog)(tags, arguments, out)
