"""Which methods there are, what each does, and its page: python -m fedpdm.strategies."""
