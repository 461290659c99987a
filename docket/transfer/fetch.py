"""Bringing layers to this host: held ones linked, missing ones from the swarm, the rest by HTTP."""

from __future__ import annotations

import os
import time
from collections.abc import Iterator, Sequence
from contextlib import closing
from dataclasses import dataclass, field
from pathlib import Path
from typing import Protocol

from docket.errors import (
    InvalidMetainfo,
    NotFound,
    RegistryRefused,
    RegistryUnreachable,
    SizeMismatch,
    StoreFull,
    SwarmError,
    summary,
)
from docket.oci.digest import Digest
from docket.progress import FETCHING, HTTP, SWARM, VERIFIED, LayerProgress, Progress
from docket.rate_limit import RateLimiter
from docket.remote.client import Client
from docket.store import Download, DownloadWriter, Store
from docket.torrent.metainfo import Metainfo, lay_out, with_announce
from docket.torrent.peer.block_counts import BlockCount
from docket.torrent.peer.download import FetchProgress, FetchResult
from docket.torrent.peer.session_options import SessionOptions
from docket.torrent.peer.swarm import Swarm
from docket.transfer.metainfo import MetainfoSource
from docket.transfer.options import TransferOptions
from docket.transfer.plan import FetchRequest

_WAITS = (0.0, 0.5, 1.0, 2.0, 4.0)
"""Seconds before each try to continue over HTTP: a restarted registry comes back soon."""

_PROGRESS = 64 * 1024
"""Bytes after which a broken connection counts as the first again."""


@dataclass(slots=True)
class Fetched:
    """Where each layer came from, with payload bytes and seconds until it was verified.

    *verifying* is how many of all seconds hashing and syncing took. *blocks* splits the bytes of
    each layer from the swarm by the registry's seed and other hosts, in a swarm that counts them.
    """

    sources: dict[Digest, str] = field(default_factory=dict)
    seconds: dict[Digest, float] = field(default_factory=dict)
    swarm_bytes: int = 0
    http_bytes: int = 0
    verifying: float = 0.0
    blocks: dict[Digest, BlockCount] = field(default_factory=dict)
    info_hash: bytes | None = None


class FetchWatcher(Protocol):
    """Sees a fetch from within: bytes can be read before a whole layer is here."""

    def on_torrent(self, metainfo: Metainfo, folder: Path, /) -> None:
        """Layers come into *folder*, whose files are those of the torrent."""

    def on_adopted(self, digest: Digest, path: Path, /) -> None:
        """The store has the layer, whose file is still at *path* too."""


