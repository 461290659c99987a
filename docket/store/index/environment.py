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
clock      ``latest``                   a time that no row is later than, see `clock`
unmeasured digest                       when the layer came that is still to be unpacked
pulls      repository NUL digest        when a manifest of another registry was last pulled
meta       ``journal``                  `Position`: how far the journal is committed
========== ============================ =====================================================

``blobs``, ``links``, ``manifests``, ``tags`` and ``torrents`` are written to the `Journal` too;
all else but ``uploads`` follows from them and the blobs. A rebuilt index has no uploads.
"""

from __future__ import annotations

import os
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from itertools import islice
from pathlib import Path
from typing import Any, TypeVar

import lmdb

from docket.errors import IndexDamaged, IndexUnreadable, StoreFull, StoreUnusable
from docket.store.filesystem import Filesystem
from docket.store.index.file_check import damage_in
from docket.store.index.journal import Journal, Position, entry_line
from docket.store.index.records import BlobRecord, ManifestRecord, TagRecord, UploadRecord
from docket.store.index.tables import JournalBuffer, MultiTable, Table, Transaction

T = TypeVar("T")

CLOCK_STEP = 600.0
"""Seconds: how often the time of the last change is recorded, and how exactly."""

# the address space for the file: it grows without a pause for readers; less where a limit says so
_MAP = 1 << 40
_SMALLEST_MAP = 1 << 28
_READERS = 512
# a cache line each, and what LMDB writes before them
_LOCK_FILE_BYTES = _READERS * 64 + (1 << 12)
# bytes allocated ahead in the file, so that deletes and gc work when the disk is full
_AHEAD = 4 << 20
# a journal with this many lines for each row that is left is rewritten
_MOST_LINES_A_ROW = 4
_FEW_LINES = 10_000
_POSITION = b"journal"
_OF_THE_DISK = ("Input/output error", "Read-only file system", "Permission denied", "Stale file")
_AFTER_A_FAILED_WRITE = (
    "an earlier write to its disk failed; start docket again once the disk works"
)
_BATCH = 500
_LATEST = b"latest"
_ON_DISK_FORMAT = 0  # LMDB 0.9 files: every LMDB tool and older binding reads them


class Index:
    """The tables, and the two ways to use them: `read` and `update`."""

    def __init__(
        self,
        folder: Path,
        *,
        journal: Journal | None = None,
        renew_journal: bool = False,
        map_size: int = _MAP,
        filesystem: Filesystem | None = None,
    ) -> None:
        """Open the index in *folder*, or begin one; *filesystem* sees each change to its files.

        Without *journal* nothing is written there: for reading, and for an index in the making.
        With *renew_journal* the index is right and another journal is written from it; otherwise a
        journal is replaced only by an index that says how much of a journal is committed, and that
        isn't older than it. Raises `IndexUnreadable`, then nothing was changed; or `StoreFull`.
        """
        self._location = folder.parent
        self._file = folder / "data.mdb"
        self._filesystem = filesystem or Filesystem(folder.parent)
        self._journal = journal
        self._changes = JournalBuffer()
        self.blobs = Table("blobs", BlobRecord, self._changes)
        self.layers = MultiTable("layers")
        self.links = Table("links", float, self._changes)
        self.manifests = Table("manifests", ManifestRecord, self._changes)
        self.tags = Table("tags", TagRecord, self._changes)
        self.parents = MultiTable("parents")
        self.children = MultiTable("children")
        self.referrers = MultiTable("referrers")
        self.pieces = Table("pieces", bytes)
        self.torrents = Table("torrents", str, self._changes)
        self.uploads = Table("uploads", UploadRecord)
        self.unmeasured = Table("unmeasured", float)
        self.pulls = Table("pulls", float)
        self._clock = Table("clock", float)
        self._meta = Table("meta", Position)
        self._readers = 0
        self._pauses = 0
        self._condition = threading.Condition()
        tables = [value for value in vars(self).values() if isinstance(value, Table | MultiTable)]
        self._env = _open_environment(
            folder, map_size=map_size, tables=len(tables), filesystem=self._filesystem
        )
        try:
            with _translated(self._filesystem):
                for table in tables:
                    table.open(self._env)
            if journal and renew_journal:
                self._write_journal(journal)
            elif journal:
                self._continue(journal)
        except BaseException:
            self._env.close()
            raise

    @property
    def tables(self) -> list[Table[Any]]:
        """The tables with one value a key, but ``meta``."""
        tables = [value for value in vars(self).values() if isinstance(value, Table)]
        return [table for table in tables if table not in (self._meta, self._clock)]

    @property
    def multi_tables(self) -> list[MultiTable]:
        """The tables with many values a key."""
        return [value for value in vars(self).values() if isinstance(value, MultiTable)]

    def close(self) -> None:
        """Close the environment; no transaction may be under way."""
        self._env.close()

    @contextmanager
    def read(self) -> Iterator[Transaction]:
        """A snapshot of all tables."""
        with (
            self._entered(),
            _translated(self._filesystem),
            self._env.begin(buffers=False) as txn,
        ):
            yield txn

    def update(self, change: Callable[[Transaction], T]) -> T:
        """Run *change* in a write transaction; returning means that it is durable.

        *change* may run again when the map had to grow, so it must be repeatable. An exception
        in it undoes all. Raises `StoreFull` when the disk is full.
        """
        while True:
            try:
                with self._entered(), _translated(self._filesystem):
                    return self._changed(change)
            except lmdb.MapFullError:
                self._grow()

    def batches(self, table: Table[Any]) -> Iterator[list[bytes]]:
        """The keys of *table*, some at a time, each time in a transaction of its own."""
        after: bytes | None = None
        while True:
            with self.read() as txn:
                batch = list(islice(table.keys(txn, after=after), _BATCH))
            if not batch:
                return
            yield batch
            after = batch[-1]

    def position(self, txn: Transaction) -> Position | None:
        """How far the journal is committed; None before there is one, or if that row is damaged."""
        with suppress(IndexDamaged):
            return self._meta.get(txn, _POSITION)
        return None

    def latest_time(self) -> float | None:
        """A time that no row is later than, in seconds since 1970; None if nobody knows."""
        with suppress(IndexDamaged), self.read() as txn:
            return self._clock.get(txn, _LATEST)
        return None

    def set_latest_time(self, now: float) -> None:
        """Record that no row is later than *now*, and `CLOCK_STEP` more for those that follow."""
        self.update(lambda txn: self._clock.put(txn, _LATEST, now + CLOCK_STEP))

    def renew_journal(self) -> None:
        """Rewrite the journal without outdated lines; pushes go on meanwhile."""
        if self._journal:
            self._renew(self._journal)

    def shorten_journal(self) -> None:
        """Rewrite the journal if most of its lines are outdated."""
        with self.read() as txn:
            position = self.position(txn)
            rows = sum(table.count(txn) for table in self.tables if table.is_journaled)
        if position and position.lines > _MOST_LINES_A_ROW * rows + _FEW_LINES:
            self.renew_journal()

    def _continue(self, journal: Journal) -> None:
        with self.read() as txn:
            position = self.position(txn)
        if position and journal.holds(position):
            journal.keep_only(position.generation)
        elif position is None and journal.has_lines():
            raise IndexUnreadable(self._location, "it doesn't say how much of the journal it has")
        elif position and journal.newest() > position.generation:
            raise IndexUnreadable(self._location, "it is older than the journal")
        else:
            journal.set_aside(self._write_journal(journal))

    def _renew(self, journal: Journal) -> None:
        journal.keep_only(self._write_journal(journal))

    def _write_journal(self, journal: Journal) -> int:
        """Write a new file of the journal, which holds from then on; its generation."""
        with self.read() as txn:
            before = self.position(txn)
            generation = max(journal.newest(), before.generation if before else 0) + 1
            draft = journal.begin(generation, self._rows(txn))

        def change(txn: Transaction) -> None:
            nonlocal before
            now = self.position(txn)
            if before and now and now != before:
                draft.add(journal.tail(before, now))
                before = now
            self._meta.put(txn, _POSITION, draft.place())

        with draft:
            self.update(change)
        return generation

    def _rows(self, txn: Transaction) -> Iterator[bytes]:
        for table in self.tables:
            if table.is_journaled:
                for key in table.keys(txn):
                    # fsck repairs a damaged row; the journal must not lose the others
                    with suppress(IndexDamaged):
                        yield entry_line(table.name, key, table.get(txn, key))

    def _changed(self, change: Callable[[Transaction], T]) -> T:
        self._preallocate()
        txn = self._env.begin(write=True)
        try:
            self._changes.clear()
            result = change(txn)
            if self._journal and self._changes.rows:
                before = self.position(txn)
                if before is None:
                    raise IndexDamaged("meta", _POSITION)
                lines = [entry_line(*row) for row in self._changes.rows]
                only_frees_space = self._changes.only_frees_space
                after = self._journal.append(before, lines, only_frees_space=only_frees_space)
                self._meta.put(txn, _POSITION, after)
                self._note_time(txn)
            self._filesystem.step("commit")
            txn.commit()
        except BaseException:
            # the binding's abort waits for a moment without any active reader: make one
            with self._pause_transactions():
                txn.abort()
            raise
        return result

    def _note_time(self, txn: Transaction) -> None:
        now = time.time()
        latest = None
        with suppress(IndexDamaged):
            latest = self._clock.get(txn, _LATEST)
        if latest is not None and latest < now:
            self._clock.put(txn, _LATEST, now + CLOCK_STEP)

    @contextmanager
    def _entered(self) -> Iterator[None]:
        with self._condition:
            self._condition.wait_for(lambda: not self._pauses)
            self._readers += 1
        try:
            yield
        finally:
            with self._condition:
                self._readers -= 1
                self._condition.notify_all()

    @contextmanager
    def _pause_transactions(self) -> Iterator[None]:
        """No transaction begins inside; those under way go on."""
        with self._condition:
            self._pauses += 1
        try:
            yield
        finally:
            with self._condition:
                self._pauses -= 1
                self._condition.notify_all()

    def _preallocate(self) -> None:
        """Allocate space in the file for what comes; on a full disk, what is there must do."""
        used = (self._env.info()["last_pgno"] + 1) * self._env.stat()["psize"]
        with self._file.open("rb+", buffering=0) as file:
            size = os.fstat(file.fileno()).st_size
            more = used + self._filesystem.spare(_AHEAD) - size
            if size < used + _AHEAD // 2 and more > 0:
                try:
                    self._filesystem.allocate(file.fileno(), size, more)
                except StoreFull:
                    # pages that were freed before they were written may lie behind the end
                    self._filesystem.extend(file.fileno(), used)

    def _grow(self) -> None:
        """Double the map; LMDB wants no transaction of this process under way meanwhile."""
        before = self._env.info()["map_size"]
        with self._pause_transactions(), self._condition:
            self._condition.wait_for(lambda: self._readers == 0)
            if self._env.info()["map_size"] == before:  # else another writer has done it
                self._env.set_mapsize(before * 2)


def _open_environment(folder: Path, *, map_size: int, tables: int, filesystem: Filesystem) -> Any:
    with _translated(filesystem):
        if not (folder / "data.mdb").exists():
            _begin_environment(folder, filesystem)
        elif damage := damage_in(folder / "data.mdb"):
            raise IndexUnreadable(folder.parent, damage)
        _allocate_lock_file(folder, filesystem)
        environment = _mapped(folder, map_size, tables)
        for name in ("data.mdb", "lock.mdb"):
            filesystem.leave_to_owner(folder / name)
        environment.reader_check()
    return environment


def _mapped(folder: Path, map_size: int, tables: int) -> Any:
    """The environment with a map of *map_size* bytes, or of as many as may be mapped."""
    while True:
        try:
            return lmdb.open(
                os.fsencode(folder), map_size=map_size, max_dbs=tables, max_readers=_READERS
            )
        except lmdb.MemoryError:
            if map_size <= _SMALLEST_MAP:
                raise
            map_size //= 4


def _begin_environment(folder: Path, filesystem: Filesystem) -> None:
    """An empty environment in *folder*, whole or not at all: LMDB refuses half a file for ever."""
    draft = folder.with_name(f"{folder.name}.draft")
    filesystem.remove_folder(draft)
    filesystem.make_folder(draft)
    _allocate_lock_file(draft, filesystem)
    with lmdb.open(os.fsencode(draft), lib_version=_ON_DISK_FORMAT) as environment:
        environment.sync(True)
    filesystem.rename(draft, folder)


def _allocate_lock_file(folder: Path, filesystem: Filesystem) -> None:
    """Space for all of LMDB's lock file, which is mapped: touching a hole in it on a full disk
    would kill the process (SIGBUS). Raises `StoreFull`.
    """
    with (folder / "lock.mdb").open("ab") as file:
        filesystem.allocate(file.fileno(), 0, _LOCK_FILE_BYTES)


@contextmanager
def _translated(filesystem: Filesystem) -> Iterator[None]:
    """Turns the errors of LMDB and of the disk into those of the store.

    `_grow` takes care of a map that is full.
    """
    location = filesystem.location
    try:
        with filesystem.translated():
            yield
    except lmdb.MapFullError:
        raise
    except lmdb.DiskError as error:
        raise StoreFull(location) from error
    except lmdb.PanicError as error:  # LMDB takes no transaction after a write that failed
        raise StoreUnusable(location, _AFTER_A_FAILED_WRITE) from error
    except lmdb.Error as error:
        text = str(error)
        if "No space left" in text or "quota" in text:
            raise StoreFull(location) from error
        if any(reason in text for reason in _OF_THE_DISK):
            raise StoreUnusable(location, text) from error
        raise IndexUnreadable(location, text) from error
