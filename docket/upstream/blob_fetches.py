"""Fetches of blobs from upstreams: each once, however many ask, straight into the store."""

from __future__ import annotations

import logging
import os
import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress

from docket.errors import (
    BlobUnknown,
    DigestMismatch,
    DocketError,
    StoreFull,
    UpstreamError,
    UpstreamUnavailable,
    summary,
)
from docket.oci.digest import Digest
from docket.rate_limit import RateLimiter
from docket.store import Store, Upload
from docket.upstream.arriving import ArrivingBlob
from docket.upstream.source import Source

MOST_AT_ONCE = 16
_TRIES = 4
"""Requests in sequence that may bring nothing new."""
_PAUSE_SECONDS = 0.2

log = logging.getLogger("docket.upstream")

_Key = tuple[str, Digest]


class BlobFetches:
    """The blobs that are on their way; `MOST_AT_ONCE` come at a time, others wait."""

    def __init__(self, store: Store, limiter: RateLimiter, stop: threading.Event) -> None:
        self._store = store
        self._limiter = limiter
        self._stop = stop
        self._lock = threading.Lock()
        self._running: dict[_Key, ArrivingBlob] = {}
        self._threads = ThreadPoolExecutor(MOST_AT_ONCE, thread_name_prefix="upstream-blob")

    def close(self) -> None:
        """Begin no other fetch; those that run end with their connections."""
        self._threads.shutdown(wait=False, cancel_futures=True)
        with self._lock:
            waiting = list(self._running.values())
        for arriving in waiting:
            arriving.finish(UpstreamError("upstream", "this registry is stopping"))

    def join(self) -> None:
        """Wait until no fetch runs."""
        self._threads.shutdown(wait=True)

    def start(
        self,
        source: Source,
        repository: str,
        digest: Digest,
        *,
        size: int | None,
        on_error: Callable[[DocketError], None],
    ) -> ArrivingBlob:
        """The fetch of a blob for *repository*, which all who ask share.

        *size* is what its manifest says; None: what the upstream says. Raises `UpstreamUnavailable`
        when this registry is stopping.
        """
        key = repository, digest
        with self._lock:
            arriving = self._running.get(key)
            if arriving is None:
                arriving = self._running[key] = ArrivingBlob(digest)
                job = _Job(self._store, self._limiter, self._stop, source, repository, arriving)
                try:
                    self._threads.submit(self._run, key, job, size, on_error)
                except RuntimeError as error:
                    del self._running[key]
                    name = source.upstream.name
                    raise UpstreamUnavailable(name, "this registry is stopping") from error
            return arriving

    def _run(
        self, key: _Key, job: _Job, size: int | None, on_error: Callable[[DocketError], None]
    ) -> None:
        error: DocketError | None = None
        try:
            job.run(size)
        except DocketError as failure:
            error = failure
            on_error(error)
            if not isinstance(error, BlobUnknown) and not self._stop.is_set():
                log.warning("%s was not fetched: %s", key[1], summary(error))
        except Exception as failure:  # the outermost edge of a thread that others wait for
            log.exception("%s was not fetched", key[1])
            name = job.source.upstream.name
            error = UpstreamError(name, f"unexpected: {type(failure).__name__}")
        with self._lock:
            # gone before the waiting ones look at the store
            del self._running[key]
        job.arriving.finish(error)


class _Job:
    """One fetch."""

    def __init__(
        self,
        store: Store,
        limiter: RateLimiter,
        stop: threading.Event,
        source: Source,
        repository: str,
        arriving: ArrivingBlob,
    ) -> None:
        self._store = store
        self._limiter = limiter
        self._stop = stop
        self.source = source
        self._repository = repository
        self.arriving = arriving

    def run(self, size: int | None) -> None:
        """Fetch it; returning means that the store has it, verified, in the repository."""
        with suppress(BlobUnknown):  # another fetch has just ended
            self._store.blobs.get(self.arriving.digest, repository=self._repository)
            return
        uploads = self._store.uploads
        upload_id = uploads.begin(self._repository)
        with uploads.open(self._repository, upload_id) as upload:
            try:
                self._fetch(upload, size)
                if self._stop.is_set():
                    raise UpstreamUnavailable(self.source.upstream.name, "this registry stops")
                uploads.finish(self._repository, upload, self.arriving.digest)
            except DigestMismatch as error:
                raise UpstreamError(self.source.upstream.name, f"wrong bytes: {error}") from error
            except BaseException:
                uploads.discard(upload)
                raise

    def _fetch(self, upload: Upload, size: int | None) -> None:
        """All bytes into *upload*; what broke off is continued where it stopped."""
        tries, has_begun = _TRIES, False
        come = 0
        while True:
            try:
                repository = self.source.upstream.repository(self._repository)
                with self.source.blob(repository, self.arriving.digest, start=come) as (
                    total,
                    blocks,
                ):
                    size = self._checked_size(size, total)
                    if not has_begun:
                        self._check_space(size)
                        self.arriving.begin(size, upload.path)
                        has_begun = True
                    for block in blocks:
                        come += len(block)
                        if come > size:
                            raise self._wrong_size(size, come)
                        tries = _TRIES if block else tries
                        self._append(upload, block, come)
                    if come == size:
                        return
            except UpstreamUnavailable:
                # what never began is the asker's to try again
                if not has_begun or not tries or self._stop.is_set():
                    raise
            tries -= 1
            if tries < 0:
                raise self._wrong_size(size or 0, come)
            self._stop.wait(_PAUSE_SECONDS * 2 ** (_TRIES - tries))

    def _append(self, upload: Upload, block: bytes, come: int) -> None:
        if block:
            upload.write(block)
        self.arriving.advance(come)
        if delay := self._limiter.delay(len(block)):
            self._stop.wait(delay)
        if self._stop.is_set():
            raise UpstreamUnavailable(self.source.upstream.name, "this registry stops")

    def _checked_size(self, size: int | None, total: int | None) -> int:
        """The size of the blob; the manifest's and the upstream's must be equal."""
        known = size if size is not None else total
        if known is None:
            raise UpstreamError(self.source.upstream.name, "it says no size of the blob")
        if total is not None and total != known:
            raise self._wrong_size(known, total)
        return known

    def _check_space(self, size: int) -> None:
        disk = os.statvfs(self._store.location)
        free = disk.f_frsize * (disk.f_bavail if os.geteuid() else disk.f_bfree)
        if size > free:
            raise StoreFull(self._store.location, needed=size, free=free)

    def _wrong_size(self, expected: int, actual: int) -> UpstreamError:
        name, digest = self.source.upstream.name, self.arriving.digest
        return UpstreamError(name, f"{digest} should have {expected} bytes, and has {actual}")
