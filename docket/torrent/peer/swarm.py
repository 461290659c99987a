"""Swarms: seed an image that is here, fetch the layers that are not (BEP 3, by libtorrent)."""

from __future__ import annotations

import queue
import threading
import time
from collections.abc import Callable, Collection, Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import libtorrent as lt

from docket.config import PEER_TIMEOUT
from docket.errors import SwarmError
from docket.oci.digest import Digest
from docket.torrent.metainfo import Metainfo
from docket.torrent.peer.announce_relay import AnnounceRelay
from docket.torrent.peer.download import CLOSED, Download, FetchProgress, FetchResult, file_indexes
from docket.torrent.peer.events import Closed, Event, Removed
from docket.torrent.peer.handles import TorrentHandle
from docket.torrent.peer.piece_assignment import Priority
from docket.torrent.peer.save_paths import SavePaths
from docket.torrent.peer.session import Session
from docket.torrent.peer.session_options import SessionOptions

_REMOVE_SECONDS = 10.0


@dataclass(slots=True)
class _Member:
    """A torrent in the session."""

    torrent: TorrentHandle
    metainfo: Metainfo
    asked: float
    peer_id: bytes
    tracker_error: str = ""


@dataclass(frozen=True, slots=True)
class Traffic:
    """Connected peers, and payload rates in bytes a second.

    *has_incoming* says whether a peer that connected to this host was ever seen.
    """

    peers: int
    has_incoming: bool
    upload_rate: int
    download_rate: int


