"""A store's layers: blobs by what they unpack to."""

from __future__ import annotations

from collections.abc import Iterable

from docket.oci.digest import Digest
from docket.store.blobs.layer_rows import record_unpacked
from docket.store.blobs.measuring import Measuring
from docket.store.blobs.unpacking import Unpacked
from docket.store.index.environment import Index
from docket.store.index.records import BlobRecord, digest_of, key_of
from docket.store.index.tables import Transaction
from docket.store.pins import Pins
from docket.store.types import LayerBlob


class Layers:
    """Layers by diff_id, and what a stored layer unpacks to."""

    def __init__(self, index: Index, measuring: Measuring, pins: Pins) -> None:
        self._index = index
        self._measuring = measuring
        self._pins = pins

    def find(self, diff_ids: Iterable[Digest]) -> dict[Digest, LayerBlob]:
        """The blob of each of *diff_ids* that is held; those blobs are pinned.

        A blob that is only said to unpack to one of them is none of these.
        """
        layers: dict[Digest, LayerBlob] = {}
        for diff_id in diff_ids:
            with self._index.read() as txn:
                keys = list(self._index.layers.values(txn, key_of(diff_id)))
            self._pins.pin(*(digest_of(key) for key in keys))
            with self._index.read() as txn:
                for key in keys:
                    record = self._index.blobs.get(txn, key)
                    if record and not record.is_hint:
                        layers[diff_id] = _layer_blob(key, record)
        return layers

    def get(self, digest: Digest) -> LayerBlob | None:
        """What the stored layer *digest* unpacks to; None if that is unknown."""
        with self._index.read() as txn:
            record = self._index.blobs.get(txn, key_of(digest))
        return _layer_blob(key_of(digest), record) if record and record.diff_id else None

    def wait(self, digests: Iterable[Digest], *, seconds: float) -> bool:
        """Wait until it is known what uploaded layers unpack to, for *seconds* at most.

        Returns whether it is. Layers are unpacked by a few threads after their upload.
        """
        return self._measuring.wait(digests, seconds=seconds)

    def correct(self, digest: Digest, *, diff_id: Digest, plain_size: int) -> None:
        """Record what unpacking the stored layer gave, in place of what was recorded before.

        A no-op for a blob that isn't held.
        """
        key = key_of(digest)

        def change(txn: Transaction) -> None:
            if record := self._index.blobs.get(txn, key):
                measured = Unpacked(diff_id, plain_size, record.compression)
                record_unpacked(self._index, txn, key, measured)

        self._index.update(change)


def _layer_blob(key: bytes, record: BlobRecord) -> LayerBlob:
    return LayerBlob(
        digest=digest_of(key),
        size=record.size,
        diff_id=Digest.parse(record.diff_id),
        plain_size=record.plain_size,
        compression=record.compression,
        is_hint=record.is_hint,
    )
