"""torch's recurrent cells as three layers: input weights, recurrent weights and gates."""

from __future__ import annotations

from functools import partial
from typing import Any, Final

import torch
from torch import nn

from neuromorphic.energy import torch_layers as layers
from neuromorphic.energy.counts import ANALOG
from neuromorphic.energy.fanout import linear_fanout
from neuromorphic.energy.propagation import Tag
from neuromorphic.energy.records import Layout, Records

CELLS: Final = (nn.RNNCell, nn.LSTMCell, nn.GRUCell)


def count_cell(
    records: Records,
    maps: layers.FanOuts,
    name: str,
    cell: nn.RNNCell | nn.LSTMCell | nn.GRUCell,
    tensors: list[torch.Tensor],
    tag: Tag,
    state_tag: Tag | None,
    at: Layout,
) -> None:
    """Count one step of a cell as layers `name.ih`, `name.hh` and, where it has gates, `name.gates`.

    Args:
        tensors: the input [B, in], then the states that were given (h, or h and c); absent states are zero.
        tag, state_tag: of the input, and of h where it was given.
    """
    x = tensors[0] if tensors[0].dim() == 2 else tensors[0].unsqueeze(0)
    rows = at.rows(x.shape[:1], name, may_hold_tokens=False)
    states = [state.reshape(len(x), -1) for state in tensors[1:]] or [x.new_zeros(len(x), cell.hidden_size)]
    connections = (
        ("ih", cell.weight_ih, cell.bias_ih, x, tag),
        ("hh", cell.weight_hh, cell.bias_hh, states[0], state_tag),
    )
    for part, weight, bias, value, value_tag in connections:
        geometry: dict[str, Any] = {
            "weight_shape": tuple(weight.shape),
            "weight_count": weight.numel(),
            "bias_count": 0 if bias is None else bias.numel(),
            "weight_bits": weight.element_size() * 8,
            "recurrent": part == "hh",
        }
        given = value_tag or Tag(ANALOG, (f"{name}.hh",))
        label = f"{name}.{part}"
        fanout = maps.get(("linear", label), partial(linear_fanout, weight.detach()))
        layers.count_matrix(records, label, fanout, geometry, value, weight.shape[0], given, rows)
    if isinstance(cell, nn.RNNCell):
        return
    effective = _gate_products(cell, x, states)
    hidden = cell.hidden_size
    geometry = {"input_shape": (hidden,), "output_shape": (hidden,), "neuron_model": type(cell).__name__}
    records.of(f"{name}.gates", "elementwise", geometry).add(
        Tag(ANALOG, (f"{name}.ih", f"{name}.hh")),
        synops_nonzero=effective.sum(1).to(torch.int64).cpu().numpy().reshape(1, rows.samples),
        multiplies=rows.every(3 * hidden),
        adds=rows.every(hidden),
    )


def _gate_products(cell: nn.LSTMCell | nn.GRUCell, x: torch.Tensor, states: list[torch.Tensor]) -> torch.Tensor:
    """Element-wise products whose factors are both fed by something, [B, hidden]; NeuroBench's definition for LSTM."""
    from_input = x.ne(0).double() @ cell.weight_ih.detach().ne(0).double().t()
    from_state = states[0].ne(0).double() @ cell.weight_hh.detach().ne(0).double().t()
    fed = from_input + from_state
    for bias in (cell.bias_ih, cell.bias_hh):
        if bias is not None:
            fed = fed + bias.detach().ne(0)
    h = states[0].ne(0)
    if isinstance(cell, nn.LSTMCell):
        i, f, g, o = fed.gt(0).chunk(4, dim=1)
        c = states[1].ne(0) if len(states) > 1 else torch.zeros_like(f)
        kept, written = f & c, i & g
        return kept.double() + written.double() + (o & (kept | written)).double()
    r, z, n = fed.gt(0).chunk(3, dim=1)
    hidden_part = from_state.chunk(3, dim=1)[2].gt(0)
    # n (1 - z): the factor 1 - z is never known to be zero.
    return (r & hidden_part).double() + n.double() + (z & h).double()
