"""Bringing layers to this host: held ones linked, missing ones from the swarm, the rest by HTTP."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import closing
from dataclasses import dataclass, field
from pathlib import Path
from threading import Event

from docket.config import PEER_TIMEOUT
from docket.errors import (
    InvalidMetainfo,
    NotFound,
    RegistryRefused,
    RegistryUnreachable,
    SizeMismatch,
    SwarmError,
    summary,
)
from docket.oci.digest import Digest
from docket.progress import FETCHING, HTTP, SWARM, VERIFIED, LayerProgress, Progress
from docket.rate_limit import RateLimiter
from docket.remote.client import Client
from docket.store import DownloadWriter, Store
from docket.torrent.metainfo import Metainfo, layout_files
from docket.torrent.peer.block_counts import BlockCount
from docket.torrent.peer.download import FetchProgress
from docket.torrent.peer.swarm import Swarm
from docket.transfer.metainfo import FetchRequest, MetainfoSource

_WAITS = (0.0, 0.5, 1.0, 2.0, 4.0)
"""Seconds before each try to go on over HTTP: a registry that is restarted comes back soon."""


@dataclass(slots=True)
class Fetched:
    """Where each layer came from, with payload bytes and seconds until it was verified.

    *verifying* is how many of all seconds hashing and making durable took. *blocks* splits what the
    swarm gave by the registry's seed and other hosts, for each layer, in a swarm that watches
    blocks.
    """

    sources: dict[Digest, str] = field(default_factory=dict)
    seconds: dict[Digest, float] = field(default_factory=dict)
    swarm_bytes: int = 0
    http_bytes: int = 0
    verifying: float = 0.0
    blocks: dict[Digest, BlockCount] = field(default_factory=dict)
    info_hash: bytes | None = None


class Fetch:
    """One image on its way into a store."""

    def __init__(
        self,
        client: Client,
        store: Store,
        image: FetchRequest,
        *,
        swarm: Callable[[], Swarm] | None,
        progress: Progress,
        patience: float = PEER_TIMEOUT,
        zone: str = "",
        pace: RateLimiter | None = None,
        cancelled: Event | None = None,
    ) -> None:
        """*swarm* begins the BitTorrent session; None: everything comes over HTTP, at *pace*.

        *zone* is the label that the tracker is told.
        """
        self._client = client
        self._store = store
        self._image = image
        self._swarm = swarm
        self._progress = progress
        self._patience = patience
        self._pace = pace or RateLimiter()
        self._cancelled = cancelled
        self._download = store.downloads.get(image.digest)
        self._wanted = {one.digest: one for one in image.wanted}
        self._began = time.monotonic()
        self._assembly = MetainfoSource(client, store, image, zone=zone, joins=swarm is not None)
        self._checked: dict[Digest, bytes] = {}
        self._result = Fetched()

    def run(self) -> Fetched:
        """Fetch, verify and adopt what is wanted.

        Returning means that the store holds all of it. What was fetched before an error or a
        Ctrl-C stays in the folder, and the next fetch goes on there. Raises `StoreFull`.
        """
        with self._store.space(), closing(self._assembly):
            return self._run()

    def _run(self) -> Fetched:
        gaps = {digest: [(0, one.size)] for digest, one in self._wanted.items()}
        if metainfo := self._metainfo():
            have = self._have(metainfo)
            if self._swarm:
                have = self._from_swarm(metainfo, self._swarm, have)
            gaps = {
                digest: list(_gaps(have[digest], metainfo.piece_length, one.size))
                for digest, one in self._wanted.items()
                if digest not in self._result.sources
            }
        if gaps:
            self._from_registry(gaps)
        return self._result

    def _metainfo(self) -> Metainfo | None:
        """The image's torrent, or None (with a note) when HTTP is all there is."""
        try:
            metainfo = self._assembly.metainfo()
            self._check(metainfo)
        except (NotFound, RegistryRefused, InvalidMetainfo) as error:
            self._progress.note(f"no torrent ({summary(error)}); layers come over HTTP")
            return None
        return metainfo

    def _check(self, metainfo: Metainfo) -> None:
        files = {file.digest: file.size for file in metainfo.files if file.digest}
        for digest, one in self._wanted.items():
            if files.get(digest) != one.size:
                raise InvalidMetainfo(f"the torrent lacks layer {digest}")
        if metainfo.name != self._image.digest.hex:
            raise InvalidMetainfo("the torrent is that of another image")

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
        self,
        metainfo: Metainfo,
        begin: Callable[[], Swarm],
        have: dict[Digest, list[bool]],
    ) -> dict[Digest, list[bool]]:
        """Fetch from peers; the pieces of each layer that are here then."""
        self._lay_out(metainfo)
        self._checked = {one.digest: metainfo.hashes(one) for one in metainfo.files if one.digest}
        try:
            with self._store.space():
                result = begin().fetch(
                    metainfo,
                    self._download.folder,
                    wanted=list(self._wanted),
                    held=self._image.held,
                    have=have,
                    on_progress=self._on_progress,
                    on_complete=self._on_complete,
                    is_gateway=self._assembly.is_gateway,
                    trip_seconds=self._image.trip_seconds,
                    patience=self._patience,
                    cancelled=self._cancelled,
                )
        except SwarmError as error:
            self._progress.note(f"the swarm failed ({summary(error)}); layers come over HTTP")
            return self._have(metainfo)
        self._result.swarm_bytes += result.payload
        self._result.blocks = result.blocks
        self._result.info_hash = metainfo.info_hash
        left = len(self._wanted) - len(self._result.sources)
        if left:
            why = "stalled" if result.payload else f"gave nothing for {self._patience:g} s"
            self._progress.note(f"the swarm {why}; {left} layers go on over HTTP")
        return result.pieces

    def _lay_out(self, metainfo: Metainfo) -> None:
        """Hard links to what is held, and the two small files, in the torrent's folder."""
        for file in metainfo.files:
            if file.digest and file.digest in self._image.held:
                self._download.link_held(file.digest)
        image = self._image
        small = layout_files(image.digest, media_type=image.media_type, size=image.size)
        for name, content in small.items():
            self._download.write_file(name, content)

    def _on_progress(self, report: FetchProgress) -> None:
        for digest, done in report.done.items():
            if digest not in self._result.sources:
                self._tell(digest, FETCHING, done, rate=report.rate, peers=report.peers)

    def _on_complete(self, digest: Digest, _path: Path) -> None:
        # every piece of it has been hashed on its way in
        self._adopt(digest, SWARM, piece_hashes=self._checked[digest])

    def _adopt(self, digest: Digest, source: str, *, piece_hashes: bytes | None = None) -> None:
        began = time.monotonic()
        unpacked = self._image.unpacked.get(digest)
        self._download.adopt(digest, unpacked=unpacked, piece_hashes=piece_hashes)
        self._result.sources[digest] = source
        now = time.monotonic()
        self._result.seconds[digest] = now - self._began
        self._result.verifying += now - began
        self._tell(digest, VERIFIED, self._wanted[digest].size)

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
        repository = self._image.reference.repository
        tries = 0
        size = self._wanted[digest].size
        while start < end:
            before = start
            try:
                # what was asked for comes as fast as it can: with a pace, little is at a time
                part = start + self._pace.share(end - start)
                for block in self._client.blob_range(repository, digest, start, part):
                    writer.write(block, start)
                    start += len(block)
                    self._result.http_bytes += len(block)
                    self._tell(digest, FETCHING, size - (end - start))
                    time.sleep(self._pace.delay(len(block)))
            except (RegistryUnreachable, SizeMismatch):
                tries = 0 if start > before else tries + 1
                if tries >= len(_WAITS):
                    raise
                time.sleep(_WAITS[tries])

    def _tell(
        self, digest: Digest, state: str, done: int, *, rate: float = 0.0, peers: int = 0
    ) -> None:
        total = self._wanted[digest].size
        self._progress.layer(LayerProgress(digest.short, state, done, total, rate, peers))


def _gaps(have: Sequence[bool], piece_length: int, size: int) -> Iterator[tuple[int, int]]:
    """The byte ranges of the pieces that are missing, neighbours joined."""
    start: int | None = None
    for number, here in enumerate([*have, True]):
        if not here and start is None:
            start = number * piece_length
        elif here and start is not None:
            yield start, min(number * piece_length, size)
            start = None
