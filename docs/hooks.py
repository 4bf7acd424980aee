"""Takes pages that lie outside docs/ into the site, and leads links to them there."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

from mkdocs.structure.files import File, Files

ROOT = Path(__file__).parents[1]
PAGES = {
    "server/README.md": "server.md",
    "clients/README.md": "clients.md",
    "benchmarks/README.md": "benchmarks.md",
    "SECURITY.md": "security.md",
    "CHANGELOG.md": "changelog.md",
}
"""Where each lies in the repository, and in the site."""
LINK = re.compile(r"\]\(([^)#\s]+)(#[^)]*)?\)")


def on_files(files: Files, config: Any) -> Files:
    """Add the pages from outside."""
    for source, page in PAGES.items():
        files.append(File.generated(config, page, content=(ROOT / source).read_text("utf-8")))
    return files


def on_page_markdown(markdown: str, page: Any, **_: Any) -> str:
    """Lead links to where their targets lie in the site."""
    places = {page: source for source, page in PAGES.items()}
    here = ROOT / places.get(page.file.src_uri, f"docs/{page.file.src_uri}")
    up = "../" * page.file.src_uri.count("/")

    def led(found: re.Match[str]) -> str:
        target, anchor = found[1], found[2] or ""
        if "://" in target:
            return found[0]
        place = (here.parent / target).resolve()
        if not place.is_relative_to(ROOT):
            return found[0]
        name = place.relative_to(ROOT).as_posix()
        known = PAGES.get(name, name.removeprefix("docs/") if name.startswith("docs/") else "")
        return f"]({up}{known}{anchor})" if known else found[0]

    return LINK.sub(led, markdown)
