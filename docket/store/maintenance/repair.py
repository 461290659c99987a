"""Rows of the index that are damaged, dangling, or not what the journal says; and their repair."""

from __future__ import annotations

import time
from collections.abc import Iterator
from dataclasses import dataclass
from heapq import merge
from itertools import groupby
from typing import Any

from docket.errors import IndexDamaged, InvalidDigest, InvalidInput
from docket.oci import manifest
from docket.oci.digest import Digest
from docket.store.blobs.files import BlobFiles, blob_row
from docket.store.index.environment import Index
from docket.store.index.records import (
    BlobRecord,
    ManifestRecord,
    digest_of,
    edge,
    key_of,
    scoped,
    unscoped,
)
from docket.store.index.tables import Table, Transaction

_FROM_JOURNAL = "restored from the journal"
_FROM_BLOB = "rebuilt from the blob"
_FROM_MANIFEST = "rebuilt from the manifest"


@dataclass(frozen=True, slots=True)
class Mended:
    """A row that was wrong: *how* says what became of it."""

    table: str
    key: bytes
    repair: str


@dataclass(frozen=True, slots=True)
class Difference:
    """A row that differs between the index and its journal.

    *is_lost*: the index lacks it; *is_witnessed*: an edge says that it should be there.
    """

    table: Table[Any]
    key: bytes
    is_lost: bool
    is_witnessed: bool


class Rows:
    """Looks at every row; repairs from *said* (the journal, replayed) and from the blobs."""

    def __init__(self, index: Index, said: Index, files: BlobFiles) -> None:
        self._index = index
        self._said = said
        self._files = files

    def mend(self) -> Iterator[Mended]:
        """Repair each row that fails its checksum, or whose key can't be one."""
        for table in self._index.tables:
            with self._index.read() as txn:
                damaged = [key for key in table.keys(txn) if _is_damaged(table, txn, key)]
            for key in damaged:
                if repair := self._mended(table, key):
                    yield Mended(table.name, key, repair)

    def differences(self, txn: Transaction) -> Iterator[Difference]:
        """Where the index that *txn* sees and the journal differ."""
        with self._said.read() as said_txn:
            for table in self._index.tables:
                if table.is_journaled:
                    said = _named(self._said, table.name)
                    both = merge(table.keys(txn), said.keys(said_txn))
                    for key, _ in groupby(both):
                        if not _are_equal(table, txn, said, said_txn, key):
                            yield Difference(
                                table,
                                key,
                                is_lost=not table.has(txn, key),
                                is_witnessed=self._is_witnessed(txn, table, key),
                            )

    def _is_witnessed(self, txn: Transaction, table: Table[Any], key: bytes) -> bool:
        if not _is_possible(table.name, key):
            return False
        if table is self._index.tags:
            repository, tag = unscoped(key)
            with self._said.read() as said_txn:
                said = self._said.tags.get(said_txn, key)
            witness = edge(repository, "t", tag)
            return said is not None and self._index.parents.has_pair(
                txn, said.digest.encode(), witness
            )
        if table in (self._index.manifests, self._index.links):
            repository, digest = unscoped(key)
            return self._index.parents.has(txn, digest.encode(), scoped(repository))
        return False

    def restore(self, difference: Difference) -> Mended:
        """Put the row back that the index has lost."""
        with self._said.read() as txn:
            value = _named(self._said, difference.table.name).get(txn, difference.key)

        def change(txn: Transaction) -> None:
            if not difference.table.has(txn, difference.key):
                difference.table.put(txn, difference.key, value)

        self._index.update(change)
        return Mended(difference.table.name, difference.key, _FROM_JOURNAL)

    def revive(self) -> Iterator[Mended]:
        """Put back the row of a manifest that a tag points to, from its blob."""
        index = self._index
        for batch in index.batches(index.tags):
            for tag_key in batch:
                with index.read() as txn:
                    tag = index.tags.get(txn, tag_key)
                key = scoped(unscoped(tag_key)[0], tag.digest) if tag else b""
                if key and self._revived(key):
                    yield Mended(index.manifests.name, key, _FROM_MANIFEST)

    def _revived(self, key: bytes) -> bool:
        index = self._index
        with index.read() as txn:
            if index.manifests.has(txn, key):
                return False
        row = self._manifest_row(key)

        def change(txn: Transaction) -> bool:
            if row is None or index.manifests.has(txn, key):
                return False
            index.manifests.put(txn, key, row)
            return True

        return index.update(change)

    def _mended(self, table: Table[Any], key: bytes) -> str:
        """Repair the row; how, or nothing where it is right by now."""
        value, source = self._value(table, key)

        def change(txn: Transaction) -> str:
            if not table.has(txn, key) or not _is_damaged(table, txn, key):
                return ""
            if value is None:
                table.delete(txn, key)
                return "removed"
            table.put(txn, key, value)
            return source

        return self._index.update(change)

    def _value(self, table: Table[Any], key: bytes) -> tuple[Any, str]:
        """What the row should be; None when nothing shows it."""
        if not _is_possible(table.name, key):
            return None, ""
        if table.is_journaled:
            with self._said.read() as txn:
                if (value := _named(self._said, table.name).get(txn, key)) is not None:
                    return value, _FROM_JOURNAL
        if table is self._index.blobs:
            return self._blob_row(key), _FROM_BLOB
        if table is self._index.pieces:
            measured = self._files.reread(digest_of(key))
            return measured.piece_hashes if measured else None, _FROM_BLOB
        if table is self._index.links:
            return time.time(), "rebuilt"
        if table is self._index.manifests:
            return self._manifest_row(key), _FROM_MANIFEST
        return None, ""

    def _blob_row(self, key: bytes) -> BlobRecord | None:
        measured = self._files.reread(digest_of(key))
        return blob_row(measured, time.time()) if measured else None

    def _manifest_row(self, key: bytes) -> ManifestRecord | None:
        digest = Digest.parse(unscoped(key)[1])
        content = self._files.content(digest)
        if content is None:
            return None
        try:
            parsed = manifest.parse(content)
        except InvalidInput:
            return None
        subject = str(parsed.subject.digest) if parsed.subject else ""
        return ManifestRecord(
            parsed.media_type, parsed.artifact_type, subject, len(content), time.time()
        )


def _named(index: Index, name: str) -> Table[Any]:
    return next(table for table in index.tables if table.name == name)


def _is_damaged(table: Table[Any], txn: Transaction, key: bytes) -> bool:
    try:
        table.get(txn, key)
    except IndexDamaged:
        return True
    return not _is_possible(table.name, key)


def _is_possible(table: str, key: bytes) -> bool:
    """Whether *key* has the form that keys of *table* have."""
    try:
        if table in ("blobs", "pieces"):
            return key_of(digest_of(key)) == key
        if table in ("links", "manifests"):
            Digest.parse(unscoped(key)[1])
        elif table == "tags":
            unscoped(key)
    except (IndexDamaged, InvalidDigest, UnicodeDecodeError):
        return False
    return True


def _are_equal(
    table: Table[Any], txn: Transaction, said: Table[Any], said_txn: Transaction, key: bytes
) -> bool:
    try:
        return bool(table.get(txn, key) == said.get(said_txn, key))
    except IndexDamaged:
        return True  # reported as damage already
