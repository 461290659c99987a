"""Garbage collection: online, in short transactions, never taking what someone was promised."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import TypeVar

from docket.oci.digest import Digest
from docket.store.blobs.files import BlobFiles
from docket.store.index.environment import Index
from docket.store.index.records import ManifestRecord, digest_of, key_of, scoped, unscoped
from docket.store.index.tables import Transaction
from docket.store.maintenance.needed import Needed
from docket.store.maintenance.retention import Retention
from docket.store.manifests.attachments import attached_tags, is_attachment
from docket.store.manifests.edges import clear_tag, tagged
from docket.store.manifests.removal import drop_manifest
from docket.store.pins import Pins
from docket.store.types import Tagged

log = logging.getLogger("docket")

T = TypeVar("T")
IsPinned = Callable[[Digest], bool]


@dataclass(slots=True)
class GcReport:
    """What a collection freed (or would free) and why it kept what it kept; sizes in bytes.

    *freed* is all of *blobs*, of *orphans* (files without a record, as a crash leaves them) and of
    *leftovers* (interrupted downloads, old quarantine, and what a rebuild has set aside).
    Images need what is *kept*; what is *young* is within the grace time; what is *pinned* was just
    promised to a client.
    """

    dry_run: bool = False
    tags: list[str] = field(default_factory=list)
    manifests: int = 0
    blobs: int = 0
    orphans: int = 0
    leftovers: int = 0
    freed: int = 0
    kept_tags: int = 0
    kept_blobs: int = 0
    kept: int = 0
    young_manifests: int = 0
    young_blobs: int = 0
    young: int = 0
    pinned_manifests: int = 0
    pinned_blobs: int = 0
    pinned: int = 0


class Sweep:
    """One collection: of expired tags, manifests that nothing names, repository links, blobs and
    orphans.
    """

    def __init__(
        self,
        index: Index,
        files: BlobFiles,
        pins: Pins,
        *,
        grace: float,
        dry_run: bool,
        only_pulled: bool = False,
    ) -> None:
        """What came less than *grace* seconds ago is kept. A *dry_run* changes nothing.

        With *only_pulled*, nothing goes but images of other registries, and what only they needed.
        """
        self._index = index
        self._files = files
        self._pins = pins
        self._report = GcReport(dry_run=dry_run)
        self._horizon = time.time() - grace
        # keys of tags and manifests that are gone, or would be
        self._dead: set[bytes] = set()
        # blobs that a young link holds
        self._linked: set[bytes] = set()
        self._only_pulled = only_pulled
        # keys that no edge of `parents` has kept
        self._spared: list[bytes] = []
        # manifests of other registries, and which of them somebody has just pulled
        self._pulled: dict[bytes, float] = {}
        self._used: set[bytes] = set()
        # with `only_pulled`: blobs that manifests which went had
        self._left: set[bytes] = set()

    def run(self, retention: Retention) -> GcReport:
        """Sweep; returning means that what the report calls freed is gone from index and disk."""
        self._drop_tags(retention)
        expired = len(self._report.tags)
        while self._sweep_manifests():
            pass  # a manifest that went may have been the last parent of another
        # a dry run meets attached tags in another order
        self._report.tags[expired:] = sorted(self._report.tags[expired:])
        self._sweep_links()
        self._sweep_blobs()
        if not self._only_pulled:
            self._sweep_orphans()
        self._report_spared()
        if not self._report.dry_run:
            self._files.empty_trash()
        return self._report

    def _drop_tags(self, retention: Retention) -> None:
        with self._index.read() as txn:
            tags = tagged(self._index, txn)
            self._pulled = dict(self._index.pulls.scan(txn))
            releases = [
                tag
                for tag in tags
                if _key(tag) not in self._pulled and not is_attachment(self._index, txn, tag)
            ]
        now = time.time()
        if retention.unused is not None:
            horizon = now - retention.unused
            self._used = {key for key, seconds in self._pulled.items() if seconds >= horizon}
        rows = [(tag, self._pulled[_key(tag)]) for tag in tags if _key(tag) in self._pulled]
        expired = retention.unused_tags(rows, now=now)
        if not self._only_pulled:
            expired += retention.expired(releases, now=now)
        gone = [tag for tag in expired if self._report.dry_run or self._dropped(tag)]
        self._dead.update(scoped(tag.repository, tag.tag) for tag in gone)
        self._report.tags = [f"{tag.repository}:{tag.tag}" for tag in gone]
        self._report.kept_tags = len(tags) - len(gone)

    def _dropped(self, tag: Tagged) -> bool:
        """Take the tag away, unless it was moved meanwhile."""

        def change(txn: Transaction) -> bool:
            row = self._index.tags.get(txn, scoped(tag.repository, tag.tag))
            unmoved = row is not None and row.moved == tag.moved
            return unmoved and clear_tag(self._index, txn, tag.repository, tag.tag)

        return self._index.update(change)

    def _sweep_manifests(self) -> bool:
        report = self._report

        def sweep(txn: Transaction, batch: list[bytes], pinned: IsPinned) -> _Fates:
            fates = _Fates()
            for key in batch:
                record = self._index.manifests.get(txn, key)
                if record is None or key in self._dead or self._is_used(key):
                    continue
                if self._is_named(txn, key, record):
                    continue
                repository, digest = unscoped(key)
                if needed.spares(key):
                    continue
                if pinned(Digest.parse(digest)):
                    fates.pinned.append(record.size)
                elif record.pushed > self._horizon:
                    fates.young.append(record.size)
                else:
                    fates.dead.add(key)
                    named = Digest.parse(digest)
                    attached = attached_tags(self._index, txn, repository, named)
                    fates.tags += [(repository, tag) for tag in attached]
                    self._left |= {digest.encode(), *self._index.children.values(txn, key)}
                    if not report.dry_run:
                        drop_manifest(self._index, txn, repository, digest)
            return fates

        needed = Needed(self._index, self._dead)
        before = report.manifests
        report.pinned_manifests = report.young_manifests = 0
        for batch in self._index.batches(self._index.manifests):
            fates = self._settled(sweep, batch)
            self._dead |= fates.dead
            report.manifests += len(fates.dead)
            self._note_attached(fates.tags)
            report.pinned_manifests += len(fates.pinned)
            report.young_manifests += len(fates.young)
        if report.manifests == before:
            self._spared += needed.spared
        return report.manifests > before

    def _is_used(self, key: bytes) -> bool:
        """Whether the manifest of *key* stays though nothing names it."""
        return key in self._used or (self._only_pulled and key not in self._pulled)

    def _note_attached(self, tags: list[tuple[str, str]]) -> None:
        """Tags of signatures and the like go with the manifest that they are attached to."""
        self._dead.update(scoped(repository, tag) for repository, tag in tags)
        self._report.tags += [f"{repository}:{tag}" for repository, tag in tags]
        self._report.kept_tags -= len(tags)

    def _is_named(self, txn: Transaction, key: bytes, record: ManifestRecord) -> bool:
        """Whether a tag or a living manifest names the manifest of *key*, or its subject lives."""
        repository, digest = unscoped(key)
        if record.subject:
            subject = scoped(repository, record.subject)
            if subject not in self._dead and self._index.manifests.has(txn, subject):
                return True
        return any(
            (why := unscoped(parent)[1])[:1] in ("m", "t")
            and scoped(repository, why[1:]) not in self._dead
            for parent in self._index.parents.values(txn, digest.encode(), scoped(repository))
        )

    def _sweep_links(self) -> None:
        """Drop the links of blobs that no manifest of the repository names."""

        def sweep(txn: Transaction, batch: list[bytes], pinned: IsPinned) -> set[bytes]:
            young: set[bytes] = set()
            for key in batch:
                linked = self._index.links.get(txn, key)
                repository, digest = unscoped(key)
                if linked is None or self._is_listed(txn, repository, digest):
                    continue
                if self._is_spared(digest.encode()) or needed.spares(key):
                    continue
                if linked > self._horizon:
                    young.add(digest.encode())
                elif not pinned(Digest.parse(digest)) and not self._report.dry_run:
                    self._index.links.delete(txn, key)
            return young

        needed = Needed(self._index, self._dead)
        for batch in self._index.batches(self._index.links):
            self._linked |= self._settled(sweep, batch)
        self._spared += needed.spared

    def _is_listed(self, txn: Transaction, repository: str, digest: str) -> bool:
        return any(
            self._lives(digest, parent)
            for parent in self._index.parents.values(txn, digest.encode(), scoped(repository))
        )

    def _sweep_blobs(self) -> None:
        report = self._report

        def sweep(txn: Transaction, batch: list[bytes], pinned: IsPinned) -> _Fates:
            fates = _Fates()
            for key in batch:
                record = self._index.blobs.get(txn, key)
                if record is None or self._is_spared(key):
                    continue
                digest = digest_of(key)
                parents = self._index.parents.values(txn, key)
                has_parent = any(self._lives(str(digest), parent) for parent in parents)
                if has_parent or needed.spares(key):
                    fates.kept.append(record.size)
                elif pinned(digest):
                    fates.pinned.append(record.size)
                elif record.stored > self._horizon or key in self._linked:
                    fates.young.append(record.size)
                else:
                    fates.dead.add(key)
                    fates.freed += record.size
                    if not report.dry_run:
                        self._files.sweep(txn, digest)
            return fates

        needed = Needed(self._index, self._dead)
        for batch in self._index.batches(self._index.blobs):
            fates = self._settled(sweep, batch)
            report.blobs += len(fates.dead)
            report.freed += fates.freed
            report.kept_blobs += len(fates.kept)
            report.kept += sum(fates.kept)
            report.young_blobs += len(fates.young)
            report.young += sum(fates.young)
            report.pinned_blobs += len(fates.pinned)
            report.pinned += sum(fates.pinned)
        self._spared += needed.spared

    def _report_spared(self) -> None:
        """Say so if edges are damaged: what was deleted during the collection doesn't count."""
        if self._spared and any(map(Needed(self._index, self._dead).spares, self._spared)):
            log.warning("the index lacks edges: gc kept what they belong to; run docket fsck")

    def _is_spared(self, blob: bytes) -> bool:
        """Whether the blob is none of this collection's business."""
        return self._only_pulled and blob not in self._left

    def _lives(self, digest: str, parent: bytes) -> bool:
        """Whether the edge *parent* of *digest* is one of a manifest that stays."""
        repository, why = unscoped(parent)
        if why[:1] not in ("m", "t", "h"):
            return True  # damaged: fsck repairs it, and the blob stays until then
        return scoped(repository, why[1:] if why[0] == "m" else digest) not in self._dead

    def _sweep_orphans(self) -> None:
        """Files without a record that no row names: a crash came between rename and commit."""

        def sweep(txn: Transaction, batch: list[bytes], _pinned: IsPinned) -> list[int]:
            sizes: list[int] = []
            for key in batch:
                digest = digest_of(key)
                path = self._files.path(digest)
                named = self._index.blobs.has(txn, key) or self._index.parents.has(txn, key)
                if named or not path.exists():
                    continue
                status = path.stat()
                if min(status.st_ctime, time.time()) <= self._horizon:
                    sizes.append(status.st_size)
                    if not self._report.dry_run:
                        self._files.drop_orphan(digest)
            return sizes

        for folder in self._files.files():
            with self._index.read() as txn:
                suspects = [
                    key
                    for digest in folder
                    if not self._index.blobs.has(txn, key := key_of(digest))
                ]
            if suspects:
                sizes = self._settled(sweep, suspects)
                self._report.orphans += len(sizes)
                self._report.freed += sum(sizes)

    def _settled(
        self, sweep: Callable[[Transaction, list[bytes], IsPinned], T], batch: list[bytes]
    ) -> T:
        """Run *sweep* while pins stand still, until its changes are committed."""
        with self._pins.settled() as pinned:
            if self._report.dry_run:
                with self._index.read() as txn:
                    return sweep(txn, batch, pinned)
            try:
                return self._index.update(lambda txn: sweep(txn, batch, pinned))
            except BaseException:
                self._files.recover()
                raise


def _key(tag: Tagged) -> bytes:
    """The key of the manifest that *tag* points to."""
    return scoped(tag.repository, tag.digest)


@dataclass(slots=True)
class _Fates:
    """What becomes of the rows of a batch: sizes, and the keys of those that go."""

    dead: set[bytes] = field(default_factory=set)
    tags: list[tuple[str, str]] = field(default_factory=list)
    freed: int = 0
    kept: list[int] = field(default_factory=list)
    young: list[int] = field(default_factory=list)
    pinned: list[int] = field(default_factory=list)
