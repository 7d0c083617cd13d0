"""Time learnable delays against the dcls package and the dense convolution: python scripts/bench/delays.py --json FILE

train: forward, backward and Adam step of a 700-256-256-20 network with our LIF neurons, T = 100, batch 128, delays of 0 to
24 steps (a kernel of 25), turn by turn with the same network made of dcls layers. Before anything is timed the layers'
outputs and gradients are compared on equal weights, delays and widths.

memory: peak memory of a training step of its first layer, in a fresh process, beside input + output + parameters and the
gradients of these.

inference: the same network with whole delays as an event network, batch 1, 5 % input activity, beside torch with the
dense convolutions prepared beforehand; spikes are compared first.
"""

import argparse
import itertools
import json
import platform
import statistics
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from torch import nn
from torch.nn import functional

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))

import snn
from snn.layers import DelayedLinear

T, BATCH, KERNEL, SIZES, ACTIVITY = 100, 128, 25, (700, 256, 256, 20), 0.05
CLOCK: list[Callable[[], float]] = [time.perf_counter]
CASES = {"gaussian 12.27": 12.27, "gaussian 2": 2.0, "gaussian 0.5": 0.5, "two-tap": None}  # widths in steps


class Ours(nn.Module):
    """Delayed linear layers and LIF neurons, time first."""

    def __init__(self, sigma: float | None) -> None:
        super().__init__()
        kernel = "two-tap" if sigma is None else "gaussian"
        pairs = list(itertools.pairwise(SIZES))
        self.delayed = nn.ModuleList([DelayedLinear(i, o, KERNEL - 1, kernel=kernel) for i, o in pairs])  # type: ignore[arg-type]
        self.neurons = nn.ModuleList([neurons() for _ in pairs[:-1]])
        for layer in self.delayed:
            if sigma is not None:
                layer.positions.sigma = sigma

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        for layer, lif in zip(self.delayed[:-1], self.neurons, strict=True):
            x = lif(layer(x))
        return self.delayed[-1](x)


