"""A store's upkeep: garbage collection, expiry, checking, scrubbing."""

from __future__ import annotations

import time
from collections.abc import Sequence
from contextlib import ExitStack
from threading import Event

from docket.config import PIN_SECONDS
from docket.oci.digest import Digest
from docket.store.blobs.downloads import drop_left_over
from docket.store.blobs.files import QUARANTINE_SECONDS
from docket.store.blobs.uploads import UPLOAD_SECONDS
from docket.store.index.replay import replayed
from docket.store.maintenance.fsck import Fsck, FsckReport, OnBlob, Sample
from docket.store.maintenance.gc import Collector, GcReport
from docket.store.maintenance.retention import Retention
from docket.store.maintenance.scrub import Scrub, ScrubReport
from docket.store.manifests.repositories import Repositories


class Upkeep(Repositories):
    """What keeps a store sound and small; all of it while the store is in use."""

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
        ) + drop_left_over(
            self.location, older_than=now - grace, disk=self._filesystem, dry_run=dry_run
        )
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

    def fsck(
        self, *, sample: Sample | None = None, on_blob: OnBlob = lambda _done, _total: None
    ) -> FsckReport:
        """Check rows, files and edges; with *sample*, also the bytes of the blobs that are in it.

        Returning means that all that was found is mended, or is out of reach and told of in the
        report. What is out of reach comes back with the next push or pull of it.
        """
        # a second check would only wait for the same disk
        with self._one_check:
            return self._fsck(sample, on_blob)

    def check(self, digest: Digest) -> None:
        """Look at the bytes of a blob that seems wrong; if they are, it is unknown from now on."""
        self._verifier.check(digest, read=True)

    def scrub(self, *, older_than: float, rate: float, stop: Event) -> ScrubReport:
        """Read all blobs again that were last verified before *older_than*; see `Scrub.run`."""
        return Scrub(self._index, self._verifier).run(older_than=older_than, rate=rate, stop=stop)

    # -- inside

    def _fsck(self, sample: Sample | None, on_blob: OnBlob) -> FsckReport:
        check = Fsck(
            self._index,
            self._blobs,
            self._verifier,
            read_file=lambda digest: self._blobs.reread(digest, self._new_pieces),
            on_blob=on_blob,
        )
        with ExitStack() as stack:
            with self._index.read() as txn:
                position = self._index.position(txn)
                said, damaged = stack.enter_context(
                    replayed(self.location / "fsck", self._filesystem, self._journal, position)
                )
                check.journal(said, txn, damaged_lines=damaged)
            check.rows(said)
        check.files(sample)
        check.orphans()
        check.structure()
        check.dangling()
        check.incomplete()
        if check.renew_journal:
            self._index.renew_journal()
        return check.report

    def _drop_dead_torrents(self) -> None:
        with self._index.read() as txn:
            hashes: Sequence[bytes] = [key for key, _ in self._index.torrents.scan(txn)]
        dead = [one for one in hashes if self.torrent(one) is None]
        if dead:
            self._index.update(lambda txn: [self._index.torrents.delete(txn, one) for one in dead])
