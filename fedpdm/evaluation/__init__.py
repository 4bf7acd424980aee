"""Metrics, thresholds, baselines and the report."""
