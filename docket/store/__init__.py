"""The store: blobs by digest, repositories, tags; on disk as the design's invariants promise.

<location>/
  VERSION  lock
  index/                  the LMDB environment
  journal/                what blobs don't tell, to rebuild the index from
  blobs/sha256/ab/<hex>   immutable files, 0444
  uploads/<uuid>          upload sessions
  incoming/               layers being fetched
  swarm/                  hard links that are being seeded
  trash/  quarantine/
"""

from __future__ import annotations

import time
from collections.abc import Sequence

from docket.store.blobs import QUARANTINE_SECONDS
from docket.store.gc import Collector, GcReport
from docket.store.incoming import drop_left_over
from docket.store.pins import PIN_SECONDS
from docket.store.repositories import Repositories
from docket.store.retention import Retention
from docket.store.uploads import UPLOAD_SECONDS, Upload
from docket.store.values import Blob, LayerBlob, StoredManifest, Tagged

__all__ = [
    "PIN_SECONDS",
    "Blob",
    "GcReport",
    "LayerBlob",
    "Retention",
    "Store",
    "StoredManifest",
    "Tagged",
    "Upload",
]


class Store(Repositories):
    """One location on disk, owned by one process; safe to use from many threads.

    What it holds is told in `Content` and `Repositories`; this adds its upkeep.
    """

    def gc(
        self,
        *,
        grace: float = PIN_SECONDS,
        retention: Retention | None = None,
        dry_run: bool = False,
    ) -> GcReport:
        """Sweep garbage older than *grace* seconds that nobody was promised; see `GcReport`.

        Tags that are over by *retention* go first.
        """
        if not dry_run:
            self.expire()
        collector = Collector(self._index, self._blobs, self._pins)
        report = collector.collect(grace=grace, retention=retention, dry_run=dry_run)
        now = time.time()
        report.leftovers = self._blobs.drop_quarantined(
            older_than=now - QUARANTINE_SECONDS, dry_run=dry_run
        ) + drop_left_over(self.location, older_than=now - grace, disk=self._disk, dry_run=dry_run)
        report.freed += report.leftovers
        if not dry_run:
            self._drop_dead_torrents()
            self._index.shorten_journal()
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
