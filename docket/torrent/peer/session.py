"""The libtorrent session, and one thread that turns its alerts into plain events."""

from __future__ import annotations

import contextlib
import queue
import secrets
import socket
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any, cast

import libtorrent as lt

from docket.errors import SwarmError
from docket.torrent.peer.events import (
    BlockSeen,
    Closed,
    Event,
    FileCompleted,
    FileFailed,
    Flushed,
    Removed,
    TrackerAnswered,
    TrackerFailed,
)
from docket.torrent.peer.foreign_clients import ForeignClients
from docket.torrent.peer.handles import TorrentHandle
from docket.torrent.peer.session_options import GOODBYE_SECONDS, SessionOptions, limit_settings
from docket.torrent.peer.session_tuning import REQUEST_DEPTH, SessionTuning
from docket.torrent.peer_id import GATEWAY_PEER, HOST_PEER, REGISTRY_PEER, is_registry

_LISTEN_SECONDS = 10.0
_CLOSE_SECONDS = 5.0
_LOOK_MS = 50
_BLOCKED = 1  # libtorrent's flag of a blocked address

DEPTH_WITH_FOREIGN_CLIENTS = 2000
"""`REQUEST_DEPTH` while a client that isn't docket's is connected: libtorrent's default."""

_ALERTS = (
    lt.alert.category_t.error_notification
    | lt.alert.category_t.status_notification
    | lt.alert.category_t.storage_notification
    | lt.alert.category_t.file_progress_notification
    | lt.alert.category_t.peer_notification
    | lt.alert.category_t.connect_notification
    | lt.alert.category_t.tracker_notification
)
_CONNECTING = lt.peer_info.connecting | lt.peer_info.handshake
_BLOCK_ALERTS = lt.alert.category_t.block_progress_notification
_UNREACHABLE = "unreachable"  # of a tracker, from an address of another family than its own