class Fetch:
    """Brings layers of one image into a store; its swarm serves other hosts until it is closed."""

    def __init__(
        self,
        client: Client,
        store: Store,
        options: TransferOptions,
        progress: Progress,
        *,
        swarm: Swarm | None = None,
        watcher: FetchWatcher | None = None,
    ) -> None:
        """With a *swarm* of the caller's, that one is used and stays open."""
        self._shared_swarm = swarm
        self._watcher = watcher
        self._client = client
        self._store = store
        self._options = options
        self._progress = progress
        self._limiter = RateLimiter(options.max_download)
        self._swarm = swarm
        self._began = time.monotonic()
        self._result = Fetched()
        self._hashes: dict[Digest, bytes] = {}

    def close(self) -> None:
        """Leave the swarm, unless it is the caller's."""
        if self._swarm and not self._shared_swarm:
            self._swarm.close()

    @property
    def is_seeding(self) -> bool:
        """Whether the image is served to other hosts."""
        return self._swarm is not None and self._result.info_hash is not None

    def run(self, request: FetchRequest, download: Download) -> Fetched:
        """Fetch, verify and adopt what *request* wants; once in the life of this object.

        Returning means that the store holds all of it. What was fetched before an error or a
        Ctrl-C stays in *download*, and the next fetch continues there. Raises `StoreFull`, before
        anything is fetched if the disk has too little space for it.
        """
        self._request = request
        self._download = download
        self._wanted = {layer.digest: layer for layer in request.wanted}
        if not self._wanted:
            return self._result
        self._check_space()
        with (
            self._store.space(),
            closing(MetainfoSource(self._client, self._store, request, self._options)) as source,
        ):
            self._run(source)
        return self._result

    def _check_space(self) -> None:
        needed = sum(
            max(layer.size - _stored(self._download.folder / layer.digest.layout_path), 0)
            for layer in self._wanted.values()
        )
        disk = os.statvfs(self._download.folder)
        # root may fill what is reserved for it
        free = disk.f_frsize * (disk.f_bavail if os.geteuid() else disk.f_bfree)
        if needed > free:
            raise StoreFull(self._store.location, needed=needed, free=free)

    def _run(self, source: MetainfoSource) -> None:
        gaps = {digest: [(0, layer.size)] for digest, layer in self._wanted.items()}
        if metainfo := self._metainfo(source):
            if self._watcher:
                self._watcher.on_torrent(metainfo, self._download.folder)
            have = self._have(metainfo)
            if self._options.use_swarm:
                have = self._from_swarm(metainfo, have, is_gateway=source.is_gateway)
            gaps = {
                digest: list(_gaps(have[digest], metainfo.piece_length, layer.size))
                for digest, layer in self._wanted.items()
                if digest not in self._result.sources
            }
        if gaps:
            self._from_registry(gaps)

    def _metainfo(self, source: MetainfoSource) -> Metainfo | None:
        """The image's torrent, or None (with a note) if HTTP is all there is."""
        try:
            metainfo = source.metainfo()
            self._check(metainfo)
        except (NotFound, RegistryRefused, InvalidMetainfo) as error:
            self._progress.note(f"no torrent ({summary(error)}); layers come over HTTP")
            return None
        return metainfo

    def _check(self, metainfo: Metainfo) -> None:
        """A torrent of anything but the manifest's own blobs could fill this host's disk."""
        image = self._request.image
        blobs = (image.config_descriptor, *image.layers)
        expected = {blob.digest: blob.size for blob in blobs}
        expected[image.digest] = len(image.manifest.content)
        if metainfo.name != image.digest.hex:
            raise InvalidMetainfo("the torrent is that of another image")
        if {file.digest: file.size for file in metainfo.files if file.digest} != expected:
            raise InvalidMetainfo("the torrent has other files than the image")

    def _have(self, metainfo: Metainfo) -> dict[Digest, list[bool]]:
        """Which pieces of the wanted layers lie here from an earlier fetch."""
        return {
            file.digest: self._download.have_pieces(
                file.digest,
                file.size,
                metainfo.hashes(file),
                piece_length=metainfo.piece_length,
            )
            for file in metainfo.files
            if file.digest and file.digest in self._wanted
        }

    def _from_swarm(
        self, metainfo: Metainfo, have: dict[Digest, list[bool]], *, is_gateway: bool
    ) -> dict[Digest, list[bool]]:
        """Fetch from peers; gives the pieces of each layer that are here after that."""
        self._lay_out(metainfo)
        self._hashes = {
            file.digest: metainfo.hashes(file) for file in metainfo.files if file.digest
        }
        try:
            with self._store.space():
                swarm = self._started_swarm()
                result = swarm.fetch(
                    self._reachable(metainfo, swarm),
                    self._download.folder,
                    wanted=list(self._wanted),
                    held=self._request.held,
                    have=have,
                    on_progress=self._on_progress,
                    on_complete=self._on_complete,
                    is_gateway=is_gateway,
                    trip_seconds=self._request.image.trip_seconds,
                    patience=self._options.peer_timeout,
                    expects_others=self._request.expects_others,
                    max_download=self._options.max_download,
                )
        except SwarmError as error:
            self._progress.note(f"the swarm failed ({summary(error)}); layers come over HTTP")
            return self._have(metainfo)
        self._result.swarm_bytes += result.payload
        self._result.blocks = result.blocks
        self._result.info_hash = metainfo.info_hash
        self._note_missing(result)
        return result.pieces

    def _started_swarm(self) -> Swarm:
        options = self._options
        if self._swarm is None:
            self._swarm = Swarm(
                SessionOptions(
                    max_upload=options.max_upload,
                    max_download=options.max_download,
                    watch_blocks=options.count_sources,
                )
            )
        return self._swarm

    def _reachable(self, metainfo: Metainfo, swarm: Swarm) -> Metainfo:
        """The torrent with a tracker that libtorrent can reach."""
        tracker = metainfo.announce
        if not self._client.needs_relay(tracker):
            return metainfo
        relay = swarm.announce_through(lambda query: self._client.announce(tracker, query))
        return with_announce(metainfo, relay)

    def _note_missing(self, result: FetchResult) -> None:
        missing = len(self._wanted) - len(self._result.sources)
        if not missing:
            return
        reason = "sent no more" if result.payload else "sent nothing"
        reason = f"peers {reason} for {self._options.peer_timeout:g} s"
        if result.tracker_error:
            reason = f"the tracker can't be reached: {result.tracker_error}"
        layers = "1 layer comes" if missing == 1 else f"{missing} layers come"
        self._progress.note(f"{layers} over HTTP ({reason})")

    def _lay_out(self, metainfo: Metainfo) -> None:
        """Hard links to what is held, and the two small files, in the torrent's folder."""
        in_store = frozenset(self._request.held)
        lay_out(
            metainfo,
            self._request.image.manifest,
            link=lambda _file, digest: (
                self._download.link_held(digest) if digest in in_store else None
            ),
            write=self._download.write_file,
        )

    def _on_progress(self, report: FetchProgress) -> None:
        for digest, done in report.done.items():
            if digest not in self._result.sources:
                self._report(digest, FETCHING, done, rate=report.rate, peers=report.peers)

    def _on_complete(self, digest: Digest, _path: Path) -> None:
        # every piece of it has been hashed on its way in
        self._adopt(digest, SWARM, piece_hashes=self._hashes[digest])

    def _adopt(self, digest: Digest, source: str, *, piece_hashes: bytes | None = None) -> None:
        began = time.monotonic()
        unpacked = self._request.image.unpacked.get(digest)
        self._download.adopt(digest, unpacked=unpacked, piece_hashes=piece_hashes)
        if self._watcher:
            self._watcher.on_adopted(digest, self._download.folder / digest.layout_path)
        self._result.sources[digest] = source
        now = time.monotonic()
        self._result.seconds[digest] = now - self._began
        self._result.verifying += now - began
        self._report(digest, VERIFIED, self._wanted[digest].size)

    def _from_registry(self, gaps: dict[Digest, list[tuple[int, int]]]) -> None:
        for digest, ranges in gaps.items():
            # a whole file may be a blob already, which nobody may write
            if ranges or not self._download.has_file(digest):
                with self._download.writer(digest) as writer:
                    for start, end in ranges:
                        self._fetch_range(digest, writer, start, end)
            self._adopt(digest, HTTP)

    def _fetch_range(self, digest: Digest, writer: DownloadWriter, start: int, end: int) -> None:
        """Bytes *start* to *end* of a layer into the file, going on where a connection broke."""
        repository = self._request.image.reference.repository
        tries = 0
        size = self._wanted[digest].size
        while start < end:
            before = start
            try:
                # a response comes as fast as it can: under a limit, small ones are requested
                part = start + self._limiter.share(end - start)
                for block in self._client.blob_range(repository, digest, start, part):
                    writer.write(block, start)
                    start += len(block)
                    self._result.http_bytes += len(block)
                    self._report(digest, FETCHING, size - (end - start))
                    time.sleep(self._limiter.delay(len(block)))
            except (RegistryUnreachable, SizeMismatch):
                tries = 0 if start - before >= _PROGRESS else tries + 1
                if tries >= len(_WAITS):
                    raise
                time.sleep(_WAITS[tries])

    def _report(
        self, digest: Digest, state: str, done: int, *, rate: float = 0.0, peers: int = 0
    ) -> None:
        total = self._wanted[digest].size
        self._progress.layer(LayerProgress(digest.short, state, done, total, rate, peers))


def _stored(path: Path) -> int:
    """The bytes that a sparse file takes on the disk, 0 if there is none."""
    try:
        return path.stat().st_blocks * 512
    except FileNotFoundError:
        return 0


def _gaps(have: Sequence[bool], piece_length: int, size: int) -> Iterator[tuple[int, int]]:
    """The byte ranges of the pieces that are missing, neighbours joined."""
    start: int | None = None
    for number, here in enumerate([*have, True]):
        if not here and start is None:
            start = number * piece_length
        elif here and start is not None:
            yield start, min(number * piece_length, size)
            start = None
