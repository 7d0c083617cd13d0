"""The console command `spikeloop` and its subcommands."""

import sys
from collections.abc import Callable, Sequence
from importlib.metadata import PackageNotFoundError, version


def _train(arguments: Sequence[str]) -> int:
    from snn.training.command_line import main as train_main

    return train_main(arguments)


def _convert(arguments: Sequence[str]) -> int:
    from snn.conversion.command_line import main as convert_main

    return convert_main(arguments)


def _simulate(arguments: Sequence[str]) -> int:
    from neuromorphic.simulate import main as simulate_main

    return simulate_main(arguments)


def _energy(arguments: Sequence[str]) -> int:
    from neuromorphic.energy.command_line import main as energy_main

    return energy_main(arguments)


# Subcommand: what it does, and the function that takes its arguments and returns the exit code.
COMMANDS: dict[str, tuple[str, Callable[[Sequence[str]], int]]] = {
    "train": ("train a spiking network from a recipe", _train),
    "convert": ("convert a trained ordinary network into a spiking one", _convert),
    "energy": ("count a trained network and price it on models and chips", _energy),
    "simulate": ("simulate a ready network of point neurons, or run a trained network", _simulate),
}


def main(arguments: Sequence[str] | None = None) -> int:
    """Run `spikeloop SUBCOMMAND ...`; return 0, or 2 for a wrong call."""
    given = list(sys.argv[1:] if arguments is None else arguments)
    if not given or given[0] in ("-h", "--help"):
        print(_usage())
        return 0 if given else 2
    if given[0] == "--version":
        print(_version())
        return 0
    name, *rest = given
    if name not in COMMANDS:
        from snn.errors import closest  # brings torch, which --version does not need

        print(f"error: unknown subcommand {name!r}{closest(name, COMMANDS)}\n\n{_usage()}", file=sys.stderr)
        return 2
    return COMMANDS[name][1](rest)


def _usage() -> str:
    lines = "\n".join(f"  {name:<10} {purpose}" for name, (purpose, _) in COMMANDS.items())
    return f"usage: spikeloop [--version] SUBCOMMAND ...\n\n{lines}\n\nspikeloop SUBCOMMAND --help shows its arguments."


def _version() -> str:
    try:
        return version("spikeloop")
    except PackageNotFoundError:
        return "not installed"
