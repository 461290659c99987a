"""What the tables with many values should hold, computed from the rows that they follow from."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import suppress
from functools import lru_cache
from itertools import islice
from typing import Any

from docket.errors import IndexDamaged, InvalidInput
from docket.oci import manifest
from docket.oci.digest import Digest
from docket.oci.manifest import Index as ImageIndex
from docket.oci.manifest import Manifest
from docket.store.blobs.files import BlobFiles
from docket.store.index.environment import Index
from docket.store.index.records import edge, scoped, unscoped
from docket.store.index.tables import Table, Transaction
from docket.store.manifests.edges import Edge, edges

_BATCH = 500
_CACHED = 4096

Parsed = Manifest | ImageIndex


class Structure:
    """Compares ``parents``, ``children``, ``referrers`` and ``layers`` with rows and manifests."""

    def __init__(self, index: Index, files: BlobFiles) -> None:
        self._index = index
        self._files = files
        self._parsed = lru_cache(maxsize=_CACHED)(self._parse)

    def mend(self) -> Iterator[tuple[Edge, bool]]:
        """Add what is missing and remove what is too much; says for each edge whether it was added.

        Pushes may go on: every edge is looked at again in the transaction that repairs it.
        """
        with self._index.read() as txn:
            wrong = [entry for entry in self._candidates(txn) if self._is_wrong(txn, entry)]
        wrong_edges = iter(dict.fromkeys(wrong))
        while batch := list(islice(wrong_edges, _BATCH)):
            yield from self._index.update(lambda txn, batch=batch: self._mend(txn, batch))  # type: ignore[misc]

    def _mend(self, txn: Transaction, batch: list[Edge]) -> list[tuple[Edge, bool]]:
        mended: list[tuple[Edge, bool]] = []
        for entry in batch:
            table, key, value = entry
            if self._is_wrong(txn, entry):
                add = not table.has_pair(txn, key, value)
                (table.add if add else table.remove)(txn, key, value)
                mended.append((entry, add))
        return mended

    def _is_wrong(self, txn: Transaction, entry: Edge) -> bool:
        table, key, value = entry
        return table.has_pair(txn, key, value) != self._is_wanted(txn, entry)

    def _candidates(self, txn: Transaction) -> Iterator[Edge]:
        yield from self._derived(txn)
        for table in self._index.multi_tables:
            for key, value in table.pairs(txn):
                yield table, key, value

    def _derived(self, txn: Transaction) -> Iterator[Edge]:
        """All edges that follow from rows that can be read."""
        for table in (self._index.manifests, self._index.tags, self._index.blobs):
            for key in table.keys(txn):
                with suppress(IndexDamaged):
                    yield from self.follow_from(txn, table, key)

    def follow_from(self, txn: Transaction, table: Table[Any], key: bytes) -> Iterator[Edge]:
        """The edges that follow from the row *key* of ``manifests``, ``tags`` or ``blobs``."""
        index = self._index
        if table is index.manifests:
            repository, digest = unscoped(key)
            if parsed := self._parsed(digest):
                yield from edges(index, repository, Digest.parse(digest), parsed)
        elif table is index.tags:
            if tag := index.tags.get(txn, key):
                repository, name = unscoped(key)
                yield index.parents, tag.digest.encode(), edge(repository, "t", name)
        elif table is index.blobs and (row := index.blobs.get(txn, key)) and row.diff_id:
            yield index.layers, row.diff_id.encode(), key

    def _is_wanted(self, txn: Transaction, entry: Edge) -> bool:
        table, key, value = entry
        try:
            if table is self._index.parents:
                return self._has_parent(txn, key, *unscoped(value))
            if table is self._index.children:
                return self._lists(txn, key, value.decode())
            if table is self._index.referrers:
                return self._refers(txn, *unscoped(key), value.decode())
            row = self._index.blobs.get(txn, value)
        except (IndexDamaged, UnicodeDecodeError):
            return False
        return row is not None and row.diff_id.encode() == key

    def _has_parent(self, txn: Transaction, child: bytes, repository: str, why: str) -> bool:
        edge_type, name = why[:1], why[1:]
        if edge_type == "t":
            tag = self._index.tags.get(txn, scoped(repository, name))
            return tag is not None and tag.digest.encode() == child
        if edge_type == "m":
            return self._lists(txn, scoped(repository, name), child.decode())
        return why == "h" and self._index.manifests.has(txn, scoped(repository, child.decode()))

    def _lists(self, txn: Transaction, key: bytes, child: str) -> bool:
        if not self._index.manifests.has(txn, key):
            return False
        parsed = self._parsed(unscoped(key)[1])
        # a manifest that can't be read now is to keep its layers for the day when it heals
        return parsed is None or any(str(blob.digest) == child for blob in parsed.children)

    def _refers(self, txn: Transaction, repository: str, subject: str, referrer: str) -> bool:
        row = self._index.manifests.get(txn, scoped(repository, referrer))
        return row is not None and row.subject == subject

    def _parse(self, digest: str) -> Parsed | None:
        """The manifest in its blob; None when that is not there, or not what it says.

        Raises `StoreUnusable` when it can't be read: its edges are unknown, not wrong.
        """
        try:
            content = self._files.content(Digest.parse(digest))
            return None if content is None else manifest.parse(content)
        except InvalidInput:
            return None
