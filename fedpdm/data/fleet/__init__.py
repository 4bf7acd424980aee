"""Generated fleets of machines."""
