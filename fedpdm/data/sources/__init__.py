"""Data sets: each is one file here."""
