"""Docket's calls for torrents: the torrent of an image, and the piece hashes that make it."""

from __future__ import annotations

import re
from contextlib import suppress

from anyio.to_thread import run_sync
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from docket.api.services import image_of, registry_of, repository_of
from docket.api.tracker import PATH as ANNOUNCE
from docket.errors import BlobUnknown, InvalidAnnounce
from docket.oci.digest import Digest
from docket.oci.reference import Reference
from docket.store import StoredManifest
from docket.torrent.metainfo import Metainfo
from docket.torrent.zone import check_zone, compact, zone_of

_MAX_TOKEN = 64
_PORT = re.compile(r"[1-9][0-9]{0,4}")

TORRENT_TYPE = "application/x-bittorrent"
PIECES_TYPE = "application/octet-stream"


async def torrent(request: Request) -> Response:
    """GET the torrent of an image, and begin to seed it."""
    return await run_sync(_torrent, request, _announce_url(request))


async def pieces(request: Request) -> Response:
    """GET the piece hashes of some blobs of an image, for who makes its torrent; seed it.

    A host that holds most of an image has most of its torrent: to send a thousand hosts all of it
    would take more of the registry's link than the layers that changed.
    """
    return await run_sync(_pieces, request, _announce_url(request))


async def friendly_torrent(request: Request) -> Response:
    """GET /torrents/<name>:<tag>.torrent: the same, by a name that people type."""
    reference = Reference.parse(request.path_params["name"])
    request.path_params.update(name=reference.repository, reference=str(reference.target))
    return await torrent(request)


def _torrent(request: Request, announce: str) -> Response:
    found, metainfo = _asked_for(request, announce)
    headers = _joined(request, found, metainfo)
    name = f"{repository_of(request).rpartition('/')[2]}.torrent"
    headers["Content-Disposition"] = f'attachment; filename="{name}"'
    return Response(metainfo.content, media_type=TORRENT_TYPE, headers=headers)


def _pieces(request: Request, announce: str) -> Response:
    wanted = [
        Digest.parse(one) for one in request.query_params.get("digests", "").split(",") if one
    ]
    found, metainfo = _asked_for(request, announce)
    files = {file.digest: file for file in metainfo.files}
    for digest in wanted:
        if digest not in files:
            raise BlobUnknown(digest)
    headers = _joined(request, found, metainfo) | {
        "Docket-Info-Hash": metainfo.info_hash.hex(),
        "Docket-Piece-Length": str(metainfo.piece_length),
        "Docket-Announce": metainfo.announce,
    }
    hashes = b"".join(metainfo.hashes(files[digest]) for digest in wanted)
    if teller := _teller(
        request, metainfo.info_hash, is_gateway=headers["Docket-Gateway"] == "yes"
    ):
        headers["Docket-Hash-Peer"] = teller
        hashes = b""
    return Response(hashes, media_type=PIECES_TYPE, headers=headers)


def _teller(request: Request, info_hash: bytes, *, is_gateway: bool) -> str:
    """The host that is to tell this one, which will tell others; empty when the registry does.

    Gateways are told by the registry: the sooner they begin, the sooner pieces leave it.
    """
    client = request.client.host if request.client else ""
    with suppress(InvalidAnnounce):
        zone = zone_of(compact(client, 0), request.query_params.get("zone", ""))
        hash_peers = registry_of(request).hash_peers
        if silent := request.query_params.get("failed_peer"):
            hash_peers.remove(info_hash, zone, silent)
        port = request.query_params.get("port", "")
        if request.method == "GET" and _PORT.fullmatch(port) and int(port) < 1 << 16:
            teller = "" if is_gateway else hash_peers.choose(info_hash, zone)
            hash_peers.add(
                info_hash, zone, f"[{client}]:{port}" if ":" in client else f"{client}:{port}"
            )
            return teller
    return ""


def _asked_for(request: Request, announce: str) -> tuple[StoredManifest, Metainfo]:
    registry = registry_of(request)
    found = image_of(registry.store, request)
    return found, registry.seeder.metainfo(found, announce=announce)


def _joined(request: Request, found: StoredManifest, metainfo: Metainfo) -> dict[str, str]:
    """Seed the torrent from now on; what is said beside it."""
    registry = registry_of(request)
    registry.seeder.seed(found)
    is_gateway = registry.seeder.tracker is not None or _invite(request, metainfo.info_hash)
    return {
        "Docker-Content-Digest": str(found.digest),
        "Docket-Gateway": "yes" if is_gateway else "no",
    }


def _invite(request: Request, info_hash: bytes) -> bool:
    """Whether this client is to be one of the hosts that ask the registry's seed.

    Who only looks is not: it would take the place of one that comes.
    """
    registry = registry_of(request)
    client = request.client.host if request.client else ""
    token = request.query_params.get("join_token", "")[:_MAX_TOKEN]
    if not token or request.method != "GET":
        return False
    try:
        zone = zone_of(compact(client, 0), request.query_params.get("zone", ""))
        own = zone_of(compact(registry.advertise or request.scope["server"][0], 0), registry.zone)
    except InvalidAnnounce:
        return True
    return registry.tracker.invite(info_hash, zone, token=token, in_registry_zone=zone == own)


def _announce_url(request: Request) -> str:
    """The tracker's address, as this client spells the registry's, for peers of its ?zone=."""
    url = f"{request.url.scheme}://{request.url.netloc}{ANNOUNCE}"
    zone = request.query_params.get("zone")
    return f"{url}/{check_zone(zone)}" if zone else url


ROUTES = [
    Route("/torrents/{name:path}.torrent", friendly_torrent),
    Route("/v2/{name:path}/_docket/torrent/{reference}", torrent),
    Route("/v2/{name:path}/_docket/pieces/{reference}", pieces),
]
