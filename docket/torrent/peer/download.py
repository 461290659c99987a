"""A download: one torrent of the session while some of its files are missing."""

from __future__ import annotations

import os
import queue
import threading
import time
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import libtorrent as lt

from docket.errors import SwarmError
from docket.oci.digest import Digest
from docket.torrent.metainfo import File, Metainfo
from docket.torrent.peer.block_counts import BlockCount, BlockCounts
from docket.torrent.peer.events import (
    BlockSeen,
    Closed,
    Event,
    FileCompleted,
    FileFailed,
    Flushed,
    TrackerAnswered,
    TrackerFailed,
)
from docket.torrent.peer.handles import TorrentHandle, TorrentStatus
from docket.torrent.peer.piece_assignment import (
    SHORTEST_LOOK_SECONDS,
    PieceAssignment,
    pause_after_look,
    stall_seconds,
)
from docket.torrent.peer.session import Session, peers_of
from docket.torrent.peer.session_tuning import BLOCK, depth

CLOSED = "the swarm has been closed"

_FLUSH_SECONDS = 60.0

_FIRST_PIECES = 2
"""Pieces that a peer requests before it knows which others have started with it."""

_OTHERS_SECONDS = 0.5
"""How long it waits for others that are expected."""


@dataclass(frozen=True, slots=True)
class FetchProgress:
    """Bytes here of each wanted blob, the rate in bytes a second, and connected peers."""

    done: dict[Digest, int]
    rate: float
    peers: int
    payload: int


@dataclass(slots=True)
class FetchResult:
    """How a fetch ended: the pieces here of each wanted blob, and the payload bytes it received.

    *blocks* splits the bytes of each blob by sender, in a session that watches blocks. *stalled*
    means that something is missing: no peer sent anything for too long, or the fetch was cancelled.
    *tracker_error* is why the tracker couldn't be reached or refused, in one line; empty when it
    answered.
    """

    pieces: dict[Digest, list[bool]] = field(default_factory=dict)
    payload: int = 0
    blocks: dict[Digest, BlockCount] = field(default_factory=dict)
    stalled: bool = False
    tracker_error: str = ""


@dataclass(slots=True)
class TrackerState:
    """Whether the tracker has answered this fetch, and the first failure until it does."""

    error: str = ""
    has_answered: bool = False

    def note(self, event: TrackerAnswered | TrackerFailed) -> None:
        """Take over what *event* reports."""
        if isinstance(event, TrackerAnswered):
            self.has_answered, self.error = True, ""
        elif not self.has_answered and (not self.error or not event.is_other_family):
            self.error = event.reason


