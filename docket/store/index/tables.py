"""The index's tables, for use within a transaction: checked values, and a note of each change."""

from __future__ import annotations

import zlib
from collections.abc import Iterator
from typing import Any, Generic, TypeVar

import msgspec

from docket.errors import IndexDamaged

V = TypeVar("V")

Transaction = Any
"""An `lmdb.Transaction`; the package has no types of its own for it."""


class Table(Generic[V]):
    """One value a key; values are MessagePack behind a CRC-32.

    With *changes* every change is noted there too, for the journal.
    """

    def __init__(
        self, name: str, value_type: type[V], changes: JournalBuffer | None = None
    ) -> None:
        self.name = name
        self.value_type = value_type
        self._changes = changes
        self._decoder = msgspec.msgpack.Decoder(value_type)
        self._db: Any = None

    @property
    def is_journaled(self) -> bool:
        """Whether changes are noted for the journal."""
        return self._changes is not None

    def open(self, environment: Any) -> None:
        """Create the table in *environment* where it is missing."""
        self._db = environment.open_db(self.name.encode())

    def get(self, txn: Transaction, key: bytes) -> V | None:
        """The value of *key*. Raises `IndexDamaged` when its checksum is wrong."""
        packed = txn.get(key, db=self._db)
        return None if packed is None else self._unpack(key, packed)

    def has(self, txn: Transaction, key: bytes) -> bool:
        """Whether *key* is there, damaged or not."""
        return txn.get(key, db=self._db) is not None

    def put(self, txn: Transaction, key: bytes, value: V) -> None:
        """Set the value of *key*."""
        body = msgspec.msgpack.encode(value)
        txn.put(key, zlib.crc32(body).to_bytes(4, "big") + body, db=self._db)
        if self._changes:
            self._changes.set(self.name, key, value)

    def delete(self, txn: Transaction, key: bytes) -> bool:
        """Forget *key*; whether it was there."""
        deleted = bool(txn.delete(key, db=self._db))
        if deleted and self._changes:
            self._changes.delete(self.name, key)
        return deleted

    def scan(
        self, txn: Transaction, prefix: bytes = b"", *, after: bytes | None = None
    ) -> Iterator[tuple[bytes, V]]:
        """Keys that begin with *prefix*, sorted, with their values; only those past *after*."""
        with txn.cursor(db=self._db) as cursor:
            has_row = cursor.set_range(max(prefix, after or b""))
            while has_row and (key := bytes(cursor.key())).startswith(prefix):
                if key != after:
                    yield key, self._unpack(key, cursor.value())
                has_row = cursor.next()

    def keys(self, txn: Transaction, *, after: bytes | None = None) -> Iterator[bytes]:
        """All keys past *after*, sorted; looks at no value, so that damage is no hindrance."""
        with txn.cursor(db=self._db) as cursor:
            has_row = cursor.set_range(after or b"")
            while has_row:
                if (key := bytes(cursor.key())) != after:
                    yield key
                has_row = cursor.next()

    def count(self, txn: Transaction) -> int:
        """How many keys there are."""
        return int(txn.stat(self._db)["entries"])

    def _unpack(self, key: bytes, packed: bytes) -> V:
        body = packed[4:]
        if zlib.crc32(body).to_bytes(4, "big") != packed[:4]:
            raise IndexDamaged(self.name, key)
        return self._decoder.decode(body)


class MultiTable:
    """Many texts a key, sorted."""

    def __init__(self, name: str) -> None:
        self.name = name
        self._db: Any = None

    def open(self, environment: Any) -> None:
        """Create the table in *environment* where it is missing."""
        self._db = environment.open_db(self.name.encode(), dupsort=True)

    def add(self, txn: Transaction, key: bytes, value: bytes) -> None:
        """Add *value* to *key*; once is enough."""
        txn.put(key, value, db=self._db, dupdata=True)

    def remove(self, txn: Transaction, key: bytes, value: bytes) -> None:
        """Take *value* from *key*."""
        txn.delete(key, value, db=self._db)

    def values(self, txn: Transaction, key: bytes, prefix: bytes = b"") -> Iterator[bytes]:
        """The values of *key* that begin with *prefix*."""
        with txn.cursor(db=self._db) as cursor:
            has_row = cursor.set_range_dup(key, prefix) if prefix else cursor.set_key(key)
            while has_row and (value := bytes(cursor.value())).startswith(prefix):
                yield value
                has_row = cursor.next_dup()

    def has(self, txn: Transaction, key: bytes, prefix: bytes = b"") -> bool:
        """Whether *key* has any value that begins with *prefix*."""
        return next(self.values(txn, key, prefix), None) is not None

    def has_pair(self, txn: Transaction, key: bytes, value: bytes) -> bool:
        """Whether *value* is one of *key*."""
        with txn.cursor(db=self._db) as cursor:
            return bool(cursor.set_key_dup(key, value))

    def pairs(
        self, txn: Transaction, *, after: tuple[bytes, bytes] | None = None
    ) -> Iterator[tuple[bytes, bytes]]:
        """All keys with each of their values, sorted, past the pair *after*."""
        with txn.cursor(db=self._db) as cursor:
            if after is None:
                has_row = cursor.first()
            else:
                has_row = cursor.set_range_dup(*after) or cursor.set_range(after[0] + b"\0")
            while has_row:
                if (pair := (bytes(cursor.key()), bytes(cursor.value()))) != after:
                    yield pair
                has_row = cursor.next()


class JournalBuffer:
    """What the write transaction under way changes: table, key and new value (None: deleted)."""

    def __init__(self) -> None:
        self.rows: list[tuple[str, bytes, Any]] = []
        self.only_frees_space = True

    def clear(self) -> None:
        """Start a transaction."""
        self.rows.clear()
        self.only_frees_space = True

    def set(self, table: str, key: bytes, value: Any) -> None:
        """Note that a row was set."""
        self.rows.append((table, key, value))
        self.only_frees_space = False

    def delete(self, table: str, key: bytes) -> None:
        """Note that a row was deleted."""
        self.rows.append((table, key, None))
