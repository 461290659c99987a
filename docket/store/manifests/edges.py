"""How a manifest and its tags stand in the index: edges, referrers, and their removal."""

from __future__ import annotations

import time
from collections.abc import Iterator
from typing import Any

from docket.errors import ManifestBlobUnknown, SizeMismatch
from docket.oci.digest import Digest
from docket.oci.manifest import (
    ALL_MANIFEST_TYPES,
    Manifest,
)
from docket.oci.manifest import Index as ImageIndex
from docket.store.index.environment import Index
from docket.store.index.records import ManifestRecord, TagRecord, edge, key_of, scoped, unscoped
from docket.store.index.tables import MultiTable, Table, Transaction
from docket.store.types import Tagged


def check_children(
    index: Index, txn: Transaction, repository: str, parsed: Manifest | ImageIndex
) -> None:
    """Raises unless *repository* has all that *parsed* lists, in the sizes that it states.

    `ManifestBlobUnknown`, or `SizeMismatch`: a torrent is laid out by these sizes.
    """
    for child in parsed.children:
        # BuildKit's cache is an index of layers
        is_manifest = child.media_type in ALL_MANIFEST_TYPES
        table = index.manifests if is_manifest else index.links
        linked = table.get(txn, scoped(repository, child.digest)) is not None
        record = index.blobs.get(txn, key_of(child.digest))
        if not linked or record is None:
            raise ManifestBlobUnknown(child.digest)
        if record.size != child.size:
            raise SizeMismatch(child.digest, expected=child.size, actual=record.size)


def add_manifest(
    index: Index,
    txn: Transaction,
    repository: str,
    digest: Digest,
    parsed: Manifest | ImageIndex,
    size: int,
) -> None:
    """Record a manifest of *repository*, with an edge to each child."""
    subject = parsed.subject.digest if parsed.subject else ""
    index.manifests.put(
        txn,
        scoped(repository, digest),
        ManifestRecord(
            media_type=parsed.media_type,
            artifact_type=parsed.artifact_type,
            subject=str(subject),
            size=size,
            pushed=time.time(),
        ),
    )
    for table, key, value in edges(index, repository, digest, parsed):
        table.add(txn, key, value)


Edge = tuple[MultiTable, bytes, bytes]
"""A table, a key, and one of the values that it should have there."""


def edges(
    index: Index, repository: str, digest: Digest, parsed: Manifest | ImageIndex
) -> Iterator[Edge]:
    """All that a manifest of *repository* adds to the tables with many values."""
    yield index.parents, key_of(digest), edge(repository, "h")
    for child in parsed.children:
        yield index.parents, key_of(child.digest), edge(repository, "m", digest)
        yield index.children, scoped(repository, digest), key_of(child.digest)
    if parsed.subject:
        yield index.referrers, scoped(repository, parsed.subject.digest), key_of(digest)


def set_tag(index: Index, txn: Transaction, repository: str, tag: str, digest: Digest) -> None:
    """Point *tag* at *digest*, wherever it pointed before."""
    clear_tag(index, txn, repository, tag)
    index.tags.put(txn, scoped(repository, tag), TagRecord(str(digest), time.time()))
    index.parents.add(txn, key_of(digest), edge(repository, "t", tag))


def clear_tag(index: Index, txn: Transaction, repository: str, tag: str) -> bool:
    """Forget *tag*; whether it was there."""
    before = index.tags.get(txn, scoped(repository, tag))
    if before is None:
        return False
    index.parents.remove(txn, before.digest.encode(), edge(repository, "t", tag))
    return index.tags.delete(txn, scoped(repository, tag))


def repositories(table: Table[Any], txn: Transaction, *, after: str = "") -> Iterator[str]:
    """The repositories that have a row in *table*, sorted, past *after*; one seek each."""
    # \x01 sorts behind the NUL of all keys of a repository
    last = f"{after}\x01".encode() if after else b""
    while (key := next(table.keys(txn, after=last), None)) is not None:
        name = unscoped(key)[0]
        yield name
        last = f"{name}\x01".encode()


def tagged(index: Index, txn: Transaction, repository: str | None = None) -> list[Tagged]:
    """All tags (of *repository*), sorted by repository and tag."""
    rows = index.tags.scan(txn, scoped(repository) if repository else b"")
    return [Tagged(*unscoped(key), Digest.parse(tag.digest), tag.moved) for key, tag in rows]