class Download:
    """A fetch in progress; see `Swarm.fetch`."""

    def __init__(
        self,
        session: Session,
        torrent: TorrentHandle,
        inbox: queue.SimpleQueue[Event],
        peer_id: bytes,
        metainfo: Metainfo,
        folder: Path,
        wanted: Collection[Digest],
        have: Mapping[Digest, list[bool]],
        on_complete: Callable[[Digest, Path], None],
        trip_seconds: float,
        expects_others: bool,
    ) -> None:
        self._tuning = session.tuning
        self._torrent = torrent
        self._folder = folder
        self._inbox = inbox
        self._on_complete = on_complete
        self._files = {file.digest: file for file in metainfo.files if file.digest in wanted}
        indexes = file_indexes(torrent.torrent_file(), metainfo)
        self._by_index = {indexes[file.path]: file for file in self._files.values()}
        self._piece_length = metainfo.piece_length
        self._info_hash = metainfo.info_hash
        self._trip_seconds = trip_seconds
        self._hosts = 1
        self._pause = SHORTEST_LOOK_SECONDS
        self._urgent: set[int] = set()
        self._all_urgent = False
        self._block_counts = BlockCounts(metainfo)
        self._assignment = PieceAssignment(
            peer_id, [bool(priority) for priority in torrent.get_piece_priorities()]
        )
        self._missing = {file for file in self._files.values() if file.digest}
        self._arrived: set[File] = {
            file
            for file in self._missing
            if file.digest and all(have.get(file.digest, [file.size == 0]))
        }
        self.tracker = TrackerState()
        self._others_until = time.monotonic() + _OTHERS_SECONDS if expects_others else 0.0
        if expects_others:
            bits = torrent.status(lt.torrent_handle.query_pieces).pieces
            self._narrow(list(bits) or [True] * metainfo.piece_count)

    def until_done(
        self,
        on_progress: Callable[[FetchProgress], None],
        patience: float,
        cancelled: threading.Event | None,
    ) -> FetchResult:
        """Fetch until all has arrived, or nothing did for *patience* seconds."""
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
        announced = looked = 0.0
        payload = -1
        self._deliver(self._arrived)
        while self._missing:
            self._take_event()
            now = time.monotonic()
            if now - looked < self._pause:
                continue
            looked = now
            status = self._torrent.status(lt.torrent_handle.query_pieces)
            if status.total_payload_download != payload:
                payload, moved = status.total_payload_download, now
            rate = payload / self._piece_length / (now - began)
            stalled = now - moved > stall_seconds(self._hosts, rate)
            self._assign(status, now=now, rate=rate, stalled=stalled)
            self._set_end_game(status, stalled=stalled)
            self._reconcile()
            on_progress(self._progress(status))
            self._pause = pause_after_look(time.monotonic() - now)
            if announced < moved < now - patience / 2:
                # the peers that the tracker named send nothing: it may name others
                announced = now
                self._torrent.force_reannounce(0, -1, lt.torrent_handle.ignore_min_interval)
            if now - moved > patience or (cancelled and cancelled.is_set()):
                return self._ended(stalled=True)
        return self._ended(stalled=False)

    def _take_event(self) -> None:
        try:
            event = self._inbox.get(timeout=self._pause)
        except queue.Empty:
            return
        self._note(event)
        if self._arrived & self._missing:
            self._flush()

    def _note(self, event: Event) -> None:
        if isinstance(event, FileCompleted) and event.index in self._by_index:
            self._arrived.add(self._by_index[event.index])
        elif isinstance(event, BlockSeen):
            self._block_counts.count(event)
        elif isinstance(event, TrackerAnswered | TrackerFailed):
            self.tracker.note(event)
        elif isinstance(event, FileFailed):
            raise OSError(event.code, event.message, str(self._folder))
        elif isinstance(event, Closed):
            raise SwarmError(CLOSED)

    def _flush(self) -> None:
        """Deliver the files that arrived before now, once they can be read completely."""
        ready = self._arrived & self._missing
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
        self._deliver(ready)

    def _deliver(self, ready: Collection[File]) -> None:
        for file in sorted(ready, key=lambda file: file.first_piece):
            assert file.digest
            self._missing.discard(file)
            self._on_complete(file.digest, self._folder / file.path)

    def _reconcile(self) -> None:
        """Notice complete files whose alert got lost."""
        done = self._torrent.file_progress(lt.torrent_handle.piece_granularity)
        complete = {file for index, file in self._by_index.items() if done[index] >= file.size}
        if complete & self._missing:
            self._arrived |= complete
            self._flush()

    def _assign(self, status: TorrentStatus, *, now: float, rate: float, stalled: bool) -> None:
        """Set priorities: of the seeds, request first what no other host will request of them."""
        seeds, others = peers_of(self._torrent)
        bytes_a_second = float(status.download_payload_rate)
        blocks = depth(len(others), rate=bytes_a_second, trip_seconds=self._trip_seconds)
        self._tuning.set_request_depth(self._info_hash, blocks)
        self._hosts = len(others) + 1
        if not others and not self._assignment.has_others:
            self._await_others(status, now)
            return
        availability = self._torrent.piece_availability()
        if not availability or not status.pieces:
            # the last piece has arrived meanwhile, and libtorrent counts no longer
            return
        changes = self._assignment.update(
            status.pieces,
            availability,
            seeds=seeds,
            others=others,
            now=now,
            rate=rate,
            ahead=blocks * BLOCK / self._piece_length,
            stalled=stalled,
            pause=self._pause,
        )
        if changes:
            self._torrent.prioritize_pieces(changes)
        self._tuning.disconnect_registry(self._torrent, self._assignment.is_idle)

    def _await_others(self, status: TorrentStatus, now: float) -> None:
        """Hold back until others that are expected have connected, for a while."""
        if not self._others_until or not status.pieces:
            return
        if now < self._others_until:
            self._narrow(status.pieces)
            return
        self._others_until = 0.0
        self._torrent.prioritize_pieces(self._assignment.alone(status.pieces))

    def _narrow(self, have: Sequence[bool]) -> None:
        if changes := self._assignment.before_others(have, _FIRST_PIECES):
            self._torrent.prioritize_pieces(changes)

    def _set_end_game(self, status: TorrentStatus, *, stalled: bool) -> None:
        """While nothing arrives, request outstanding blocks of other peers too.

        Alone with seeds, everything missing gets a deadline, and keeps it; with other hosts around,
        each of them would request that of the registry.
        """
        self._tuning.set_end_game(self._info_hash, stalled)
        has_others = self._hosts > 1
        if self._urgent and has_others and (self._all_urgent or not stalled):
            self._torrent.clear_piece_deadlines()
            # libtorrent gives a piece whose deadline was cleared the lowest priority
            self._torrent.prioritize_pieces(self._assignment.current_priorities(self._urgent))
            self._urgent = set()
        if not stalled or self._urgent:
            return
        self._all_urgent = not has_others
        if has_others:
            urgent = [row["piece_index"] for row in self._torrent.get_download_queue()]
        else:
            urgent = [piece for piece, is_here in enumerate(status.pieces) if not is_here]
        for piece in urgent:
            if self._torrent.piece_priority(piece):
                self._urgent.add(piece)
                self._torrent.set_piece_deadline(piece, 0)

    def _progress(self, status: TorrentStatus) -> FetchProgress:
        done = self._torrent.file_progress()
        return FetchProgress(
            done={
                file.digest: done[index] for index, file in self._by_index.items() if file.digest
            },
            rate=float(status.download_payload_rate),
            peers=int(status.num_peers),
            payload=int(status.total_payload_download),
        )

    def _ended(self, *, stalled: bool) -> FetchResult:
        if stalled:
            # the caller completes these files
            self._flush()
        status = self._torrent.status(lt.torrent_handle.query_pieces)
        bits = list(status.pieces)
        pieces = {
            file.digest: bits[file.first_piece : file.first_piece + file.pieces]
            for file in self._files.values()
            if file.digest
        }
        return FetchResult(
            pieces=pieces,
            payload=int(status.total_payload_download),
            blocks=self._block_counts.blocks(),
            stalled=stalled,
            tracker_error=self.tracker.error,
        )


def file_indexes(info: Any, metainfo: Metainfo) -> dict[str, int]:
    """libtorrent's number of each file, by its path in the torrent."""
    storage = info.layout()
    prefix = f"{metainfo.name}{os.sep}"
    paths = (storage.file_path(index) for index in range(storage.num_files()))
    return {path.removeprefix(prefix): index for index, path in enumerate(paths)}
