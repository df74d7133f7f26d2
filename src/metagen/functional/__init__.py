"""Pure functions on tensors: randomness, vectorization, memory and precision."""
