"""Screening updates and adding them up."""
