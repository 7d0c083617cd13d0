"""Neuromorphic execution: event engine, compiler, chip targets and energy."""

from neuromorphic.engine.network import Network

__all__ = ["Network"]
