"""What happens to a torrent of a session, as values: copied from libtorrent's alerts."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class FileCompleted:
    """All pieces of the file with this index have arrived; they may not be on disk yet."""

    index: int


@dataclass(frozen=True, slots=True)
class Flushed:
    """All that had arrived when the flush was requested is readable now."""


@dataclass(frozen=True, slots=True)
class Removed:
    """The torrent has left the session."""


@dataclass(frozen=True, slots=True)
class BlockSeen:
    """A block of 16 KiB or less was requested of the registry's seed or another host, or arrived.

    libtorrent reports none of the last blocks, which complete the torrent, as arrived.
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
class TrackerFailed:
    """An announce failed, or was refused; *reason* is one line.

    *is_other_family*: it was never sent, since the tracker has no address of that family.
    """

    reason: str
    is_other_family: bool = False


@dataclass(frozen=True, slots=True)
class TrackerAnswered:
    """The tracker named *peers* peers."""

    peers: int


@dataclass(frozen=True, slots=True)
class Closed:
    """The session has been closed: no more events follow."""


Event = (
    FileCompleted
    | Flushed
    | Removed
    | BlockSeen
    | FileFailed
    | TrackerFailed
    | TrackerAnswered
    | Closed
)
