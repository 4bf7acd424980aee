"""Named sites as archetypes of many: ``replicas=50``."""

from __future__ import annotations

from typing import Any

from fedpdm.errors import ConfigError


def expand_replicas(sites: dict[str, Any], replicas: int) -> dict[str, Any]:
    """Return each named site ``replicas`` times: ``detroit-001`` … with the same settings."""
    if replicas < 1:
        raise ConfigError(f"replicas={replicas} must be at least 1")
    if replicas == 1:
        return dict(sites)
    width = max(3, len(str(replicas)))
    return {
        f"{name}-{number:0{width}d}": settings
        for name, settings in sites.items()
        for number in range(1, replicas + 1)
    }
