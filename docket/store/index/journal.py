"""The journal: an append-only log of metadata that can't be recovered from blobs.

``<location>/journal/<generation>.log`` has one line a change, each behind its CRC-32::

    5b0c3a1f ["tags","app\\u00001.0",["sha256:…",1764000000.0]]     a row that was set
    9d41c0e7 ["tags","app\\u00001.0"]                               a row that was deleted

Bytes after the last line are zeros: space allocated ahead, so that deletes and gc can still be
logged when the disk is full. The index records how much of the journal is committed; a tail after
that belongs to a transaction that was not committed.
"""

from __future__ import annotations

import os
import zlib
from collections.abc import Iterable, Iterator
from itertools import islice
from pathlib import Path
from typing import Any, Self

import msgspec

from docket.errors import StoreFull
from docket.store.filesystem import Filesystem

_AHEAD = 1 << 20
"""Bytes held ready in the file; half of them are for deletes alone."""

_LINES_A_WRITE = 5000
_SUFFIX = ".log"
_OLD = ".old"


class Position(msgspec.Struct, frozen=True, array_like=True):
    """How far the journal is committed: *length* bytes and *lines* of the file *generation*."""

    generation: int = 0
    length: int = 0
    lines: int = 0


class Entry(msgspec.Struct, frozen=True):
    """One change: the row *key* of *table* got *value*, JSON, or was deleted (None)."""

    table: str
    key: bytes
    value: bytes | None


def entry_line(table: str, key: bytes, value: Any) -> bytes:
    """The line that says that *key* of *table* has *value* now; None: that it was deleted."""
    name = key.decode("latin-1")
    body = msgspec.json.encode([table, name] if value is None else [table, name, value])
    return b"%08x %s\n" % (zlib.crc32(body), body)


class Journal:
    """The log's files. Only the holder of the index's write transaction may call `append`."""

    def __init__(self, folder: Path, filesystem: Filesystem) -> None:
        self._folder = folder
        self._filesystem = filesystem
        self._filesystem.make_folder(folder)

    def holds(self, position: Position) -> bool:
        """Whether all that is committed by *position* is there, up to the end of a line."""
        try:
            with self._path(position.generation).open("rb") as file:
                end = os.pread(file.fileno(), 1, max(position.length - 1, 0))
        except FileNotFoundError:
            return False
        return not position.length or end == b"\n"

    def append(self, position: Position, lines: list[bytes], *, only_frees_space: bool) -> Position:
        """Write *lines* behind *position*; returning means that they are durable.

        What *only_frees_space* may use the part of the file that is kept for a full disk. Raises
        `StoreFull`.
        """
        text = b"".join(lines)
        end = position.length + len(text)
        with self._path(position.generation).open("rb+", buffering=0) as file:
            self._make_room(file.fileno(), end, only_frees_space=only_frees_space)
            self._filesystem.write_at(file.fileno(), text, position.length)
        return Position(position.generation, end, position.lines + len(lines))

    def tail(self, position: Position, until: Position) -> bytes:
        """What was appended between two positions of one generation."""
        with self._path(position.generation).open("rb") as file:
            return os.pread(file.fileno(), until.length - position.length, position.length)

    def begin(self, generation: int, lines: Iterable[bytes]) -> Draft:
        """A file of another *generation* that holds *lines*; see `Draft`."""
        return Draft(self._filesystem, self._path(generation), generation, lines)

    def newest(self) -> int:
        """The highest generation there is; 0 without any."""
        return max(_generations(self._folder), default=0)

    def has_lines(self) -> bool:
        """Whether any of the files says anything."""
        for path in self._folder.glob(f"*{_SUFFIX}"):
            with path.open("rb") as file:
                if file.read(1).strip(b"\0"):
                    return True
        return False

    def keep_only(self, generation: int) -> None:
        """Remove all files but that of *generation*, and what was set aside."""
        for path in self._folder.iterdir():
            if path != self._path(generation) and path.suffix != _OLD:
                self._filesystem.remove(path)

    def set_aside(self, generation: int) -> None:
        """Rename all files but that of *generation*: ``<name>.old``, which nobody reads."""
        for path in self._folder.glob(f"*{_SUFFIX}"):
            if path != self._path(generation):
                self._filesystem.rename(path, path.with_name(f"{path.name}{_OLD}"))

    def entries(self, position: Position | None = None) -> Iterator[Entry | None]:
        """All changes up to *position*, or of the newest file; None for a line that is damaged."""
        generation = position.generation if position else self.newest()
        left = position.length if position else None
        try:
            file = self._path(generation).open("rb")
        except FileNotFoundError:
            return
        with file:
            for raw in file:
                if raw[0] == 0 or left == 0:
                    return
                if left is not None:
                    left -= len(raw)
                yield _parsed(raw)

    def _make_room(self, descriptor: int, end: int, *, only_frees_space: bool) -> None:
        size = os.fstat(descriptor).st_size
        if size >= end + _AHEAD // 2:
            return
        more = end + self._filesystem.spare(_AHEAD) - size
        if more <= 0:
            return
        try:
            self._filesystem.allocate(descriptor, size, more)
        except StoreFull:
            if not (only_frees_space and size >= end):
                raise

    def _path(self, generation: int) -> Path:
        return self._folder / f"{generation}{_SUFFIX}"


class Draft:
    """A journal file in the making: nobody reads it before `place`."""

    def __init__(
        self, filesystem: Filesystem, path: Path, generation: int, lines: Iterable[bytes]
    ) -> None:
        self._filesystem = filesystem
        self._path = path
        self._new = path.with_suffix(".new")
        self._generation = generation
        self._length = 0
        self._lines = 0
        filesystem.write_new(self._new, b"")
        self._file = self._new.open("rb+", buffering=0)
        rows = iter(lines)
        try:
            while batch := list(islice(rows, _LINES_A_WRITE)):
                self.add(b"".join(batch))
        except BaseException:
            self._file.close()
            raise

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_exc: object) -> None:
        self._file.close()

    def add(self, text: bytes) -> None:
        """Append whole lines."""
        self._filesystem.write_at(self._file.fileno(), text, self._length)
        self._length += len(text)
        self._lines += text.count(b"\n")

    def place(self) -> Position:
        """Give the file its name, if it hasn't got it; returning means that it is durable."""
        if self._new.exists():
            ahead = self._filesystem.spare(_AHEAD)
            self._filesystem.allocate(self._file.fileno(), self._length, ahead)
            self._filesystem.sync(self._file.fileno())
            self._filesystem.rename(self._new, self._path)
        return Position(self._generation, self._length, self._lines)


_decoder = msgspec.json.Decoder(list[msgspec.Raw])


def _parsed(raw: bytes) -> Entry | None:
    """The change that a line records; None when its checksum or its form is wrong."""
    body = raw[9:].rstrip(b"\n")
    if raw[:9] != b"%08x " % zlib.crc32(body):
        return None
    try:
        table, key, *value = _decoder.decode(body)
        return Entry(
            msgspec.json.decode(table, type=str),
            msgspec.json.decode(key, type=str).encode("latin-1"),
            bytes(value[0]) if value else None,
        )
    except (msgspec.DecodeError, ValueError):
        return None


def _generations(folder: Path) -> list[int]:
    names = [path.stem for path in folder.glob(f"*{_SUFFIX}")]
    return [int(name) for name in names if name.isdecimal()]
