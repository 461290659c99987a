"""What the registry does beside requests: scrub blobs, expire uploads, end overdue connections."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import threading
import time
from collections.abc import AsyncIterator, Iterator
from functools import partial

from docket.api import Registry
from docket.daemon.connection_table import ConnectionTable
from docket.errors import StoreError
from docket.seeder import Seeder
from docket.store import Store

_EXPIRY_SECONDS = 15.0
_SWEEP_SECONDS = 2.0
_SCRUB_PAUSE_SECONDS = 600.0
_UNUSED_PAUSE_SECONDS = 3600.0

log = logging.getLogger("docket")


@contextlib.contextmanager
def scrubbing(
    store: Store, seeder: Seeder, *, interval: float, rate: float, stop: threading.Event
) -> Iterator[None]:
    """Read each blob again every *interval* seconds, on a thread; 0 disables.

    At most *rate* bytes a second are read. The thread ends when *stop* is set, which it is on the
    way out.
    """

    def run() -> None:
        while not stop.is_set():
            try:
                _scrub(store, seeder, interval=interval, rate=rate, stop=stop)
            except StoreError as error:  # the disk's fault: one line says all
                log.error(
                    "scrubbing failed (%s); trying again in %d s", error, _SCRUB_PAUSE_SECONDS
                )
            except Exception:  # the outermost edge of a thread that must not end
                log.exception("scrubbing failed; trying again in %d s", _SCRUB_PAUSE_SECONDS)
            stop.wait(_SCRUB_PAUSE_SECONDS)

    thread = threading.Thread(target=run, name="scrub")
    if interval:
        thread.start()
    try:
        yield
    finally:
        stop.set()
        if thread.ident:
            thread.join()


def _scrub(
    store: Store, seeder: Seeder, *, interval: float, rate: float, stop: threading.Event
) -> None:
    report = store.maintenance.scrub(older_than=time.time() - interval, rate=rate, stop=stop)
    seeder.stop_containing(report.quarantined)
    for digest in report.quarantined:
        log.error("blob %s has rotted: it is in quarantine; push its image again", digest)


@contextlib.asynccontextmanager
async def running(registry: Registry, connections: ConnectionTable) -> AsyncIterator[None]:
    """Expire idle torrents and abandoned uploads, and end overdue connections, until the end."""
    tasks = [
        asyncio.create_task(_expire(registry)),
        asyncio.create_task(_end_overdue(connections)),
        asyncio.create_task(_drop_unused(registry)),
    ]
    try:
        yield
    finally:
        for task in tasks:
            task.cancel()


async def _expire(registry: Registry) -> None:
    while True:
        await asyncio.sleep(_EXPIRY_SECONDS)
        try:
            await asyncio.to_thread(registry.seeder.release_idle)
            await asyncio.to_thread(registry.store.maintenance.expire)
            if registry.upstreams:
                await asyncio.to_thread(registry.upstreams.pulls.flush)
        except Exception:  # the outermost edge of a task that must not end
            log.exception("expiry failed; trying again in %d s", _EXPIRY_SECONDS)


async def _drop_unused(registry: Registry) -> None:
    """Remove images of other registries that nobody pulls, as --upstream-unused says."""
    seconds, upstreams = registry.upstream_unused, registry.upstreams
    while seconds is not None and upstreams:
        await asyncio.sleep(min(max(seconds / 4, 1.0), _UNUSED_PAUSE_SECONDS))
        try:
            await asyncio.to_thread(upstreams.pulls.flush)
            drop = partial(registry.store.maintenance.drop_unused, seconds=seconds)
            report = await asyncio.to_thread(drop)
        except Exception:  # the outermost edge of a task that must not end
            log.exception("unused images could not be removed; trying again later")
        else:
            if report.manifests:
                log.warning(
                    "removed %d unused images of upstreams: %d bytes",
                    report.manifests,
                    report.freed,
                )


async def _end_overdue(connections: ConnectionTable) -> None:
    while True:
        await asyncio.sleep(_SWEEP_SECONDS)
        connections.end_overdue(asyncio.get_running_loop().time())
