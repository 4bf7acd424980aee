"""Which methods there are, what each does, and its page: python -m fedpdm.strategies."""

from __future__ import annotations

GROUPS = {
    "strategy": "how sites train and their updates become a model",
    "objective": "what sites minimise",
    "server": "when the server commits",
    "transforms": "what happens to updates on their way",
    "privacy": "differential privacy",
    "attack": "malicious sites, to test defences",
}
"""Config groups whose options are methods, and what they are about."""
ORDINARY = {"task", "none", "synchronous", "focal"}
"""Options that are no method of their own."""
