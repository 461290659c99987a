"""Pulling an image: find out what is missing here, fetch only that, hand it to the engine."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from threading import Event
from typing import BinaryIO, Protocol, cast

from docket.archive import LoadLayer, load_archive, load_manifest
from docket.config import PEER_TIMEOUT
from docket.decompression import PlainReader
from docket.errors import InvalidManifest, NotFound, RegistryRefused
from docket.oci import manifest
from docket.oci.digest import READ_SIZE, Digest
from docket.oci.manifest import Descriptor, Platform
from docket.oci.reference import Reference
from docket.progress import ENGINE, HELD, MISSING, LayerProgress, Progress
from docket.rate_limit import RateLimiter
from docket.remote.client import Client
from docket.remote.values import RemoteManifest
from docket.store import Store
from docket.store.blobs.ingest import Unpacked
from docket.torrent.peer.block_counts import BlockCount
from docket.torrent.peer.swarm import Swarm
from docket.transfer.fetch import Fetch, Fetched
from docket.transfer.metainfo import FetchRequest

Loaded = Callable[[], Mapping[Digest, Sequence[Digest]]]


class Engine(Protocol):
    """What a pull asks of the container engine."""

    def held_prefix(self, diff_ids: Sequence[Digest], loaded: Loaded, /) -> int: ...
    def load(self, blocks: Iterator[bytes], /) -> object: ...


@dataclass(frozen=True, slots=True)
class Resolved:
    """An image as the registry has it, for one platform.

    *trip_seconds* is how long a message takes to the registry and back.
    """

    reference: Reference
    digest: Digest
    media_type: str
    content: bytes
    config: bytes
    parsed: manifest.Manifest
    diff_ids: tuple[Digest, ...]
    unpacked: dict[Digest, Unpacked]
    trip_seconds: float = 0.0

    @property
    def layers(self) -> tuple[Descriptor, ...]:
        """The layers, base first, as often as the image lists them."""
        return self.parsed.layers


@dataclass(frozen=True, slots=True)
class LayerPlan:
    """Where a layer will come from: ``engine``, ``held`` or ``missing``; *size* in bytes."""

    descriptor: Descriptor
    diff_id: Digest
    place: str


@dataclass(frozen=True, slots=True)
class PulledLayer:
    """What became of a layer: *source* is ``held``, ``swarm`` or ``http``; *seconds* to verified.

    A layer that the engine has is held too, wherever it lies. *blocks* splits what came from the
    swarm, when that was asked for.
    """

    digest: Digest
    diff_id: Digest
    size: int
    source: str
    seconds: float = 0.0
    blocks: BlockCount | None = None


@dataclass(slots=True)
class PullReport:
    """A pull; payload bytes are those of layers, from peers and from the registry over HTTP."""

    reference: Reference
    digest: Digest
    config: Digest
    layers: tuple[PulledLayer, ...]
    swarm_bytes: int = 0
    http_bytes: int = 0
    loaded_layers: int = 0
    seconds: dict[str, float] = field(default_factory=dict)
    info_hash: bytes | None = None


def resolve(client: Client, reference: Reference, platform: Platform) -> Resolved:
    """Manifest and config of *reference*, checked. Raises `ManifestUnknown`, `InvalidManifest`."""
    # before all else: later, layers on their way to hosts may be in front of it
    trip_seconds = client.trip_seconds()
    found = client.image_manifest(reference, platform)
    parsed = _image_of(found, reference)
    config = client.read_blob(reference.repository, parsed.config)
    diff_ids = manifest.parse_config(config).diff_ids
    if len(diff_ids) != len(parsed.layers):
        raise InvalidManifest(
            f"{reference} has {len(parsed.layers)} layers but {len(diff_ids)} diff_ids"
        )
    return Resolved(
        reference=reference,
        digest=found.digest,
        media_type=found.media_type,
        content=found.content,
        config=config,
        parsed=parsed,
        diff_ids=diff_ids,
        unpacked=_unpacked(client, Reference(reference.repository, found.digest), diff_ids),
        trip_seconds=trip_seconds,
    )


def held_prefix(image: Resolved, store: Store, engine: Engine) -> int:
    """How many of the image's first layers the engine has."""
    return engine.held_prefix(image.diff_ids, lambda: _loaded(store))


