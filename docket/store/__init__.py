"""The store: blobs by digest, repositories and tags; on disk as the design's invariants promise.

<location>/
  VERSION  lock
  index/                  the LMDB environment
  journal/                metadata that can't be recovered from blobs, to rebuild the index from
  blobs/sha256/ab/<hex>   immutable files, 0444
  uploads/<uuid>          upload sessions
  incoming/               layers being downloaded
  swarm/                  hard links that are being seeded
  trash/  quarantine/
"""

from __future__ import annotations

import time
import uuid
from collections.abc import Callable
from contextlib import AbstractContextManager
from pathlib import Path
from typing import Self

from docket.config import PIN_SECONDS
from docket.store.blobs.blobs import Blobs
from docket.store.blobs.downloads import Download, Downloads, DownloadWriter
from docket.store.blobs.files import BlobFiles
from docket.store.blobs.layers import Layers
from docket.store.blobs.measuring import Measuring
from docket.store.blobs.reader import BlobReader
from docket.store.blobs.sharing import Sharing
from docket.store.blobs.uploads import Upload, Uploads
from docket.store.blobs.verify import Verifier
from docket.store.filesystem import Filesystem, no_step
from docket.store.index.clock import correct_future_times
from docket.store.index.environment import Index
from docket.store.index.journal import Journal
from docket.store.layout import FOLDERS, INDEX, JOURNAL, NAMES, UPLOADS, check_format
from docket.store.lock import Lock
from docket.store.maintenance.fsck import Finding, FsckReport, Sample
from docket.store.maintenance.gc import GcReport
from docket.store.maintenance.maintenance import Maintenance
from docket.store.maintenance.rebuild import rebuild_index
from docket.store.maintenance.retention import Retention
from docket.store.maintenance.scrub import ScrubReport
from docket.store.manifests.manifests import Manifests
from docket.store.pins import Pins
from docket.store.types import Blob, LayerBlob, StoredManifest, Tagged

__all__ = [
    "Blob",
    "BlobReader",
    "Download",
    "DownloadWriter",
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


class Store:
    """One location on disk, owned by one process; safe to use from many threads.

    `blobs`, `layers` and `uploads` are bytes and what they unpack to, `downloads` are layers that a
    pull brings, `sharing` links files of other programs, `manifests` are repositories and tags,
    `maintenance` is gc, fsck and scrubbing.
    """

    def __init__(
        self,
        location: Path,
        *,
        owner: str = "docket",
        wait: Callable[[str], bool] = lambda _holder: False,
        pin_seconds: float = PIN_SECONDS,
        clock: Callable[[], float] = time.monotonic,
        step: Callable[[str], None] = no_step,
    ) -> None:
        """Open the store at *location*, or begin one there.

        *wait* is called while another process owns it, and returns whether to go on waiting. Pins
        expire by *clock*. Raises `StoreLocked`, `StoreFormat`,
        `StoreUnusable`, or `StoreFull`.
        """
        self.location = location
        self._filesystem = Filesystem(location, step=step)
        self._filesystem.make_folder(location)
        self._filesystem.restrict(location, names=NAMES)
        self._lock = Lock(self._filesystem)
        self._lock.acquire(owner, wait=wait)
        try:
            self._open(Pins(pin_seconds, clock=clock))
        except BaseException:
            self._lock.release()
            raise

    def _open(self, pins: Pins) -> None:
        filesystem = self._filesystem
        check_format(self.location, filesystem)
        for name in FOLDERS:
            filesystem.make_folder(self.location / name)
            filesystem.check_folder(self.location / name)
        journal = Journal(self.location / JOURNAL, filesystem)
        index = Index(self.location / INDEX, journal=journal, filesystem=filesystem)
        files = BlobFiles(self.location, index, filesystem)
        verifier = Verifier(index, files)
        self._index = index
        self._measuring = Measuring(index, files)
        self.blobs = Blobs(index, files, verifier, pins, filesystem)
        self.layers = Layers(index, self._measuring, pins)
        self.uploads = Uploads(index, files, self._measuring, pins, filesystem)
        self.sharing = Sharing(index, files, pins, filesystem)
        self.downloads = Downloads(self.blobs, filesystem)
        self.manifests = Manifests(index, self.blobs, self._measuring, pins)
        self.maintenance = Maintenance(
            index, files, verifier, pins, self.uploads, journal, filesystem
        )
        files.recover()
        files.empty_trash()
        self.uploads.drop_strays()
        correct_future_times(index)
        self._measuring.resume()

    def probe(self) -> None:
        """Read the index, and write a small file: returning means that both work now.

        Raises what the disk or the index fails with, such as `StoreFull`.
        """
        self.manifests.repositories(limit=1)
        path = self.location / UPLOADS / f"probe-{uuid.uuid4()}"
        try:
            self._filesystem.write_new(path, b"ready")
        finally:
            self._filesystem.remove(path)

    def close(self) -> None:
        """Let other processes open the store; layers that are being unpacked are left."""
        self.uploads.close()
        self._measuring.close()
        self._index.close()
        self._lock.release()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_exc: object) -> None:
        self.close()

    def space(self) -> AbstractContextManager[None]:
        """While files are written below the location: a full disk is `StoreFull`."""
        return self._filesystem.translated()

    def write_synced(self, path: Path, content: bytes) -> None:
        """Write a small file beside the blobs, such as an ``index.json`` that is to be seeded."""
        self._filesystem.make_folder(path.parent)
        self._filesystem.write_new(path, content)
