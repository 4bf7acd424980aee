"""Downloads the public data sets: resumed where it broke off, checked, and placed whole.

Only files whose sha256 is known are taken out of an archive, and they are written under
names of our own, so an archive can put nothing anywhere else.
"""

from __future__ import annotations

import hashlib
import http.client
import io
import tempfile
import urllib.error
import urllib.request
import zipfile
import zlib
from collections.abc import Callable
from pathlib import Path
from typing import IO

from fedpdm.data.sources.published import KNOWN, KnownFile
from fedpdm.errors import ConfigError, DataError
from fedpdm.storage import sha256_of

URLS = {
    "ai4i": "https://archive.ics.uci.edu/static/public/601/"
    "ai4i+2020+predictive+maintenance+dataset.zip",
    "cmapss": "https://phm-datasets.s3.amazonaws.com/NASA/"
    "6.+Turbofan+Engine+Degradation+Simulation+Data+Set.zip",
}
ATTEMPTS = 5  # of one command, each going on where the one before broke off
TIMEOUT = 30.0  # seconds without a byte
CHUNK = 1 << 18
LARGEST = 1 << 28  # bytes of one unpacked member; the real ones stay below 1 << 24
DEEPEST = 3  # archives within archives
DAMAGED = (zipfile.BadZipFile, zlib.error, RuntimeError, NotImplementedError, EOFError)


def fetch(
    dataset: str, folder: Path, url: str | None = None, say: Callable[[str], None] = print
) -> list[Path]:
    """Download ``dataset`` into ``folder`` and return its files.

    Files that are there with the right sum are left alone, and if all are, nothing is
    downloaded. A transfer that breaks off leaves its part behind, and the next call goes on
    from there. Files appear under their names only when all of them have the right sum.

    Args:
        dataset: ``ai4i`` or ``cmapss``.
        folder: the data folder.
        url: of the archive; None means the publisher's.
        say: gets one line of progress at a time.

    Raises:
        ConfigError: no such data set, or no such kind of URL.
        DataError: no connection, a damaged archive, or a folder that cannot be written.
    """
    if dataset not in KNOWN:
        raise ConfigError(f"there is no data set '{dataset}' to fetch; choose {', '.join(KNOWN)}")
    files = KNOWN[dataset]
    places = [folder / known.path for known in files]
    url = url or URLS[dataset]
    if not url.startswith(("http://", "https://", "file://")):
        raise ConfigError(f"--url {url} must begin with https://, http:// or file://")
    if all(has_right_sum(folder, known) for known in files):
        say(f"{dataset} is in {folder} already")
        return places
    part = folder / f".{dataset}.zip.part"
    try:
        folder.mkdir(parents=True, exist_ok=True)
        download(url, part, dataset, say)
        with tempfile.TemporaryDirectory(dir=folder, prefix=".unpacked-") as unpacked:
            take_out(part, Path(unpacked), files, url)
            for known, place in zip(files, places, strict=True):
                place.parent.mkdir(parents=True, exist_ok=True)
                (Path(unpacked) / known.name).replace(place)
    except OSError as error:
        raise DataError(
            f"{folder} cannot be written: {error.strerror or error}; choose another folder "
            "with --to"
        ) from None
    forget(part)
    for place in places:
        say(f"{place}  sha256 ok")
    return places


def has_right_sum(folder: Path, known: KnownFile) -> bool:
    """Return whether a file is there, readable, and the published one."""
    try:
        return sha256_of(folder / known.path) == known.sha256
    except OSError:
        return False


def download(url: str, part: Path, dataset: str, say: Callable[[str], None]) -> None:
    """Fetch ``url`` into ``part``, going on from what ``part`` holds already."""
    said, reason = f"downloading {url}", "every attempt broke off"
    for _ in range(ATTEMPTS):
        before = size_of(part)
        say(said + (f" from byte {before:,}" if before else ""))
        try:
            if transfer(url, part):
                return
            reason = "the connection broke off"
        except urllib.error.HTTPError as error:
            if error.code == http.HTTPStatus.REQUESTED_RANGE_NOT_SATISFIABLE and before:
                if error.headers.get("Content-Range") == f"bytes */{before}":
                    return  # a call before this one had it all
                forget(part)  # it is not a part of what the server has now
                continue
            reason = f"the server answered {error.code} {error.reason}"
        except urllib.error.URLError as error:
            reason = str(error.reason)
        except (TimeoutError, ConnectionError, http.client.HTTPException) as error:
            reason = str(error) or type(error).__name__
        if size_of(part) <= before:
            break
        said = f"{reason}; going on with {url}"
    by_hand = ", ".join(known.path for known in KNOWN[dataset])
    raise DataError(
        f"{url} cannot be downloaded: {reason}. Run the same command again to go on where it "
        f"stopped, give another --url, or put the files by hand into {part.parent}: {by_hand}"
    )


