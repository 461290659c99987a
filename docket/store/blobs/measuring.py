"""Measuring layers that were uploaded: what they unpack to, found out after their upload has ended.

A few threads of their own do it, which no request waits for longer than it wants to: a layer that
takes long to unpack delays only what is known of other layers. The table ``unmeasured`` remembers
what is left to do, so that a restart goes on.
"""

from __future__ import annotations

import logging
import os
import threading
from collections.abc import Iterable
from concurrent.futures import Future, ThreadPoolExecutor, wait
from contextlib import suppress

from docket.oci.digest import Digest
from docket.store.blobs.files import BlobFiles
from docket.store.blobs.layer_rows import record_unpacked
from docket.store.blobs.unpacking import Stopped, Unpacked
from docket.store.index.environment import Index
from docket.store.index.records import digest_of, key_of
from docket.store.index.tables import Transaction

log = logging.getLogger("docket")


class Measuring:
    """A bounded pool of threads that unpack stored layers and record what came out."""

    def __init__(self, index: Index, files: BlobFiles) -> None:
        self._index = index
        self._files = files
        self._stop = threading.Event()
        self._lock = threading.Lock()
        self._pending: dict[Digest, Future[None]] = {}
        self._threads = ThreadPoolExecutor(os.cpu_count(), thread_name_prefix="unpack")

    def resume(self) -> None:
        """Continue with what an earlier process left."""
        with self._index.read() as txn:
            left = [digest_of(key) for key in self._index.unmeasured.keys(txn)]
        for digest in left:
            self.later(digest)

    def later(self, digest: Digest) -> None:
        """Measure a stored layer as soon as a thread is free; returns at once."""
        with self._lock:
            if digest in self._pending or self._stop.is_set():
                return
            self._pending[digest] = self._threads.submit(self._run, digest)

    def wait(self, digests: Iterable[Digest], *, seconds: float) -> bool:
        """Wait until all of *digests* are measured, for *seconds* at most; whether they are."""
        with self._lock:
            running = [self._pending[digest] for digest in digests if digest in self._pending]
        return not wait(running, timeout=seconds).not_done

    def close(self) -> None:
        """Stop within a moment; what isn't measured yet is left for the next start."""
        self._stop.set()
        self._threads.shutdown(cancel_futures=True)

    def _run(self, digest: Digest) -> None:
        try:
            with suppress(Stopped):
                self._measure(digest)
        except Exception:  # the outermost edge of a thread that others are waiting for
            log.exception("what %s unpacks to can't be found out now", digest)
        finally:
            with self._lock:
                self._pending.pop(digest, None)

    def _measure(self, digest: Digest) -> None:
        unpacked = None
        with suppress(FileNotFoundError):  # it was deleted meanwhile
            unpacked = self._files.unpack(digest, is_stopped=self._stop.is_set)
        if self._stop.is_set():
            raise Stopped
        self._index.update(lambda txn: self._record(txn, digest, unpacked))

    def _record(self, txn: Transaction, digest: Digest, unpacked: Unpacked | None) -> None:
        index, key = self._index, key_of(digest)
        index.unmeasured.delete(txn, key)
        record = index.blobs.get(txn, key)
        if record is None or unpacked is None or record.diff_id:
            return
        record_unpacked(index, txn, key, unpacked)
