"""Serves the page to browsers on this machine, and to nobody else.

Three things are asked of a request before anything is read: its Host must be a name of this
machine, since another one means that a web site had its own name point here (DNS rebinding); its
path must begin with the token, which other users of the machine do not know; its method must be
GET or HEAD.
Answers have a Content-Security-Policy under which a browser runs the page's one script, talks to
this server, and loads nothing from elsewhere. A report is shown as a document without scripts.
"""

from __future__ import annotations

import hmac
import re
import secrets
import socketserver
import sys
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

from fedpdm.errors import ConfigError, FedPdmError, printable
from fedpdm.watch.page import Pages, render_failure
from fedpdm.watch.reading import Reader

ADDRESS = "127.0.0.1"
HOSTS = re.compile(r"(127\.0\.0\.1|localhost)(:\d{1,5})?", re.IGNORECASE | re.ASCII)
"""Names of this machine; the port may be another one, of an SSH tunnel."""
_ALONE = "default-src 'none'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
# Plots have their colours in style attributes.
_PAGE = f"{_ALONE}; style-src 'unsafe-inline'; img-src data:; connect-src 'self'"
_REPORT = f"{_ALONE}; style-src 'unsafe-inline'; img-src data:; sandbox"


class PageServer(ThreadingHTTPServer):
    """Serves one run.

    Args:
        reader: looks at the run folder.
        port: where to listen; 0: any that is free.

    Raises:
        ConfigError: the port cannot be had.
    """

    daemon_threads = True

    def __init__(self, reader: Reader, port: int = 0) -> None:
        self.reader, self.pages, self.token = reader, Pages(), secrets.token_urlsafe(24)
        self._one_at_a_time = threading.Lock()  # SQLite's connection, Matplotlib
        where = reader.folder.resolve()
        # The runs of a multirun are 0, 1, 2…: their folder's name says more.
        self.name = f"{where.parent.name}/{where.name}" if where.name.isdigit() else where.name
        try:
            super().__init__((ADDRESS, port), _Handler)
        except (OSError, OverflowError) as error:
            reason = getattr(error, "strerror", None) or error
            raise ConfigError(
                f"--port {port} cannot be used ({reason}); leave it out for one that is free"
            ) from error

    def server_bind(self) -> None:
        """Bind without asking a name server for this machine's name."""
        socketserver.TCPServer.server_bind(self)
        self.server_name, self.server_port = ADDRESS, self.server_address[1]

    def handle_error(self, request: Any, client_address: Any) -> None:
        """Let a browser go away without a word."""
        if not isinstance(sys.exc_info()[1], OSError):
            super().handle_error(request, client_address)

    @property
    def path(self) -> str:
        """Path of the page."""
        return f"/{self.token}/"

    @property
    def url(self) -> str:
        """Address of the page, which is a secret."""
        return f"http://{ADDRESS}:{self.server_port}{self.path}"

    def page(self) -> tuple[str, str]:
        """Return the page and its Content-Security-Policy."""
        nonce = secrets.token_urlsafe(16)
        with self._one_at_a_time:
            try:
                text = self.pages.render(self.name, self.reader.look(), self.path, nonce)
            except FedPdmError as error:
                text = render_failure(self.name, str(error), nonce)
            except Exception as error:  # a stranger's folder may hold anything
                self.reader.close()
                kind = type(error).__name__
                sentence = f"{self.reader.folder} holds what no run writes ({kind}: {error})"
                text = render_failure(self.name, printable(sentence)[:500], nonce)
        return text, f"{_PAGE}; script-src 'nonce-{nonce}'"

    def report(self) -> bytes:
        """Return the report.

        Raises:
            HistoryError: there is none.
        """
        with self._one_at_a_time:
            return self.reader.report()


class _Handler(BaseHTTPRequestHandler):
    server: PageServer
    server_version, sys_version = "fedpdm", ""
    timeout = 20

    def do_GET(self) -> None:
        hosts = self.headers.get_all("Host") or []
        if len(hosts) != 1 or not HOSTS.fullmatch(hosts[0]):
            self.send_error(403, f"open this page as http://{ADDRESS}")
            return
        token, _, name = self.path.partition("?")[0].removeprefix("/").partition("/")
        if not hmac.compare_digest(token.encode(), self.server.token.encode()):
            self.send_error(403, "the address is not the one that python -m fedpdm.watch printed")
        elif not name:
            text, policy = self.server.page()
            self._send(200, text.encode("utf-8", "replace"), "text/html; charset=utf-8", policy)
        elif name == "report.html":
            try:
                content = self.server.report()
            except FedPdmError as error:
                self.send_error(404, str(error))
            else:
                self._send(200, content, "text/html; charset=utf-8", _REPORT)
        else:
            self.send_error(404, "there is no such page")

    do_HEAD = do_GET

    def send_error(self, code: int, message: str | None = None, explain: str | None = None) -> None:
        """Answer with a sentence; the base class calls this, too."""
        if code == 501:
            code, message = 405, "this page can be read only: GET or HEAD"
        text = printable(f"{message or 'this request cannot be answered'}\n")
        self._send(code, text.encode("utf-8", "replace"), "text/plain; charset=utf-8", _ALONE)

    def _send(self, code: int, content: bytes, kind: str, policy: str) -> None:
        self.send_response(code)
        for name, value in {
            "Content-Type": kind,
            "Content-Length": str(len(content)),
            "Content-Security-Policy": policy,
            "X-Content-Type-Options": "nosniff",
            "Referrer-Policy": "no-referrer",
            "Cross-Origin-Resource-Policy": "same-origin",
            "Cache-Control": "no-store",
            **({"Allow": "GET, HEAD"} if code == 405 else {}),
        }.items():
            self.send_header(name, value)
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(content)

    def log_message(self, format: str, *args: Any) -> None:
        """Say nothing: an open page asks every few seconds."""


def reader_of(folder: Path) -> Reader:
    """Return what looks at a run folder, after a first look.

    Raises:
        HistoryError: the folder is no run's, or damaged.
    """
    reader = Reader(folder)
    reader.look()
    return reader
