"""The embedded tracker over HTTP (BEP 3, 7, 23, 48), for the registry's own torrents alone."""

from __future__ import annotations

from anyio.to_thread import run_sync
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from docket.api.registry import Registry, registry_of
from docket.errors import InvalidAnnounce
from docket.torrent.tracker import Announce, failure, scraped


async def announce(request: Request) -> Response:
    """GET /announce: a peer's report; the answer names other peers and the registry's own seed."""
    registry = registry_of(request)
    address = request.client.host if request.client else ""
    try:
        report = Announce.parse(request.scope["query_string"], address=address)
    except InvalidAnnounce as error:
        return _bencoded(failure(str(error)))
    # seeding begins with the question, so that the seed is there when its address is handed out
    if not await run_sync(registry.seeder.want, report.info_hash):
        return _bencoded(failure("this registry has no such torrent"))
    extra = [(_own_address(request, registry), registry.seeder.port)]
    return _bencoded(registry.tracker.announce(report, extra=extra))


async def scrape(request: Request) -> Response:
    """GET /scrape: how many seeds and leeches each torrent has."""
    hashes = scraped(request.scope["query_string"])
    return _bencoded(registry_of(request).tracker.scrape(hashes))


def _own_address(request: Request, registry: Registry) -> str:
    """The address at which this peer reached us is one at which it will reach our seed."""
    if registry.advertise:
        return registry.advertise
    server: tuple[str, int] = request.scope["server"]
    return server[0]


def _bencoded(content: bytes) -> Response:
    return Response(content, media_type="text/plain")


ROUTES = [Route("/announce", announce), Route("/scrape", scrape)]
