"""Numba kernels of the engine. Importing a module of this folder loads Numba."""
