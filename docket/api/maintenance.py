"""Docket's calls for a registry's upkeep: garbage collection and checking, while it serves."""

from __future__ import annotations

import queue
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import msgspec
from anyio.to_thread import run_sync
from starlette.requests import Request
from starlette.responses import Response, StreamingResponse
from starlette.routing import Route

from docket.api.responses import answer_json, decoded, read_body
from docket.api.services import Registry, registry_of
from docket.errors import DocketError, summary
from docket.store import FsckReport, Retention, Sample
from docket.wire import FsckLine, FsckRequest, GcReport, GcRequest
from docket.wire import FsckReport as FsckReportMessage

_BEAT_SECONDS = 1.0
_JSON_LINES = "application/x-ndjson"


async def sweep(request: Request) -> Response:
    """POST: collect garbage now, or say what would be."""
    registry = registry_of(request)
    body = await read_body(request, limit=1 << 16, what="the request")
    wanted = decoded(body or b"{}", GcRequest)
    retention = Retention(wanted.keep, tuple(wanted.protect), wanted.age)
    options = {} if wanted.grace is None else {"grace": wanted.grace}
    await run_sync(registry.seeder.release_idle)
    report = await run_sync(
        lambda: registry.store.maintenance.gc(
            retention=retention, dry_run=wanted.dry_run, **options
        )
    )
    return answer_json(msgspec.convert(report, GcReport, from_attributes=True))


async def check(request: Request) -> Response:
    """POST: check the store now; lines of JSON while it goes on, the report in the last."""
    registry = registry_of(request)
    body = await read_body(request, limit=1 << 16, what="the request")
    wanted = decoded(body or b"{}", FsckRequest)
    sample = None if wanted.read_data is None else Sample.parse(wanted.read_data)
    return StreamingResponse(_checked(registry, sample), media_type=_JSON_LINES)


def _checked(registry: Registry, sample: Sample | None) -> Iterator[bytes]:
    """A line whenever there is something to tell, and at least one each beat."""
    told: queue.SimpleQueue[tuple[int, int] | None] = queue.SimpleQueue()

    def check_all() -> FsckReport:
        report = registry.store.maintenance.fsck(
            sample=sample, on_blob=lambda *counts: told.put(counts)
        )
        registry.seeder.stop_containing(report.quarantined)
        return report

    # a check goes on to its end, though the one who asked may not wait for it
    thread = ThreadPoolExecutor(1, thread_name_prefix="fsck")
    running = thread.submit(check_all)
    running.add_done_callback(lambda _done: told.put(None))
    thread.shutdown(wait=False)
    yield from _beats(told)
    try:
        report = running.result()
    except DocketError as error:
        yield _line(FsckLine(0, 0, error=summary(error)))
    else:
        yield _line(FsckLine(0, 0, report=msgspec.convert(report.to_json(), FsckReportMessage)))


def _beats(told: queue.SimpleQueue[tuple[int, int] | None]) -> Iterator[bytes]:
    latest = (0, 0)
    yield _line(FsckLine(0, 0))
    while True:
        try:
            while (news := told.get(timeout=_BEAT_SECONDS)) is not None:
                latest = news
                if told.empty():
                    break
            if news is None:
                return
        except queue.Empty:
            pass
        yield _line(FsckLine(*latest))


def _line(body: Any) -> bytes:
    return msgspec.json.encode(body) + b"\n"


ROUTES = [
    Route("/v2/_docket/gc", sweep, methods=["POST"]),
    Route("/v2/_docket/fsck", check, methods=["POST"]),
]
