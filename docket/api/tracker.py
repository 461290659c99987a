"""The embedded tracker over HTTP (BEP 3, 7, 23, 48), for the registry's own torrents alone."""

from __future__ import annotations

import asyncio
import logging
import re
from urllib.parse import unquote

from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from docket.api.services import Registry, registry_of
from docket.errors import InvalidAnnounce
from docket.torrent.tracker.announce import Announce, failure, scraped

PATH = "/announce"

MEDIA_TYPE = "text/plain; charset=utf-8"

_FRESH_SECONDS = 1.0
_TRUSTED_SECONDS = 15.0
"""A torrent that the registry had so lately is taken to be there while the registry is asked."""

log = logging.getLogger("docket.api")

_PATH = re.compile(rf"{PATH}(?:/(?P<zone>[^/]+))?")


async def announce(request: Request) -> Response:
    """GET /announce: a peer's report; the answer names other peers and the registry's own seed.

    Below it, /announce/{zone} is for peers that say where they are.
    """
    registry = registry_of(request)
    try:
        report = Announce.parse(
            request.scope["query_string"],
            address=request.client.host if request.client else "",
            zone=request.path_params.get("zone", ""),
        )
    except InvalidAnnounce as error:
        return _bencoded(failure(str(error)))
    # seeding begins with the announce, so that the seed is there when its address is handed out
    if not await registry.threads.seed(lambda: registry.seeder.ensure_seeded(report.info_hash)):
        return _bencoded(failure("this registry has no such torrent"))
    registry.tracker.admit(report.info_hash)
    return _bencoded(_take(registry, report, server=request.scope["server"][0]))


async def scrape(request: Request) -> Response:
    """GET /scrape: how many seeds and leeches each torrent has."""
    hashes = scraped(request.scope["query_string"])
    return _bencoded(registry_of(request).tracker.scrape(hashes))


def answer_at_once(
    registry: Registry, path: str, query: bytes, *, client: str, server: str
) -> bytes | None:
    """The answer that `announce` would give, when nothing has to be waited for; else None."""
    match = _PATH.fullmatch(path)
    if not match:
        return None
    try:
        report = Announce.parse(query, address=client, zone=unquote(match["zone"] or ""))
    except InvalidAnnounce:
        return None
    age = registry.tracker.admitted_seconds(report.info_hash)
    if age is None or age > _TRUSTED_SECONDS:
        return None
    if age > _FRESH_SECONDS:
        # so that no other announce checks meanwhile
        registry.tracker.admit(report.info_hash)
        asyncio.get_running_loop().run_in_executor(None, _readmit, registry, report.info_hash)
    return _take(registry, report, server=server)


def _readmit(registry: Registry, info_hash: bytes) -> None:
    """Ask again whether the registry has the torrent, and keep it seeded."""
    has = False
    try:
        has = registry.seeder.ensure_seeded(info_hash)
    except Exception:  # the outermost edge of a thread; the next announce gets the error
        log.exception("a torrent can't be seeded")
    if not has:
        registry.tracker.dismiss(info_hash)


def _take(registry: Registry, report: Announce, *, server: str) -> bytes:
    # the address at which this peer reached us is one at which it will reach our seed
    extra = [(registry.advertise or server, registry.seeder.port)]
    return registry.tracker.announce(report, extra=extra, extra_zone=registry.zone)


def _bencoded(content: bytes) -> Response:
    return Response(content, media_type=MEDIA_TYPE)


ROUTES = [
    Route(PATH, announce),
    Route(f"{PATH}/{{zone}}", announce),
    Route("/scrape", scrape),
]