def transfer(url: str, part: Path) -> bool:
    """Append what is missing to ``part``; return whether it is whole.

    A server that does not know ranges, or whose file has changed since, sends everything
    and ``part`` starts over.
    """
    have = size_of(part)
    tag = part.with_suffix(".tag")  # the server's mark of the version that ``part`` is of
    request = urllib.request.Request(url, headers={"User-Agent": "fedpdm"})
    if have:
        request.add_header("Range", f"bytes={have}-")
        if tag.exists():
            request.add_header("If-Range", tag.read_text("utf-8"))
    with urllib.request.urlopen(request, timeout=TIMEOUT) as response:
        start, total = extent(response.headers, response.status)
        if start not in (0, have):
            raise http.client.HTTPException(f"the server began at byte {start}, not {have}")
        mark = response.headers.get("ETag") or response.headers.get("Last-Modified") or "W/"
        if mark.startswith("W/"):  # weak: says nothing about bytes
            tag.unlink(missing_ok=True)
        else:
            tag.write_text(mark, "utf-8")
        with part.open("ab" if start else "wb") as file:
            while chunk := receive(response):
                file.write(chunk)
    return total is None or size_of(part) == total


def receive(response: http.client.HTTPResponse) -> bytes:
    """Return the next bytes; a network's OSError must not be taken for the disk's."""
    try:
        return response.read(CHUNK)
    except OSError as error:
        raise http.client.HTTPException(str(error)) from None


def extent(headers: http.client.HTTPMessage, status: int | None) -> tuple[int, int | None]:
    """Return the first byte that an answer holds, and the whole file's size if it is told."""
    if status == http.HTTPStatus.PARTIAL_CONTENT:
        unit, _, rest = headers.get("Content-Range", "").partition(" ")
        first, total = rest.partition("-")[0], rest.rpartition("/")[2]
        if unit != "bytes" or not first.isdigit():
            raise http.client.HTTPException("the server's Content-Range cannot be read")
        return int(first), int(total) if total.isdigit() else None
    length = headers.get("Content-Length", "")
    return 0, int(length) if length.isdigit() else None


def take_out(part: Path, into: Path, files: tuple[KnownFile, ...], url: str) -> None:
    """Unpack the known files from an archive, wherever in it they lie, and check their sums.

    Raises:
        DataError: the archive is damaged, lacks a file, or holds an altered one. It is
            deleted then, as going on with it could not help.
    """
    wanted = {known.name: known for known in files}
    wrong: dict[str, str] = {}
    try:
        with part.open("rb") as file:
            unpack(file, into, wanted, wrong, DEEPEST)
    except DAMAGED as error:
        forget(part)
        raise DataError(
            f"{url} is not a valid zip archive ({error}); nothing was placed. Run the command "
            "again, or give another --url"
        ) from None
    if wanted:
        forget(part)
        name = next(iter(wanted))
        what = (
            f"sha256 {wrong[name]}, not {wanted[name].sha256}" if name in wrong else "no such file"
        )
        raise DataError(
            f"{url}: {name}: {what}; nothing was placed. The archive is damaged or altered: run "
            "the command again, or give another --url"
        )


def unpack(
    archive: IO[bytes], into: Path, wanted: dict[str, KnownFile], wrong: dict[str, str], depth: int
) -> None:
    """Move files with the right sum from ``archive`` to ``into`` and strike them off ``wanted``."""
    with zipfile.ZipFile(archive) as opened:
        for member in opened.infolist():
            name = member.filename.replace("\\", "/").rpartition("/")[2]
            nested = name.lower().endswith(".zip") and depth > 0
            if member.file_size > LARGEST or not (nested or name in wanted):
                continue
            content = opened.read(member)
            if nested:
                unpack(io.BytesIO(content), into, wanted, wrong, depth - 1)
                continue
            digest = hashlib.sha256(content).hexdigest()
            if digest == wanted[name].sha256:
                (into / wanted.pop(name).name).write_bytes(content)
            else:
                wrong[name] = digest


def size_of(path: Path) -> int:
    """Return a file's size in bytes, 0 if there is none."""
    return path.stat().st_size if path.exists() else 0


def forget(part: Path) -> None:
    """Delete a partial download and its mark."""
    part.unlink(missing_ok=True)
    part.with_suffix(".tag").unlink(missing_ok=True)
