"""Composing and checking the config, and where ``conf/`` lies."""
