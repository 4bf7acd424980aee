"""Leakage checks: what would make a result worthless is found before a run trains."""
