"""The images of other registries in this one: held ones from the store, others fetched as asked."""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable, Sequence
from concurrent.futures import CancelledError
from contextlib import suppress
from dataclasses import dataclass

from docket.errors import (
    BlobUnknown,
    DocketError,
    NotFound,
    UpstreamError,
    UpstreamUnavailable,
    summary,
)
from docket.oci import manifest
from docket.oci.digest import Digest
from docket.oci.manifest import Descriptor, Manifest
from docket.rate_limit import RateLimiter
from docket.store import Blob, Store, StoredManifest
from docket.upstream.arriving import ArrivingBlob
from docket.upstream.blob_fetches import BlobFetches
from docket.upstream.credentials import CredentialFile
from docket.upstream.manifest_fetches import ManifestFetches
from docket.upstream.memory import RequestMemory
from docket.upstream.names import Upstream, upstream_of
from docket.upstream.pulls import Pulls
from docket.upstream.source import Source

TTL_SECONDS = 600.0
"""How long a tag is served before it is compared with the upstream again."""

WAIT_SECONDS = 25.0
"""How long somebody waits for the beginning of what isn't here: engines give up after 30 s."""

STALE_SECONDS = 2.0
"""How long somebody waits for a tag to be compared, before he gets what is here."""

log = logging.getLogger("docket.upstream")


@dataclass(frozen=True, slots=True)
class Served:
    """A manifest to serve; *warning* says why it may be older than the upstream's, or is empty."""

    stored: StoredManifest
    warning: str = ""


