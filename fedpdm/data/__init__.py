"""Data: sources, partitions, splits, leakage checks, windows and features."""
