"""The LMDB index: typed tables whose values carry a checksum, one writer, snapshots for readers.

========== ============================ =====================================================
table      key                          value
========== ============================ =====================================================
blobs      digest                       `BlobRecord`
layers     diff_id                      digests of the blobs that unpack to it (many)
links      repository NUL digest        when the repository got the blob
manifests  repository NUL digest        `ManifestRecord`
tags       repository NUL tag           `TagRecord`
parents    digest                       repository NUL why, see `edge` (many)
children   repository NUL digest        digests that the manifest lists (many)
referrers  repository NUL subject       digests of manifests whose subject it is (many)
pieces     digest                       SHA-1 of every piece, 20 bytes each
torrents   info-hash                    digest of the manifest
uploads    UUID                         `UploadRecord`
========== ============================ =====================================================
"""

from __future__ import annotations

import threading
import zlib
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Generic, TypeVar

import lmdb
import msgspec

from docket.digest import Digest
from docket.errors import StoreFormat, StoreFull

T = TypeVar("T")
V = TypeVar("V")

Transaction = Any
"""An `lmdb.Transaction`; the package has no types of its own for it."""

_FIRST_MAP = 1 << 30
_ON_DISK_FORMAT = 0  # LMDB 0.9 files: every LMDB tool and older binding reads them


class BlobRecord(msgspec.Struct, frozen=True, array_like=True):
    """A stored blob: *size* and *plain_size* in bytes, times in seconds since 1970."""

    size: int
    stored: float
    verified: float
    diff_id: str = ""
    plain_size: int = 0
    compression: str = ""
    encoder: str = ""


class ManifestRecord(msgspec.Struct, frozen=True, array_like=True):
    """A manifest in a repository; *subject* is a digest or empty."""

    media_type: str
    artifact_type: str
    subject: str
    size: int
    pushed: float


class TagRecord(msgspec.Struct, frozen=True, array_like=True):
    """Where a tag points, and since when."""

    digest: str
    moved: float


class UploadRecord(msgspec.Struct, frozen=True, array_like=True):
    """An upload session: the repository that it is bound to, and when it began."""

    repository: str
    started: float


def scoped(repository: str, name: object = "") -> bytes:
    """The key of *name* in *repository*; without a name, what all keys there begin with."""
    return f"{repository}\0{name}".encode()


def unscoped(key: bytes) -> tuple[str, str]:
    """The repository and name that `scoped` put together."""
    repository, _, name = key.partition(b"\0")
    return repository.decode(), name.decode()


class Table(Generic[V]):
    """One value a key; values are MessagePack behind a CRC-32."""

    def __init__(self, name: str, value_type: type[V]) -> None:
        self.name = name
        self._decoder = msgspec.msgpack.Decoder(value_type)
        self._db: Any = None

    def open(self, environment: Any) -> None:
        """Create the table in *environment* where it is missing."""
        self._db = environment.open_db(self.name.encode())

    def get(self, txn: Transaction, key: bytes) -> V | None:
        """The value of *key*. Raises `StoreFormat` when its checksum is wrong."""
        packed = txn.get(key, db=self._db)
        return None if packed is None else self._unpack(key, packed)

    def put(self, txn: Transaction, key: bytes, value: V) -> None:
        """Set the value of *key*."""
        body = msgspec.msgpack.encode(value)
        txn.put(key, zlib.crc32(body).to_bytes(4, "big") + body, db=self._db)

    def delete(self, txn: Transaction, key: bytes) -> bool:
        """Forget *key*; whether it was there."""
        return bool(txn.delete(key, db=self._db))

    def scan(
        self, txn: Transaction, prefix: bytes = b"", *, after: bytes | None = None
    ) -> Iterator[tuple[bytes, V]]:
        """Keys that begin with *prefix*, sorted, with their values; only those past *after*."""
        with txn.cursor(db=self._db) as cursor:
            there = cursor.set_range(max(prefix, after or b""))
            while there and (key := bytes(cursor.key())).startswith(prefix):
                if key != after:
                    yield key, self._unpack(key, cursor.value())
                there = cursor.next()

    def count(self, txn: Transaction) -> int:
        """How many keys there are."""
        return int(txn.stat(self._db)["entries"])

    def _unpack(self, key: bytes, packed: bytes) -> V:
        body = packed[4:]
        if zlib.crc32(body).to_bytes(4, "big") != packed[:4]:
            raise StoreFormat(f"the index is damaged at {self.name} {key!r}; run docket fsck")
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
            there = cursor.set_range_dup(key, prefix) if prefix else cursor.set_key(key)
            while there and (value := bytes(cursor.value())).startswith(prefix):
                yield value
                there = cursor.next_dup()

    def has(self, txn: Transaction, key: bytes, prefix: bytes = b"") -> bool:
        """Whether *key* has any value that begins with *prefix*."""
        return next(self.values(txn, key, prefix), None) is not None


