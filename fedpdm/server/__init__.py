"""What the server does: the loop of rounds, and what it needs."""
