"""torch's transformer encoder in a form that can be traced: the same layers, without its choice of a fast path."""

from __future__ import annotations

from typing import Any

import torch
from torch import nn


class EncoderLayer(nn.Module):
    """What `nn.TransformerEncoderLayer` computes in evaluation without masks, over its own layers.

    Args:
        layer: it is read, not changed.
    """

    def __init__(self, layer: nn.TransformerEncoderLayer) -> None:
        super().__init__()
        self.norm_first = layer.norm_first
        self.self_attn = layer.self_attn
        self.linear1, self.linear2 = layer.linear1, layer.linear2
        self.norm1, self.norm2 = layer.norm1, layer.norm2
        self.activation: Any = layer.activation

    def forward(self, src: torch.Tensor) -> torch.Tensor:
        if self.norm_first:
            x = src + self._attention(self.norm1(src))
            return x + self._feed_forward(self.norm2(x))
        x = self.norm1(src + self._attention(src))
        y: torch.Tensor = self.norm2(x + self._feed_forward(x))
        return y

    def _attention(self, x: torch.Tensor) -> torch.Tensor:
        y: torch.Tensor = self.self_attn(x, x, x, need_weights=False)[0]
        return y

    def _feed_forward(self, x: torch.Tensor) -> torch.Tensor:
        y: torch.Tensor = self.linear2(self.activation(self.linear1(x)))
        return y


class Encoder(nn.Module):
    """What `nn.TransformerEncoder` computes in evaluation without masks.

    Args:
        encoder: it is read, not changed.
    """

    def __init__(self, encoder: nn.TransformerEncoder) -> None:
        super().__init__()
        self.layers = nn.ModuleList(traceable(layer) for layer in encoder.layers)
        self.norm = encoder.norm

    def forward(self, src: torch.Tensor) -> torch.Tensor:
        for layer in self.layers:
            src = layer(src)
        return src if self.norm is None else self.norm(src)


def traceable(module: nn.Module) -> nn.Module:
    """The module with every transformer encoder of torch inside it in this form; changed in place, but for itself."""
    if type(module) is nn.TransformerEncoderLayer:
        return EncoderLayer(module)
    if type(module) is nn.TransformerEncoder:
        return Encoder(module)
    for name, child in list(module.named_children()):
        form = traceable(child)
        if form is not child:
            setattr(module, name, form)
    return module
