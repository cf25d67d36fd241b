"""The watermark store in SQLite. One transaction writes element and watermark, against crashes and other processes."""

from __future__ import annotations

import sqlite3
from collections.abc import Container, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from oa_base.refusal import Refusal
from oa_client.core.store import Element, continues
from oa_khala.client.commands import Apply
from oa_khala.frames import Cursor

SCHEMA_VERSION = 2
BUSY_TIMEOUT_S = 10.0
"""Maximum time that a write waits for another process's write."""
_PAGE_ROWS = 500

_MIGRATIONS = (
    """
CREATE TABLE watermarks (
    namespace TEXT NOT NULL, topic TEXT NOT NULL, epoch TEXT NOT NULL, applied_seq INTEGER NOT NULL,
    PRIMARY KEY (namespace, topic)
) WITHOUT ROWID;
CREATE TABLE elements (
    namespace TEXT NOT NULL, topic TEXT NOT NULL, seq INTEGER NOT NULL,
    snapshot INTEGER NOT NULL, payload BLOB NOT NULL,
    PRIMARY KEY (namespace, topic, seq)
);
""",
    "ALTER TABLE watermarks ADD COLUMN chain BLOB NOT NULL DEFAULT x''",
)
"""The statements that make each version from the previous one."""
_READ_CURSOR = "SELECT epoch, applied_seq, chain FROM watermarks WHERE namespace = ? AND topic = ?"
_WRITE_CURSOR = "INSERT OR REPLACE INTO watermarks (namespace, topic, epoch, applied_seq, chain) VALUES (?, ?, ?, ?, ?)"
_WRITE_ELEMENT = "INSERT INTO elements (namespace, topic, seq, snapshot, payload) VALUES (?, ?, ?, ?, ?)"
_DROP_CURSOR = "DELETE FROM watermarks WHERE namespace = ? AND topic = ?"
_DROP_ELEMENTS = "DELETE FROM elements WHERE namespace = ? AND topic = ?"
_READ_ELEMENTS = (
    "SELECT seq, payload, snapshot FROM elements WHERE namespace = ? AND topic = ? AND seq > ? ORDER BY seq LIMIT ?"
)
_DISK = "see whether its disk is full or broken"
_REMEDIES = {
    sqlite3.SQLITE_FULL: _DISK,
    sqlite3.SQLITE_IOERR: _DISK,
    sqlite3.SQLITE_BUSY: "another program holds it; try again when that has ended",
    sqlite3.SQLITE_READONLY: "make the file and its folder writable",
    sqlite3.SQLITE_CANTOPEN: "make the file and its folder writable",
}
_ANOTHER_FILE = "it may be moved away, what it holds is sent again"
_PRIMARY_CODE = 0xFF
"""The bits of an extended code that are the primary one (https://sqlite.org/rescode.html)."""


class SqliteStore:
    """A WatermarkStore in the file `path`; `namespace` is the user, org and device that it belongs to."""

    def __init__(self, path: Path, namespace: str) -> None:
        """Open the file, or create it with mode 0600.

        Raises Refusal `invalid_setting`, here and from every method, if the file can't be used: it is of a newer
        version, damaged, on a full disk, or held by another program for too long.
        """
        path.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
        path.touch(mode=0o600)
        self._path = path
        self._namespace = namespace
        # isolation_level None: transactions begin exactly where BEGIN is executed.
        self._db = sqlite3.connect(path, timeout=BUSY_TIMEOUT_S, isolation_level=None)
        try:
            self._db.execute("PRAGMA journal_mode = WAL")
            # WAL with NORMAL: a power cut may lose the newest transactions, whole ones; the gateway sends them again.
            self._db.execute("PRAGMA synchronous = NORMAL")
            self._migrate()
        except sqlite3.Error as error:
            self._db.close()
            raise self._unusable(error) from None
        except BaseException:
            self._db.close()
            raise

    def close(self) -> None:
        """Close the file."""
        self._db.close()

    def cursor(self, topic: str) -> Cursor | None:
        """See WatermarkStore."""
        rows = self._read(_READ_CURSOR, topic)
        return Cursor(*rows[0]) if rows else None

    def apply(self, elements: Sequence[Apply], held: Container[str] = ()) -> None:
        """See WatermarkStore."""
        with self._transaction():
            for element in elements:
                self._apply_one(element, held)

    def drop(self, topic: str, at: Cursor | None = None) -> bool:
        """See WatermarkStore."""
        with self._transaction():
            if at is not None and self.cursor(topic) != at:
                return False
            self._db.execute(_DROP_CURSOR, (self._namespace, topic))
            self._db.execute(_DROP_ELEMENTS, (self._namespace, topic))
            return True

    def elements(self, topic: str, after_seq: int = 0) -> Iterator[Element]:
        """See WatermarkStore. Reads page by page, so that a long run need not fit into memory."""
        while rows := self._read(_READ_ELEMENTS, topic, after_seq, _PAGE_ROWS):
            for seq, payload, snapshot in rows:
                yield Element(seq, payload, bool(snapshot))
            after_seq = rows[-1][0]

    def _read(self, statement: str, topic: str, *arguments: int) -> list[Any]:
        try:
            return self._db.execute(statement, (self._namespace, topic, *arguments)).fetchall()
        except sqlite3.Error as error:
            raise self._unusable(error) from None

    def _apply_one(self, element: Apply, held: Container[str]) -> None:
        if not continues(self.cursor(element.topic), element, held):
            return
        key = (self._namespace, element.topic)
        if element.snapshot:
            self._db.execute(_DROP_ELEMENTS, key)
        seq = element.cursor.applied_seq
        self._db.execute(_WRITE_ELEMENT, (*key, seq, element.snapshot, element.payload))
        self._db.execute(_WRITE_CURSOR, (*key, element.cursor.epoch, seq, element.cursor.chain))

    @contextmanager
    def _transaction(self) -> Iterator[None]:
        try:
            self._db.execute("BEGIN IMMEDIATE")
            try:
                yield
            except BaseException:
                if self._db.in_transaction:  # SQLite ends it itself when the disk is full
                    self._db.execute("ROLLBACK")
                raise
            self._db.execute("COMMIT")
        except sqlite3.Error as error:
            raise self._unusable(error) from None

    def _unusable(self, error: sqlite3.Error) -> Refusal:
        code = getattr(error, "sqlite_errorcode", sqlite3.SQLITE_ERROR)  # Python's own errors have none
        remedy = _REMEDIES.get(code & _PRIMARY_CODE, _ANOTHER_FILE)
        message = f"{self._path} can't be used: {error}; {remedy}"
        return Refusal("invalid_setting", message, field="OA_CLIENT_HOME")

    def _migrate(self) -> None:
        with self._transaction():
            version = self._db.execute("PRAGMA user_version").fetchone()[0]
            for migration in _MIGRATIONS[version:]:
                for statement in migration.split(";"):
                    self._db.execute(statement)
            if version < SCHEMA_VERSION:
                self._db.execute(f"PRAGMA user_version = {SCHEMA_VERSION}")
        if version > SCHEMA_VERSION:
            message = (
                f"{self._path} was written by a newer version of this program; use that one, or move the file away"
            )
            raise Refusal("invalid_setting", message)
