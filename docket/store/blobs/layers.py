"""A store's layers: blobs by what they unpack to."""

from __future__ import annotations

from collections.abc import Iterable

from docket.oci.digest import Digest
from docket.store.index.environment import Index
from docket.store.index.records import BlobRecord, key_of
from docket.store.pins import Pins
from docket.store.types import LayerBlob


class Layers:
    """Layers by diff_id, and what a stored layer unpacks to."""

    def __init__(self, index: Index, pins: Pins) -> None:
        self._index = index
        self._pins = pins

    def find(self, diff_ids: Iterable[Digest]) -> dict[Digest, LayerBlob]:
        """The blob of each of *diff_ids* that is held; those blobs are pinned."""
        layers: dict[Digest, LayerBlob] = {}
        for diff_id in diff_ids:
            with self._index.read() as txn:
                keys = list(self._index.layers.values(txn, key_of(diff_id)))
            self._pins.pin(*(Digest.parse(key.decode()) for key in keys))
            with self._index.read() as txn:
                for key in keys:
                    if record := self._index.blobs.get(txn, key):
                        layers[diff_id] = _layer_blob(key, record)
        return layers

    def get(self, digest: Digest) -> LayerBlob | None:
        """What the stored layer *digest* unpacks to; None if that is unknown."""
        with self._index.read() as txn:
            record = self._index.blobs.get(txn, key_of(digest))
        return _layer_blob(key_of(digest), record) if record and record.diff_id else None


def _layer_blob(key: bytes, record: BlobRecord) -> LayerBlob:
    return LayerBlob(
        digest=Digest.parse(key.decode()),
        size=record.size,
        diff_id=Digest.parse(record.diff_id),
        plain_size=record.plain_size,
        compression=record.compression,
        encoder=record.encoder,
    )
