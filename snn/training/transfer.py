"""Tensors of one network taken over by another, with a report of what was and was not."""

from __future__ import annotations

import copy
from collections.abc import Sequence
from dataclasses import dataclass, field
from itertools import pairwise
from typing import Literal

import torch
from torch import nn
from torch.nn.utils import fusion

from snn.errors import closest
from snn.models.stack import Stack

_WEIGHTED = (nn.Linear, nn.Conv1d, nn.Conv2d, nn.Conv3d)
_NORMS = (nn.BatchNorm1d, nn.BatchNorm2d, nn.BatchNorm3d)


@dataclass(frozen=True)
class TransferReport:
    """Names of tensors by what became of them.

    Attributes:
        copied: taken over unchanged.
        adapted: first weights, spread over another number of input channels.
        skipped: left as they were because `skip` names them.
        mismatched: left as they were because the shapes differ.
        missing: of the new network only, such as thresholds and leaks.
        unused: of the old network only.
    """

    copied: tuple[str, ...] = ()
    adapted: tuple[str, ...] = ()
    skipped: tuple[str, ...] = ()
    mismatched: tuple[str, ...] = ()
    missing: tuple[str, ...] = ()
    unused: tuple[str, ...] = ()

    def table(self) -> str:
        """One line per kind that is not empty: its name, the number of tensors, their names."""
        kinds = ("copied", "adapted", "skipped", "mismatched", "missing", "unused")
        found = [(kind, getattr(self, kind)) for kind in kinds]
        return "\n".join(f"{kind:<11}{len(names):>4}  {', '.join(names)}" for kind, names in found if names)


@dataclass
class _Sorting:
    kinds: dict[str, list[str]] = field(default_factory=dict)

    def add(self, kind: str, name: str) -> None:
        self.kinds.setdefault(kind, []).append(name)

    def report(self) -> TransferReport:
        return TransferReport(**{kind: tuple(names) for kind, names in self.kinds.items()})


def transfer(
    ann: nn.Module,
    snn: nn.Module,
    skip: Sequence[str] = (),
    *,
    adapt_input: bool = False,
    fold_norms: bool = False,
    mismatched: Literal["error", "keep"] = "error",
) -> TransferReport:
    """Copy tensors of equal name and shape from `ann` into `snn`, in place.

    Args:
        ann: the trained network; it is not changed.
        snn: the network that receives weights, normalisation statistics and, where both have them, decays and thresholds.
        skip: parts of tensor names that stay as they are in `snn`: "readout" stands for everything inside a layer of this
            name, "stack.layers.conv1a.weight" for one tensor.
        adapt_input: let the first weights of `snn` take those of `ann` for another number of input channels, see
            `adapted_channels`.
        fold_norms: fold the batch normalisations of `ann` into the weights before them first, for a network without.
        mismatched: "error" or "keep" for a tensor of equal name and other shape.
    Returns: what was copied and what was not.
    Raises: ValueError for a tensor of another shape, an entry of `skip` that names nothing, and if nothing can be copied.
    """
    source = (with_folded_norms(ann) if fold_norms else ann).state_dict()
    target = snn.state_dict()
    for entry in skip:
        if not any(_names(entry, name) for name in target):
            parts = {part for name in target for part in name.split(".")}
            raise ValueError(f"transfer: skip names no tensor of the new network: {entry!r}{closest(entry, parts)}")
    first = next((name for name, value in target.items() if name.endswith("weight") and value.dim() > 1), None)
    sorting = _Sorting()
    with torch.no_grad():
        for name, value in target.items():
            if any(_names(entry, name) for entry in skip):
                sorting.add("skipped", name)
            elif name not in source:
                sorting.add("missing", name)
            elif source[name].shape == value.shape:
                value.copy_(source[name])
                sorting.add("copied", name)
            elif adapt_input and name == first and _differ_in_channels(source[name], value):
                value.copy_(adapted_channels(source[name], value.shape[1]))
                sorting.add("adapted", name)
            elif mismatched == "keep":
                sorting.add("mismatched", name)
            else:
                raise ValueError(
                    f"transfer: {name} has shape {tuple(source[name].shape)} in the old network and {tuple(value.shape)} "
                    "in the new one; name it in skip, or set adapt_input if only its input channels differ"
                )
    for name in source:
        if name not in target:
            sorting.add("unused", name)
    report = sorting.report()
    if not report.copied:
        raise ValueError(f"transfer: no tensor of {type(ann).__name__} fits {type(snn).__name__}:\n{report.table()}")
    return report


def _names(entry: str, name: str) -> bool:
    """Tell whether `entry` is a run of whole parts of the dotted name."""
    return f".{entry}." in f".{name}."


def _differ_in_channels(old: torch.Tensor, new: torch.Tensor) -> bool:
    return old.dim() == new.dim() and old.shape[0] == new.shape[0] and old.shape[2:] == new.shape[2:]


def adapted_channels(weight: torch.Tensor, channels: int) -> torch.Tensor:
    """First weights [out, C, ...] for `channels` input channels: each gets the sum over C divided by `channels`.

    An input that is equal in all its channels then gives the same response as before, for RGB (3 to 2) as for grey
    images (1 to 2) whose two new channels are the polarities of events.

    >>> adapted_channels(torch.tensor([[1.0, 2.0, 3.0]]), 2)
    tensor([[3., 3.]])
    """
    if channels < 1:
        raise ValueError(f"adapted_channels: channels must be >= 1, got {channels}")
    return (weight.sum(1, keepdim=True) / channels).repeat_interleave(channels, 1)


def with_folded_norms(network: nn.Module) -> nn.Module:
    """A copy in evaluation whose batch normalisations are part of the weights before them, eps included.

    A normalisation is folded where it follows a linear or convolution layer in a `Stack` or `nn.Sequential`; it is then
    removed by the name-preserving `nn.Identity`, and the layer before it has a bias.

    Raises: ValueError naming a normalisation that does not follow such a layer.
    """
    folded = copy.deepcopy(network).eval()
    for owner in folded.modules():
        if not isinstance(owner, nn.Sequential | nn.ModuleDict):
            continue
        names = list(owner._modules)
        for before, name in pairwise(names):
            layer, norm = owner._modules[before], owner._modules[name]
            if isinstance(layer, _WEIGHTED) and isinstance(norm, _NORMS):
                owner._modules[before] = _fused(layer, norm)
                owner._modules[name] = nn.Identity()
    for name, module in folded.named_modules():
        if isinstance(module, _NORMS):
            raise ValueError(
                f"fold_norms: {type(module).__name__} {name!r} does not follow a linear or convolution layer in a "
                f"{Stack.__name__} or nn.Sequential"
            )
    return folded


def _fused(layer: nn.Module, norm: nn.modules.batchnorm._BatchNorm) -> nn.Module:
    if isinstance(layer, nn.Linear):
        return fusion.fuse_linear_bn_eval(layer, norm)
    assert isinstance(layer, nn.modules.conv._ConvNd)
    return fusion.fuse_conv_bn_eval(layer, norm)
