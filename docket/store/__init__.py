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

from docket.store.blobs.uploads import Upload
from docket.store.maintenance.fsck import Finding, FsckReport, Sample
from docket.store.maintenance.gc import GcReport
from docket.store.maintenance.rebuild import rebuild_index
from docket.store.maintenance.retention import Retention
from docket.store.maintenance.scrub import ScrubReport
from docket.store.maintenance.store_maintenance import Upkeep
from docket.store.types import Blob, LayerBlob, StoredManifest, Tagged

__all__ = [
    "Blob",
    "Finding",
    "FsckReport",
    "GcReport",
    "LayerBlob",
    "Retention",
    "Sample",
    "ScrubReport",
    "Store",
    "StoredManifest",
    "Tagged",
    "Upload",
    "rebuild_index",
]


class Store(Upkeep):
    """One location on disk, owned by one process; safe to use from many threads.

    What may be asked of it is told in the classes that it is made of: `OpenStore`, `Content`
    (blobs, layers, uploads), `Repositories` (manifests, tags) and `Upkeep` (gc, fsck, scrub).
    """
