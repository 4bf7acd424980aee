"""Local training: settings, the loop, optimizers."""
