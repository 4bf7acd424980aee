"""Transforms of an update between site and server: privacy, compression, masking."""
