"""The store: blobs by digest, repositories, tags; on disk as the design's invariants promise.

<location>/
  VERSION  lock
  index/                  the LMDB environment
  blobs/sha256/ab/<hex>   immutable files, 0444
  uploads/<uuid>          upload sessions
  incoming/               layers being fetched
  swarm/                  hard links that are being seeded
  trash/  quarantine/
"""

from __future__ import annotations

from collections.abc import Sequence

from docket.store.gc import Collector, GcReport
from docket.store.pins import PIN_SECONDS
from docket.store.repositories import Repositories
from docket.store.uploads import UPLOAD_SECONDS, Upload
from docket.store.values import Blob, LayerBlob, StoredManifest, Tagged

__all__ = [
    "PIN_SECONDS",
    "Blob",
    "GcReport",
    "LayerBlob",
    "Store",
    "StoredManifest",
    "Tagged",
    "Upload",
]


class Store(Repositories):
    """One location on disk, owned by one process; safe to use from many threads.

    What it holds is told in `Content` and `Repositories`; this adds its upkeep.
    """

    def gc(self, *, grace: float = PIN_SECONDS, dry_run: bool = False) -> GcReport:
        """Sweep garbage older than *grace* seconds that nobody was promised; see `GcReport`."""
        if not dry_run:
            self.expire()
        report = Collector(self._index, self._blobs, self._pins).collect(
            grace=grace, dry_run=dry_run
        )
        if not dry_run:
            self._drop_dead_torrents()
        return report

    def expire(self, *, uploads_after: float = UPLOAD_SECONDS) -> int:
        """End upload sessions that began over *uploads_after* seconds ago, and pins that are over.

        Gives how many sessions there were.
        """
        self._pins.drop_expired()
        return self._uploads.expire(older_than=uploads_after)

    def _drop_dead_torrents(self) -> None:
        with self._index.read() as txn:
            hashes: Sequence[bytes] = [key for key, _ in self._index.torrents.scan(txn)]
        dead = [one for one in hashes if self.torrent(one) is None]
        if dead:
            self._index.update(lambda txn: [self._index.torrents.delete(txn, one) for one in dead])
