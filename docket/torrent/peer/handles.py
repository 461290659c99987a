"""What docket uses of libtorrent's objects, as protocols."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Protocol

Endpoint = tuple[str, int]
"""Address and TCP port of a peer."""


class Hash(Protocol):
    """An info-hash or a peer id of 20 bytes."""

    def to_bytes(self) -> bytes: ...


class PeerInfo(Protocol):
    """A connected peer of a torrent."""

    ip: Endpoint
    pid: Hash
    flags: int
    num_pieces: int
    total_upload: int


class TorrentStatus(Protocol):
    """A torrent at one moment; rates in bytes a second."""

    pieces: Sequence[bool]
    download_payload_rate: int
    upload_payload_rate: int
    total_payload_download: int
    total_payload_upload: int
    num_peers: int


class TorrentHandle(Protocol):
    """A torrent of a session. A call on one that has left the session raises RuntimeError."""

    def info_hash(self) -> Hash: ...
    def torrent_file(self) -> Any: ...
    def trackers(self) -> list[dict[str, Any]]: ...
    def force_reannounce(self, seconds: int, tracker: int, flags: Any, /) -> None: ...
    def status(self, flags: int = ..., /) -> TorrentStatus: ...
    def get_peer_info(self) -> Sequence[PeerInfo]: ...
    def connect_peer(self, endpoint: Endpoint, /) -> None: ...
    def piece_availability(self) -> Sequence[int]: ...
    def get_piece_priorities(self) -> Sequence[int]: ...
    def piece_priority(self, piece: int, /) -> int: ...
    def prioritize_pieces(self, priorities: Sequence[tuple[int, int]], /) -> None: ...
    def get_download_queue(self) -> list[dict[str, Any]]: ...
    def set_piece_deadline(self, piece: int, milliseconds: int, /) -> None: ...
    def clear_piece_deadlines(self) -> None: ...
    def file_progress(self, flags: int = ..., /) -> Sequence[int]: ...
    def flush_cache(self) -> None: ...
