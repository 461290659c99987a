"""How a session listens and limits itself, and libtorrent's settings that follow."""

from __future__ import annotations

import contextlib
import ipaddress
import socket
from dataclasses import dataclass
from typing import Any

from docket.torrent.peer.session_tuning import REQUEST_DEPTH

ALL_ADDRESSES = "[::]:0"
"""Every IPv4 and IPv6 address of the host, at a free port."""

GOODBYE_SECONDS = 1
"""How long a session that is closed waits for its trackers."""

_TICK = 500  # milliseconds; libtorrent's own
_TICK_WITH_LIMITS = 200  # milliseconds; libtorrent's own 500 cost 2 s until the first byte

_RECEIVE_BUFFER_WITH_LIMITS = 1 << 16

_SETTINGS: dict[str, Any] = {
    "user_agent": "docket",
    # BitTorrent over UDP was 40 times slower on a fast network
    "enable_outgoing_utp": False,
    "enable_incoming_utp": False,
    # an image goes only to peers that the tracker names
    "enable_dht": False,
    "enable_lsd": False,
    "enable_upnp": False,
    "enable_natpmp": False,
    "dht_bootstrap_nodes": "",
    "webtorrent_stun_server": "",
    # trackers are on private networks, their URLs have queries, their names any letters
    "ssrf_mitigation": False,
    "allow_idna": True,
    "validate_https_trackers": True,
    "allow_multiple_connections_per_ip": True,
    # with the default of 5, a fleet that starts at once loses SYNs and waits seconds for a retry
    "listen_queue_size": 2048,
    # defaults of 300 s and 60 s would override the tracker
    "min_announce_interval": 3,
    "min_reconnect_time": 2,
    "tracker_completion_timeout": 10,
    "tracker_receive_timeout": 5,
    "stop_tracker_timeout": GOODBYE_SECONDS,
    "torrent_connect_boost": 60,
    "connection_speed": 200,
    "peer_connect_timeout": 3,
    "max_allowed_in_request_queue": REQUEST_DEPTH,
    # bytes to read for a peer before its rate is known: with the default of 10 KB one block at a
    # time was read and sent, and 200 MB between two peers took 0.85 s instead of 0.26 s
    "send_buffer_low_watermark": 256 * 1024,
    "whole_pieces_threshold": 0,
    # four pieces at random would be requested of the registry by many hosts
    "initial_picker_threshold": 0,
    "request_queue_time": 1,
    # see `SessionTuning.set_end_game`
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
    # the registry's seed has its tracker's address: see `SessionTuning.disconnect_registry`
    "apply_ip_filter_to_trackers": False,
}


@dataclass(frozen=True, slots=True)
class SessionOptions:
    """How a session listens, limits itself and presents itself to peers.

    *listen* is ``address:port``; port 0 takes a free one, and ``[::]`` means IPv4's addresses too.
    Limits are in bytes a second, 0 for none. *announce_ip* is sent to trackers as this peer's
    address. *is_registry* marks a registry's seed. *watch_blocks* enables `BlockSeen` events,
    which cost CPU time for every 16 KiB.
    """

    listen: str = ALL_ADDRESSES
    announce_ip: str = ""
    max_upload: int = 0
    max_download: int = 0
    is_registry: bool = False
    watch_blocks: bool = False

    @property
    def is_limited(self) -> bool:
        """Whether a rate is limited."""
        return bool(self.max_upload or self.max_download)

    def settings(self) -> dict[str, Any]:
        """libtorrent's settings, but those that only the session knows."""
        settings = {
            **_SETTINGS,
            "listen_interfaces": interfaces(self.listen),
            **limit_settings(self.max_upload, self.max_download),
        }
        if not self.listen.endswith(":0"):
            # else libtorrent would silently take another port
            settings |= {"max_retry_port_bind": 0, "listen_system_port_fallback": False}
        if self.announce_ip and _is_address(self.announce_ip):
            settings["announce_ip"] = self.announce_ip
        return settings


def limit_settings(upload: int, download: int) -> dict[str, int]:
    """libtorrent's settings for these limits, in bytes a second; 0 is none."""
    return {
        "upload_rate_limit": upload,
        "download_rate_limit": download,
        # bytes are granted at each tick, and each message of a handshake waits for one
        "tick_interval": _TICK_WITH_LIMITS if upload or download else _TICK,
        # bytes that the kernel receives ahead don't count for the limit: keep them few
        "recv_socket_buffer_size": _RECEIVE_BUFFER_WITH_LIMITS if download else 0,
    }


def interfaces(listen: str) -> str:
    """libtorrent's spelling of *listen*, with one free port for all addresses in place of 0."""
    host, _, port = listen.rpartition(":")
    hosts = [host]
    if host == "[::]":
        # libtorrent takes [::] for IPv6 alone
        hosts = ["0.0.0.0", host] if _has_ipv6() else ["0.0.0.0"]
    if port == "0":
        port = str(_free_port(hosts[-1].strip("[]")))
    return ",".join(f"{address}:{port}" for address in hosts)


def _free_port(host: str) -> int:
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    with socket.socket(family) as probe:
        if host == "::":
            # IPv4's port of the same number has to be free too
            probe.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 0)
        probe.bind((host, 0))
        return int(probe.getsockname()[1])


def _has_ipv6() -> bool:
    """Whether this kernel has IPv6 at all: it may be compiled or switched off."""
    with contextlib.suppress(OSError), socket.socket(socket.AF_INET6) as probe:
        probe.bind(("::", 0))
        return True
    return False


def _is_address(text: str) -> bool:
    try:
        ipaddress.ip_address(text)
    except ValueError:
        return False
    return True
