"""What all our HTML pages share: one look, the filters of their templates, one way to write.

A page is one file without scripts or outside resources, for phones, screens and paper.
Templates lie in ``templates/`` and include ``page.css``; plots are drawn by ``drawing``.
"""

from __future__ import annotations

import os
import tempfile
from importlib import resources
from pathlib import Path
from typing import Any

from fedpdm.evaluation.wording import duration, listing, number, percent, size


def render_page(template: str, **values: Any) -> str:
    """Return a page as HTML.

    Args:
        template: its file in ``templates/``.
        values: what the template asks for; a missing one is an error. Text is escaped,
            ``markupsafe.Markup`` is not.
    """
    from jinja2 import Environment, FunctionLoader, StrictUndefined

    pages = Environment(
        loader=FunctionLoader(_template),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    pages.filters |= {
        "number": number,
        "percent": percent,
        "size": size,
        "duration": duration,
        "listing": lambda names: listing(names, most=12),
    }
    return pages.get_template(template).render(**values)


def write_page(path: Path, text: str) -> Path:
    """Write a page atomically, readable for colleagues, and return its path."""
    handle, name = tempfile.mkstemp(dir=path.parent, prefix=f".{path.stem}-", suffix=path.suffix)
    try:
        with os.fdopen(handle, "w", encoding="utf-8") as file:
            file.write(text)
        umask = os.umask(0)
        os.umask(umask)
        os.chmod(name, 0o666 & ~umask)  # mkstemp's 0600 would hide the page from colleagues
        os.replace(name, path)
    except BaseException:
        Path(name).unlink(missing_ok=True)
        raise
    return path


def _template(name: str) -> str:
    if not name.endswith((".html.j2", ".css")):
        return name  # a section's own text
    # Through importlib.resources, so that a wheel works, zipped or not.
    return (resources.files("fedpdm.report") / "templates" / name).read_text("utf-8")
