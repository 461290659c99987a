"""The images of one registry on this host: held ones from the store, others fetched as wanted."""

from __future__ import annotations

import dataclasses
import logging
import threading
import time
from collections import OrderedDict
from contextlib import suppress
from dataclasses import dataclass

from docket.agent.arriving import ArrivingLayer
from docket.agent.image_job import ImageJob, Tools
from docket.errors import BlobUnknown, InvalidInput, NotFound, RegistryError
from docket.oci import manifest
from docket.oci.digest import Digest
from docket.oci.manifest import Index, Manifest, Platform
from docket.oci.reference import Reference
from docket.remote.client import Client
from docket.remote.values import RemoteManifest
from docket.store import Blob, Store, StoredManifest
from docket.transfer.options import TransferOptions
from docket.transfer.resolve import ResolvedImage, resolve

_RECENT = 256
"""Image manifests that are remembered, so that a layer is known by the image that it is of."""

FAILED_SECONDS = 5.0
"""How long blobs of an image whose fetch failed are an error at once, instead of half a blob."""

_JOBS = 64
"""Images that are fetched or served at the same time."""

_USED_SECONDS = 3600.0
"""How exactly the store knows when a tag was pulled last, for retention."""

_END_SECONDS = 2.0
"""How long all fetches together may take to stop."""

log = logging.getLogger("docket.agent")


@dataclass(frozen=True, slots=True)
class Served:
    """A manifest to serve; *is_stale* when the registry could not be asked what the tag is now."""

    stored: StoredManifest
    is_stale: bool = False


