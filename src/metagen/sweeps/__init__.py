"""Sweeps: a queue of processes, Ray, SLURM and Optuna."""
