"""The generator of machine fleets, the default data set."""
