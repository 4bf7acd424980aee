"""Completes these commands in a shell: names of options, of sites, of run folders."""
