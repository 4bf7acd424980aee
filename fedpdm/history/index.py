"""The SQLite index of a run: which rounds there are, and which files belong to them.

A change of the history is one transaction here. Files are written before it (and are
orphans until it is through) or moved after it (and are found under both names until then),
so at every instant the index alone says what is true.
"""

from __future__ import annotations

import contextlib
import hashlib
import itertools
import json
import os
import re
import sqlite3
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

from fedpdm.errors import HistoryError
from fedpdm.history.guards import MISTYPED, TROUBLE, damaged, parsed, refuse_other_files
from fedpdm.history.record import RoundRecord, Row
from fedpdm.storage import cleaned, sync_folder

FILE = "history.sqlite"
SCHEMA = 1

_TABLES = f"""
    PRAGMA user_version = {SCHEMA};
    CREATE TABLE setting (name TEXT PRIMARY KEY, value);
    INSERT INTO setting VALUES ('attempt', 0), ('rollbacks', 0), ('retry', 0), ('seal', NULL);
    -- Every round that was ever finished. The live ones are 0, 1, … without a gap, and the
    -- head is the last of them; weights and state are paths below the run folder.
    CREATE TABLE round (
        id INTEGER PRIMARY KEY, number INTEGER NOT NULL, attempt INTEGER NOT NULL,
        live INTEGER NOT NULL, stored INTEGER NOT NULL, undone_by INTEGER,
        weights TEXT NOT NULL, weights_sha256 TEXT NOT NULL,
        state TEXT, state_sha256 TEXT, skeleton TEXT, record TEXT NOT NULL, digest TEXT NOT NULL);
    CREATE UNIQUE INDEX live_round ON round (number) WHERE live;
    CREATE TABLE event (id INTEGER PRIMARY KEY, content TEXT NOT NULL, digest TEXT NOT NULL);
    -- A site's state in rounds first … last (NULL: until now), kept once while unchanged.
    CREATE TABLE client_state (
        site TEXT NOT NULL, sha256 TEXT NOT NULL,
        first INTEGER NOT NULL, last INTEGER, undone_by INTEGER);
    CREATE INDEX open_state ON client_state (site) WHERE last IS NULL AND undone_by IS NULL;
    -- When it is repeated, the round does without the site.
    CREATE TABLE exclusion (round INTEGER, site TEXT);
    -- Rounds lost to damage are repeated under the attempt that they had.
    CREATE TABLE repeated (round INTEGER PRIMARY KEY, attempt INTEGER NOT NULL);
    -- The round to keep, as it was known when head was the head.
    CREATE TABLE protection (head INTEGER PRIMARY KEY, round INTEGER NOT NULL);
"""


def digest(*parts: object) -> str:
    """Return a checksum over texts, so that an altered index is found like an altered file."""
    return hashlib.sha256(json.dumps([str(part) for part in parts]).encode()).hexdigest()