class Session:
    """One libtorrent session and its alert thread; safe to use from many threads."""

    def __init__(self, options: SessionOptions) -> None:
        """Raises `SwarmError` when it can't listen."""
        self._is_registry = options.is_registry
        # all of the peer id, so that it is known here: libtorrent's end would be random too
        self._peer_id_end = secrets.token_hex(6).encode()
        self._subscribers: dict[bytes, list[queue.SimpleQueue[Event]]] = {}
        self._lock = threading.Lock()
        self._listening = threading.Event()
        self._closing = False
        self._on_peer: Callable[[bytes, bytes, str], None] = lambda *_peer: None
        self.tuning = SessionTuning(self)
        self._foreign_clients = ForeignClients(
            self._adapt_to_foreign_clients, lambda *peer: self._on_peer(*peer)
        )
        settings = options.settings() | {
            "peer_fingerprint": self._peer_id(is_gateway=False).decode(),
            "alert_mask": int(_ALERTS | _BLOCK_ALERTS if options.watch_blocks else _ALERTS),
        }
        # None when it has been closed; the type stubs lack the newer settings
        self._session: Any = lt.session(settings)  # type: ignore[call-overload]
        if options.is_limited:
            _limit_local_peers(self._session)
        self._wake, wake_writer = socket.socketpair()
        self._wake_writer = wake_writer
        self._wake.setblocking(True)
        wake_writer.setblocking(False)
        self._session.set_alert_fd(wake_writer.fileno())
        self._thread = threading.Thread(target=self._run, name="swarm-alerts", daemon=True)
        self._thread.start()
        if not self._listening.wait(_LISTEN_SECONDS) or not self._session.listen_port():
            self.close()
            listen = settings["listen_interfaces"]
            raise SwarmError(f"no BitTorrent peer can listen on {listen}; choose another port")
        self.port: int = self._session.listen_port()

    def _peer_id(self, *, is_gateway: bool) -> bytes:
        prefix = REGISTRY_PEER if self._is_registry else GATEWAY_PEER if is_gateway else HOST_PEER
        return prefix + self._peer_id_end

    def join(self, params: Any, *, is_gateway: bool) -> tuple[TorrentHandle, bytes]:
        """Add a torrent; the result is its handle, and this peer's id in that swarm.

        Raises RuntimeError when libtorrent refuses it.
        """
        peer_id = self._peer_id(is_gateway=is_gateway)
        # a torrent takes its id when it is added
        self._session.apply_settings({"peer_fingerprint": peer_id.decode()})
        return self._session.add_torrent(params), peer_id

    def remove(self, torrent: TorrentHandle) -> None:
        """Begin to remove *torrent*, files stay; `Removed` follows when no file is in use."""
        # never with delete_files: other torrents share the same inodes
        self._session.remove_torrent(torrent)

    def apply(self, name: str, value: object) -> None:
        """Change one setting; a no-op in a session that has been closed."""
        if (session := self._session) is not None:
            session.apply_settings({name: value})

    def set_limits(self, *, upload: int, download: int) -> None:
        """Limit both rates, in bytes a second, from now on; 0 is no limit."""
        if (session := self._session) is not None:
            _limit_local_peers(session)
            session.apply_settings(limit_settings(upload, download))

    def block_addresses(self, addresses: set[str]) -> None:
        """Connect to none of *addresses*, and accept nothing from them; those before are free."""
        if (session := self._session) is not None:
            blocked = lt.ip_filter()
            for address in addresses:
                blocked.add_rule(address, address, _BLOCKED)
            session.set_ip_filter(blocked)

    def on_peer(self, call: Callable[[bytes, bytes, str], None]) -> None:
        """*call* with info-hash, id and address of every peer that completes a handshake.

        It is called on the alert thread, so it must not wait.
        """
        self._on_peer = call

    def close(self) -> None:
        """Leave all swarms and stop; once more is a no-op."""
        if self._closing:
            return
        self._closing = True
        with contextlib.suppress(OSError):
            self._wake_writer.send(b"x")
        self._thread.join(_CLOSE_SECONDS)
        self._send_all(Closed())
        self._say_goodbye()
        self._session = None
        self._wake.close()
        self._wake_writer.close()

    def _say_goodbye(self) -> None:
        """Send the trackers "stopped", and wait for their answers, for a second at most.

        The end of a session waits for them too, but it polls every 0.1 s.
        """
        self.apply("alert_mask", int(lt.alert.category_t.tracker_notification))
        torrents = self._session.get_torrents()
        deadline = time.monotonic() + GOODBYE_SECONDS
        # while "completed" is on its way, libtorrent would drop "stopped"
        self._await_trackers(torrents, deadline)
        self._session.pause()
        self._await_trackers(torrents, deadline)

    def _await_trackers(self, torrents: list[TorrentHandle], deadline: float) -> None:
        while any(map(_is_announcing, torrents)) and time.monotonic() < deadline:
            self._session.wait_for_alert(_LOOK_MS)
            self._session.pop_alerts()

    @contextmanager
    def events(self, info_hash: bytes) -> Iterator[queue.SimpleQueue[Event]]:
        """The events of one torrent from now on, for one reader; there may be others."""
        inbox: queue.SimpleQueue[Event] = queue.SimpleQueue()
        with self._lock:
            self._subscribers.setdefault(info_hash, []).append(inbox)
        try:
            yield inbox
        finally:
            with self._lock:
                self._subscribers[info_hash].remove(inbox)
                if not self._subscribers[info_hash]:
                    del self._subscribers[info_hash]

    def _run(self) -> None:
        while not self._closing:
            self._wake.settimeout(self._foreign_clients.next_look_seconds)
            with contextlib.suppress(TimeoutError):
                self._wake.recv(4096)
            # alerts die at the next pop, so what is needed of them is copied at once
            for alert in self._session.pop_alerts():
                self._take(alert)
            self._foreign_clients.look()

    def _take(self, alert: Any) -> None:
        if isinstance(alert, lt.listen_succeeded_alert | lt.listen_failed_alert):
            self._listening.set()
        elif isinstance(alert, lt.torrent_removed_alert):
            self._send(alert.info_hash, Removed())
        elif isinstance(alert, lt.peer_connect_alert):
            self._foreign_clients.connected(cast("TorrentHandle", alert.handle))
        elif isinstance(alert, lt.peer_disconnected_alert):
            self._foreign_clients.disconnected(alert.endpoint)
        elif isinstance(alert, lt.peer_ban_alert):
            self.tuning.ban(alert.endpoint[0])
        elif (event := _event_of(alert)) is not None:
            self._send(alert.handle.info_hash(), event)

    def _adapt_to_foreign_clients(self, any_here: bool) -> None:
        depth = DEPTH_WITH_FOREIGN_CLIENTS if any_here else REQUEST_DEPTH
        self.apply("max_allowed_in_request_queue", depth)

    def _send(self, info_hash: Any, event: Event) -> None:
        with self._lock:
            inboxes = list(self._subscribers.get(info_hash.to_bytes(), ()))
        for inbox in inboxes:
            inbox.put(event)

    def _send_all(self, event: Event) -> None:
        with self._lock:
            inboxes = [inbox for inboxes in self._subscribers.values() for inbox in inboxes]
        for inbox in inboxes:
            inbox.put(event)


