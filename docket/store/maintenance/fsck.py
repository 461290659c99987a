"""Checking a store: rows, files and edges; damage is repaired, or put out of reach."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass, field
from itertools import chain
from typing import Any
from zlib import crc32

from docket.errors import IndexDamaged, InvalidOption, Stopped, StoreUnusable
from docket.oci.digest import Digest
from docket.store.blobs import unpacking
from docket.store.blobs.files import BlobFiles
from docket.store.blobs.ingest import Ingested
from docket.store.blobs.verify import UNAVAILABLE, BlobStatus, Verified, Verifier
from docket.store.index.environment import Index
from docket.store.index.records import digest_of, key_of, scoped, unscoped
from docket.store.index.tables import Table, Transaction
from docket.store.maintenance.edge_check import Structure
from docket.store.maintenance.layer_check import LayerCheck
from docket.store.maintenance.repair import Difference, Rows
from docket.store.manifests.edges import repositories

_BATCH = 500
_SAMPLE = re.compile(r"([1-9]\d{0,5})/([1-9]\d{0,5})\Z")


@dataclass(frozen=True, slots=True)
class Sample:
    """Which blobs are read: the *part*-th of *parts* equal parts, split by digest."""

    part: int = 1
    parts: int = 1

    @classmethod
    def parse(cls, text: str) -> Sample:
        """``n/t``, such as ``2/7``. Raises `InvalidOption`."""
        match = _SAMPLE.match(text)
        if match is None or int(match[1]) > int(match[2]):
            raise InvalidOption(text, "a part is n/t, such as 2/7 for the second seventh")
        return cls(int(match[1]), int(match[2]))

    def has(self, digest: Digest) -> bool:
        """Whether *digest* is in this part."""
        return crc32(key_of(digest)) % self.parts == self.part - 1


@dataclass(frozen=True, slots=True)
class Finding:
    """Something wrong: its *kind*, *what* it is about, and what became of it (*outcome*)."""

    kind: str
    what: str
    outcome: str


@dataclass(slots=True)
class FsckReport:
    """What a check looked at, sizes in bytes, and all that it found."""

    rows: int = 0
    blobs: int = 0
    read_blobs: int = 0
    read: int = 0
    quarantined: list[Digest] = field(default_factory=list)
    findings: list[Finding] = field(default_factory=list)

    def add(self, kind: str, what: object, outcome: str) -> None:
        """Note something that was found."""
        self.findings.append(Finding(kind, str(what), outcome))

    def to_json(self) -> dict[str, Any]:
        """The same for machines; digests as texts."""
        return asdict(self) | {"quarantined": [str(digest) for digest in self.quarantined]}


OnBlob = Callable[[int, int], None]
"""Called after each blob with the number of blobs that are done, and of all."""

_FINDINGS = {
    BlobStatus.MISSING: ("blob-missing", "its record is gone; push or pull it again"),
    BlobStatus.WRONG_SIZE: ("blob-size", "in quarantine; push or pull it again"),
    BlobStatus.WRONG_BYTES: ("blob-bytes", "in quarantine; push or pull it again"),
    BlobStatus.UNREADABLE: ("blob-unreadable", "in quarantine; push or pull it again"),
    BlobStatus.WRONG_PIECES: ("pieces", "recomputed from the blob"),
}


class Fsck:
    """One check of a store that may be in use meanwhile."""

    def __init__(
        self,
        index: Index,
        files: BlobFiles,
        verifier: Verifier,
        *,
        on_blob: OnBlob = lambda _done, _total: None,
        is_stopped: Callable[[], bool] = lambda: False,
    ) -> None:
        self._index = index
        self._files = files
        self._verifier = verifier
        self._layers = LayerCheck(index, files, is_stopped)
        self._on_blob = on_blob
        self._is_stopped = is_stopped
        self._lost: list[Difference] = []
        self.report = FsckReport()
        self.renew_journal = False

    def journal(self, said: Index, txn: Transaction, *, damaged_lines: int) -> None:
        """Compare with *said*: the journal, replayed up to what *txn* sees."""
        if damaged_lines:
            self._tell_journal(f"{damaged_lines} lines")
        for difference in self._rows(said).differences(txn):
            # a damaged line may be the one that deleted the row: then the index is right
            if difference.is_lost and (difference.is_witnessed or not damaged_lines):
                self._lost.append(difference)
            else:
                self._tell_journal(f"{difference.table.name} {_shown(difference.key)}")

    def rows(self, said: Index) -> None:
        """Check every row; what is damaged or lost comes from *said*, or from the blobs."""
        with self._index.read() as txn:
            self.report.rows = sum(table.count(txn) for table in self._index.tables)
        rows = self._rows(said)
        for mended in chain(rows.mend(), map(rows.restore, self._lost), rows.revive()):
            self.report.add("index", f"{mended.table} {_shown(mended.key)}", mended.repair)

    def files(self, sample: Sample | None) -> None:
        """Check every blob's file; the bytes of manifests, and of those that are in *sample*.

        Layers in *sample* are unpacked too, to verify their diff_ids and sizes.
        """
        with self._index.read() as txn:
            total = self._index.blobs.count(txn)
        sound: list[Digest] = []
        for number, key in enumerate(self._keys(self._index.blobs), 1):
            digest = digest_of(key)
            read = self._must_read(digest) or (sample is not None and sample.has(digest))
            verified = self._verifier.check(digest, read=read, on_block=self._stop_if_asked)
            self._note(digest, verified, was_read=read)
            if verified.ingested and sample is not None and sample.has(digest):
                self._check_layer(verified.ingested)
            if read and verified.status is BlobStatus.SOUND:
                sound.append(digest)
            if len(sound) >= _BATCH:
                self._verifier.stamp(sound)
                sound = []
            self._on_blob(number, total)
            self._stop_if_asked()
        self._verifier.stamp(sound)

    def orphans(self) -> None:
        """Files without a record: taken in again where some row names them, else out of reach."""
        for folder in self._files.files():
            with self._index.read() as txn:
                suspects = [
                    digest for digest in folder if not self._index.blobs.has(txn, key_of(digest))
                ]
            for digest in suspects:
                self._orphan(digest)

    def dangling(self) -> None:
        """Rows that point to what is not here: those that nobody misses go."""
        index = self._index
        for key in self._keys(self._index.pieces):
            if self._removed(index.pieces.delete, key, self._has_no_row):
                self.report.add("dangling", f"piece hashes of {key.decode()}", "removed")
        for key in self._keys(self._index.links):
            repository, digest = unscoped(key)
            if self._is_listed(repository, digest):
                continue  # an image lacks it: `incomplete` reports it
            if self._removed(index.links.delete, key, self._has_no_blob):
                self.report.add("dangling", f"{digest} in {repository}", "removed")

    def structure(self) -> None:
        """The edges between manifests, tags, blobs and layers."""
        for (table, key, value), added in Structure(self._index, self._files).mend():
            what = f"{table.name} {_shown(key)} -> {_shown(value)}"
            self.report.add("edge", what, "added" if added else "removed")

    def incomplete(self) -> None:
        """Images that lack something they had: only a push, or a pull, can bring it back."""
        for key in self._keys(self._index.links):
            repository, digest = unscoped(key)
            if self._is_lost(digest) and self._is_listed(repository, digest):
                self.report.add(
                    "incomplete", f"{repository} lacks {digest}", "push or pull it again"
                )
        for key in self._keys(self._index.manifests):
            repository, digest = unscoped(key)
            if self._is_lost(digest):
                names = ", ".join(self._tags(repository, digest)) or "no tag"
                self.report.add(
                    "incomplete",
                    f"{repository} lacks the manifest {digest} ({names})",
                    "push or pull it again",
                )
        for key in self._keys(self._index.tags):
            self._dangling_tag(key)

    # -- inside

    def _check_layer(self, blob: Ingested) -> None:
        try:
            outcome = self._layers.correct(blob)
        except unpacking.Stopped:
            raise Stopped("the check") from None
        if outcome:
            self.report.add("layer", f"diff_id and size of {blob.digest}", outcome)

    def _rows(self, said: Index) -> Rows:
        return Rows(self._index, said, self._files)

    def _tell_journal(self, what: str) -> None:
        self.renew_journal = True
        self.report.add("journal", what, "the journal is rewritten")

    def _must_read(self, digest: Digest) -> bool:
        """Manifests are read always: edges follow from them. So is what has no piece hashes."""
        key = key_of(digest)
        with self._index.read() as txn:
            is_manifest = any(
                value.endswith(b"\0h") for value in self._index.parents.values(txn, key)
            )
            return is_manifest or not self._index.pieces.has(txn, key)

    def _note(self, digest: Digest, verified: Verified, *, was_read: bool) -> None:
        self.report.blobs += 1
        self.report.read_blobs += was_read
        self.report.read += verified.read
        if verified.status in _FINDINGS:
            kind, outcome = _FINDINGS[verified.status]
            self.report.add(kind, digest, outcome)
        if verified.status in UNAVAILABLE:
            self.report.quarantined.append(digest)

    def _orphan(self, digest: Digest) -> None:
        try:
            measured = self._files.reread(digest)
        except StoreUnusable as error:
            self.report.add("orphan", digest, f"left as it is: {error}")
            return

        def change(txn: Transaction) -> str:
            key = key_of(digest)
            if self._index.blobs.has(txn, key) or not self._files.path(digest).exists():
                return ""
            if measured and self._is_named(txn, digest):
                self._files.restore(txn, measured)
                return "taken in again"
            self._files.quarantine(txn, digest)
            return "in quarantine"

        if outcome := self._update(change):
            self.report.add("orphan", digest, outcome)

    def _is_named(self, txn: Transaction, digest: Digest) -> bool:
        key = key_of(digest)
        if self._index.parents.has(txn, key):
            return True
        named = (self._index.links, self._index.manifests)
        return any(
            table.has(txn, scoped(repository, digest))
            for table in named
            for repository in repositories(table, txn)
        )

    def _dangling_tag(self, key: bytes) -> None:
        index = self._index

        def change(txn: Transaction) -> str:
            tag = index.tags.get(txn, key)
            repository = unscoped(key)[0]
            if tag is None or index.manifests.has(txn, scoped(repository, tag.digest)):
                return ""
            index.tags.delete(txn, key)
            return tag.digest

        if digest := self._update(change):
            repository, name = unscoped(key)
            self.report.add("dangling", f"tag {repository}:{name} of {digest}", "removed")

    def _is_lost(self, digest: str) -> bool:
        with self._index.read() as txn:
            return not self._index.blobs.has(txn, digest.encode())

    def _has_no_row(self, txn: Transaction, key: bytes) -> bool:
        return not self._index.blobs.has(txn, key)

    def _has_no_blob(self, txn: Transaction, key: bytes) -> bool:
        return not self._index.blobs.has(txn, unscoped(key)[1].encode())

    def _is_listed(self, repository: str, digest: str) -> bool:
        with self._index.read() as txn:
            return self._index.parents.has(txn, digest.encode(), scoped(repository, "m"))

    def _tags(self, repository: str, digest: str) -> list[str]:
        prefix = scoped(repository, "t")
        with self._index.read() as txn:
            values = self._index.parents.values(txn, digest.encode(), prefix)
            return [f"tag {value[len(prefix) :].decode()}" for value in values]

    def _removed(
        self,
        delete: Callable[[Transaction, bytes], bool],
        key: bytes,
        is_over: Callable[[Transaction, bytes], bool],
    ) -> bool:
        """Delete the row if it still dangles."""
        with self._index.read() as txn:
            if not is_over(txn, key):
                return False
        return self._index.update(lambda txn: is_over(txn, key) and delete(txn, key))

    def _update(self, change: Callable[[Transaction], str]) -> str:
        try:
            return self._index.update(change)
        except IndexDamaged:
            return ""  # another row than those that were checked; the next check finds it
        except BaseException:
            self._files.recover()
            raise

    def _keys(self, table: Table[Any]) -> Iterator[bytes]:
        for batch in self._index.batches(table):
            self._stop_if_asked()
            yield from batch

    def _stop_if_asked(self, _count: int = 0) -> None:
        if self._is_stopped():
            raise Stopped("the check")


def _shown(key: bytes) -> str:
    return key.decode(errors="replace").replace("\0", " ")