def plan(image: Resolved, store: Store, *, engine: Engine | None) -> list[LayerPlan]:
    """Where each layer would come from, if it were pulled now."""
    prefix = held_prefix(image, store, engine) if engine else 0
    rows = []
    for number, (layer, diff_id) in enumerate(zip(image.layers, image.diff_ids, strict=True)):
        place = HELD if store.blobs.has(layer.digest) else MISSING
        rows.append(LayerPlan(layer, diff_id, ENGINE if number < prefix else place))
    return rows


def pull(
    client: Client,
    store: Store,
    image: Resolved,
    *,
    engine: Engine | None,
    swarm: Callable[[], Swarm] | None,
    progress: Progress,
    patience: float = PEER_TIMEOUT,
    zone: str = "",
    pace: RateLimiter | None = None,
    cancelled: Event | None = None,
) -> PullReport:
    """Bring all layers of *image* into *store*, but those that *engine* has at its base.

    Returning means that they are verified and durable and that the store knows the image by its
    tag. *swarm* makes the BitTorrent session, when there is something to fetch; None: HTTP only.
    *zone* is the label that the tracker is told.
    *pace* is that of layers over HTTP.
    """
    began = time.monotonic()
    rows = plan(image, store, engine=engine)
    for row in rows:
        if row.place != MISSING:
            _report_held(progress, row)
    image_to_fetch = to_fetch(image, store, rows)
    fetched = Fetched()
    if image_to_fetch.wanted:
        fetched = Fetch(
            client,
            store,
            image_to_fetch,
            swarm=swarm,
            progress=progress,
            patience=patience,
            zone=zone,
            pace=pace,
            cancelled=cancelled,
        ).run()
    _tag_locally(store, image)
    return PullReport(
        reference=image.reference,
        digest=image.digest,
        config=image.parsed.config.digest,
        layers=tuple(_pulled(row, fetched) for row in rows),
        swarm_bytes=fetched.swarm_bytes,
        http_bytes=fetched.http_bytes,
        seconds={"fetch": time.monotonic() - began, "verify": fetched.verifying},
        info_hash=fetched.info_hash,
    )


def to_fetch(image: Resolved, store: Store, rows: Sequence[LayerPlan]) -> FetchRequest:
    """What a plan of *image* leaves to be fetched; its config and manifest are in *store* then."""
    _store_manifest_and_config(store, image)
    held = [row.descriptor.digest for row in rows if store.blobs.has(row.descriptor.digest)]
    wanted = {row.descriptor.digest: row.descriptor for row in rows if row.place == MISSING}
    return FetchRequest(
        reference=image.reference,
        digest=image.digest,
        media_type=image.media_type,
        size=len(image.content),
        blobs=(image.parsed.config, *image.layers),
        held=[image.digest, image.parsed.config.digest, *dict.fromkeys(held)],
        wanted=list(wanted.values()),
        unpacked=image.unpacked,
        trip_seconds=image.trip_seconds,
    )


def load_stream(
    image: Resolved, store: Store, *, names: Sequence[str], leave_out: int = 0
) -> Iterator[bytes]:
    """The image as an archive that every engine loads, without its first *leave_out* layers.

    Reads the store as it goes; each layer's diff_id is checked before its last byte is given out.
    """
    layers = [
        LoadLayer(diff_id, *_plain(image, store, layer, open_it=number >= leave_out))
        for number, (layer, diff_id) in enumerate(zip(image.layers, image.diff_ids, strict=True))
    ]
    return load_archive(image.config, layers, names)


