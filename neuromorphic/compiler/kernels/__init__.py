"""Numba loops of the event network; each works on flat memory that `neuromorphic.compiler.lower` has laid out."""
