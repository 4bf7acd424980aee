"""Local training: settings, the loop, the objective, optimizers."""
