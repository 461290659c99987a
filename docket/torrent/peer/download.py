"""A download: one torrent of the session while some of its files are still to come."""

from __future__ import annotations

import os
import queue
import threading
import time
from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import libtorrent as lt

from docket.errors import SwarmError
from docket.oci.digest import Digest
from docket.torrent.metainfo import File, Metainfo
from docket.torrent.peer.block_counts import BlockCount, Sources
from docket.torrent.peer.piece_assignment import LOOK_SECONDS, PieceAssignment, stall_seconds
from docket.torrent.peer.session import (
    BlockSeen,
    Closed,
    FileCompleted,
    FileFailed,
    Flushed,
    Session,
    peers_of,
)
from docket.torrent.peer.session_tuning import BLOCK, depth

CLOSED = "the swarm has been closed"

_FLUSH_SECONDS = 60.0


@dataclass(frozen=True, slots=True)
class FetchProgress:
    """Bytes that each wanted blob has, bytes a second, and connected peers."""

    done: dict[Digest, int]
    rate: float
    peers: int
    payload: int


@dataclass(slots=True)
class FetchResult:
    """How a fetch ended: pieces of each wanted blob, and the payload bytes that it took.

    *blocks* tells who gave each blob, in a swarm that watches blocks. *stalled* means that not all
    came: no peer gave anything for too long, or it was cancelled.
    """

    pieces: dict[Digest, list[bool]] = field(default_factory=dict)
    payload: int = 0
    blocks: dict[Digest, BlockCount] = field(default_factory=dict)
    stalled: bool = False


