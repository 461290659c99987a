"""The libtorrent session: its settings, and one thread that turns alerts into plain events."""

from __future__ import annotations

import contextlib
import ipaddress
import queue
import secrets
import socket
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import libtorrent as lt

from docket.errors import SwarmError
from docket.torrent.peer.foreign_clients import ForeignClients
from docket.torrent.peer.session_tuning import REQUEST_DEPTH, SessionTuning
from docket.torrent.tracker.announce import GATEWAY_PEER, HOST_PEER, REGISTRY_PEER, is_registry

_LISTEN_SECONDS = 10.0
_CLOSE_SECONDS = 5.0
_GOODBYE_SECONDS = 1
_LOOK_MS = 50

_TICK_WITH_LIMITS = 200  # milliseconds; libtorrent's own 500 cost 2 s until the first byte

_RECEIVED_AHEAD = 1 << 16

DEPTH_WITH_FOREIGN_CLIENTS = 2000
"""`REQUEST_DEPTH` while a client that isn't docket's is connected: libtorrent's default."""

_SETTINGS: dict[str, Any] = {
    "user_agent": "docket",
    # BitTorrent over UDP was 40 times slower on a fast network
    "enable_outgoing_utp": False,
    "enable_incoming_utp": False,
    # an image goes to nobody that the tracker doesn't name
    "enable_dht": False,
    "enable_lsd": False,
    "enable_upnp": False,
    "enable_natpmp": False,
    "dht_bootstrap_nodes": "",
    "webtorrent_stun_server": "",
    # trackers are on private networks, and their URLs have queries
    "ssrf_mitigation": False,
    "validate_https_trackers": True,
    "allow_multiple_connections_per_ip": True,
    # defaults of 300 s and 60 s would override the tracker
    "min_announce_interval": 3,
    "min_reconnect_time": 2,
    "tracker_completion_timeout": 10,
    "tracker_receive_timeout": 5,
    "stop_tracker_timeout": _GOODBYE_SECONDS,
    "torrent_connect_boost": 60,
    "connection_speed": 200,
    "peer_connect_timeout": 3,
    "max_allowed_in_request_queue": REQUEST_DEPTH,
    # read ahead for a peer, before its rate is known: with 10 KB (the default) a block at a time
    # was read and sent, and 200 MB took a pair 0.85 s instead of 0.26 s
    "send_buffer_low_watermark": 256 * 1024,
    "whole_pieces_threshold": 0,
    # four pieces at random would be asked of the registry by many
    "initial_picker_threshold": 0,
    "request_queue_time": 1,
    # see `SessionTuning.hurry`
    "strict_end_game_mode": True,
    "piece_timeout": 10,
    "request_timeout": 10,
    "unchoke_slots_limit": -1,
    "connections_limit": 4000,
    "active_downloads": -1,
    "active_seeds": -1,
    "active_limit": -1,
    "alert_queue_size": 100_000,
    "close_file_interval": 120,
    "no_recheck_incomplete_resume": True,
    "close_redundant_connections": False,
    # a registry's seed is where its tracker is: see `SessionTuning.part`
    "apply_ip_filter_to_trackers": False,
}

_ALERTS = (
    lt.alert.category_t.error_notification
    | lt.alert.category_t.status_notification
    | lt.alert.category_t.storage_notification
    | lt.alert.category_t.file_progress_notification
    | lt.alert.category_t.peer_notification
    | lt.alert.category_t.connect_notification
)
_COMING = lt.peer_info.connecting | lt.peer_info.handshake
_BLOCK_ALERTS = lt.alert.category_t.block_progress_notification


@dataclass(frozen=True, slots=True)
class FileCompleted:
    """All pieces of the file with this index have arrived; they may not be on disk yet."""

    index: int


@dataclass(frozen=True, slots=True)
class Flushed:
    """What had arrived when the flush was asked for is readable now."""


@dataclass(frozen=True, slots=True)
class Removed:
    """The torrent has left the session."""


@dataclass(frozen=True, slots=True)
class BlockSeen:
    """A block of 16 KiB or less was asked of the registry's seed or another host, or has come.

    libtorrent doesn't tell of the last blocks that come, when they complete the torrent.
    """

    piece: int
    block: int
    from_registry: bool
    came: bool


@dataclass(frozen=True, slots=True)
class FileFailed:
    """Reading or writing a file failed; *code* is an errno."""

    code: int
    message: str


