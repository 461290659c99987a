"""Seeding on demand: an image joins its swarm when a peer requests it and leaves when idle."""

from __future__ import annotations

import shutil
import threading
from collections import OrderedDict
from collections.abc import Iterable
from pathlib import Path

from docket.config import IDLE_SECONDS
from docket.errors import BlobUnknown
from docket.oci.digest import Digest
from docket.store import Store, StoredManifest
from docket.torrent.metainfo import (
    Metainfo,
    image_blobs,
    lay_out,
    metainfo_of,
    with_announce,
)
from docket.torrent.peer.swarm import Swarm

_CACHED = 256


class Seeder:
    """Makes the torrents of a store's images and seeds those that are requested."""

    def __init__(
        self,
        store: Store,
        swarm: Swarm,
        *,
        tracker: str | None = None,
        idle_seconds: float = IDLE_SECONDS,
    ) -> None:
        """*tracker* is the announce URL of an outside tracker; None: the registry's own serves."""
        self._store = store
        self._swarm = swarm
        self._folder = store.location / "swarm"
        self._idle_seconds = idle_seconds
        self._cache: OrderedDict[Digest, Metainfo] = OrderedDict()
        self._lock = threading.Lock()
        self.tracker = tracker
        # nothing is seeded yet: what is there is from before a restart
        for stale in self._folder.iterdir():
            shutil.rmtree(stale, ignore_errors=True)

    @property
    def port(self) -> int:
        """The TCP port that peers connect to."""
        return self._swarm.port

    def metainfo(self, stored: StoredManifest, *, announce: str) -> Metainfo:
        """The torrent of an image manifest, for a client that announces to *announce*.

        Reads no layer: piece hashes are those of the index. Raises `InvalidManifest` when it is no
        image manifest, or `BlobUnknown` when a layer isn't held.
        """
        with self._lock:
            cached = self._cache.get(stored.digest)
        if cached is None:
            cached = self._build(stored)
            with self._lock:
                self._cache[stored.digest] = cached
                while len(self._cache) > _CACHED:
                    self._cache.popitem(last=False)
        self._store.manifests.record_torrent(cached.info_hash, stored.digest)
        return with_announce(cached, self.tracker or announce)

    def ensure_seeded(self, info_hash: bytes) -> bool:
        """Seed the torrent, since a peer requests it. False when there is no such image."""
        if self._swarm.keep(info_hash):
            return True
        named = self._store.manifests.torrent(info_hash)
        if named is None:
            return False
        repository, digest = named
        stored = self._store.manifests.get(repository, digest)
        self.seed(stored)
        return True

    def seed(self, stored: StoredManifest) -> None:
        """Seed the image's torrent, if it isn't seeded already."""
        torrent = self.metainfo(stored, announce="")
        with self._lock:
            if not self._swarm.keep(torrent.info_hash):
                self._swarm.seed(torrent, self._lay_out(torrent, stored))

    def release_idle(self) -> None:
        """Stop seeding torrents that were idle for a while; pin the blobs of the others."""
        for info_hash in self._swarm.info_hashes():
            named = self._store.manifests.torrent(info_hash)
            idle = self._swarm.idle_seconds(info_hash) > self._idle_seconds
            if idle or named is None:
                self._release(info_hash, named and named[1])
            else:
                self._pin(*named)

    def stop_containing(self, blobs: Iterable[Digest]) -> None:
        """Stop seeding torrents that contain one of *blobs*, whose bytes are wrong."""
        paths = [digest.layout_path for digest in blobs]
        for info_hash in self._swarm.info_hashes():
            named = self._store.manifests.torrent(info_hash)
            if named and any((self._folder / named[1].hex / path).exists() for path in paths):
                self._release(info_hash, named[1])

    def close(self) -> None:
        """Leave all swarms."""
        self._swarm.close()

    def _build(self, stored: StoredManifest) -> Metainfo:
        digests = [blob.digest for blob in image_blobs(stored)]
        pieces = self._store.blobs.piece_hashes([stored.digest, *digests])
        return metainfo_of(stored, pieces=pieces)

    def _lay_out(self, torrent: Metainfo, stored: StoredManifest) -> Path:
        """The torrent's folder: hard links to the store's blobs, and two small files."""
        folder = self._folder / torrent.name
        lay_out(
            torrent,
            stored,
            link=lambda file, digest: self._store.blobs.link_out(digest, folder / file.path),
            write=lambda name, content: self._store.write_synced(folder / name, content),
        )
        return folder

    def _release(self, info_hash: bytes, manifest: Digest | None) -> None:
        with self._lock:
            self._swarm.forget(info_hash)
            if manifest:
                shutil.rmtree(self._folder / manifest.hex, ignore_errors=True)

    def _pin(self, repository: str, digest: Digest) -> None:
        try:
            stored = self._store.manifests.get(repository, digest)
            for child in stored.parsed.children:
                self._store.blobs.get(child.digest)
        except BlobUnknown:
            return
