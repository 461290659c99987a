"""Docket's calls about layers: which are held, and what those of an image unpack to."""

from __future__ import annotations

from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from docket import compression
from docket.api.responses import json_response, read_json
from docket.api.services import image_of, registry_of, repository_of
from docket.oci import manifest
from docket.oci.digest import Digest
from docket.store import LayerBlob, Store
from docket.wire import ImageLayers, LayerInfo, MissingLayers, MissingLayersRequest


async def missing(request: Request) -> Response:
    """POST diff_ids: those that are held become blobs of this repository, and are pinned."""
    repository = repository_of(request)
    registry = registry_of(request)
    wanted = await read_json(request, MissingLayersRequest, limit=1 << 20)
    diff_ids = [Digest.parse(text) for text in dict.fromkeys(wanted.diff_ids)]
    mounted = await registry.threads.write(
        lambda: _mount_layers(registry.store, repository, diff_ids)
    )
    return json_response(
        MissingLayers(
            held=list(mounted.values()),
            missing=[str(diff_id) for diff_id in diff_ids if diff_id not in mounted],
        )
    )


async def layers(request: Request) -> Response:
    """GET what each layer of an image unpacks to, as far as the registry knows."""
    registry = registry_of(request)
    store = registry.store
    image = await image_of(request)

    def described() -> ImageLayers:
        stored_layers = [store.layers.get(layer.digest) for layer in image.manifest().layers]
        return ImageLayers(
            digest=str(image.digest),
            layers=[_layer_info(layer) if layer else None for layer in stored_layers],
        )

    return json_response(await registry.threads.read(described))


def _mount_layers(store: Store, repository: str, diff_ids: list[Digest]) -> dict[Digest, LayerInfo]:
    layers = store.layers.find(diff_ids)
    digests = [layer.digest for layer in layers.values()]
    mounted = store.blobs.mount_all(digests, repository=repository)
    return {
        diff_id: _layer_info(layer, store.manifests.encoder(repository, layer.digest))
        for diff_id, layer in layers.items()
        if layer.digest in mounted
    }


def _layer_info(layer: LayerBlob, encoder: str = "") -> LayerInfo:
    suffix = compression.media_suffix(layer.compression)
    return LayerInfo(
        diff_id=str(layer.diff_id),
        digest=str(layer.digest),
        size=layer.size,
        plain_size=layer.plain_size,
        media_type=f"{manifest.OCI_LAYER}{suffix}",
        encoder=encoder,
    )


ROUTES = [
    Route("/v2/{name:path}/_docket/missing", missing, methods=["POST"]),
    Route("/v2/{name:path}/_docket/layers/{reference}", layers),
]
