"""Sites in worker processes of Ray."""