@dataclass(frozen=True, slots=True)
class Closed:
    """The session has been closed: nothing more will come."""


Event = FileCompleted | Flushed | Removed | BlockSeen | FileFailed | Closed


class Session:
    """One libtorrent session and its alert thread."""

    def __init__(
        self,
        *,
        listen: str,
        announce_ip: str = "",
        max_upload: int = 0,
        max_download: int = 0,
        is_registry: bool = False,
        watch_blocks: bool = False,
    ) -> None:
        """*listen* is ``address:port``; port 0 takes a free one. Limits in bytes a second, 0: none.

        *watch_blocks* asks for `BlockSeen`, which costs CPU time for every 16 KiB. Raises
        `SwarmError` when it can't listen.
        """
        self._is_registry = is_registry
        # all of a peer id, so that it is known here: libtorrent's end would be random too
        self._peer_id_end = secrets.token_hex(6).encode()
        self._subscribers: dict[bytes, list[queue.SimpleQueue[Event]]] = {}
        self._lock = threading.Lock()
        self._listening = threading.Event()
        self._closing = False
        self.tuning = SessionTuning(lambda: vars(self).get("lt"))
        self._foreign_clients = ForeignClients(self._adapt_to_foreign_clients)
        interfaces = _interfaces(listen)
        settings = {
            **_SETTINGS,
            "listen_interfaces": interfaces,
            "upload_rate_limit": max_upload,
            "download_rate_limit": max_download,
            "peer_fingerprint": self._peer_id(is_gateway=False).decode(),
            "alert_mask": int(_ALERTS | _BLOCK_ALERTS if watch_blocks else _ALERTS),
        }
        if max_upload or max_download:
            # bytes are dealt out at each tick, and each message of a handshake waits for one
            settings["tick_interval"] = _TICK_WITH_LIMITS
        if max_download:
            # what the kernel takes in ahead counts as little as the limit allows
            settings["recv_socket_buffer_size"] = _RECEIVED_AHEAD
        if not listen.endswith(":0"):
            # else libtorrent would take another port without a word
            settings |= {"max_retry_port_bind": 0, "listen_system_port_fallback": False}
        if announce_ip and _is_address(announce_ip):
            settings["announce_ip"] = announce_ip
        # its type stubs ask for a typed dict that has none of the newer settings
        self.lt: Any = lt.session(settings)  # type: ignore[call-overload]
        if max_upload or max_download:
            _limit_local_peers(self.lt)
        self._wake, wake_writer = socket.socketpair()
        self._wake_writer = wake_writer
        self._wake.setblocking(True)
        wake_writer.setblocking(False)
        self.lt.set_alert_fd(wake_writer.fileno())
        self._thread = threading.Thread(target=self._run, name="swarm-alerts", daemon=True)
        self._thread.start()
        if not self._listening.wait(_LISTEN_SECONDS) or not self.lt.listen_port():
            self.close()
            raise SwarmError(f"no BitTorrent peer can listen on {interfaces}; choose another port")
        self.port: int = self.lt.listen_port()

    def _peer_id(self, *, is_gateway: bool) -> bytes:
        kind = REGISTRY_PEER if self._is_registry else GATEWAY_PEER if is_gateway else HOST_PEER
        return kind + self._peer_id_end

    def join(self, params: Any, *, is_gateway: bool) -> tuple[Any, bytes]:
        """Add a torrent; with it comes the id of this peer there, which tells a gateway.

        Raises what libtorrent raises.
        """
        peer_id = self._peer_id(is_gateway=is_gateway)
        # a torrent takes its id when it is added
        self.lt.apply_settings({"peer_fingerprint": peer_id.decode()})
        return self.lt.add_torrent(params), peer_id

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
        del self.lt
        self._wake.close()
        self._wake_writer.close()

    def _say_goodbye(self) -> None:
        """Tell the trackers that this peer stops, and wait until they know, or as long as is fair.

        The end of a session waits for them too, but it looks only each 0.1 s.
        """
        self.lt.apply_settings({"alert_mask": int(lt.alert.category_t.tracker_notification)})
        torrents = self.lt.get_torrents()
        self.lt.pause()
        deadline = time.monotonic() + _GOODBYE_SECONDS
        while any(map(_is_announcing, torrents)) and time.monotonic() < deadline:
            self.lt.wait_for_alert(_LOOK_MS)
            self.lt.pop_alerts()

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
            self._wake.settimeout(self._foreign_clients.patience)
            with contextlib.suppress(TimeoutError):
                self._wake.recv(4096)
            # alerts die at the next pop: what is needed of them is copied at once
            for alert in self.lt.pop_alerts():
                self._take(alert)
            self._foreign_clients.look()

    def _take(self, alert: Any) -> None:
        if isinstance(alert, lt.listen_succeeded_alert | lt.listen_failed_alert):
            self._listening.set()
        elif isinstance(alert, lt.file_completed_alert):
            self._send(alert.handle.info_hash(), FileCompleted(alert.index))
        elif isinstance(alert, lt.block_finished_alert | lt.block_downloading_alert):
            seen = BlockSeen(
                piece=alert.piece_index,
                block=alert.block_index,
                from_registry=is_registry_peer(alert.pid),
                came=isinstance(alert, lt.block_finished_alert),
            )
            self._send(alert.handle.info_hash(), seen)
        elif isinstance(alert, lt.cache_flushed_alert):
            self._send(alert.handle.info_hash(), Flushed())
        elif isinstance(alert, lt.torrent_removed_alert):
            self._send(alert.info_hash, Removed())
        elif isinstance(alert, lt.peer_connect_alert):
            self._foreign_clients.came(alert.handle)
        elif isinstance(alert, lt.peer_disconnected_alert):
            self._foreign_clients.left(alert.endpoint)
        elif isinstance(alert, lt.peer_ban_alert):
            self.tuning.ban(alert.endpoint[0])
        elif isinstance(alert, lt.file_error_alert):
            failed = FileFailed(alert.error.value(), alert.error.message())
            self._send(alert.handle.info_hash(), failed)

    def _adapt_to_foreign_clients(self, any_here: bool) -> None:
        depth = DEPTH_WITH_FOREIGN_CLIENTS if any_here else REQUEST_DEPTH
        self.lt.apply_settings({"max_allowed_in_request_queue": depth})

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


