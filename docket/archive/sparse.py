"""Sparse members of a tar: which parts of the file the archive holds (GNU tar § sparse formats)."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

from docket.errors import InvalidArchive
from docket.oci.digest import READ_SIZE

ZEROS = bytes(READ_SIZE)
"""What holes are read as."""

MAX_SEGMENTS = 100_000

_RECORD = 512
_NUMBER = re.compile(rb"[0-9]{1,19}")
_ENTRY = 24
_OLD_MAP, _OLD_MORE, _OLD_SIZE = 386, 482, 483
_MAX_EXTENSIONS = MAX_SEGMENTS // 21
PAX_PREFIX = "GNU.sparse."
_PAX_KEYS = frozenset({"major", "minor", "name", "size", "realsize", "offset", "numbytes", "map"})


@dataclass(frozen=True, slots=True)
class SparseMap:
    """A file of *size* bytes: the (offset, size) of its *segments*; all else is zeros."""

    size: int
    segments: tuple[tuple[int, int], ...]

    def __post_init__(self) -> None:
        """Raises `InvalidArchive` unless the segments are in order and within the file."""
        end = 0
        for offset, size in self.segments:
            if offset < end:
                raise InvalidArchive("the parts of a sparse file are not in order")
            end = offset + size
        if end > self.size:
            raise InvalidArchive("a sparse file has parts behind its end")

    @property
    def stored(self) -> int:
        """Bytes that the archive holds of it."""
        return sum(size for _, size in self.segments)

    def expand(self, read: Callable[[int], Iterator[bytes]]) -> Iterator[bytes]:
        """The whole file; *read* gives the next bytes that the archive holds."""
        end = 0
        for offset, size in self.segments:
            yield from _zeros(offset - end)
            yield from read(size)
            end = offset + size
        yield from _zeros(self.size - end)


def _zeros(size: int) -> Iterator[bytes]:
    for _ in range(size // len(ZEROS)):
        yield ZEROS
    if remainder := size % len(ZEROS):
        yield ZEROS[:remainder]


def old_gnu_map(
    header: bytes, number: Callable[[bytes], int], read: Callable[[int], bytes]
) -> SparseMap:
    """The map in the header of a member of type ``S`` and in the records after it."""
    entries = [header[_OLD_MAP:_OLD_MORE]]
    more = header[_OLD_MORE]
    while more:
        if len(entries) > _MAX_EXTENSIONS:
            raise InvalidArchive(f"a sparse file has more than {MAX_SEGMENTS} parts")
        record = read(_RECORD)
        entries.append(record[: 21 * _ENTRY])
        more = record[21 * _ENTRY]
    fields = [entry[at : at + _ENTRY] for entry in entries for at in range(0, len(entry), _ENTRY)]
    pairs = [
        (number(field[:12]), number(field[12:])) for field in fields if field[12:].strip(b"\0 ")
    ]
    return SparseMap(number(header[_OLD_SIZE : _OLD_SIZE + 12]), _segments(pairs))


def is_known_key(key: str) -> bool:
    """Whether a pax record with this key belongs to a sparse file's map."""
    return key.startswith(PAX_PREFIX) and key.removeprefix(PAX_PREFIX) in _PAX_KEYS


def pax_map(records: Sequence[tuple[str, bytes]]) -> tuple[SparseMap, str] | None:
    """The map in pax records of format 0.0 or 0.1, and the file's name or nothing.

    None for format 1.0, whose map stands before the bytes: see `inline_map`.
    """
    last = {key.removeprefix(PAX_PREFIX): value for key, value in records}
    name = last.get("name", b"").decode("utf-8", "surrogateescape")
    if "major" in last:
        return None
    if "map" in last:
        numbers = [_number(text) for text in last["map"].split(b",") if last["map"]]
    else:
        keys = (f"{PAX_PREFIX}offset", f"{PAX_PREFIX}numbytes")
        numbers = [_number(value) for key, value in records if key in keys]
    return SparseMap(_number(last.get("size", b"")), _paired(numbers)), name


def inline_map(
    records: Sequence[tuple[str, bytes]], read: Callable[[int], bytes]
) -> tuple[SparseMap, str, int]:
    """The map of format 1.0 in front of the bytes, the file's name, and the map's own bytes."""
    last = {key.removeprefix(PAX_PREFIX): value for key, value in records}
    if (last["major"], last.get("minor")) != (b"1", b"0"):
        raise InvalidArchive("a sparse file has a format that docket doesn't know")
    lines = _Lines(read)
    count = lines.number()
    if count > MAX_SEGMENTS:
        raise InvalidArchive(f"a sparse file has more than {MAX_SEGMENTS} parts")
    numbers = [lines.number() for _ in range(2 * count)]
    name = last.get("name", b"").decode("utf-8", "surrogateescape")
    return SparseMap(_number(last.get("realsize", b"")), _paired(numbers)), name, lines.taken


class _Lines:
    """Decimal numbers, a line each, out of records of 512 bytes."""

    def __init__(self, read: Callable[[int], bytes]) -> None:
        self._read = read
        self._text = b""
        self.taken = 0

    def number(self) -> int:
        """The next one."""
        line, newline, remainder = self._text.partition(b"\n")
        if not newline:
            if len(line) > _RECORD:
                raise InvalidArchive("the map of a sparse file is damaged")
            self._text = line + self._read(_RECORD)
            self.taken += _RECORD
            line, newline, remainder = self._text.partition(b"\n")
        if not newline:
            raise InvalidArchive("the map of a sparse file is damaged")
        self._text = remainder
        return _number(line)


def _number(text: bytes) -> int:
    if not _NUMBER.fullmatch(text):
        raise InvalidArchive("the map of a sparse file is damaged")
    return int(text)


def _paired(numbers: Sequence[int]) -> tuple[tuple[int, int], ...]:
    if len(numbers) % 2:
        raise InvalidArchive("the map of a sparse file is damaged")
    return _segments(list(zip(numbers[::2], numbers[1::2], strict=True)))


def _segments(pairs: Sequence[tuple[int, int]]) -> tuple[tuple[int, int], ...]:
    """Without the empty part by which tar marks the file's end."""
    if len(pairs) > MAX_SEGMENTS:
        raise InvalidArchive(f"a sparse file has more than {MAX_SEGMENTS} parts")
    return tuple((offset, size) for offset, size in pairs if size)
