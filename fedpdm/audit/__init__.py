"""Attacks on a finished run: what its model gives away of the rows it was trained on."""
