"""What a pull of an image would take from where: the engine, this host's store, or the network."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable, Mapping, Sequence
from contextlib import closing, suppress
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Protocol

from docket.archive import LoadLayer, load_manifest
from docket.errors import InvalidManifest, LayerElsewhere, NotFound
from docket.oci.digest import Digest
from docket.oci.manifest import Descriptor, Manifest, Platform, parse_config
from docket.oci.reference import Reference
from docket.progress import ENGINE, HELD, MISSING
from docket.remote.client import Client
from docket.store import Store
from docket.transfer.resolve import ResolvedImage, resolve

if TYPE_CHECKING:
    from docket.engine import Engine

LoadedImages = Callable[[], Mapping[Digest, Sequence[Digest]]]
"""Images that docket loaded: the engine's ids for them, with the diff_ids of their layers."""


class EngineLayers(Protocol):
    """What a plan needs to know of the container engine."""

    def held_prefix(self, diff_ids: Sequence[Digest], loaded: LoadedImages, /) -> int: ...


@dataclass(frozen=True, slots=True)
class LayerPlan:
    """Where a layer will come from: *source* is ``engine``, ``held`` or ``missing``."""

    descriptor: Descriptor
    diff_id: Digest
    source: str


@dataclass(frozen=True, slots=True)
class FetchRequest:
    """An image, and the layers of it that are *wanted* from the network.

    *held* is what the store has of its blobs, the manifest first. It *expects_others* where other
    hosts begin to fetch the image at this moment.
    """

    image: ResolvedImage
    held: Sequence[Digest]
    wanted: Sequence[Descriptor]
    expects_others: bool = False


def plan_layers(
    image: ResolvedImage, store: Store, *, engine: EngineLayers | None
) -> list[LayerPlan]:
    """Where each layer would come from, if it were pulled now."""
    prefix = held_prefix(image, store, engine) if engine else 0
    plans = []
    for number, (layer, diff_id) in enumerate(zip(image.layers, image.diff_ids, strict=True)):
        source = HELD if store.blobs.has(layer.digest) else MISSING
        plans.append(LayerPlan(layer, diff_id, ENGINE if number < prefix else source))
    return plans


def plan_image(
    client: Client,
    store: Store,
    reference: Reference,
    platform: Platform,
    *,
    ask_engine: bool,
    variables: Mapping[str, str] = os.environ,
) -> tuple[ResolvedImage, list[LayerPlan]]:
    """Where each layer of an image would come from; *variables* say where the engine is."""
    image = resolve(client, reference, platform)
    if not ask_engine:
        return image, plan_layers(image, store, engine=None)
    with closing(connect_engine(variables)) as engine:
        return image, plan_layers(image, store, engine=engine)


def plan_report(image: ResolvedImage, plans: Sequence[LayerPlan]) -> dict[str, Any]:
    """A plan as ``docket plan --json`` prints it; sizes in bytes."""
    sizes = {plan.descriptor.digest: plan.descriptor.size for plan in plans}
    missing = {plan.descriptor.digest for plan in plans if plan.source == MISSING}
    return {
        "name": str(image.reference),
        "digest": str(image.digest),
        "size": sum(sizes.values()),
        "to_move": sum(sizes[digest] for digest in missing),
        "layers": [
            {
                "digest": str(plan.descriptor.digest),
                "diff_id": str(plan.diff_id),
                "size": plan.descriptor.size,
                "source": plan.source,
            }
            for plan in plans
        ],
    }


def connect_engine(variables: Mapping[str, str] = os.environ) -> Engine:
    """The container engine of this host, as *variables* say. Raises `EngineUnreachable`."""
    # docker's package is a tenth of a pull's start, and --layers-only has no use for it
    from docket.engine import Engine

    return Engine.connect(variables=variables)


def held_prefix(image: ResolvedImage, store: Store, engine: EngineLayers) -> int:
    """How many of the image's first layers the engine has."""
    return engine.held_prefix(image.diff_ids, lambda: _loaded_images(store))


def fetch_request(
    client: Client, image: ResolvedImage, store: Store, plans: Iterable[LayerPlan]
) -> FetchRequest:
    """What *plans* leave to be fetched. Raises `LayerElsewhere`."""
    in_store = [plan.descriptor.digest for plan in plans if store.blobs.has(plan.descriptor.digest)]
    wanted = {plan.descriptor.digest: plan.descriptor for plan in plans if plan.source == MISSING}
    for layer in wanted.values():
        _check_is_in_registry(client, image, layer)
    return FetchRequest(
        image=image,
        held=[image.digest, image.config_descriptor.digest, *dict.fromkeys(in_store)],
        wanted=list(wanted.values()),
    )


def _check_is_in_registry(client: Client, image: ResolvedImage, layer: Descriptor) -> None:
    """A registry needs not have layers that may not be redistributed, such as those of Windows."""
    if layer.distributable and not layer.urls:
        return
    if client.blob_size(image.reference.repository, layer.digest) is None:
        raise LayerElsewhere(image.reference, layer.digest, layer.urls)


def _loaded_images(store: Store) -> dict[Digest, tuple[Digest, ...]]:
    """The ids of this host's images in an engine that docket loaded them into.

    An engine that names images by their manifest has docket's own archive of one exactly when the
    digest of that archive's manifest is among its images.
    """
    loaded: dict[Digest, tuple[Digest, ...]] = {}
    for tagged in store.manifests.tagged():
        # a damaged image of the store is no reason not to pull another
        with suppress(NotFound, InvalidManifest):
            stored = store.manifests.get(tagged.repository, tagged.digest)
            if isinstance(stored.parsed, Manifest):
                loaded |= _loaded_as(store, stored.parsed)
    return loaded


def _loaded_as(store: Store, image: Manifest) -> dict[Digest, tuple[Digest, ...]]:
    """The engine's id of an image, with its diff_ids; nothing if a layer of it is unknown here."""
    layers = [store.layers.get(layer.digest) for layer in image.layers]
    if not all(layers):
        return {}
    config = store.blobs.read(image.config.digest)
    members = [LoadLayer(layer.diff_id, layer.plain_size, None) for layer in layers if layer]
    return {Digest.of(load_manifest(config, members)): parse_config(config).diff_ids}