class Dense(nn.Module):
    """The same network with dcls layers; their [B, features, T] is turned round for the neurons."""

    def __init__(self, ours: Ours, sigma: float | None) -> None:
        super().__init__()
        from DCLS.construct.modules import Dcls1d

        self.delayed = nn.ModuleList()
        for layer in ours.delayed:
            version = "v1" if sigma is None else "gauss"
            dense = Dcls1d(
                layer.in_features,
                layer.out_features,
                kernel_count=1,
                dilated_kernel_size=KERNEL,
                bias=False,
                version=version,
            )
            with torch.no_grad():
                dense.weight.copy_(layer.weight.unsqueeze(2))
                dense.P.copy_((KERNEL // 2 - layer.positions.delay).view(dense.P.shape))
                if sigma is not None:
                    dense.SIG.fill_(sigma - 0.27)
                    dense.SIG.requires_grad_(False)
            self.delayed.append(dense)
        self.neurons = nn.ModuleList([neurons() for _ in ours.neurons])

    def layer(self, number: int, x: torch.Tensor) -> torch.Tensor:
        """One delayed layer, [T, B, in] -> [T, B, out]."""
        late = functional.pad(x.permute(1, 2, 0), (KERNEL - 1, 0))
        return self.delayed[number](late).permute(2, 0, 1)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        for number, lif in enumerate(self.neurons):
            x = lif(self.layer(number, x).contiguous())
        return self.layer(len(self.neurons), x)


def neurons() -> nn.Module:
    return snn.LIF(tau=2.0, decay_input=False, v_threshold=0.6, detach_reset=True, step_mode="m")


def training_step(net: nn.Module, x: torch.Tensor, labels: torch.Tensor) -> Callable[[], None]:
    optimizer = torch.optim.Adam([p for p in net.parameters() if p.requires_grad], lr=1e-9)

    def run() -> None:
        optimizer.zero_grad()
        functional.cross_entropy(net(x).mean(0), labels).backward()
        optimizer.step()

    return run


def difference(a: torch.Tensor, b: torch.Tensor) -> float:
    return float((a - b).abs().max() / b.abs().max())


def check_equal(ours: Ours, dense: Dense, x: torch.Tensor, positions: bool) -> float:
    """Largest relative difference of outputs and gradients of the first layer; ends the program above 1e-4."""
    layer, theirs = ours.delayed[0], dense.delayed[0]
    y, expected = layer(x), dense.layer(0, x)
    cotangent = torch.randn_like(y)
    found = [difference(y.detach(), expected.detach())]
    g = torch.autograd.grad(y, [layer.weight, layer.positions.delay], cotangent)
    g_theirs = torch.autograd.grad(expected, [theirs.weight, theirs.P], cotangent)
    found.append(difference(g[0], g_theirs[0].squeeze(2)))
    if positions:
        found.append(difference(g[1], -g_theirs[1].view(g[1].shape)))
    if max(found) > 1e-4:
        raise SystemExit(f"outputs or gradients differ by {found}")
    return max(found)


def interleaved(peers: dict[str, Callable[[], Any]], seconds: float) -> dict[str, dict[str, float]]:
    """Median and minimum in ms; the peers take turns, at least three rounds after one that warms up."""
    times: dict[str, list[float]] = {name: [] for name in peers}
    for run in peers.values():
        run()
    end = time.perf_counter() + seconds
    while time.perf_counter() < end or len(times[next(iter(peers))]) < 3:
        for name, run in peers.items():
            start = CLOCK[0]()
            run()
            times[name].append((CLOCK[0]() - start) * 1e3)
    return {name: {"median_ms": statistics.median(t), "min_ms": min(t), "rounds": len(t)} for name, t in times.items()}


def train(seconds: float, names: list[str]) -> list[dict[str, Any]]:
    """One line per width of the taps."""
    x = (torch.rand(T, BATCH, SIZES[0]) < ACTIVITY).float()
    labels = torch.randint(0, SIZES[-1], (BATCH,))
    results = []
    print(f"{'training step':16s} {'dcls ms':>10s} {'ours ms':>10s} {'ratio':>6s} {'difference':>11s}")
    for name in names:
        sigma = CASES[name]
        torch.manual_seed(0)
        ours = Ours(sigma)
        dense = Dense(ours, sigma)
        # DCLS's two taps have a normalisation whose floor adds 1e-7 to the position gradient's scale
        error = check_equal(ours, dense, x, positions=True)
        peers = {"dcls": training_step(dense, x, labels), "ours": training_step(ours, x, labels)}
        times = interleaved(peers, seconds)
        ratio = times["dcls"]["median_ms"] / times["ours"]["median_ms"]
        print(
            f"{name:16s} {times['dcls']['median_ms']:10.0f} {times['ours']['median_ms']:10.0f} {ratio:6.2f} {error:11.1e}",
            flush=True,
        )
        results.append({"taps": name, "times": times, "ratio": ratio, "difference": error})
    return results


def peak_bytes() -> int:
    for line in Path("/proc/self/status").read_text().splitlines():
        if line.startswith("VmHWM"):
            return int(line.split()[1]) * 1024
    raise SystemExit("no VmHWM in /proc/self/status; the memory part needs Linux")


def memory_step(name: str, layer_number: int) -> None:
    """Runs in a process of its own: prints the peak above the start and the size of what a step must hold."""
    sigma = CASES[name]
    i, o = SIZES[layer_number], SIZES[layer_number + 1]
    layer = DelayedLinear(i, o, KERNEL - 1, kernel="two-tap" if sigma is None else "gaussian")
    layer.positions.sigma = sigma or 0.0
    small = torch.rand(T, 16, i, requires_grad=layer_number > 0)
    y = layer(small)
    y.backward(torch.ones_like(y))  # compiles, imports and allocates what stays
    layer.zero_grad(set_to_none=True)
    del small, y
    Path("/proc/self/clear_refs").write_text("5")
    before = peak_bytes()
    x = torch.empty(T, BATCH, i).bernoulli_(ACTIVITY).requires_grad_(layer_number > 0)
    y = layer(x)
    y.backward(torch.ones_like(y))
    peak = peak_bytes() - before
    parameters = sum(p.numel() for p in layer.parameters())
    gradients = parameters + y.numel() + (x.numel() if layer_number > 0 else 0)
    needed = 4 * (x.numel() + y.numel() + gradients)  # the parameters themselves were there before
    print(json.dumps({"taps": name, "layer": f"{i}-{o}", "peak": peak, "needed": needed, "ratio": peak / needed}))


def memory(names: list[str]) -> list[dict[str, Any]]:
    results = []
    print(f"\n{'memory':16s} {'layer':>9s} {'peak MB':>9s} {'needed MB':>9s} {'ratio':>6s}")
    for name in names:
        for layer in (0, 1):
            command = [sys.executable, __file__, "--memory-step", name, str(layer)]
            output = subprocess.run(command, capture_output=True, text=True, check=True).stdout
            found = json.loads(output.splitlines()[-1])
            print(
                f"{name:16s} {found['layer']:>9s} {found['peak'] / 1e6:9.1f} {found['needed'] / 1e6:9.1f} {found['ratio']:6.2f}",
                flush=True,
            )
            results.append(found)
    return results


class Prepared(nn.Module):
    """The network with whole delays as dense convolutions in torch, kernels made beforehand; batch 1."""

    def __init__(self, ours: Ours) -> None:
        super().__init__()
        self.kernels = []
        for layer in ours.delayed:
            kernel = torch.zeros(layer.out_features, layer.in_features, KERNEL)
            place = (KERNEL - 1 - layer.delays()).long().unsqueeze(2)
            self.kernels.append(kernel.scatter_(2, place, layer.weight.detach().unsqueeze(2)))
        self.neurons = ours.neurons

    def layer(self, number: int, x: torch.Tensor) -> torch.Tensor:
        """One delayed layer, [T, B, in] -> [T, B, out]."""
        late = functional.pad(x.permute(1, 2, 0), (KERNEL - 1, 0))
        return functional.conv1d(late, self.kernels[number]).permute(2, 0, 1).contiguous()

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        for number, lif in enumerate(self.neurons):
            x = lif(self.layer(number, x))
        return self.layer(len(self.neurons), x)


def inference(seconds: float) -> dict[str, Any]:
    from neuromorphic.compiler import compile as compile_network

    torch.manual_seed(0)
    ours = Ours(None).eval()
    with torch.no_grad():
        for layer in ours.delayed:
            layer.weight.copy_((layer.weight * 64).round() / 64)  # sums are exact in any order
    x = (torch.rand(T, 1, SIZES[0]) < ACTIVITY).float()
    prepared = Prepared(ours)
    event = compile_network(ours, x)
    with torch.no_grad():
        sent = event.spikes(x)[1]
        hidden = prepared.neurons[0](prepared.layer(0, x))
        y, expected, gathered = event.run(x), prepared(x), ours(x)
        if not (torch.equal(y, expected) and torch.equal(gathered, expected)):
            raise SystemExit(f"outputs differ by {difference(y, expected):.1e}")
        first = next(iter(sent.values()))
        if (first.reshape(hidden.shape) != hidden.numpy()).any():
            raise SystemExit("spikes of the first layer differ")
        peers: dict[str, Callable[[], Any]] = {
            "dense convolution": lambda: prepared(x),
            "event network": lambda: event.run(x),
            "layers in evaluation": lambda: ours(x),
        }
        times = interleaved(peers, seconds)
    ratio = {name: times["dense convolution"]["median_ms"] / own["median_ms"] for name, own in times.items()}
    print(f"\ninference, batch 1, {ACTIVITY:.0%} input activity, {float(hidden.mean()):.1%} in the first hidden layer")
    for name, own in times.items():
        print(f"{name:22s} {own['median_ms']:8.2f} ms {ratio[name]:6.1f}")
    return {"times": times, "ratio": ratio, "hidden_activity": float(hidden.mean())}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--json", type=Path, help="file for the results")
    parser.add_argument("--taps", nargs="*", default=list(CASES), choices=list(CASES))
    parser.add_argument(
        "--parts", nargs="*", default=["train", "memory", "inference"], choices=["train", "memory", "inference"]
    )
    parser.add_argument("--threads", type=int, help="threads of torch; default: all")
    parser.add_argument("--seconds", type=float, default=8.0, help="time for each line")
    parser.add_argument("--memory-step", nargs=2, help=argparse.SUPPRESS)
    parser.add_argument(
        "--cpu-time", action="store_true", help="one thread and its CPU time: for a machine in use by others"
    )
    arguments = parser.parse_args()
    if arguments.cpu_time:
        arguments.threads, CLOCK[0] = 1, time.process_time
    if arguments.threads:
        torch.set_num_threads(arguments.threads)
    torch.manual_seed(0)
    if arguments.memory_step:
        memory_step(arguments.memory_step[0], int(arguments.memory_step[1]))
        return
    results: dict[str, Any] = {
        "machine": {
            "cpu": platform.processor() or platform.machine(),
            "threads": torch.get_num_threads(),
            "clock": CLOCK[0].__name__,
        },
        "torch": torch.__version__,
    }
    if "train" in arguments.parts:
        results["train"] = train(arguments.seconds, arguments.taps)
    if "memory" in arguments.parts:
        results["memory"] = memory(arguments.taps)
    if "inference" in arguments.parts:
        results["inference"] = inference(min(arguments.seconds, 5.0))
    if arguments.json:
        arguments.json.parent.mkdir(parents=True, exist_ok=True)
        partial = arguments.json.with_suffix(arguments.json.suffix + ".part")
        partial.write_text(json.dumps(results, indent=2))
        partial.replace(arguments.json)


if __name__ == "__main__":
    main()
