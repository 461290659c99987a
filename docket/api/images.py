"""Docket's own calls: layers by diff_id, images with their sizes, torrents, gc.

Paths follow the OCI extension convention, ``/v2/<name>/_docket/…``.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from contextlib import suppress
from typing import Any

import msgspec
from anyio.to_thread import run_sync
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from docket import compression
from docket.api.responses import answer_json, decoded, read_body
from docket.api.services import registry_of, repository_of
from docket.api.tracker import PATH as ANNOUNCE
from docket.errors import (
    BlobUnknown,
    InvalidAnnounce,
    InvalidInput,
    InvalidManifest,
    NotFound,
)
from docket.oci import manifest
from docket.oci.digest import Digest
from docket.oci.manifest import Descriptor, Platform
from docket.oci.reference import Reference, parse_target
from docket.store import LayerBlob, Store, StoredManifest, Tagged
from docket.torrent.metainfo import Metainfo
from docket.torrent.tracker.announce import check_zone, compact, zone_of

_MAX_DIFF_IDS = 4096
_MAX_TOKEN = 64
_PORT = re.compile(r"[1-9]\d{0,4}")

TORRENT_TYPE = "application/x-bittorrent"
PIECES_TYPE = "application/octet-stream"


class MissingLayersRequest(msgspec.Struct):
    """Which of these diff_ids does the registry lack?"""

    diff_ids: list[str]


async def missing(request: Request) -> Response:
    """POST diff_ids: those that are held become blobs of this repository, and are pinned."""
    repository = repository_of(request)
    store = registry_of(request).store
    question = decoded(
        await read_body(request, limit=1 << 20, what="the question"), MissingLayersRequest
    )
    if len(question.diff_ids) > _MAX_DIFF_IDS:
        raise InvalidManifest(f"more than {_MAX_DIFF_IDS} diff_ids in one question")
    diff_ids = [Digest.parse(text) for text in question.diff_ids]
    held = await run_sync(lambda: _mount_layers(store, repository, diff_ids))
    return answer_json(
        {
            "held": [_layer_json(one) for one in held.values()],
            "missing": [str(one) for one in dict.fromkeys(diff_ids) if one not in held],
        }
    )


async def layers(request: Request) -> Response:
    """GET what each layer of an image unpacks to, as far as the registry knows."""
    store = registry_of(request).store

    def answer() -> dict[str, Any]:
        found = _image(store, request)
        parsed = _manifest_of(found)
        known = [store.unpacked(layer.digest) for layer in parsed.layers]
        return {
            "digest": str(found.digest),
            "layers": [_layer_json(one) if one else None for one in known],
        }

    return answer_json(await run_sync(answer))


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


async def images(request: Request) -> Response:
    """GET all tagged images: stored bytes, and how many of them no other image has."""
    store = registry_of(request).store
    repository = request.query_params.get("name")
    rows = await run_sync(lambda: list(_rows(store, store.tagged(repository))))
    return answer_json({"images": rows})


def _mount_layers(store: Store, repository: str, diff_ids: list[Digest]) -> dict[Digest, LayerBlob]:
    held = store.layers(diff_ids)
    return {
        diff_id: one
        for diff_id, one in held.items()
        if store.mount(one.digest, repository=repository)
    }


def _layer_json(layer: LayerBlob) -> dict[str, Any]:
    suffix = compression.media_suffix(layer.compression)
    return {
        "diff_id": str(layer.diff_id),
        "digest": str(layer.digest),
        "size": layer.size,
        "plain_size": layer.plain_size,
        "media_type": f"{manifest.OCI_LAYER}{suffix}",
        "encoder": layer.encoder,
    }


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
    found = _image(registry.store, request)
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


def _image(store: Store, request: Request) -> StoredManifest:
    """The image manifest of the path's reference; of an index, the one for ``?platform=``."""
    repository = repository_of(request)
    found = store.manifest(repository, parse_target(request.path_params["reference"]))
    parsed = manifest.parse(found.content, content_type=found.media_type)
    if isinstance(parsed, manifest.Index):
        text = request.query_params.get("platform")
        wanted = Platform.parse(text) if text else Platform.of_host()
        found = store.manifest(repository, parsed.choose(wanted).digest)
    return found


def _manifest_of(found: StoredManifest) -> manifest.Manifest:
    parsed = manifest.parse(found.content, content_type=found.media_type)
    if not isinstance(parsed, manifest.Manifest):
        raise InvalidManifest("an index within an index has no layers")
    return parsed


def _rows(store: Store, tagged: list[Tagged]) -> Iterator[dict[str, Any]]:
    """A row a tag; an image that goes away meanwhile is left out."""
    for one in tagged:
        with suppress(NotFound):
            yield _row(store, one)


def _children(store: Store, repository: str, index: manifest.Index) -> Iterator[StoredManifest]:
    """The manifests of an index, but those that were deleted."""
    for one in index.manifests:
        with suppress(NotFound):
            yield store.manifest(repository, one.digest)


def _row(store: Store, tagged: Tagged) -> dict[str, Any]:
    repository = tagged.repository
    found = store.manifest(repository, tagged.digest)
    parsed = manifest.parse(found.content, content_type=found.media_type)
    members = [found]
    platforms: list[str] = []
    if isinstance(parsed, manifest.Index):
        platforms = [str(one.platform) for one in parsed.manifests if one.platform]
        members = list(_children(store, repository, parsed))
    sizes: dict[Digest, int] = {}
    unique: dict[Digest, int] = {}
    layers = 0
    for member in members:
        inner = manifest.parse(member.content, content_type=member.media_type)
        if isinstance(inner, manifest.Index):
            continue
        layers = max(layers, len(inner.layers))
        for child in inner.children:
            sizes[child.digest] = child.size
            if not store.is_shared(child.digest, member.digest):
                unique[child.digest] = child.size
        if not platforms and inner.is_image:
            platforms = _platforms(store, inner.config)
    return {
        "name": repository,
        "tag": tagged.tag,
        "digest": str(tagged.digest),
        "media_type": found.media_type,
        "platforms": platforms,
        "layers": layers,
        "size": sum(sizes.values()),
        "unique": sum(unique.values()),
        "shared": sum(sizes.values()) - sum(unique.values()),
        "tagged": tagged.moved,
    }


def _platforms(store: Store, described: Descriptor) -> list[str]:
    """The platform that an image's config tells; none when it is no such config."""
    if described.size > manifest.MAX_MANIFEST:
        return []
    try:
        config = manifest.parse_config(store.read(described.digest))
    except InvalidInput:
        return []
    return [str(config.platform)] if config.platform else []


ROUTES = [
    Route("/torrents/{name:path}.torrent", friendly_torrent),
    Route("/v2/_docket/images", images),
    Route("/v2/{name:path}/_docket/missing", missing, methods=["POST"]),
    Route("/v2/{name:path}/_docket/layers/{reference}", layers),
    Route("/v2/{name:path}/_docket/torrent/{reference}", torrent),
    Route("/v2/{name:path}/_docket/pieces/{reference}", pieces),
]
