"""The speed benchmark: the same work by a bare loop, by fedpdm's engines, and by its peers."""
