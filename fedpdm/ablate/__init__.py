"""Ablations: what a group of sensors, a loss or a part of the architecture is worth."""
