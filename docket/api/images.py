"""Docket's list of images: every tag with its stored bytes."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import suppress
from typing import Any

from anyio.to_thread import run_sync
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from docket.api.responses import answer_json
from docket.api.services import registry_of
from docket.errors import InvalidInput, NotFound
from docket.oci import manifest
from docket.oci.digest import Digest
from docket.oci.manifest import Descriptor
from docket.store import Store, StoredManifest, Tagged


async def images(request: Request) -> Response:
    """GET all tagged images: stored bytes, and how many of them no other image has."""
    store = registry_of(request).store
    repository = request.query_params.get("name")
    rows = await run_sync(lambda: list(_rows(store, store.tagged(repository))))
    return answer_json({"images": rows})


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


ROUTES = [Route("/v2/_docket/images", images)]
