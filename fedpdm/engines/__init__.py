"""Engines: how a round's sites are run on this machine."""
