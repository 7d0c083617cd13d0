"""The command ``simulate``: a ready network of point neurons, or a trained run folder."""

from __future__ import annotations

from collections.abc import Sequence


def main(arguments: Sequence[str]) -> int:
    """Run the command; a call with ``--checkpoint`` is about a trained network, any other about a ready one."""
    if any(argument == "--checkpoint" or argument.startswith("--checkpoint=") for argument in arguments):
        from neuromorphic.compiler.checkpoint_cli import main as run_checkpoint

        return run_checkpoint(arguments)
    from neuromorphic.engine.simulate_cli import main as run_ready_network

    return run_ready_network(arguments)