class Index:
    """The tables, and the two ways to use them: `read` and `update`."""

    def __init__(self, folder: Path, *, map_size: int = _FIRST_MAP) -> None:
        self._location = folder.parent
        self.blobs = Table("blobs", BlobRecord)
        self.layers = MultiTable("layers")
        self.links = Table("links", float)
        self.manifests = Table("manifests", ManifestRecord)
        self.tags = Table("tags", TagRecord)
        self.parents = MultiTable("parents")
        self.children = MultiTable("children")
        self.referrers = MultiTable("referrers")
        self.pieces = Table("pieces", bytes)
        self.torrents = Table("torrents", str)
        self.uploads = Table("uploads", UploadRecord)
        tables = [one for one in vars(self).values() if isinstance(one, Table | MultiTable)]
        self._env = _open_environment(folder, map_size=map_size, tables=len(tables))
        for table in tables:
            table.open(self._env)
        self._readers = 0
        self._holds = 0
        self._gate = threading.Condition()

    def close(self) -> None:
        """Close the environment; no transaction may be under way."""
        self._env.close()

    @contextmanager
    def read(self) -> Iterator[Transaction]:
        """A snapshot of all tables."""
        with self._entered(), self._env.begin(buffers=False) as txn:
            yield txn

    def update(self, change: Callable[[Transaction], T]) -> T:
        """Run *change* in a write transaction; returning means that it is durable.

        *change* may run again when the map had to grow, so it must be repeatable. An exception
        in it undoes all. Raises `StoreFull` when the disk is full.
        """
        while True:
            try:
                with self._entered():
                    return self._changed(change)
            except lmdb.MapFullError:
                self._grow()
            except lmdb.DiskError as error:
                raise StoreFull(self._location) from error
            except lmdb.Error as error:
                if "No space left" in str(error) or "quota" in str(error):
                    raise StoreFull(self._location) from error
                raise

    def _changed(self, change: Callable[[Transaction], T]) -> T:
        txn = self._env.begin(write=True)
        try:
            result = change(txn)
            txn.commit()
        except BaseException:
            # the binding's abort waits for a moment without any reader at work: see to one
            with self._held_back():
                txn.abort()
            raise
        return result

    @contextmanager
    def _entered(self) -> Iterator[None]:
        with self._gate:
            self._gate.wait_for(lambda: not self._holds)
            self._readers += 1
        try:
            yield
        finally:
            with self._gate:
                self._readers -= 1
                self._gate.notify_all()

    @contextmanager
    def _held_back(self) -> Iterator[None]:
        """No transaction begins inside; those under way go on."""
        with self._gate:
            self._holds += 1
        try:
            yield
        finally:
            with self._gate:
                self._holds -= 1
                self._gate.notify_all()

    def _grow(self) -> None:
        """Double the map; LMDB wants no transaction of this process under way meanwhile."""
        before = self._env.info()["map_size"]
        with self._held_back(), self._gate:
            self._gate.wait_for(lambda: self._readers == 0)
            if self._env.info()["map_size"] == before:  # else another writer has seen to it
                self._env.set_mapsize(before * 2)


def edge(repository: str, why: str, name: object = "") -> bytes:
    """A value of ``parents``: what in *repository* keeps a blob or manifest alive.

    *why* is ``m`` (a manifest *name* lists it), ``s`` (the manifest *name* is its subject), ``t``
    (the tag *name* points to it) or ``h`` (it is itself a manifest of the repository).
    """
    return scoped(repository, f"{why}{name}")


def key_of(digest: Digest) -> bytes:
    """The key of *digest* in the tables that know no repositories."""
    return str(digest).encode()


def _open_environment(folder: Path, *, map_size: int, tables: int) -> Any:
    folder.mkdir(parents=True, exist_ok=True)
    fresh = not (folder / "data.mdb").exists()
    options: dict[str, Any] = {"lib_version": _ON_DISK_FORMAT} if fresh else {}
    try:
        environment = lmdb.open(
            str(folder), map_size=map_size, max_dbs=tables, max_readers=512, **options
        )
    except lmdb.DiskError as error:
        raise StoreFull(folder.parent) from error
    except lmdb.Error as error:
        raise StoreFormat(f"the index at {folder} can't be opened: {error}") from error
    environment.reader_check()
    return environment
