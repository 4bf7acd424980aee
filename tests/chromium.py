"""Headless Chromium for tests of the report: what it shows, and whether it fits."""

from __future__ import annotations

import html
import shutil
import subprocess
import tempfile
from dataclasses import dataclass
from pathlib import Path

import pytest

FLAGS = (
    "--headless=new",
    "--no-sandbox",
    "--disable-gpu",
    "--disable-quic",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
    "--hide-scrollbars",
    "--enable-logging=stderr",
)
NARROWEST = 500
"""Headless Chromium makes no window narrower than this; phones are framed inside one."""


@dataclass(frozen=True)
class Page:
    """What Chromium made of a page: its DOM as text, and console messages."""

    dom: str
    console: list[str]


def find() -> str | None:
    """Return Chromium's path, or None."""
    return shutil.which("chromium") or next(
        (p for p in ("/usr/bin/chromium", "/usr/bin/chromium-browser") if Path(p).exists()), None
    )


def require() -> str:
    """Return Chromium's path; skip the test, saying so, where there is none."""
    path = find()
    if path is None:
        pytest.skip("chromium is not installed: apt-get install chromium")
    return path


def screenshot(
    html_path: Path, png_path: Path, width: int, height: int, dark: bool = False
) -> None:
    """Write a picture of a page as a window of that size shows it."""
    with tempfile.TemporaryDirectory(prefix="fedpdm-chromium-") as profile:
        page = _framed(html_path, width, height, Path(profile))
        flags = [f"--screenshot={png_path}", f"--window-size={width},{height}"]
        if dark:
            flags.append("--blink-settings=preferredColorScheme=0")
        _run(page, Path(profile), flags)


def pdf(html_path: Path) -> bytes:
    """Return a page as it is printed."""
    with tempfile.TemporaryDirectory(prefix="fedpdm-chromium-") as profile:
        printed = Path(profile) / "page.pdf"
        _run(html_path, Path(profile), [f"--print-to-pdf={printed}", "--no-pdf-header-footer"])
        return printed.read_bytes()


def dump_dom(html_path: Path | str, width: int = 1280, height: int = 900, later: int = 0) -> Page:
    """Return a page's DOM after its scripts ran, and what they wrote to the console.

    Args:
        html_path: the page, or its address.
        width: of the window.
        height: of the window.
        later: milliseconds of the page's own time that go by first; timers end, nobody waits.
    """
    with tempfile.TemporaryDirectory(prefix="fedpdm-chromium-") as profile:
        page = html_path
        if isinstance(page, Path):
            page = _framed(page, width, height, Path(profile))
        flags = ["--dump-dom", f"--window-size={width},{height}"]
        if later:
            flags.append(f"--virtual-time-budget={later}")
        done = _run(page, Path(profile), flags)
    messages = [line for line in done.stderr.splitlines() if ":CONSOLE:" in line]
    return Page(done.stdout, messages)


def _framed(html_path: Path, width: int, height: int, folder: Path) -> Path:
    if width >= NARROWEST:
        return html_path
    page = folder / "framed.html"
    page.write_text(_frame(html_path.read_text("utf-8"), width, height), encoding="utf-8")
    return page


def _frame(content: str, width: int, height: int) -> str:
    style = f"width:{width}px;height:{height}px;border:0"
    return (
        '<!DOCTYPE html><meta charset="utf-8"><link rel="icon" href="data:,">'
        f'<body style="margin:0"><iframe style="{style}" srcdoc="{html.escape(content)}"></iframe>'
    )


def _run(page: Path | str, profile: Path, flags: list[str]) -> subprocess.CompletedProcess[str]:
    command = [require(), *FLAGS, f"--user-data-dir={profile / 'profile'}", *flags]
    address = page if isinstance(page, str) else page.resolve().as_uri()
    return subprocess.run(
        [*command, address], capture_output=True, text=True, timeout=180, check=True
    )
