"""Pulling an image: find what is missing here, fetch only that, hand it to the engine."""

from __future__ import annotations

import enum
import time
from collections.abc import Callable, Sequence
from contextlib import ExitStack, closing, suppress
from dataclasses import dataclass, field
from threading import Event
from typing import Any

from docket.oci.digest import Digest
from docket.oci.manifest import Platform
from docket.oci.reference import Reference
from docket.progress import HELD, MISSING, LayerProgress, Progress
from docket.remote.client import Client
from docket.store import Store
from docket.torrent.peer.block_counts import BlockCount
from docket.transfer.fetch import Fetch, Fetched
from docket.transfer.load import LoadingEngine, load_into_engine, write_archive
from docket.transfer.options import TransferOptions
from docket.transfer.output import check_output
from docket.transfer.plan import LayerPlan, connect_engine, fetch_request, plan_layers
from docket.transfer.resolve import ResolvedImage, resolve


class Target(enum.Enum):
    """Where a pulled image goes."""

    ENGINE = "engine"
    STORE = "store"
    ARCHIVE = "archive"

    @classmethod
    def of(cls, *, layers_only: bool, output: str | None) -> Target:
        """The target that these options mean."""
        if layers_only:
            return cls.STORE
        return cls.ENGINE if output is None else cls.ARCHIVE


@dataclass(frozen=True, slots=True)
class PullRequest:
    """What to pull and where to; *output* is the archive's place, for `Target.ARCHIVE`.

    Afterwards the image is served to other hosts for *seed_for* seconds.
    """

    reference: Reference
    platform: Platform
    target: Target
    output: str = ""
    seed_for: float = 0.0
    options: TransferOptions = field(default_factory=TransferOptions)


@dataclass(frozen=True, slots=True)
class PulledLayer:
    """What became of a layer: *source* is ``held``, ``swarm`` or ``http``; *seconds* to verified.

    A layer that the engine has is held too. *blocks* splits what came from the swarm, if that was
    counted.
    """

    digest: Digest
    diff_id: Digest
    size: int
    source: str
    seconds: float = 0.0
    blocks: BlockCount | None = None


@dataclass(frozen=True, slots=True)
class PullReport:
    """A pull; payload bytes are those of layers, from peers and from the registry over HTTP.

    *seconds* has what ``fetch``, ``verify`` (a part of fetch) and ``load`` took.
    """

    reference: Reference
    digest: Digest
    config: Digest
    layers: tuple[PulledLayer, ...]
    swarm_bytes: int
    http_bytes: int
    loaded_layers: int
    seconds: dict[str, float]

    def to_json(self) -> dict[str, Any]:
        """The report as ``docket pull --json`` prints it."""
        return {
            "name": str(self.reference),
            "digest": str(self.digest),
            "config": str(self.config),
            "payload": {"swarm": self.swarm_bytes, "http": self.http_bytes},
            "loaded_layers": self.loaded_layers,
            "seconds": {name: round(value, 3) for name, value in self.seconds.items()},
            "layers": [_layer_to_json(layer) for layer in self.layers],
        }


def pull(
    client: Client,
    open_store: Callable[[], Store],
    request: PullRequest,
    *,
    progress: Progress,
    on_done: Callable[[PullReport], None] = lambda _report: None,
) -> PullReport:
    """Pull the image, load or write it, report it to *on_done*, then seed it as long as requested.

    Returning means that its layers are verified and durable, that the store knows it by its tag,
    and that the engine or the archive has it whole. What an error or Ctrl-C leaves in the store is
    used by the next pull.
    """
    with ExitStack() as stack:
        engine = None
        if request.target is Target.ENGINE:
            engine = stack.enter_context(closing(connect_engine()))
        elif request.target is Target.ARCHIVE:
            check_output(request.output)
        image = resolve(client, request.reference, request.platform)
        store = open_store()
        with store:
            download = stack.enter_context(store.downloads.open(image.digest))
            fetch = stack.enter_context(closing(Fetch(client, store, request.options, progress)))
            began = time.monotonic()
            plans = plan_layers(image, store, engine=engine)
            report_held(progress, plans)
            wanted = fetch_request(client, image, store, plans)
            store_small_blobs(store, image)
            fetched = fetch.run(wanted, download)
            tag_locally(store, image)
            fetch_seconds = time.monotonic() - began
            loaded = _deliver(image, store, request, engine)
        load_seconds = time.monotonic() - began - fetch_seconds
        report = PullReport(
            reference=image.reference,
            digest=image.digest,
            config=image.config_descriptor.digest,
            layers=tuple(pulled_layer(plan, fetched) for plan in plans),
            swarm_bytes=fetched.swarm_bytes,
            http_bytes=fetched.http_bytes,
            loaded_layers=loaded,
            seconds={"fetch": fetch_seconds, "verify": fetched.verifying, "load": load_seconds},
        )
        on_done(report)
        # other commands may use the store now; the swarm needs only its hard links
        if request.seed_for and fetch.is_seeding:
            _seed(request.seed_for, progress)
    return report


def report_held(progress: Progress, plans: Sequence[LayerPlan]) -> None:
    """Report the layers that need not be fetched."""
    for plan in plans:
        if plan.source != MISSING:
            size = plan.descriptor.size
            progress.layer(LayerProgress(plan.descriptor.digest.short, HELD, size, size))


def store_small_blobs(store: Store, image: ResolvedImage) -> None:
    """Config and manifest into the store, before any layer: they are part of the torrent."""
    store.blobs.put(image.config, repository=image.reference.repository)
    store.blobs.put(image.manifest.content)


def tag_locally(store: Store, image: ResolvedImage) -> None:
    """Tag the image here, so that this host's gc keeps its layers."""
    repository = image.reference.repository
    manifest = image.manifest.image()
    children = {child.digest for child in manifest.children}
    mounted = store.blobs.mount_all(children, repository=repository)
    store.manifests.put(
        repository,
        image.manifest.content,
        manifest,
        tags=[tag] if (tag := image.reference.given_tag) else [],
        complete=mounted == children,
    )


def _deliver(
    image: ResolvedImage, store: Store, request: PullRequest, engine: LoadingEngine | None
) -> int:
    """Hand the image to its target; how many layers the engine loaded."""
    if engine:
        return load_into_engine(image, store, engine)
    if request.target is Target.ARCHIVE:
        write_archive(image, store, request.output)
    return 0


def pulled_layer(plan: LayerPlan, fetched: Fetched) -> PulledLayer:
    """What became of a layer of a plan."""
    digest = plan.descriptor.digest
    return PulledLayer(
        digest=digest,
        diff_id=plan.diff_id,
        size=plan.descriptor.size,
        source=fetched.sources.get(digest, HELD),
        seconds=fetched.seconds.get(digest, 0.0),
        blocks=fetched.blocks.get(digest),
    )


def _layer_to_json(layer: PulledLayer) -> dict[str, Any]:
    row: dict[str, Any] = {
        "digest": str(layer.digest),
        "diff_id": str(layer.diff_id),
        "size": layer.size,
        "source": layer.source,
        "seconds": round(layer.seconds, 3),
    }
    if layer.blocks:
        row["from"] = {"registry": layer.blocks.registry, "hosts": layer.blocks.hosts}
    return row


def _seed(seconds: float, progress: Progress) -> None:
    progress.note(f"seeding for {seconds:g} s; Ctrl-C ends it")
    with suppress(KeyboardInterrupt):
        Event().wait(seconds)
