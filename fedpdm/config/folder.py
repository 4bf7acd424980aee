"""Where the config folder is: inside the wheel, or beside the package in a checkout."""

from __future__ import annotations

from pathlib import Path

from fedpdm.errors import ConfigError


def conf_dir() -> Path:
    """Return the folder with ``config.yaml``, as an absolute path.

    A wheel carries it as ``fedpdm/conf``; a checkout and an editable install have it beside
    the package. ``pkg://`` and a relative ``../conf`` each fail in one of the ways in which
    people start fedpdm (docs/decisions/001-library-and-two-apps.md).

    Raises:
        ConfigError: it is in neither place.
    """
    package = Path(__file__).resolve().parent.parent
    for folder in (package / "conf", package.parent / "conf"):
        if (folder / "config.yaml").is_file():
            return folder
    raise ConfigError(
        f"fedpdm is not whole: there is no conf/config.yaml in {package} or beside it; install "
        "fedpdm again, or run it from a complete checkout"
    )
