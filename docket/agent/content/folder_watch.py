"""Waiting for files that come into a folder, or leave it (inotify(7))."""

from __future__ import annotations

import ctypes
import os
import select
import struct
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

_CLOSE_WRITE, _MOVED_FROM, _MOVED_TO = 0x08, 0x40, 0x80
_CREATE, _DELETE, _DELETE_SELF, _MOVE_SELF = 0x100, 0x200, 0x400, 0x800
_OVERFLOW, _IGNORED = 0x4000, 0x8000
_ONLY_FOLDERS = 0x01000000
_HEADER = struct.Struct("iIII")
_READ_SIZE = 1 << 16

_libc = ctypes.CDLL(None, use_errno=True)


@dataclass(frozen=True, slots=True)
class Changes:
    """The *names* of files that came or went; with *is_incomplete* others may have too."""

    names: frozenset[str] = frozenset()
    is_incomplete: bool = False


class FolderWatch:
    """Names that change in some folders. One thread waits; any may wake it."""

    def __init__(self) -> None:
        self._descriptor = _libc.inotify_init1(os.O_NONBLOCK | os.O_CLOEXEC)
        if self._descriptor < 0:
            raise OSError(ctypes.get_errno(), "inotify is not available")
        self._wake = os.eventfd(0, os.EFD_NONBLOCK | os.EFD_CLOEXEC)
        self._poll = select.poll()
        self._poll.register(self._descriptor, select.POLLIN)
        self._poll.register(self._wake, select.POLLIN)

    def add(self, folder: Path) -> bool:
        """Watch *folder* too; whether it is there. Once is enough, more often is a no-op."""
        mask = _CLOSE_WRITE | _MOVED_FROM | _MOVED_TO | _CREATE | _DELETE | _DELETE_SELF
        flags = mask | _MOVE_SELF | _ONLY_FOLDERS
        return int(_libc.inotify_add_watch(self._descriptor, os.fsencode(folder), flags)) >= 0

    def wake(self) -> None:
        """Let `wait` return now."""
        os.eventfd_write(self._wake, 1)

    def wait(self, seconds: float | None) -> Changes:
        """What changed, as soon as something has; nothing after *seconds*."""
        self._poll.poll(None if seconds is None else seconds * 1000)
        with suppress(BlockingIOError):
            os.eventfd_read(self._wake)
        try:
            return _changes(os.read(self._descriptor, _READ_SIZE))
        except BlockingIOError:
            return Changes()

    def close(self) -> None:
        """Watch no more."""
        os.close(self._descriptor)
        os.close(self._wake)


def _changes(content: bytes) -> Changes:
    names: set[str] = set()
    is_incomplete = False
    offset = 0
    while offset < len(content):
        _watch, mask, _cookie, length = _HEADER.unpack_from(content, offset)
        offset += _HEADER.size
        name = os.fsdecode(content[offset : offset + length].rstrip(b"\0"))
        offset += length
        if name:
            names.add(name)
        is_incomplete |= bool(mask & (_OVERFLOW | _IGNORED | _DELETE_SELF | _MOVE_SELF))
    return Changes(frozenset(names), is_incomplete)
