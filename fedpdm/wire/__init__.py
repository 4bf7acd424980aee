"""Records and messages, and the few touches of Flower's internals."""
