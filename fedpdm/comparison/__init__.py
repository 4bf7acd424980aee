"""Comparison of runs over seeds: statistics, tables and a page."""