def peers_of(torrent: Any) -> tuple[int, dict[bytes, int]]:
    """How many connected peers have all of a libtorrent torrent; those that fetch, by their ids.

    With each comes the number of pieces that it has.
    """
    peers = [one for one in torrent.get_peer_info() if not one.flags & _COMING]
    seeds = sum(bool(one.flags & lt.peer_info.seed) for one in peers)
    fetch = (one for one in peers if not one.flags & lt.peer_info.upload_only)
    return seeds, {one.pid.to_bytes(): int(one.num_pieces) for one in fetch}


def _is_announcing(torrent: Any) -> bool:
    """Whether a tracker of a libtorrent torrent has not yet answered."""
    with contextlib.suppress(RuntimeError):  # its download has removed it
        return any(
            protocol["updating"]
            for tracker in torrent.trackers()
            for endpoint in tracker["endpoints"]
            for protocol in endpoint["info_hashes"]
        )
    return False


def is_registry_peer(peer_id: Any) -> bool:
    """Whether a libtorrent peer id is that of a registry's seed."""
    return is_registry(peer_id.to_bytes())


def _interfaces(listen: str) -> str:
    """libtorrent's spelling, with a free port in the place of 0: all addresses get the same."""
    host, _, port = listen.rpartition(":")
    if port == "0":
        family = socket.AF_INET6 if host.startswith("[") else socket.AF_INET
        with socket.socket(family) as probe:
            probe.bind((host.strip("[]"), 0))
            port = probe.getsockname()[1]
    # libtorrent takes [::] for IPv6 alone
    hosts = ("0.0.0.0", host) if host == "[::]" else (host,)
    return ",".join(f"{one}:{port}" for one in hosts)


def _is_address(text: str) -> bool:
    try:
        ipaddress.ip_address(text)
    except ValueError:
        return False
    return True


def _limit_local_peers(session: Any) -> None:
    """Session limits hold for the global class; so put local peers, too, into that one."""
    everyone = lt.ip_filter()
    mask = 1 << session.global_peer_class_id
    everyone.add_rule("0.0.0.0", "255.255.255.255", mask)
    everyone.add_rule("::", "ffff:ffff:ffff:ffff:ffff:ffff:ffff:ffff", mask)
    session.set_peer_class_filter(everyone)