class Swarm:
    """A BitTorrent peer in this process; safe to use from many threads."""

    def __init__(self, options: SessionOptions | None = None) -> None:
        """Without *options*, it listens at all addresses without limits.

        Raises `SwarmError` when it can't listen.
        """
        self._session = Session(options or SessionOptions())
        self._save_paths = SavePaths()
        self._relays: list[AnnounceRelay] = []
        self._members: dict[bytes, _Member] = {}
        self._fetching: set[bytes] = set()
        self._closed = False
        self._has_incoming = False
        self._lock = threading.Lock()

    @property
    def port(self) -> int:
        """The TCP port that peers connect to."""
        return self._session.port

    def on_peer(self, call: Callable[[bytes, bytes, str], None]) -> None:
        """From now on *call* with info-hash, id and address of every peer that connects.

        It is called on the thread that serves all peers, so it must not wait.
        """
        self._session.on_peer(call)

    def announce_through(self, send: Callable[[str], bytes]) -> str:
        """The URL of an `AnnounceRelay` to *send*, which lasts as long as the swarm."""
        relay = AnnounceRelay(send)
        self._relays.append(relay)
        return relay.url

    def close(self) -> None:
        """Leave all swarms; files stay. A fetch in progress ends with `SwarmError`."""
        with self._lock:
            self._closed = True
            self._members.clear()
        self._session.close()
        self._save_paths.close()
        for relay in self._relays:
            relay.close()

    def __enter__(self) -> Swarm:
        return self

    def __exit__(self, *_exc: object) -> None:
        self.close()

    def seed(self, metainfo: Metainfo, folder: Path) -> None:
        """Serve all of the torrent from *folder*, which is named as the torrent is.

        The files are trusted: nothing is hashed. Seeding what is seeded is a no-op.
        """
        with self._lock:
            if metainfo.info_hash not in self._members:
                pieces = [True] * metainfo.piece_count
                self._join(metainfo, folder, pieces, wanted=None)

    def keep(self, info_hash: bytes) -> bool:
        """Whether the torrent is in the session; if so, it counts as requested now."""
        with self._lock:
            member = self._members.get(info_hash)
            if member:
                member.asked = time.monotonic()
        return member is not None

    def forget(self, info_hash: bytes) -> None:
        """Leave the swarm, if in it; files stay. Returning means that no file is in use."""
        with self._session.events(info_hash) as inbox:
            with self._lock:
                member = self._members.pop(info_hash, None)
                if member is None:
                    return
                self._session.remove(member.torrent)
            _wait_for(inbox, (Removed, Closed), _REMOVE_SECONDS)

    def info_hashes(self) -> list[bytes]:
        """The torrents in the session."""
        with self._lock:
            return list(self._members)

    def idle_seconds(self, info_hash: bytes) -> float:
        """Seconds since a peer was connected or the torrent was requested."""
        with self._lock:
            member = self._members.get(info_hash)
            if member is None:
                return 0.0
            if member.torrent.status().num_peers:
                member.asked = time.monotonic()
            return time.monotonic() - member.asked

    def uploaded(self, info_hash: bytes) -> int:
        """Payload bytes sent to peers."""
        with self._lock:
            member = self._members.get(info_hash)
            return int(member.torrent.status().total_payload_upload) if member else 0

    def set_limits(self, *, upload: int, download: int) -> None:
        """Limit both rates, in bytes a second, from now on; 0 is no limit."""
        self._session.set_limits(upload=upload, download=download)

    def traffic(self) -> Traffic:
        """What goes on in all torrents together, at this moment."""
        peers, has_incoming, upload_rate, download_rate = set(), self._has_incoming, 0, 0
        with self._lock:
            torrents = [member.torrent for member in self._members.values()]
        for torrent in torrents:
            with suppress(RuntimeError):  # it has just left
                status = torrent.status()
                upload_rate += int(status.upload_payload_rate)
                download_rate += int(status.download_payload_rate)
                for peer in torrent.get_peer_info():
                    peers.add(peer.ip)
                    has_incoming = has_incoming or not peer.flags & lt.peer_info.local_connection
        self._has_incoming = has_incoming
        return Traffic(len(peers), has_incoming, upload_rate, download_rate)

    def connect(self, info_hash: bytes, address: str, port: int) -> None:
        """Connect to a peer without a tracker."""
        with self._lock:
            self._members[info_hash].torrent.connect_peer((address, port))

    def fetch(
        self,
        metainfo: Metainfo,
        folder: Path,
        *,
        wanted: Collection[Digest],
        held: Collection[Digest],
        have: Mapping[Digest, list[bool]],
        on_progress: Callable[[FetchProgress], None],
        on_complete: Callable[[Digest, Path], None],
        is_gateway: bool = True,
        trip_seconds: float = 0.0,
        patience: float = PEER_TIMEOUT,
        expects_others: bool = False,
        max_download: int = 0,
        cancelled: threading.Event | None = None,
    ) -> FetchResult:
        """Fetch the *wanted* blobs of a torrent into *folder*, which is named as the torrent is.

        Blobs that are *held*, and the layout's small files, are in place already and are served to
        other hosts meanwhile; *have* marks the pieces of wanted blobs that are in place.
        *is_gateway* makes this peer call itself a gateway: see `peer_selection`; *trip_seconds* is
        the round trip to the registry. When it *expects_others*, hosts that start to fetch the same
        at this moment, it requests only a few pieces until it knows them. At most *max_download*
        bytes a second come, if the session allows more; 0 is no limit. *on_complete* is called
        on this thread for each wanted blob as soon as all of it can be read, while others still
        arrive.

        When all has arrived, the torrent stays in the session and serves until `forget`; else it
        has left. What an earlier fetch of the torrent wanted doesn't matter. Raises OSError when a
        file can't be written, and `SwarmError` while another thread fetches the same torrent, or
        when the swarm is closed.
        """
        pieces = _pieces_at_start(metainfo, held, have)
        with self._only_fetch(metainfo), self._session.events(metainfo.info_hash) as inbox:
            with self._lock:
                self._join(
                    metainfo, folder, pieces, wanted=frozenset(wanted), is_gateway=is_gateway
                )
                member = self._members[metainfo.info_hash]
                member.torrent.set_download_limit(max_download)
            ours = (self._session, member.torrent, inbox, member.peer_id)
            run = Download(
                *ours, metainfo, folder, wanted, have, on_complete, trip_seconds, expects_others
            )
            run.tracker.error = member.tracker_error
            try:
                result = run.until_done(on_progress, patience, cancelled)
            except BaseException as error:
                if self._closed and isinstance(error, RuntimeError):
                    # what libtorrent raises for a torrent whose session is gone
                    raise SwarmError(CLOSED) from error
                self.forget(metainfo.info_hash)
                raise
        if result.stalled:
            self.forget(metainfo.info_hash)
        return result

    @contextmanager
    def _only_fetch(self, metainfo: Metainfo) -> Iterator[None]:
        info_hash = metainfo.info_hash
        with self._lock:
            if info_hash in self._fetching:
                raise SwarmError(f"the torrent {metainfo.name} is being fetched already")
            self._fetching.add(info_hash)
        try:
            # added twice, a torrent would keep the pieces and priorities of the first time
            self.forget(info_hash)
            yield
        finally:
            with self._lock:
                self._fetching.discard(info_hash)

    def _join(
        self,
        metainfo: Metainfo,
        folder: Path,
        pieces: list[bool],
        *,
        wanted: frozenset[Digest] | None,
        is_gateway: bool = False,
    ) -> None:
        if self._closed:
            raise SwarmError(CLOSED)
        params = _params(metainfo)
        params.save_path = self._save_paths.path(folder.parent)
        params.have_pieces = pieces
        if wanted is not None:
            params.file_priorities = _priorities(params, metainfo, wanted)
        try:
            torrent, peer_id = self._session.join(params, is_gateway=is_gateway)
        except RuntimeError as error:
            raise SwarmError(f"libtorrent refuses the torrent {metainfo.name}: {error}") from error
        unusable = metainfo.announce and not params.trackers
        self._members[metainfo.info_hash] = _Member(
            torrent,
            metainfo,
            time.monotonic(),
            peer_id,
            f"libtorrent can't use the address {metainfo.announce}" if unusable else "",
        )


