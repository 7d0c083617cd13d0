"""A block whose input is added to its output."""

import torch
from torch import nn


class Residual(nn.Module):
    """y = shortcut(x) + body(x).

    Args:
        body: from x to y, for instance a `torch.nn.Sequential`.
        shortcut: from x to the same shape as the body's output; None passes x unchanged.

    >>> block = Residual(nn.Linear(4, 4))
    >>> x = torch.ones(2, 4)
    >>> torch.equal(block(x), x + block.body(x))
    True
    """

    def __init__(self, body: nn.Module, shortcut: nn.Module | None = None) -> None:
        super().__init__()
        self.body = body
        self.shortcut = nn.Identity() if shortcut is None else shortcut

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        y: torch.Tensor = self.shortcut(x) + self.body(x)
        return y
