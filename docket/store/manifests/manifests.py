"""A store's repositories: manifests, tags, referrers, and the torrents of images."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from contextlib import suppress
from itertools import islice

from docket.errors import BlobUnknown, InvalidInput, ManifestUnknown, RepositoryUnknown
from docket.oci.digest import Digest
from docket.oci.manifest import ANNOTATION_ENCODER, Descriptor, Manifest
from docket.oci.manifest import Index as ImageIndex
from docket.store.blobs.blobs import Blobs
from docket.store.blobs.ingest import ingest_bytes
from docket.store.blobs.measuring import Measuring
from docket.store.index.environment import Index
from docket.store.index.records import digest_of, key_of, scoped, unscoped
from docket.store.index.tables import Transaction
from docket.store.manifests import edges
from docket.store.manifests.removal import drop_manifest
from docket.store.pins import Pins
from docket.store.types import StoredManifest, Tagged

_ENCODER = re.compile(r"(?:zstd|gzip)/[A-Za-z0-9.+_-]{1,40} level=-?[0-9]{1,3}\Z")

MEASURE_SECONDS = 5.0
"""How long a manifest waits until its layers are measured: the next push queries them."""


class Manifests:
    """Manifests by repository and digest or tag."""

    def __init__(self, index: Index, blobs: Blobs, measuring: Measuring, pins: Pins) -> None:
        self._index = index
        self._blobs = blobs
        self._measuring = measuring
        self._pins = pins

    def put(
        self,
        repository: str,
        content: bytes,
        parsed: Manifest | ImageIndex,
        *,
        tags: Sequence[str] = (),
        algorithm: str = "sha256",
        complete: bool = True,
    ) -> Digest:
        """Store a manifest, in one transaction with its edges, *tags* and referrers.

        Unless *complete* is False every child must be in *repository*, in the size that the
        manifest states: `ManifestBlobUnknown`, `SizeMismatch`.
        Returning means the image is durable and can be pulled. What its layers unpack to is known
        then too, unless that takes more than `MEASURE_SECONDS`.
        """
        layers = [child.digest for child in parsed.children]
        self._measuring.wait(layers, seconds=MEASURE_SECONDS)
        ingested = ingest_bytes(content, algorithm=algorithm)
        digest = ingested.digest

        def change(txn: Transaction) -> None:
            if complete:
                edges.check_children(self._index, txn, repository, parsed)
            edges.add_manifest(self._index, txn, repository, digest, parsed, len(content))
            for tag in tags:
                edges.set_tag(self._index, txn, repository, tag, digest)

        self._blobs.put_with(content, ingested, change)
        return digest

    def get(self, repository: str, target: str | Digest) -> StoredManifest:
        """The manifest of a tag or digest. Raises `ManifestUnknown`."""
        separator = ":" if isinstance(target, str) else "@"
        name = f"{repository}{separator}{target}"
        with self._index.read() as txn:
            digest = target if isinstance(target, Digest) else None
            if isinstance(target, str) and (
                tag := self._index.tags.get(txn, scoped(repository, target))
            ):
                digest = Digest.parse(tag.digest)
            record = digest and self._index.manifests.get(txn, scoped(repository, digest))
        if not digest or not record:
            raise ManifestUnknown(name)
        try:
            content = self._blobs.read(digest)
        except BlobUnknown as error:
            raise ManifestUnknown(name) from error
        return StoredManifest(digest, record.media_type, record.artifact_type, content)

    def delete_tag(self, repository: str, tag: str) -> None:
        """Delete the tag; the manifest stays until gc. Raises `ManifestUnknown`."""

        def change(txn: Transaction) -> None:
            if not edges.clear_tag(self._index, txn, repository, tag):
                raise ManifestUnknown(f"{repository}:{tag}")

        self._index.update(change)

    def delete(self, repository: str, digest: Digest) -> None:
        """Delete the manifest and the tags that point to it. Raises `ManifestUnknown`."""
        self._index.update(lambda txn: drop_manifest(self._index, txn, repository, str(digest)))

    def tags(self, repository: str, *, after: str = "", limit: int | None = None) -> list[str]:
        """The tags of *repository*, sorted, past *after*. Raises `RepositoryUnknown`."""
        with self._index.read() as txn:
            rows = self._index.tags.scan(
                txn, scoped(repository), after=scoped(repository, after) if after else None
            )
            names = [unscoped(key)[1] for key, _ in islice(rows, limit)]
            if not names and not self._is_repository(txn, repository):
                raise RepositoryUnknown(repository)
        return names

    def moved(self, repository: str, tag: str) -> tuple[Digest, float] | None:
        """Where *tag* points, and when it was last moved there; None when there is none."""
        with self._index.read() as txn:
            record = self._index.tags.get(txn, scoped(repository, tag))
        return (Digest.parse(record.digest), record.moved) if record else None

    def tagged(self, repository: str | None = None) -> list[Tagged]:
        """All tags (of *repository*), sorted by repository and tag."""
        with self._index.read() as txn:
            return edges.tagged(self._index, txn, repository)

    def repositories(self, *, after: str = "", limit: int | None = None) -> list[str]:
        """Repositories that have a manifest, sorted, past *after*."""
        with self._index.read() as txn:
            names = edges.repositories(self._index.manifests, txn, after=after)
            return list(islice(names, limit))

    def referrers(
        self, repository: str, subject: Digest, *, after: str = "", artifact_type: str = ""
    ) -> Iterator[StoredManifest]:
        """Manifests of *repository* whose subject is *subject*, sorted by digest, past *after*.

        With *artifact_type* only those of that type. Each is read when it is taken.
        """
        with self._index.read() as txn:
            keys = [
                key
                for key in self._index.referrers.values(txn, scoped(repository, subject))
                if key.decode() > after
            ]
        for key in keys:
            digest = digest_of(key)
            with self._index.read() as txn:
                record = self._index.manifests.get(txn, scoped(repository, digest))
            if record and artifact_type in ("", record.artifact_type):
                with suppress(ManifestUnknown):  # deleted meanwhile
                    yield self.get(repository, digest)

    def is_shared(self, digest: Digest, manifest: Digest) -> bool:
        """Whether any manifest but *manifest*, in any repository, lists the blob *digest*."""
        own = f"m{manifest}"
        with self._index.read() as txn:
            return any(
                unscoped(parent)[1] not in (own, "h")
                for parent in self._index.parents.values(txn, key_of(digest))
            )

    def encoder(self, repository: str, layer: Digest) -> str:
        """What compressed *layer*, as a manifest of *repository* says; empty if none does.

        It is a hint that nobody has verified: only the repository whose manifest gives it gets it
        back, and only if it has the form of `docket.compression.encoder`.
        """
        for child in self._listed(repository, layer):
            text = child.annotations.get(ANNOTATION_ENCODER, "")
            if _ENCODER.match(text):
                return text
        return ""

    def listed(self, repository: str, digest: Digest) -> Descriptor | None:
        """The descriptor of *digest* in a manifest of *repository* that lists it, if one does."""
        for child in self._listed(repository, digest):
            return child
        return None

    def record_pulls(self, pulls: Mapping[tuple[str, Digest], float]) -> None:
        """Remember when manifests of other registries were pulled, in seconds since 1970.

        These are the images that gc removes when nobody has pulled them for long.
        """

        def change(txn: Transaction) -> None:
            for (repository, digest), seconds in pulls.items():
                key = scoped(repository, digest)
                if self._index.manifests.has(txn, key):
                    self._index.pulls.put(txn, key, seconds)

        self._index.update(change)

    # -- torrents

    def record_torrent(self, info_hash: bytes, manifest: Digest) -> None:
        """Remember which manifest's torrent *info_hash* names."""
        with self._index.read() as txn:
            if self._index.torrents.get(txn, info_hash) == str(manifest):
                return
        self._index.update(lambda txn: self._index.torrents.put(txn, info_hash, str(manifest)))

    def torrent(self, info_hash: bytes) -> tuple[str, Digest] | None:
        """A repository and the manifest whose torrent *info_hash* names, if it is still here."""
        with self._index.read() as txn:
            digest = self._index.torrents.get(txn, info_hash)
            if digest is None:
                return None
            for parent in self._index.parents.values(txn, digest.encode()):
                repository, why = unscoped(parent)
                if why == "h":
                    return repository, Digest.parse(digest)
        return None

    # -- inside

    def _listed(self, repository: str, digest: Digest) -> Iterator[Descriptor]:
        """What the first manifest of *repository* that lists *digest* says about it."""
        prefix = scoped(repository, "m")
        with self._index.read() as txn:
            parents = list(islice(self._index.parents.values(txn, key_of(digest), prefix), 1))
        for parent in parents:
            with suppress(ManifestUnknown, InvalidInput):
                stored = self.get(repository, Digest.parse(unscoped(parent)[1][1:]))
                yield from (child for child in stored.parsed.children if child.digest == digest)

    def _is_repository(self, txn: Transaction, repository: str) -> bool:
        tables = (self._index.manifests, self._index.links)
        return any(next(table.scan(txn, scoped(repository)), None) for table in tables)
