"""The wire format: records and messages, and the few uses of Flower's internals."""
