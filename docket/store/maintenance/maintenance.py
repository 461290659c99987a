"""A store's maintenance: garbage collection, expiry, checking and scrubbing, while it is in use."""

from __future__ import annotations

import time
from collections.abc import Callable
from contextlib import ExitStack
from threading import Event, Lock

from docket.config import PIN_SECONDS
from docket.store.blobs.files import QUARANTINE_SECONDS, BlobFiles
from docket.store.blobs.incoming import drop_leftovers
from docket.store.blobs.uploads import UPLOAD_SECONDS, Uploads
from docket.store.blobs.verify import Verifier
from docket.store.filesystem import Filesystem
from docket.store.index.clock import correct_future_times
from docket.store.index.environment import Index
from docket.store.index.journal import Journal
from docket.store.index.records import edge, unscoped
from docket.store.index.replay import replayed
from docket.store.layout import FSCK
from docket.store.maintenance.fsck import Fsck, FsckReport, OnBlob, Sample
from docket.store.maintenance.gc import GcReport, Sweep
from docket.store.maintenance.retention import Retention
from docket.store.maintenance.scrub import Scrub, ScrubReport
from docket.store.maintenance.set_aside import SET_ASIDE_SECONDS, drop_set_aside
from docket.store.pins import Pins

UPLOAD_SECONDS_WHEN_SHORT = 600.0
"""How long an unfinished upload is kept after its last byte where disk space is short."""


class Maintenance:
    """What keeps a store sound and small."""

    def __init__(
        self,
        index: Index,
        files: BlobFiles,
        verifier: Verifier,
        pins: Pins,
        uploads: Uploads,
        journal: Journal,
        filesystem: Filesystem,
    ) -> None:
        self._index = index
        self._files = files
        self._verifier = verifier
        self._pins = pins
        self._uploads = uploads
        self._journal = journal
        self._filesystem = filesystem
        self._checking = Lock()

    def gc(
        self,
        *,
        grace: float = PIN_SECONDS,
        retention: Retention | None = None,
        dry_run: bool = False,
    ) -> GcReport:
        """Sweep garbage that is older than *grace* seconds and not pinned; see `GcReport`.

        Tags that have expired by *retention* go first.
        """
        if not dry_run:
            correct_future_times(self._index)
        uploads = self._end_idle_uploads(grace, dry_run=dry_run)
        sweep = Sweep(self._index, self._files, self._pins, grace=grace, dry_run=dry_run)
        report = sweep.run(retention or Retention())
        now = time.time()
        report.leftovers = self._files.drop_quarantined(
            older_than=now - QUARANTINE_SECONDS, dry_run=dry_run
        ) + drop_leftovers(self._filesystem, older_than=now - grace, dry_run=dry_run)
        report.leftovers += uploads + drop_set_aside(
            self._filesystem, older_than=now - SET_ASIDE_SECONDS, dry_run=dry_run
        )
        report.freed += report.leftovers
        if not dry_run:
            self._drop_dead_torrents()
            self._index.shorten_journal()
        return report

    def drop_unused(self, *, seconds: float, grace: float = PIN_SECONDS) -> GcReport:
        """Remove images of other registries that nobody has pulled for *seconds*.

        Nothing else goes but the blobs that only these had.
        """
        sweep = Sweep(
            self._index, self._files, self._pins, grace=grace, dry_run=False, only_pulled=True
        )
        report = sweep.run(Retention(unused=seconds))
        if report.manifests:
            self._drop_dead_torrents()
        return report

    def expire(self, *, uploads_after: float = UPLOAD_SECONDS) -> int:
        """End upload sessions that got no byte for *uploads_after* seconds, and drop expired pins.

        Where space is short, sessions end after 10 minutes. Returns the number of sessions.
        """
        self._pins.drop_expired()
        correct_future_times(self._index)
        if self._filesystem.is_short_of_space():
            uploads_after = min(uploads_after, UPLOAD_SECONDS_WHEN_SHORT)
        return self._uploads.expire(older_than=uploads_after)

    def fsck(
        self,
        *,
        sample: Sample | None = None,
        on_blob: OnBlob = lambda _done, _total: None,
        is_stopped: Callable[[], bool] = lambda: False,
    ) -> FsckReport:
        """Check rows, files and edges; with *sample*, also the bytes of the blobs that are in it.

        Returning means that all damage is repaired, or that it is no longer served and is in the
        report: the next push or pull of that image brings it back. Raises `Stopped` soon after
        *is_stopped* returns True; what was repaired by then stays.
        """
        # a second check would only wait for the same disk
        with self._checking:
            return self._fsck(sample, on_blob, is_stopped)

    def scrub(self, *, older_than: float, rate: float, stop: Event) -> ScrubReport:
        """Read all blobs again that were last verified before *older_than*; see `Scrub.run`."""
        return Scrub(self._index, self._verifier).run(older_than=older_than, rate=rate, stop=stop)

    # -- inside

    def _end_idle_uploads(self, grace: float, *, dry_run: bool) -> int:
        """End sessions that nobody goes on with: after *grace* where space is short.

        Returns the bytes on disk that they had.
        """
        is_short = self._filesystem.is_short_of_space()
        idle = min(grace, UPLOAD_SECONDS) if is_short else UPLOAD_SECONDS
        size = self._uploads.idle_bytes(older_than=idle)
        if not dry_run:
            self.expire(uploads_after=idle)
        return size

    def _fsck(
        self, sample: Sample | None, on_blob: OnBlob, is_stopped: Callable[[], bool]
    ) -> FsckReport:
        check = Fsck(
            self._index, self._files, self._verifier, on_blob=on_blob, is_stopped=is_stopped
        )
        with ExitStack() as stack:
            with self._index.read() as txn:
                position = self._index.position(txn)
                folder = self._filesystem.location / FSCK
                journaled, damaged = stack.enter_context(
                    replayed(folder, self._filesystem, self._journal, position)
                )
                check.journal(journaled, txn, damaged_lines=damaged)
            check.rows(journaled)
        check.files(sample)
        check.orphans()
        check.structure()
        check.dangling()
        check.incomplete()
        if check.renew_journal:
            self._index.renew_journal()
        return check.report

    def _drop_dead_torrents(self) -> None:
        index = self._index
        with index.read() as txn:
            dead = [
                info_hash
                for info_hash, digest in index.torrents.scan(txn)
                if not any(
                    parent == edge(unscoped(parent)[0], "h")
                    for parent in index.parents.values(txn, digest.encode())
                )
            ]
        if dead:
            index.update(lambda txn: [index.torrents.delete(txn, key) for key in dead])