def peers_of(torrent: TorrentHandle) -> tuple[int, dict[bytes, int]]:
    """How many connected peers have all of *torrent*, and those that fetch, by their ids.

    With each id comes the number of pieces that the peer has.
    """
    peers = [peer for peer in torrent.get_peer_info() if not peer.flags & _CONNECTING]
    seeds = sum(bool(peer.flags & lt.peer_info.seed) for peer in peers)
    fetching = (peer for peer in peers if not peer.flags & lt.peer_info.upload_only)
    return seeds, {peer.pid.to_bytes(): int(peer.num_pieces) for peer in fetching}


def _event_of(alert: Any) -> Event | None:
    """The event that *alert* reports of its torrent, if any."""
    if isinstance(alert, lt.file_completed_alert):
        return FileCompleted(alert.index)
    if isinstance(alert, lt.block_finished_alert | lt.block_downloading_alert):
        return BlockSeen(
            piece=alert.piece_index,
            block=alert.block_index,
            from_registry=is_registry(alert.pid.to_bytes()),
            came=isinstance(alert, lt.block_finished_alert),
        )
    if isinstance(alert, lt.cache_flushed_alert):
        return Flushed()
    if isinstance(alert, lt.file_error_alert):
        return FileFailed(alert.error.value(), alert.error.message())
    if isinstance(alert, lt.tracker_reply_alert):
        return TrackerAnswered(alert.num_peers)
    if isinstance(alert, lt.tracker_error_alert):
        return _tracker_failure(alert)
    return None


def _tracker_failure(alert: Any) -> TrackerFailed:
    """Why an announce failed, in one line: the tracker's own reason, or libtorrent's."""
    refusal = alert.failure_reason()
    reason = refusal or alert.error.message()
    is_other_family = not refusal and _UNREACHABLE in reason
    if is_other_family:
        reason = "no address of this host can reach it"
    elif alert.status_code > 0 and not refusal:
        reason = f"{reason} (HTTP status {alert.status_code})"
    return TrackerFailed(" ".join(f"{alert.url}: {reason}".split()), is_other_family)


def _is_announcing(torrent: TorrentHandle) -> bool:
    """Whether a tracker of *torrent* has not answered yet."""
    with contextlib.suppress(RuntimeError):  # its download has removed it
        return any(
            protocol["updating"]
            for tracker in torrent.trackers()
            for endpoint in tracker["endpoints"]
            for protocol in endpoint["info_hashes"]
        )
    return False


def _limit_local_peers(session: Any) -> None:
    """Put local peers into the global class too: a session's limits hold for that one alone."""
    everyone = lt.ip_filter()
    mask = 1 << session.global_peer_class_id
    everyone.add_rule("0.0.0.0", "255.255.255.255", mask)
    everyone.add_rule("::", "ffff:ffff:ffff:ffff:ffff:ffff:ffff:ffff", mask)
    session.set_peer_class_filter(everyone)
