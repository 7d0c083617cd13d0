"""Spiking neural networks: neurons, layers, learning rules and conversion."""

__all__: list[str] = []
