"""Attacks by malicious sites, to measure defences: part of a simulation, never of a deployed run.

An attack is one page here and one yaml in ``conf/attack``: ``attack=sign_flip
attack.sites=[a,b,c]``.
"""
