"""The rows that say what a layer unpacks to."""

from __future__ import annotations

from msgspec.structs import replace

from docket.store.blobs.unpacking import Unpacked
from docket.store.index.environment import Index
from docket.store.index.records import BlobRecord
from docket.store.index.tables import Transaction


def record_unpacked(index: Index, txn: Transaction, key: bytes, measured: Unpacked | None) -> None:
    """Record what unpacking the blob *key* gave, in place of what was recorded; None: nothing."""
    record = index.blobs.get(txn, key)
    if record is None:
        return
    if record.diff_id:
        index.layers.remove(txn, record.diff_id.encode(), key)
    corrected = unpacked_row(record, measured)
    index.blobs.put(txn, key, corrected)
    if corrected.diff_id:
        index.layers.add(txn, corrected.diff_id.encode(), key)


def unpacked_row(record: BlobRecord, measured: Unpacked | None) -> BlobRecord:
    """The row of a blob that was unpacked, before which its row was *record*."""
    if measured is None:
        return BlobRecord(record.size, record.stored, record.verified)
    return replace(
        record,
        diff_id=str(measured.diff_id),
        plain_size=measured.size,
        compression=measured.compression,
        is_hint=False,
    )