class PullThrough:
    """Manifests and blobs for this host's engines. Safe to use from many threads."""

    def __init__(self, tools: Tools, resolver: Client) -> None:
        """*resolver* is a client whose calls end soon: an engine waits for each of them."""
        self._tools = tools
        self._resolver = resolver
        self._lock = threading.Lock()
        self._recent: OrderedDict[tuple[str, Digest], Manifest] = OrderedDict()
        self._jobs: dict[Digest, ImageJob] = {}
        # when the fetch of an image failed last, on the monotonic clock
        self._failed: dict[Digest, float] = {}

    @property
    def store(self) -> Store:
        """This host's store."""
        return self._tools.store

    @property
    def options(self) -> TransferOptions:
        """How layers travel, for fetches that begin."""
        return self._tools.options

    @options.setter
    def options(self, options: TransferOptions) -> None:
        self._tools = dataclasses.replace(self._tools, options=options)

    def close(self) -> None:
        """Stop all fetches; what came is kept for the next one."""
        jobs = self.jobs()
        for job in jobs:
            job.close()
        deadline = time.monotonic() + _END_SECONDS
        for job in jobs:
            job.join(max(deadline - time.monotonic(), 0.0))

    def manifest(self, repository: str, target: str | Digest) -> Served:
        """The manifest of a tag, as the registry has it now, or of a digest.

        Raises `ManifestUnknown` when neither the registry nor this host has it, and `RegistryError`
        when the registry can't be asked and this host doesn't have it.
        """
        if isinstance(target, Digest):
            with suppress(NotFound):
                return self._served(repository, self._tools.store.manifests.get(repository, target))
        try:
            stored = self._fetched_manifest(repository, target)
        except RegistryError as error:
            with suppress(NotFound):
                held = self._tools.store.manifests.get(repository, target)
                log.warning("serving %s:%s as it was last known: %s", repository, target, error)
                return self._served(repository, held, is_stale=True)
            raise
        return self._served(repository, stored)

    def blob(self, repository: str, digest: Digest) -> Blob | ArrivingLayer:
        """The blob: the store's, pinned, or a layer on its way in.

        Raises `BlobUnknown` when no image that came through here has it, and `RegistryError`, also
        for `FAILED_SECONDS` after its fetch failed.
        """
        blobs = self._tools.store.blobs
        with suppress(BlobUnknown):
            return blobs.get(digest)
        image_digest, image = self._image_with(repository, digest)
        if image.config.digest == digest:
            blobs.put(self._tools.client.read_blob(repository, image.config), repository=repository)
            return blobs.get(digest)
        self._check_not_failed(image_digest)
        layer = self.job(repository, image_digest).layer(digest)
        return blobs.get(digest) if layer is None else layer

    def _check_not_failed(self, image: Digest) -> None:
        """An engine gives up when the same blob breaks off again, but goes on after an error."""
        with self._lock:
            failed = self._failed.get(image)
        if failed is not None and time.monotonic() - failed < FAILED_SECONDS:
            raise RegistryError("the fetch of this image has just failed; try again later")

    def job(self, repository: str, digest: Digest) -> ImageJob:
        """What fetches the image manifest *digest*; it is begun if there is none."""
        if job := self._running(digest):
            return job
        image = resolve(
            self._tools.client,
            Reference(repository, digest),
            Platform.of_host(),
            held=self._held_image(repository, digest),
        )
        return self.job_of(image)

    def job_of(self, image: ResolvedImage, options: TransferOptions | None = None) -> ImageJob:
        """What fetches *image*; it is begun, with these *options*, if there is none."""
        if job := self._running(image.digest):
            return job
        tools = dataclasses.replace(self._tools, options=options) if options else self._tools
        with self._lock:
            job = self._jobs.get(image.digest)
            if job is None or not job.touch():
                job = self._jobs[image.digest] = ImageJob(tools, image, self._job_ended)
        return job

    def jobs(self) -> list[ImageJob]:
        """The images that are fetched or served now."""
        with self._lock:
            return list(self._jobs.values())

    def drop_removed(self) -> None:
        """Stop serving images that the store no longer has whole."""
        has = self._tools.store.blobs.has
        for job in self.jobs():
            if not has(job.image.digest) or not all(map(has, job.served())):
                job.close()

    def _running(self, digest: Digest) -> ImageJob | None:
        with self._lock:
            job = self._jobs.get(digest)
            if job and job.touch():
                return job
            if len(self._jobs) >= _JOBS:
                raise RegistryError(f"{_JOBS} images are being fetched already; try again")
        return None

    def is_arriving(self, digest: Digest) -> bool:
        """Whether the layer is being fetched, for any image."""
        with self._lock:
            jobs = list(self._jobs.values())
        return any(job.is_arriving(digest) for job in jobs)

    def choose(self, repository: str, digest: Digest, *, tag: str = "") -> Digest:
        """The image manifest for this host's platform of the manifest or index *digest*.

        With a *tag* that one points to *digest* from now on.
        """
        stored = self.manifest(repository, digest).stored
        if tag:
            self._keep(repository, stored.content, stored.media_type, (tag,))
        if not isinstance(stored.parsed, Index):
            return stored.digest
        found = self._tools.client.image_manifest(Reference(repository, digest), Platform.of_host())
        self._keep(repository, found.content, found.media_type, ())
        return found.digest

    def _held_image(self, repository: str, digest: Digest) -> RemoteManifest | None:
        """The image manifest, if it is here: a request less, while a fleet asks the registry."""
        with suppress(NotFound, InvalidInput):
            stored = self._tools.store.manifests.get(repository, digest)
            if not isinstance(stored.parsed, Index):
                return RemoteManifest(stored.digest, stored.media_type, stored.content)
        return None

    def _fetched_manifest(self, repository: str, target: str | Digest) -> StoredManifest:
        found = self._resolver.manifest(Reference(repository, target))
        tags = (target,) if isinstance(target, str) else ()
        self._keep(repository, found.content, found.media_type, tags)
        return self._tools.store.manifests.get(repository, found.digest)

    def _keep(
        self, repository: str, content: bytes, media_type: str, tags: tuple[str, ...]
    ) -> None:
        """Into the store, unless it is there just so and was used lately: a write costs a sync."""
        manifests = self._tools.store.manifests
        digest = Digest.of(content)
        with suppress(NotFound):
            manifests.get(repository, digest)
            if all(self._is_recent(repository, tag, digest) for tag in tags):
                return
        parsed = manifest.parse(content, content_type=media_type)
        manifests.put(repository, content, parsed, tags=tags, complete=False)

    def _is_recent(self, repository: str, tag: str, digest: Digest) -> bool:
        """Whether *tag* points there, and counted as used within the last hour."""
        stored = self._tools.store.manifests.moved(repository, tag)
        if stored is None:
            return False
        target, moved = stored
        return target == digest and time.time() - moved < _USED_SECONDS

    def _served(self, repository: str, stored: StoredManifest, *, is_stale: bool = False) -> Served:
        with suppress(InvalidInput):
            if not isinstance(stored.parsed, Index):
                self._remember(repository, stored.digest, stored.parsed)
        return Served(stored, is_stale)

    def _remember(self, repository: str, digest: Digest, image: Manifest) -> None:
        with self._lock:
            self._recent[repository, digest] = image
            self._recent.move_to_end((repository, digest))
            while len(self._recent) > _RECENT:
                self._recent.popitem(last=False)

    def _image_with(self, repository: str, blob: Digest) -> tuple[Digest, Manifest]:
        with self._lock:
            recent = list(reversed(self._recent.items()))
        for (name, digest), image in recent:
            if name == repository and any(child.digest == blob for child in image.children):
                return digest, image
        raise BlobUnknown(blob)

    def _job_ended(self, job: ImageJob) -> None:
        with self._lock:
            if self._jobs.get(job.image.digest) is job:
                del self._jobs[job.image.digest]
            self._failed.pop(job.image.digest, None)
            if job.has_failed:
                while len(self._failed) >= _RECENT:
                    del self._failed[next(iter(self._failed))]
                self._failed[job.image.digest] = time.monotonic()
