"""Sweeps: every job a process of its own, on this machine's devices or on a cluster's."""
