"""Differential privacy: what leaves a site, what it is noised with, and what that guarantees."""
