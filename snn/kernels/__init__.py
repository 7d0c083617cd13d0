"""The compilers of a declared neuron: reference, CPU and what they share."""
