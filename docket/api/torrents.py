"""Docket's calls for torrents: the torrent of an image, and the piece hashes that make it."""

from __future__ import annotations

from starlette.datastructures import QueryParams
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from docket.api.middleware.forwarded import public_url
from docket.api.responses import StreamedBytes
from docket.api.services import image_of, registry_of, repository_of
from docket.api.tracker import PATH as ANNOUNCE
from docket.errors import BlobUnknown, InvalidAnnounce, UpstreamFetching
from docket.oci.digest import Digest
from docket.oci.reference import Reference
from docket.pieces import HASH_SIZE
from docket.store import StoredManifest
from docket.torrent.metainfo import File, Metainfo
from docket.torrent.tracker.admission import Admission, JoiningHost, join
from docket.torrent.zone import check_zone

TORRENT_TYPE = "application/x-bittorrent"

FETCHING_SECONDS = 8.0
"""How long a request waits for layers from an upstream, before its client has to ask again."""


async def torrent(request: Request) -> Response:
    """GET the torrent of an image, and begin to seed it."""
    url = _announce_url(request)
    stored = await _complete_image(request)
    return await registry_of(request).threads.seed(lambda: _torrent(request, stored, url))


async def pieces(request: Request) -> Response:
    """GET the piece hashes of some blobs of an image, for a host that makes its torrent; seed it.

    A host that holds most of an image has most of its torrent: to send a thousand hosts all of it
    would take more of the registry's link than the layers that changed.
    """
    url = _announce_url(request)
    stored = await _complete_image(request)
    return await registry_of(request).threads.seed(lambda: _pieces(request, stored, url))


async def friendly_torrent(request: Request) -> Response:
    """GET /torrents/<name>:<tag>.torrent: the same, by a name that people type."""
    reference = Reference.parse(request.path_params["name"])
    request.path_params.update(name=reference.repository, reference=str(reference.target))
    return await torrent(request)


def _torrent(request: Request, stored: StoredManifest, announce: str) -> Response:
    metainfo = registry_of(request).seeder.metainfo(stored, announce=announce)
    headers, _ = _joined(request, stored, metainfo)
    name = f"{repository_of(request).rpartition('/')[2]}.torrent"
    headers["Content-Disposition"] = f'attachment; filename="{name}"'
    return Response(metainfo.content, media_type=TORRENT_TYPE, headers=headers)


def _pieces(request: Request, stored: StoredManifest, announce: str) -> Response:
    texts = request.query_params.get("digests", "").split(",")
    # each once: a request may name the same digest a thousand times
    wanted = [Digest.parse(text) for text in dict.fromkeys(texts) if text]
    metainfo = registry_of(request).seeder.metainfo(stored, announce=announce)
    files = {file.digest: file for file in metainfo.files}
    for digest in wanted:
        if digest not in files:
            raise BlobUnknown(digest)
    headers, hash_peer = _joined(request, stored, metainfo)
    headers |= {
        "Docket-Info-Hash": metainfo.info_hash.hex(),
        "Docket-Piece-Length": str(metainfo.piece_length),
        "Docket-Announce": registry_of(request).seeder.tracker or _announce_path(request),
    }
    if hash_peer:
        headers["Docket-Hash-Peer"] = hash_peer
        wanted = []
    return StreamedBytes(
        [_hashes_of(metainfo, files[digest]) for digest in wanted], headers=headers
    )


def _hashes_of(metainfo: Metainfo, file: File) -> memoryview:
    start = file.first_piece * HASH_SIZE
    return memoryview(metainfo.all_hashes)[start : start + file.pieces * HASH_SIZE]


async def _complete_image(request: Request) -> StoredManifest:
    """The requested image; one of an upstream is here with all its layers, for a torrent of it.

    Raises `UpstreamFetching` while they come.
    """
    registry = registry_of(request)
    stored = await image_of(request)
    upstreams, repository = registry.upstreams, repository_of(request)
    if upstreams and upstreams.covers(repository):
        image = stored.manifest()
        is_complete = await registry.completions.wait(
            (repository, stored.digest),
            lambda: registry.threads.complete(lambda: upstreams.complete(repository, image)),
            seconds=FETCHING_SECONDS,
        )
        if not is_complete:
            raise UpstreamFetching(repository)
    return stored


def _joined(
    request: Request, stored: StoredManifest, metainfo: Metainfo
) -> tuple[dict[str, str], str]:
    """Seed the torrent from now on; headers about it, and the host that sends the hashes."""
    registry = registry_of(request)
    registry.seeder.seed(stored)
    admission = _admitted(request, metainfo.info_hash)
    is_gateway = registry.seeder.tracker is not None or admission.is_gateway
    headers = {
        "Docker-Content-Digest": str(stored.digest),
        "Docket-Gateway": "yes" if is_gateway else "no",
    }
    return headers, admission.hash_peer


def _admitted(request: Request, info_hash: bytes) -> Admission:
    """How this client joins the swarm; one whose address is unknown may be a gateway."""
    registry = registry_of(request)
    query = request.query_params if request.method == "GET" else QueryParams()
    try:
        host = JoiningHost.parse(
            request.client.host if request.client else "",
            registry_address=registry.advertise or request.scope["server"][0],
            registry_zone=registry.zone,
            zone=request.query_params.get("zone", ""),
            token=query.get("join_token", ""),
            hash_port=query.get("port", ""),
            failed_peer=query.get("failed_peer", ""),
        )
    except InvalidAnnounce:
        return Admission(is_gateway=bool(query.get("join_token")))
    return join(registry.tracker, registry.hash_peers, info_hash, host)


def _announce_url(request: Request) -> str:
    """The tracker's address, as this client spells the registry's, for peers of its ?zone=."""
    return f"{public_url(request.scope)}{_announce_path(request)}"


def _announce_path(request: Request) -> str:
    """The path of the registry's own tracker: only a host knows where it reaches the registry."""
    zone = request.query_params.get("zone")
    return f"{ANNOUNCE}/{check_zone(zone)}" if zone else ANNOUNCE


ROUTES = [
    Route("/torrents/{name:path}.torrent", friendly_torrent),
    Route("/v2/{name:path}/_docket/torrent/{reference}", torrent),
    Route("/v2/{name:path}/_docket/pieces/{reference}", pieces),
]
