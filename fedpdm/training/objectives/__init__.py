"""Local objectives against label skew and drift. Each wraps the run's loss: ``objective.base``."""
