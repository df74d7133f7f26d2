"""Evaluation on test episodes, likelihoods and judges."""
