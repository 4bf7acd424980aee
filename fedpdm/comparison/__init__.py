"""Runs of a sweep, compared."""
