"""Neuromorphic execution: event engine, compiler, chip targets and energy."""

__all__: list[str] = []
