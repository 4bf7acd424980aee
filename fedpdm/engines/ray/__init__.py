"""The ray engine: sites in worker processes of Ray."""