class Download:
    """One fetch while it goes on; see `Swarm.fetch`."""

    def __init__(
        self,
        session: Session,
        torrent: Any,
        inbox: queue.SimpleQueue[Any],
        peer_id: bytes,
        metainfo: Metainfo,
        folder: Path,
        wanted: Collection[Digest],
        have: Mapping[Digest, list[bool]],
        on_complete: Callable[[Digest, Path], None],
        trip_seconds: float,
    ) -> None:
        self._tuning = session.tuning
        self._torrent = torrent
        self._folder = folder
        self._inbox = inbox
        self._on_complete = on_complete
        self._files = {one.digest: one for one in metainfo.files if one.digest in wanted}
        indexes = file_indexes(torrent.torrent_file(), metainfo)
        self._by_index = {indexes[one.path]: one for one in self._files.values()}
        self._piece_length = metainfo.piece_length
        self._info_hash = metainfo.info_hash
        self._trip_seconds = trip_seconds
        self._crowd = 1
        self._late: set[int] = set()
        self._all_late = False
        self._sources = Sources(metainfo)
        self._shares = PieceAssignment(
            peer_id, [bool(one) for one in torrent.get_piece_priorities()]
        )
        self._left = {one for one in self._files.values() if one.digest}
        self._arrived: set[File] = {
            one for one in self._left if one.digest and all(have.get(one.digest, [one.size == 0]))
        }

    def until_done(
        self,
        on_progress: Callable[[FetchProgress], None],
        patience: float,
        cancelled: threading.Event | None,
    ) -> FetchResult:
        """Fetch until all has come, or nothing did for *patience* seconds."""
        try:
            return self._until_done(on_progress, patience, cancelled)
        finally:
            self._tuning.end(self._info_hash)

    def _until_done(
        self,
        on_progress: Callable[[FetchProgress], None],
        patience: float,
        cancelled: threading.Event | None,
    ) -> FetchResult:
        began = moved = time.monotonic()
        asked = told = 0.0
        payload = -1
        self._give_out(self._arrived)
        while self._left:
            self._take_event()
            now = time.monotonic()
            if now - told < LOOK_SECONDS:
                continue
            told = now
            status = self._torrent.status(lt.torrent_handle.query_pieces)
            if status.total_payload_download != payload:
                payload, moved = status.total_payload_download, now
            pace = payload / self._piece_length / (now - began)
            stalled = now - moved > stall_seconds(self._crowd, pace)
            self._share(status, now=now, pace=pace, stalled=stalled)
            self._hurry(status, stalled=stalled)
            self._reconcile()
            on_progress(self._progress(status))
            if asked < moved < now - patience / 2:
                # the peers that the tracker named give nothing: it may name others
                asked = now
                self._torrent.force_reannounce(0, -1, lt.torrent_handle.ignore_min_interval)
            if now - moved > patience or (cancelled and cancelled.is_set()):
                return self._ended(stalled=True)
        return self._ended(stalled=False)

    def _take_event(self) -> None:
        try:
            event = self._inbox.get(timeout=LOOK_SECONDS)
        except queue.Empty:
            return
        self._note(event)
        if self._arrived & self._left:
            self._flush()

    def _note(self, event: object) -> None:
        if isinstance(event, FileCompleted) and event.index in self._by_index:
            self._arrived.add(self._by_index[event.index])
        elif isinstance(event, BlockSeen):
            self._sources.count(event)
        elif isinstance(event, FileFailed):
            raise OSError(event.code, event.message, str(self._folder))
        elif isinstance(event, Closed):
            raise SwarmError(CLOSED)

    def _flush(self) -> None:
        """Give out what arrived before now, once all of it can be read from the files."""
        ready = self._arrived & self._left
        self._torrent.flush_cache()
        deadline = time.monotonic() + _FLUSH_SECONDS
        while True:
            try:
                event = self._inbox.get(timeout=max(deadline - time.monotonic(), 0.0))
            except queue.Empty as error:
                raise SwarmError("libtorrent doesn't write what it fetched to the disk") from error
            if isinstance(event, Flushed):
                break
            self._note(event)
        self._give_out(ready)

    def _give_out(self, ready: Collection[File]) -> None:
        for file in sorted(ready, key=lambda one: one.first_piece):
            assert file.digest
            self._left.discard(file)
            self._on_complete(file.digest, self._folder / file.path)

    def _reconcile(self) -> None:
        """See complete files whose alert got lost."""
        done = self._torrent.file_progress(lt.torrent_handle.piece_granularity)
        found = {one for index, one in self._by_index.items() if done[index] >= one.size}
        if found & self._left:
            self._arrived |= found
            self._flush()

    def _share(self, status: Any, *, now: float, pace: float, stalled: bool) -> None:
        """Ask seeds first for what no other host will ask them for."""
        seeds, others = peers_of(self._torrent)
        rate = float(status.download_payload_rate)
        blocks = depth(len(others), rate=rate, trip_seconds=self._trip_seconds)
        self._tuning.expect(self._info_hash, blocks)
        self._crowd = len(others) + 1
        if not others and not self._shares.is_dealt:
            return
        availability = self._torrent.piece_availability()
        if not availability or not status.pieces:
            # the last piece has come meanwhile, and nothing is counted any more
            return
        changes = self._shares.changes(
            status.pieces,
            availability,
            seeds=seeds,
            others=others,
            now=now,
            pace=pace,
            ahead=blocks * BLOCK / self._piece_length,
            stalled=stalled,
        )
        if changes:
            self._torrent.prioritize_pieces(changes)
        self._tuning.part(self._torrent, self._shares.waits)

    def _hurry(self, status: Any, *, stalled: bool) -> None:
        """Nothing comes: ask others too for what a peer owes, until something comes.

        Alone with seeds, all that is missing is asked for so, and for good; in a crowd that would
        be asked of the registry by everybody.
        """
        self._tuning.hurry(self._info_hash, stalled)
        in_crowd = self._crowd > 1
        if self._late and in_crowd and (self._all_late or not stalled):
            self._torrent.clear_piece_deadlines()
            # without deadlines, libtorrent gives these pieces the lowest priority
            self._torrent.prioritize_pieces(self._shares.told(self._late))
            self._late = set()
        if not stalled or self._late:
            return
        self._all_late = not in_crowd
        if in_crowd:
            late = [one["piece_index"] for one in self._torrent.get_download_queue()]
        else:
            late = [piece for piece, here in enumerate(status.pieces) if not here]
        for piece in late:
            if self._torrent.piece_priority(piece):
                self._late.add(piece)
                self._torrent.set_piece_deadline(piece, 0)

    def _progress(self, status: Any) -> FetchProgress:
        done = self._torrent.file_progress()
        return FetchProgress(
            done={one.digest: done[index] for index, one in self._by_index.items() if one.digest},
            rate=float(status.download_payload_rate),
            peers=int(status.num_peers),
            payload=int(status.total_payload_download),
        )

    def _ended(self, *, stalled: bool) -> FetchResult:
        if stalled:
            # the caller goes on with these files
            self._flush()
        status = self._torrent.status(lt.torrent_handle.query_pieces)
        bits = list(status.pieces)
        pieces = {
            one.digest: bits[one.first_piece : one.first_piece + one.pieces]
            for one in self._files.values()
            if one.digest
        }
        return FetchResult(
            pieces=pieces,
            payload=int(status.total_payload_download),
            blocks=self._sources.blocks(),
            stalled=stalled,
        )


def file_indexes(info: Any, metainfo: Metainfo) -> dict[str, int]:
    """libtorrent's number of each file, by its path in the torrent."""
    storage = info.layout()
    prefix = f"{metainfo.name}{os.sep}"
    paths = (storage.file_path(index) for index in range(storage.num_files()))
    return {path.removeprefix(prefix): index for index, path in enumerate(paths)}