def _params(metainfo: Metainfo) -> Any:
    """libtorrent's parameters of the torrent. Raises `SwarmError` when it refuses it."""
    try:
        params = lt.load_torrent_buffer(metainfo.content)
    except RuntimeError as error:
        raise SwarmError(f"libtorrent refuses the torrent {metainfo.name}: {error}") from error
    if params.info_hashes.v1.to_bytes() != metainfo.info_hash:
        # bencoding that isn't canonical: torf and libtorrent see two torrents
        raise SwarmError(f"the torrent {metainfo.name} is not encoded as BEP 3 demands")
    # what `parse_metainfo` leaves out, wherever the torrent is from
    params.url_seeds = []
    params.http_seeds = []
    params.dht_nodes = []
    params.trackers = [metainfo.announce] if metainfo.announce in params.trackers else []
    params.flags &= ~(lt.torrent_flags.auto_managed | lt.torrent_flags.paused)
    return params


def _pieces_at_start(
    metainfo: Metainfo, held: Collection[Digest], have: Mapping[Digest, list[bool]]
) -> list[bool]:
    """Which pieces are in place: all of held blobs and small files, some of the others."""
    bits = [False] * metainfo.piece_count
    for file in metainfo.files:
        end = file.first_piece + file.pieces
        if file.digest is None or file.digest in held:
            bits[file.first_piece : end] = [True] * file.pieces
        elif file.digest in have:
            bits[file.first_piece : end] = have[file.digest]
    return bits


def _priorities(params: Any, metainfo: Metainfo, wanted: frozenset[Digest]) -> list[int]:
    """Priority of every file, pads too; a file that is in place may have any."""
    indexes = file_indexes(params.ti, metainfo)
    priorities: list[int] = [Priority.SKIP] * params.ti.num_files()
    for file in metainfo.files:
        if file.digest in wanted:
            priorities[indexes[file.path]] = Priority.NORMAL
    return priorities


def _wait_for(
    inbox: queue.SimpleQueue[Event], event_types: tuple[type[object], ...], seconds: float
) -> None:
    deadline = time.monotonic() + seconds
    while (left := deadline - time.monotonic()) > 0:
        try:
            if isinstance(inbox.get(timeout=left), event_types):
                return
        except queue.Empty:
            return