def _loaded(store: Store) -> dict[Digest, tuple[Digest, ...]]:
    """What the images of this host's store are called in an engine that docket loaded them into.

    An engine that names images by their manifest has docket's own archive of one exactly when the
    digest of that archive's manifest is among its images.
    """
    loaded: dict[Digest, tuple[Digest, ...]] = {}
    for tagged in store.manifests.tagged():
        found = store.manifests.get(tagged.repository, tagged.digest)
        parsed = manifest.parse(found.content, content_type=found.media_type)
        if not isinstance(parsed, manifest.Manifest):
            continue
        config = store.blobs.read(parsed.config.digest)
        diff_ids = manifest.parse_config(config).diff_ids
        known = [store.layers.get(layer.digest) for layer in parsed.layers]
        if all(known):
            layers = [LoadLayer(one.diff_id, one.plain_size, None) for one in known if one]
            loaded[Digest.of(load_manifest(config, layers))] = diff_ids
    return loaded


def _image_of(found: RemoteManifest, reference: Reference) -> manifest.Manifest:
    parsed = manifest.parse(found.content, content_type=found.media_type)
    if not isinstance(parsed, manifest.Manifest) or not parsed.is_image:
        raise InvalidManifest(f"{reference} is not a container image")
    return parsed


def _unpacked(
    client: Client, reference: Reference, diff_ids: Sequence[Digest]
) -> dict[Digest, Unpacked]:
    """What the registry knows of the plain layers; nothing, when it isn't a docket."""
    try:
        layers = client.layers(reference, count=len(diff_ids))
    except (NotFound, RegistryRefused):
        return {}
    return {
        layer.descriptor.digest: Unpacked(
            layer.diff_id,
            layer.plain_size,
            layer.descriptor.media_type.removeprefix(manifest.OCI_LAYER).removeprefix("+"),
        )
        for layer, diff_id in zip(layers, diff_ids, strict=False)
        if layer and layer.diff_id == diff_id
    }


def _store_manifest_and_config(store: Store, image: Resolved) -> None:
    """Config and manifest into the store, before any layer: they are part of the torrent."""
    store.blobs.put(image.config, repository=image.reference.repository)
    store.blobs.put(image.content)


def _tag_locally(store: Store, image: Resolved) -> None:
    """Tag the image here, so that this host's gc keeps its layers."""
    repository = image.reference.repository
    children = {child.digest for child in image.parsed.children}
    mounted = store.blobs.mount_all(children, repository=repository)
    store.manifests.put(
        repository,
        image.content,
        image.parsed,
        tags=[tag] if (tag := image.reference.given_tag) else [],
        complete=mounted == children,
    )


def _plain(
    image: Resolved, store: Store, layer: Descriptor, *, open_it: bool
) -> tuple[int, Callable[[], BinaryIO] | None]:
    """The size of the plain layer, and how to open it."""

    def open_plain() -> BinaryIO:
        file = store.blobs.open(layer.digest).detach()
        return cast(BinaryIO, PlainReader(file, owns=True))

    if known := store.layers.get(layer.digest):
        size = known.plain_size
    elif told := image.unpacked.get(layer.digest):
        size = told.size
    elif store.blobs.has(layer.digest):
        with open_plain() as plain:
            size = sum(len(block) for block in iter(lambda: plain.read(READ_SIZE), b""))
    else:
        size = 0  # left out, and no docket tells: engines with layer chains don't look at it
    return size, open_plain if open_it else None


def _pulled(row: LayerPlan, fetched: Fetched) -> PulledLayer:
    digest = row.descriptor.digest
    source = fetched.sources.get(digest, HELD)
    seconds = fetched.seconds.get(digest, 0.0)
    return PulledLayer(
        digest, row.diff_id, row.descriptor.size, source, seconds, fetched.blocks.get(digest)
    )


def _report_held(progress: Progress, row: LayerPlan) -> None:
    size = row.descriptor.size
    progress.layer(LayerProgress(row.descriptor.digest.short, HELD, size, size))
