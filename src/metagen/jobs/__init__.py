"""The jobs: train, evaluate, generate, resume and reproduce."""
