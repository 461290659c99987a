"""Docket's calls about layers: which are held, and what those of an image unpack to."""

from __future__ import annotations

from typing import Any

import msgspec
from anyio.to_thread import run_sync
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from docket import compression
from docket.api.responses import answer_json, decoded, read_body
from docket.api.services import image_of, manifest_of, registry_of, repository_of
from docket.errors import InvalidRequest
from docket.oci import manifest
from docket.oci.digest import Digest
from docket.store import LayerBlob, Store

_MAX_DIFF_IDS = 4096


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
        raise InvalidRequest(f"more than {_MAX_DIFF_IDS} diff_ids in one question")
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
        found = image_of(store, request)
        parsed = manifest_of(found)
        known = [store.unpacked(layer.digest) for layer in parsed.layers]
        return {
            "digest": str(found.digest),
            "layers": [_layer_json(one) if one else None for one in known],
        }

    return answer_json(await run_sync(answer))


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


ROUTES = [
    Route("/v2/{name:path}/_docket/missing", missing, methods=["POST"]),
    Route("/v2/{name:path}/_docket/layers/{reference}", layers),
]
