"""The server: the loop of rounds, and what it needs."""
