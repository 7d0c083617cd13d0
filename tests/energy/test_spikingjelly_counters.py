"""SpikingJelly's own operation counters find the same numbers, where both define them."""

from __future__ import annotations

import pytest
import torch
from spikingjelly.activation_based import functional
from spikingjelly.activation_based.op_counter import DispatchCounterMode, MACCounter, SynOpCounter
from torch import nn
from worked_network import Replay, network, sequence

import snn
from neuromorphic.energy import SPIKES, Signal, count, estimate


def of_spikingjelly(net: nn.Module, x: torch.Tensor, by_step: bool) -> tuple[int, int]:
    """Synaptic operations and multiply-accumulates of one run."""
    synops, macs = SynOpCounter(), MACCounter()
    with torch.no_grad(), DispatchCounterMode([synops, macs]):
        if by_step:
            for x_t in x:
                net(x_t)
        else:
            net(x)
    return synops.get_total(), macs.get_total()


def ours(net: nn.Module, x: torch.Tensor, signal: Signal | None = None) -> tuple[float, float]:
    """The same by our rules, under the convention named after the tool."""
    options = {} if signal is None else {"input_signal": signal}
    counts = count(
        net,
        x,
        spiking=(Replay,),
        call="step" if any(isinstance(m, Replay) for m in net.modules()) else "auto",
        **options,
    )
    rows = estimate(counts, "45nm", convention="spikingjelly").rows
    acs = sum(row.count for row in rows if row.term == "AC") * counts.samples
    return acs, sum(row.count for row in rows if row.term == "MAC") * counts.samples


def test_the_worked_network() -> None:
    assert of_spikingjelly(network(), sequence(), by_step=True) == (3744, 9216)
    assert ours(network(), sequence()) == (3744, 9216)


@pytest.mark.parametrize(("stride", "padding", "groups"), [(1, 1, 1), (2, 0, 2), (3, 2, 4)])
def test_a_spiking_network(stride: int, padding: int, groups: int) -> None:
    torch.manual_seed(1)
    net = nn.Sequential(
        nn.Conv2d(4, 8, 3, stride, padding, groups=groups, bias=False),
        snn.IF(v_threshold=0.2, step_mode="s"),
        nn.Flatten(),
        nn.LazyLinear(6, bias=False),
    )
    x = (torch.rand(3, 2, 4, 9, 9) < 0.3).float()
    net(x[0])
    functional.reset_net(net)
    theirs = of_spikingjelly(net, x, by_step=True)
    functional.reset_net(net)
    assert ours(net, x, SPIKES) == (theirs[0], 0)
    assert theirs[0] > 0
