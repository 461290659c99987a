"""Docket's calls for a registry's maintenance: gc and fsck, while it serves."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable
from typing import Any

import msgspec
from starlette.requests import Request
from starlette.responses import Response, StreamingResponse
from starlette.routing import Route

from docket.api.maintenance.checks import OnBlob
from docket.api.responses import json_response, read_json
from docket.api.services import Registry, registry_of
from docket.errors import DocketError, summary
from docket.store import FsckReport, Retention, Sample
from docket.wire import FsckLine, FsckRequest, GcReport, GcRequest
from docket.wire import FsckReport as FsckReportMessage

_JSON_LINES = "application/x-ndjson"
_MAX_REQUEST = 1 << 16


async def gc(request: Request) -> Response:
    """POST: collect garbage now, or report what would be freed."""
    registry = registry_of(request)
    wanted = await read_json(request, GcRequest, limit=_MAX_REQUEST, optional=True)
    unused = registry.upstream_unused if wanted.unused is None else wanted.unused
    retention = Retention(wanted.keep, tuple(wanted.protect), wanted.age, unused)
    options: dict[str, Any] = {} if wanted.grace is None else {"grace": wanted.grace}

    def collect() -> GcReport:
        registry.seeder.release_idle()
        if registry.upstreams:
            registry.upstreams.pulls.flush()
        report = registry.store.maintenance.gc(
            retention=retention, dry_run=wanted.dry_run, **options
        )
        return msgspec.convert(report, GcReport, from_attributes=True)

    return json_response(await registry.threads.maintain(collect))


async def fsck(request: Request) -> Response:
    """POST: check the store now; lines of JSON while it goes on, the report in the last."""
    wanted = await read_json(request, FsckRequest, limit=_MAX_REQUEST, optional=True)
    sample = None if wanted.read_data is None else Sample.parse(wanted.read_data)
    return StreamingResponse(_lines(registry_of(request), sample), media_type=_JSON_LINES)


async def _lines(registry: Registry, sample: Sample | None) -> AsyncIterator[bytes]:
    def run(on_blob: OnBlob, is_stopped: Callable[[], bool]) -> FsckReport:
        report = registry.store.maintenance.fsck(
            sample=sample,
            on_blob=on_blob,
            is_stopped=lambda: registry.stop.is_set() or is_stopped(),
        )
        registry.seeder.stop_containing(report.quarantined)
        return report

    done, total = 0, 0
    try:
        async for news in registry.checks.follow(sample, run):
            if isinstance(news, FsckReport):
                report = msgspec.convert(news.to_json(), FsckReportMessage)
                yield _line(FsckLine(done, total, report=report))
            else:
                done, total = news
                yield _line(FsckLine(done, total))
    except DocketError as error:
        yield _line(FsckLine(done, total, error=summary(error)))


def _line(line: FsckLine) -> bytes:
    return msgspec.json.encode(line) + b"\n"


ROUTES = [
    Route("/v2/_docket/gc", gc, methods=["POST"]),
    Route("/v2/_docket/fsck", fsck, methods=["POST"]),
]
