"""Checking what is recorded of a layer, its diff_id and plain size, against what it unpacks to."""

from __future__ import annotations

from docket.store.blobs.files import BlobFiles
from docket.store.blobs.ingest import Ingested
from docket.store.blobs.layer_rows import record_unpacked, unpacked_row
from docket.store.blobs.unpacking import IsStopped, Unpacked
from docket.store.index.environment import Index
from docket.store.index.records import BlobRecord, key_of
from docket.store.index.tables import Transaction


class LayerCheck:
    """Unpacks layers whose bytes have just been verified, and corrects their records."""

    def __init__(self, index: Index, files: BlobFiles, is_stopped: IsStopped) -> None:
        self._index = index
        self._files = files
        self._is_stopped = is_stopped

    def correct(self, blob: Ingested) -> str:
        """Record what *blob* unpacks to; what became of a wrong record, empty if it was right.

        A hint that is right becomes a fact; one that can't be confirmed is removed. A layer that
        waits to be measured is left. Raises `unpacking.Stopped`.
        """
        key = key_of(blob.digest)
        with self._index.read() as txn:
            seen = self._index.blobs.get(txn, key)
            if seen is None or self._index.unmeasured.has(txn, key):
                return ""
        measured = self._measured(blob)
        if measured is None and not seen.is_hint:
            return ""  # no layer; or one that takes too long now, and did not before
        row = unpacked_row(seen, measured)
        if row == seen:
            return ""

        def change(txn: Transaction) -> bool:
            if self._index.blobs.get(txn, key) != seen:
                return False  # replaced meanwhile: the next check sees it
            record_unpacked(self._index, txn, key, measured)
            return True

        return _outcome(seen, row) if self._index.update(change) else ""

    def _measured(self, blob: Ingested) -> Unpacked | None:
        if blob.is_packed:
            return self._files.unpack(blob.digest, is_stopped=self._is_stopped)
        return blob.unpacked


def _outcome(before: BlobRecord, after: BlobRecord) -> str:
    if not before.diff_id or _facts(before) == _facts(after):
        return ""
    return "corrected from the blob" if after.diff_id else "removed: the blob doesn't show it"


def _facts(row: BlobRecord) -> tuple[str, int, str]:
    return row.diff_id, row.plain_size, row.compression
