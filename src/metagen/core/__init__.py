"""The contracts: episode, objective, model, learner and metric."""
