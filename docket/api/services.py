"""What an application serves: a store, and the seeder and tracker beside it."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from threading import Event
from typing import Protocol, TypeVar

from anyio import CapacityLimiter
from anyio.to_thread import run_sync
from starlette.requests import Request

from docket.api.fleet_hub import FleetHub
from docket.api.maintenance.checks import Checks
from docket.api.oci.writers import Writers
from docket.api.readiness import Readiness
from docket.api.upstream.completions import Completions
from docket.oci import manifest
from docket.oci.digest import Digest
from docket.oci.manifest import Descriptor, Platform
from docket.oci.reference import parse_repository, parse_target
from docket.oci.selection import choose_image
from docket.rate_limit import RateLimiter
from docket.seeder import Seeder
from docket.store import Store, StoredManifest
from docket.torrent.tracker.hash_peers import HashPeers
from docket.torrent.tracker.peers import Tracker
from docket.transfer.listing import read_listed
from docket.upstream.upstreams import Served, Upstreams

_T = TypeVar("_T")


class Threads:
    """Threads for calls that block, a bounded number for each purpose: none waits for another."""

    def __init__(self) -> None:
        self._reads = CapacityLimiter(32)
        self._blocks = CapacityLimiter(32)
        self._writes = CapacityLimiter(32)
        self._seeding = CapacityLimiter(16)
        self._parsing = CapacityLimiter(2)
        self._maintenance = CapacityLimiter(2)
        self._fetching = CapacityLimiter(64)
        self._completing = CapacityLimiter(64)

    async def read(self, call: Callable[[], _T]) -> _T:
        """Run *call*, which reads the index or something small."""
        return await run_sync(call, limiter=self._reads)

    async def read_block(self, call: Callable[[], _T]) -> _T:
        """Run *call*, which reads a block of a blob from the disk."""
        return await run_sync(call, limiter=self._blocks)

    async def write(self, call: Callable[[], _T]) -> _T:
        """Run *call*, which changes the store."""
        return await run_sync(call, limiter=self._writes)

    async def fetch(self, call: Callable[[], _T]) -> _T:
        """Run *call*, which waits for another registry."""
        return await run_sync(call, limiter=self._fetching)

    async def complete(self, call: Callable[[], _T]) -> _T:
        """Run *call*, which waits until another registry has sent all of an image."""
        return await run_sync(call, limiter=self._completing)

    async def seed(self, call: Callable[[], _T]) -> _T:
        """Run *call*, which may begin to seed an image."""
        return await run_sync(call, limiter=self._seeding)

    async def parse(self, call: Callable[[], _T]) -> _T:
        """Run *call*, which needs a processor for long: a client's JSON may have 4 MiB."""
        return await run_sync(call, limiter=self._parsing)

    async def maintain(self, call: Callable[[], _T]) -> _T:
        """Run *call*, which may take minutes."""
        return await run_sync(call, limiter=self._maintenance)


@dataclass(frozen=True, slots=True)
class Registry:
    """*advertise* is the host name or address that peers should use for the registry's own seed;
    empty means the one at which they reached the tracker. *zone* is the seed's label, if any.
    *sending* and *receiving* limit the rate of blobs over HTTP. *stop* is set when the process is
    about to end: whatever takes long ends then. *upstreams* are the registries whose images are
    fetched, and removed when nobody pulls them for *upstream_unused* seconds; None: never."""

    store: Store
    seeder: Seeder
    tracker: Tracker
    advertise: str = ""
    zone: str = ""
    sending: RateLimiter = field(default_factory=RateLimiter)
    receiving: RateLimiter = field(default_factory=RateLimiter)
    hash_peers: HashPeers = field(default_factory=HashPeers)
    fleet: FleetHub = field(default_factory=FleetHub)
    threads: Threads = field(default_factory=Threads)
    writers: Writers = field(default_factory=Writers)
    checks: Checks = field(default_factory=Checks)
    readiness: Readiness = field(default_factory=Readiness)
    stop: Event = field(default_factory=Event)
    completions: Completions = field(default_factory=Completions)
    upstreams: Upstreams | None = None
    upstream_unused: float | None = None


def registry_of(request: Request) -> Registry:
    """What the application serves."""
    registry: Registry = request.app.state.registry
    return registry


def repository_of(request: Request) -> str:
    """The repository in the path. Raises `InvalidReference`."""
    repository = parse_repository(request.path_params["name"])
    upstreams = registry_of(request).upstreams
    return upstreams.canonical(repository) if upstreams else repository


def digest_of(request: Request) -> Digest:
    """The digest in the path. Raises `InvalidDigest`."""
    return Digest.parse(request.path_params["digest"])


async def image_of(request: Request) -> StoredManifest:
    """The image manifest of the path's reference; of an index, the one for ``?platform=``."""
    registry = registry_of(request)
    repository = repository_of(request)
    target = parse_target(request.path_params["reference"])
    text = request.query_params.get("platform")
    wanted = Platform.parse(text) if text else Platform.of_host()
    images = image_source(registry, repository)
    threads = registry.threads.fetch if images is registry.upstreams else registry.threads.read
    return await threads(lambda: _chosen_image(images, repository, target, wanted))


class ImageSource(Protocol):
    """Where manifests and configurations are read: the store alone, or with the upstreams."""

    def manifest(self, repository: str, target: str | Digest, /) -> Served:
        """The manifest of a tag or digest. Raises `ManifestUnknown`."""

    def read(self, repository: str, listed: Descriptor, /) -> bytes:
        """A manifest or configuration that an index leads to. Raises `NotFound`."""


@dataclass(frozen=True, slots=True)
class StoredImages:
    """What the store has."""

    store: Store

    def manifest(self, repository: str, target: str | Digest) -> Served:
        """The manifest of a tag or digest. Raises `ManifestUnknown`."""
        return Served(self.store.manifests.get(repository, target))

    def read(self, repository: str, listed: Descriptor) -> bytes:
        """A manifest or configuration that an index leads to. Raises `NotFound`."""
        return read_listed(self.store, repository, listed)


def image_source(registry: Registry, repository: str) -> ImageSource:
    """Where the images of *repository* are: in an upstream, or in the store alone."""
    upstreams = registry.upstreams
    covered = upstreams is not None and upstreams.covers(repository)
    return upstreams if covered and upstreams else StoredImages(registry.store)


def find_manifest(registry: Registry, repository: str, target: str | Digest) -> StoredManifest:
    """The manifest of a tag or digest; one of an upstream is fetched. Raises `ManifestUnknown`."""
    return image_source(registry, repository).manifest(repository, target).stored


def _chosen_image(
    images: ImageSource, repository: str, target: str | Digest, wanted: Platform
) -> StoredManifest:
    stored = images.manifest(repository, target).stored
    parsed = stored.parsed
    if isinstance(parsed, manifest.Index):
        chosen = choose_image(parsed, wanted, lambda listed: images.read(repository, listed))
        stored = images.manifest(repository, chosen.digest).stored
    return stored