class Upstreams:
    """The images below the names of *upstreams*. Safe to use from many threads."""

    def __init__(
        self,
        store: Store,
        upstreams: Sequence[Upstream],
        *,
        credentials: CredentialFile | None = None,
        ttl: float = TTL_SECONDS,
        limiter: RateLimiter | None = None,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        """Tags are compared again after *ttl* seconds; *limiter* is shared with other uploads."""
        self._store = store
        self._upstreams = tuple(upstreams)
        self._ttl = ttl
        self._stop = threading.Event()
        file = credentials or CredentialFile(None)
        self._sources = {
            upstream.prefix: Source(upstream, file, clock=clock) for upstream in upstreams
        }
        self._memory = RequestMemory(clock=clock)
        self._manifests = ManifestFetches(store)
        self._blobs = BlobFetches(store, limiter or RateLimiter(), self._stop)
        self._failing: set[str] = set()
        self.pulls = Pulls(store)

    def stop(self) -> None:
        """End all fetches, and begin no other; all who wait for one get an error."""
        self._stop.set()
        self._manifests.close()
        for source in self._sources.values():
            source.abort()
        self._blobs.close()

    def close(self) -> None:
        """The same; returning means that nothing of what is not complete is left."""
        self.stop()
        self._blobs.join()
        self.pulls.flush()

    @property
    def prefixes(self) -> tuple[str, ...]:
        """The first part of the names of all upstreams' images here."""
        return tuple(self._sources)

    def canonical(self, repository: str) -> str:
        """The name under which *repository* is stored: ``docker.io/nginx`` is in ``library/``."""
        upstream = upstream_of(self._upstreams, repository)
        return upstream.stored(repository) if upstream else repository

    def covers(self, repository: str) -> bool:
        """Whether *repository* is an image of an upstream."""
        return upstream_of(self._upstreams, repository) is not None

    # -- manifests

    def known(self, repository: str, target: str | Digest) -> Served | None:
        """The manifest, if no upstream must be requested; returns at once.

        Raises what an upstream has answered just before.
        """
        held = self._held(repository, target)
        if held and (
            isinstance(target, Digest) or self._memory.is_fresh((repository, target), self._ttl)
        ):
            return self._served(repository, held)
        error = self._memory.failure((repository, target))
        if error is None:
            return None
        return self._instead(repository, held, error)

    def manifest(self, repository: str, target: str | Digest) -> Served:
        """The manifest of a tag or digest; what isn't here is fetched, see `WAIT_SECONDS`.

        Where the upstream doesn't answer well, the manifest that is here is served with a warning;
        without one this raises `UpstreamError`. Raises `ManifestUnknown` when the upstream says so.
        """
        if served := self.known(repository, target):
            return served
        held = self._held(repository, target)
        source = self._source(repository)
        key = repository, target
        future = self._manifests.start(
            source,
            repository,
            target,
            held.digest if held else None,
            on_fetched=lambda: self._memory.note_checked(key),
        )
        try:
            digest = future.result(STALE_SECONDS if held else WAIT_SECONDS)
        except TimeoutError:
            why = "it does not answer in time"
            error: DocketError = UpstreamUnavailable(source.upstream.name, why)
        except CancelledError:
            error = UpstreamUnavailable(source.upstream.name, "this registry is stopping")
        except DocketError as failure:
            error = failure
        else:
            self._note_answer(source)
            return self._served(repository, self._store.manifests.get(repository, digest))
        self._note_answer(source, error)
        self._memory.note_failure(key, error, is_held=held is not None)
        return self._instead(repository, held, error)

    # -- blobs

    def blob(self, repository: str, digest: Digest) -> Blob | ArrivingBlob:
        """The blob: the store's, pinned, or one that is arriving, whose size is known.

        Raises `BlobUnknown` when the upstream says so, or `UpstreamError`.
        """
        arriving = self._fetched(repository, digest)
        if isinstance(arriving, Blob):
            return arriving
        if not arriving.wait_begun(WAIT_SECONDS):
            source = self._source(repository)
            raise UpstreamUnavailable(source.upstream.name, "it does not answer in time")
        if arriving.is_stored:
            return self._store.blobs.get(digest, repository=repository)
        return arriving

    def read(self, repository: str, listed: Descriptor) -> bytes:
        """The bytes of a manifest or configuration that an index leads to. Raises as `blob`."""
        if listed.media_type in manifest.ALL_MANIFEST_TYPES:
            return self.manifest(repository, listed.digest).stored.content
        arriving = self._fetched(repository, listed.digest)
        if isinstance(arriving, ArrivingBlob) and not arriving.wait_stored(WAIT_SECONDS):
            raise UpstreamUnavailable(self._source(repository).upstream.name, "it is too slow")
        return self._store.blobs.read(listed.digest)

    def complete(self, repository: str, image: Manifest) -> None:
        """Fetch all that *image* lists and isn't here; returning means that it is here.

        However long that takes. Raises what made a fetch fail.
        """
        fetches = [self._fetched(repository, child.digest) for child in image.children]
        for arriving in fetches:
            while isinstance(arriving, ArrivingBlob) and not arriving.wait_stored(WAIT_SECONDS):
                pass

    # -- inside

    def _source(self, repository: str) -> Source:
        upstream = upstream_of(self._upstreams, repository)
        assert upstream
        return self._sources[upstream.prefix]

    def _held(self, repository: str, target: str | Digest) -> StoredManifest | None:
        with suppress(NotFound):
            return self._store.manifests.get(repository, target)
        return None

    def _served(self, repository: str, stored: StoredManifest, warning: str = "") -> Served:
        self.pulls.note(repository, stored.digest)
        return Served(stored, warning)

    def _instead(self, repository: str, held: StoredManifest | None, error: DocketError) -> Served:
        """What is here, with a warning; raises *error* where that is nothing, or gone upstream."""
        if held is None or isinstance(error, NotFound):
            raise error
        return self._served(repository, held, summary(error))

    def _note_answer(self, source: Source, error: DocketError | None = None) -> None:
        """One line in the log when an upstream begins to fail, and one when it works again."""
        name = source.upstream.name
        if isinstance(error, UpstreamError) and name not in self._failing:
            self._failing.add(name)
            log.warning("%s; what is here is served", summary(error))
        elif error is None and name in self._failing:
            self._failing.discard(name)
            log.warning("%s answers again", name)

    def _fetched(self, repository: str, digest: Digest) -> Blob | ArrivingBlob:
        """The blob, or its fetch, which is begun if need be."""
        blobs = self._store.blobs
        with suppress(BlobUnknown):
            return blobs.get(digest, repository=repository)
        listed = self._store.manifests.listed(repository, digest)
        if listed and listed.media_type in manifest.ALL_MANIFEST_TYPES:
            self.manifest(repository, digest)
            return blobs.get(digest, repository=repository)
        # another image has it, and an image of this repository lists it
        if listed and blobs.mount(digest, repository=repository):
            return blobs.get(digest, repository=repository)
        if error := self._memory.failure((repository, digest)):
            raise error
        return self._blobs.start(
            self._source(repository),
            repository,
            digest,
            size=listed.size if listed else None,
            on_error=lambda error: self._memory.note_failure((repository, digest), error),
        )