class Index:
    """Reads and changes ``history.sqlite``; knows nothing of the files themselves.

    Args:
        folder: the run folder with the file in it.
        read_only: nothing is changed, not even what a killed run left half-written.

    Raises:
        HistoryError: not a run folder, or the file is damaged.
    """

    def __init__(self, folder: Path, read_only: bool = False) -> None:
        self.path = folder / FILE
        self._records: dict[int, RoundRecord] = {}
        for path in sorted(folder.glob(f"{FILE}*")):  # SQLite's journals, too
            if path.is_symlink():
                raise HistoryError(f"{path} is a link; put the file in its place")
        if not self.path.is_file():
            raise HistoryError(
                f"{folder} is not the folder of a run, or the run has not begun its first round: "
                f"it has no {FILE}"
            )
        refuse_other_files(self.path)
        with self._explained():
            self._connection = sqlite3.connect(
                f"{self.path.resolve().as_uri()}?mode={'ro' if read_only else 'rw'}",
                uri=True, timeout=60.0, isolation_level=None, check_same_thread=False,
            )  # fmt: skip
        try:
            self._check()
        except BaseException:
            self.close()
            raise

    @classmethod
    def create(cls, folder: Path, keep: int | None) -> Index:
        """Make the file, whole or not at all."""
        path, temporary = folder / FILE, folder / (FILE + ".tmp")
        try:
            folder.mkdir(parents=True, exist_ok=True)
            if path.exists():
                raise HistoryError(f"{folder} already holds the history of a run")
            temporary.unlink(missing_ok=True)
            with contextlib.closing(sqlite3.connect(temporary, isolation_level=None)) as connection:
                connection.execute("PRAGMA synchronous = EXTRA")
                connection.executescript(f"BEGIN; {_TABLES}")
                connection.execute("INSERT INTO setting VALUES ('keep', ?)", (keep,))
                connection.execute("COMMIT")
            os.replace(temporary, path)
            sync_folder(folder)
        except (OSError, sqlite3.Error) as error:
            raise HistoryError(
                f"{folder}: no history can be begun there ({error}); free space, change the "
                "folder's permissions, or choose another folder"
            ) from error
        return cls(folder)

    def close(self) -> None:
        self._connection.close()

    @contextlib.contextmanager
    def transaction(self) -> Iterator[None]:
        """All changes in the block, or none of them."""
        self._all("BEGIN IMMEDIATE")
        try:
            yield
            self._all("UPDATE setting SET value = ? WHERE name = 'seal'", self._seal())
            self._commit()
        except BaseException:
            if self._connection.in_transaction:
                with contextlib.suppress(sqlite3.Error):
                    self._connection.execute("ROLLBACK")
            raise

    # Reading --------------------------------------------------------------------------

    @contextlib.contextmanager
    def one_look(self) -> Iterator[None]:
        """Read one state of the history in the block, whatever a run writes meanwhile."""
        self._all("BEGIN")
        try:
            yield
        finally:
            if self._connection.in_transaction:
                self._all("ROLLBACK")

    def setting(self, name: str) -> Any:
        return self._one("SELECT value FROM setting WHERE name = ?", name)

    def files(self) -> dict[str, str]:
        """Return name → sha256 of the sealed files; empty in a run from before there were any."""
        found = self._all("SELECT substr(name, 6), value FROM setting WHERE name LIKE 'file:%'")
        if not all(re.fullmatch(r"(baselines/)?\w[\w-]*(\.\w+)+", str(name)) for name, _ in found):
            raise self._damaged("it names files that are not a run's own")
        return {str(name): str(sha256) for name, sha256 in found}

    def head(self) -> int | None:
        number: int | None = self._one("SELECT max(number) FROM round WHERE live")
        return number

    def rows(self, condition: str = "live ORDER BY number", *values: object) -> list[Row]:
        names = list(Row.__dataclass_fields__)
        found = self._all(f"SELECT {', '.join(names)} FROM round WHERE {condition}", *values)
        rows = [Row(**dict(zip(names, values, strict=True))) for values in found]
        for row in rows:
            if not row.is_named_by_code():
                raise self._damaged("a round names files that are not its own")
        return rows

    def record(self, row: Row) -> RoundRecord:
        """Return what is remembered of a round; parsed once, rounds never change."""
        if row.id not in self._records:
            ((text, recorded),) = self._all("SELECT record, digest FROM round WHERE id = ?", row.id)
            if recorded != _digest_of(row, text):
                raise self._damaged(f"round {row.number} was altered")
            self._records[row.id] = RoundRecord.from_dict(parsed(text, RoundRecord, self.path))
        record = self._records[row.id]
        return record if row.live else RoundRecord(**vars(record) | {"undone": True})

    def events(self) -> list[dict[str, Any]]:
        result = []
        for number, content, recorded in self._all("SELECT * FROM event ORDER BY id"):
            if recorded != digest(content):
                raise self._damaged(f"event {number} was altered")
            result.append(parsed(content, dict[str, Any], self.path))
        return result

    def states(self, row: Row) -> dict[str, str]:
        """Return site → sha256 of its state in a round."""
        return self._named(
            self._all(
                "SELECT site, sha256 FROM client_state WHERE undone_by IS ? AND first <= ?"
                " AND coalesce(last, ?) >= ? ORDER BY site",
                row.undone_by, row.number, row.number, row.number,
            )
        )  # fmt: skip

    def _named(self, found: list[Any]) -> dict[str, str]:
        """Return site → sha256; the name of a file is made of nothing else."""
        if not all(isinstance(h, str) and re.fullmatch("[0-9a-f]{64}", h) for _, h in found):
            raise self._damaged("a site's state has no checksum")
        return dict(found)

    def states_now(self) -> dict[str, str]:
        """Return site → sha256 of its state at the head."""
        open_ones = "last IS NULL AND undone_by IS NULL"
        return self._named(self._all(f"SELECT site, sha256 FROM client_state WHERE {open_ones}"))

    def clients(self) -> set[str]:
        """Return the sha256 of every client state that any round needs."""
        found = self._all("SELECT DISTINCT sha256, sha256 FROM client_state")
        return set(self._named(found).values())

    def attempt(self, number: int) -> int:
        """Return the attempt under which a round is to be run next."""
        again: int | None = self._one("SELECT attempt FROM repeated WHERE round = ?", number)
        return again if again is not None else int(self.setting("attempt") or 0)

    def excluded(self, number: int) -> set[str]:
        return {site for (site,) in self._all("SELECT site FROM exclusion WHERE round = ?", number)}

    def protected(self) -> int | None:
        number: int | None = self._one("SELECT round FROM protection ORDER BY head DESC LIMIT 1")
        return number

    # Changing, inside a transaction ---------------------------------------------------

    def set(self, **settings: int) -> None:
        for name, value in settings.items():
            self._all("UPDATE setting SET value = ? WHERE name = ?", value, name)

    def set_files(self, sums: dict[str, str | None]) -> None:
        """Keep the checksums of files of the run folder; None forgets a file."""
        for name, sha256 in sums.items():
            self._all("DELETE FROM setting WHERE name = ?", f"file:{name}")
            if sha256 is not None:
                self._all("INSERT INTO setting VALUES (?, ?)", f"file:{name}", sha256)

    def add(self, record: RoundRecord, row: Row) -> None:
        """Insert a round (``row.id`` is ignored) and its events."""
        text = json.dumps(record.to_dict(), allow_nan=False)
        values = {**vars(row), "id": None, "record": text, "digest": _digest_of(row, text)}
        marks = ", ".join("?" * len(values))
        self._all(f"INSERT INTO round ({', '.join(values)}) VALUES ({marks})", *values.values())

    def add_event(self, event: dict[str, Any]) -> int:
        content = json.dumps(cleaned(event), allow_nan=False)
        self._all("INSERT INTO event (content, digest) VALUES (?, ?)", content, digest(content))
        return int(self._one("SELECT last_insert_rowid()"))

    def change_states(self, number: int, states: dict[str, str]) -> None:
        """Let the sites' states be ``states`` from a round on."""
        now = self.states_now()
        for site, _ in now.items() - states.items():
            self._all(
                "UPDATE client_state SET last = ?"
                " WHERE site = ? AND last IS NULL AND undone_by IS NULL",
                number - 1, site,
            )  # fmt: skip
        for site, sha256 in sorted(states.items() - now.items()):
            self._all("INSERT INTO client_state VALUES (?, ?, ?, NULL, NULL)", site, sha256, number)

    def undo(self, beyond: int, event: int) -> None:
        """Take back the live rounds after ``beyond``, because of an event."""
        head = self.head()
        for row in self.rows("live AND number > ?", beyond):
            weights, state = self.names_if_undone(row.number, row.attempt)
            state_if_any = state if row.state else None
            self._change(row, live=0, undone_by=event, weights=weights, state=state_if_any)
        self._all(
            "INSERT INTO client_state"
            " SELECT site, sha256, max(first, ?), coalesce(last, ?), ? FROM client_state"
            " WHERE undone_by IS NULL AND coalesce(last, ?) > ?",
            beyond + 1, head, event, head, beyond,
        )  # fmt: skip
        self._all("DELETE FROM client_state WHERE undone_by IS NULL AND first > ?", beyond)
        self._all(
            "UPDATE client_state SET last = NULL WHERE undone_by IS NULL AND last >= ?", beyond
        )
        self._all("DELETE FROM protection WHERE head > ?", beyond)

    def names_if_undone(self, number: int, attempt: int) -> tuple[str, str]:
        """Return free names for the weights and the state of an undone round."""
        base = f"rounds/undone/{number:06d}.{attempt}"
        name, again = base, 1
        while self._one("SELECT 1 FROM round WHERE weights = ?", f"{name}.safetensors"):
            again += 1
            name = f"{base}-{again}"
        return f"{name}.safetensors", f"{name}.state.safetensors"

    def exclude(self, rounds: range, sites: list[str], add: bool) -> None:
        """Leave sites out of rounds; with ``add``, beside those that are left out already."""
        if not add:
            self._all("DELETE FROM exclusion WHERE round >= ?", rounds.start)
        for number, site in itertools.product(rounds, sites):
            self._all("INSERT INTO exclusion VALUES (?, ?)", number, site)

    def repeat(self, number: int, attempt: int) -> None:
        self._all("INSERT OR REPLACE INTO repeated VALUES (?, ?)", number, attempt)

    def raise_attempt(self, beyond: int) -> None:
        """Run the rounds after ``beyond`` under a new attempt."""
        self._all("DELETE FROM repeated WHERE round > ?", beyond)
        self._all("UPDATE setting SET value = value + 1 WHERE name = 'attempt'")

    def protect(self, head: int, number: int) -> None:
        self._all("INSERT OR REPLACE INTO protection VALUES (?, ?)", head, number)

    def prune(self, head: int, keep: int) -> None:
        """Give up the files of live rounds, but for the last ``keep`` and the protected.

        Protected is what was so at any head that can still be returned to.
        """
        oldest = head - keep + 1
        for row in self.rows(
            "live AND stored AND number < ? AND number NOT IN ("
            " SELECT round FROM protection WHERE head >="
            " (SELECT coalesce(max(head), 0) FROM protection WHERE head <= ?))",
            oldest, oldest,
        ):  # fmt: skip
            self._change(row, stored=0)
        self._all(
            "DELETE FROM client_state WHERE undone_by IS NULL AND last IS NOT NULL AND NOT EXISTS"
            " (SELECT 1 FROM round WHERE live AND stored AND number BETWEEN first AND last)"
        )

    # SQLite ---------------------------------------------------------------------------

    def _check(self) -> None:
        # Views and triggers are code of whoever made the file.
        if self._one("SELECT count(*) FROM sqlite_master WHERE type NOT IN ('table', 'index')"
                     " OR sql LIKE '%VIRTUAL%' OR sql LIKE '%GENERATED%'"):  # fmt: skip
            raise self._damaged("it holds more than tables")
        if self._one(MISTYPED):
            raise self._damaged("a number in it is none")
        version = self._one("PRAGMA user_version")
        if self._one("PRAGMA quick_check(1)") != "ok":
            raise self._damaged("its pages do not fit together")
        if version != SCHEMA:
            raise HistoryError(
                f"{self.path} was written by another version of fedpdm (schema {version}, "
                f"here {SCHEMA})"
            )
        self._all("PRAGMA synchronous = EXTRA")
        with self.one_look():
            intact = self.setting("seal") in (None, self._seal())
        if not intact:
            raise self._damaged("it was altered")

    def _change(self, row: Row, **columns: object) -> None:
        (text,) = self._all("SELECT record FROM round WHERE id = ?", row.id)[0]
        columns["digest"] = _digest_of(replace(row, **columns), text)  # type: ignore[arg-type]
        changes = ", ".join(f"{name} = ?" for name in columns)
        self._all(f"UPDATE round SET {changes} WHERE id = ?", *columns.values(), row.id)

    def _seal(self) -> str:
        """Return a checksum over what has none of its own; rounds and events only counted."""
        return digest(
            self._all("SELECT * FROM setting WHERE name != 'seal' ORDER BY name"),
            *(
                self._all(f"SELECT * FROM {t} ORDER BY 1, 2")
                for t in ("exclusion", "repeated", "protection")
            ),
            *(self._one(f"SELECT count(*) FROM {t}") for t in ("round", "event", "client_state")),
        )

    def _all(self, statement: str, *values: object) -> list[Any]:
        with self._explained():
            return self._connection.execute(statement, values).fetchall()

    def _one(self, statement: str, *values: object) -> Any:
        found = self._all(statement, *values)
        return found[0][0] if found else None

    def _commit(self) -> None:
        self._all("COMMIT")

    def _damaged(self, reason: object) -> HistoryError:
        return damaged(self.path, reason)

    @contextlib.contextmanager
    def _explained(self) -> Iterator[None]:
        try:
            yield
        except sqlite3.Error as error:
            name = str(getattr(error, "sqlite_errorname", ""))
            for beginnings, message in TROUBLE.items():
                if name.startswith(beginnings):
                    told = message.format(error=error, folder=self.path.parent)
                    raise HistoryError(f"{self.path} {told}") from error
            raise self._damaged(error) from error


def _digest_of(row: Row, record: str) -> str:
    return digest(*(value for name, value in vars(row).items() if name != "id"), record)
