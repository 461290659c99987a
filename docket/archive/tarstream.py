"""A strict, streaming reader of tar headers: every read is bounded by what the header promised.

Python's `tarfile` in stream mode hangs on a small file that declares 2^60 bytes, and skips what it
can't read; image archives come from outside, so here a broken one is an error at once. POSIX ustar
and pax, and GNU long names (tar(5)).
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import BinaryIO

from docket.archive import sparse
from docket.archive.sparse import SparseMap
from docket.errors import InvalidArchive
from docket.oci.digest import READ_SIZE

FILE = "file"
SYMLINK = "symlink"
HARDLINK = "hardlink"
OTHER = "other"

_RECORD = 512
_MAX_EXTENDED = 1 << 20
_MAX_EXTENDED_HEADERS = 16
_MAX_TRAILING = 16 << 20
_MAX_NAME = 4096
_MAX_SIZE = 1 << 62
_SPARSE = b"S"
_EXTENSIONS = frozenset({b"x", b"g", b"L", b"K"})
_TYPES = {
    **dict.fromkeys((b"0", b"\0", b"7", _SPARSE), FILE),
    b"1": HARDLINK,
    b"2": SYMLINK,
}
# POSIX: links, devices, folders and fifos have no bytes, whatever their header says
_WITHOUT_BYTES = frozenset({b"1", b"2", b"3", b"4", b"5", b"6"})
_PAX_KEYS = frozenset({"path", "linkpath", "size"})
_DECIMAL = re.compile(rb"[0-9]{1,19}")
_NO_TAR = "this is no tar archive; docker save makes one"


@dataclass(slots=True)
class Member:
    """A member of an archive; `blocks` gives its *size* bytes, once.

    *_left* counts the bytes of it that the archive holds and that are not read yet; of a sparse
    file these are fewer than *size*.
    """

    name: str
    type: str
    size: int
    target: str
    _source: BinaryIO
    _left: int
    _sparse: SparseMap | None = None

    def blocks(self) -> Iterator[bytes]:
        """The member's bytes. Raises `InvalidArchive` when the archive ends before they do."""
        return self._sparse.expand(self._read) if self._sparse else self._read(self._left)

    def skip(self) -> None:
        """Pass over what is left of the member's bytes."""
        for _ in self._read(self._left):
            pass

    def _read(self, size: int) -> Iterator[bytes]:
        while size:
            block = self._source.read(min(READ_SIZE, size))
            if not block:
                raise InvalidArchive(
                    f"the archive breaks off in {self.name[:160]!r}: {self._left} bytes are missing"
                )
            size -= len(block)
            self._left -= len(block)
            yield block


@dataclass(slots=True)
class _Extended:
    """What pax and GNU headers before a member say of it."""

    values: dict[str, bytes] = field(default_factory=dict)
    sparse: list[tuple[str, bytes]] = field(default_factory=list)

    def add(self, flag: bytes, body: bytes) -> None:
        """Take in one such header. Raises `InvalidArchive`."""
        if flag == b"L":
            self.values["path"] = body.partition(b"\0")[0]
        elif flag == b"K":
            self.values["linkpath"] = body.partition(b"\0")[0]
        elif flag == b"x":  # a global one has comments such as git's, nothing that is read
            for key, value in _pax_records(body):
                if key in _PAX_KEYS:
                    self.values[key] = value
                else:
                    self.sparse.append((key, value))
            if len(self.sparse) > 2 * sparse.MAX_SEGMENTS + _MAX_EXTENDED_HEADERS:
                raise InvalidArchive(f"a sparse file has more than {sparse.MAX_SEGMENTS} parts")


def members(source: BinaryIO) -> Iterator[Member]:
    """The members of the tar in *source*, in order; what is not read of one is skipped.

    Raises `InvalidArchive`.
    """
    extended = _Extended()
    extensions = 0
    first = True
    while (header := _header(source, first=first)) is not None:
        first = False
        flag, size = header[156:157], _number(header[124:136])
        if flag in _EXTENSIONS:
            extensions += 1
            if extensions > _MAX_EXTENDED_HEADERS:
                raise InvalidArchive(f"a member has more than {_MAX_EXTENDED_HEADERS} headers")
            extended.add(flag, _body(source, size))
            continue
        member, padding = _member(source, header, size, extended)
        extended, extensions = _Extended(), 0
        yield member
        member.skip()
        _exactly(source, padding)


def _member(source: BinaryIO, header: bytes, size: int, extended: _Extended) -> tuple[Member, int]:
    """The member that *header* begins, and the bytes of padding after it."""
    flag = header[156:157]
    name, target = _names(header, extended.values)
    size = _size(name, flag, size, extended.values)
    padding = -size % _RECORD
    holes = None
    if flag == _SPARSE:
        holes = sparse.old_gnu_map(header, _number, lambda count: _exactly(source, count))
    elif extended.sparse and _TYPES.get(flag) == FILE:
        if (in_records := sparse.pax_map(extended.sparse)) is not None:
            holes, real_name = in_records
        else:
            holes, real_name, taken = sparse.inline_map(
                extended.sparse, lambda count: _exactly(source, count)
            )
            size -= taken
        name = real_name or name
    if max(len(name), len(target)) > _MAX_NAME:
        raise InvalidArchive(f"a member's name is longer than {_MAX_NAME} characters")
    if holes and holes.stored != size:
        raise InvalidArchive(f"{name[:160]!r} is sparse, and its parts are not its bytes")
    whole = holes.size if holes else size
    if whole > _MAX_SIZE:
        raise InvalidArchive(f"{name[:160]!r} declares an impossible size")
    member_type = OTHER if name.endswith("/") else _TYPES.get(flag, OTHER)
    return Member(name, member_type, whole, target, source, size, holes), padding


def _names(header: bytes, extended: dict[str, bytes]) -> tuple[str, str]:
    """The name, and the target of a link."""
    name = _text(header[0:100])
    if header[257:262] == b"ustar" and header[263:265] == b"00" and (prefix := header[345:500]):
        name = "/".join(part for part in (_text(prefix), name) if part)
    if "path" in extended:
        name = extended["path"].decode("utf-8", "surrogateescape")
    target = extended.get("linkpath", header[157:257].partition(b"\0")[0])
    return name, target.decode("utf-8", "surrogateescape")


def _size(name: str, flag: bytes, size: int, extended: dict[str, bytes]) -> int:
    """The bytes that the archive holds of the member."""
    if (text := extended.get("size")) is not None:
        if not _DECIMAL.fullmatch(text):
            raise InvalidArchive("a pax header has a bad size")
        size = int(text)
    if flag in _WITHOUT_BYTES:
        return 0
    if size > _MAX_SIZE:
        raise InvalidArchive(f"{name[:160]!r} declares an impossible size")
    return size


def _header(source: BinaryIO, *, first: bool) -> bytes | None:
    """The next header, or None at the end."""
    try:
        header = _exactly(source, _RECORD, allow_end=True)
    except InvalidArchive:
        if first:
            raise InvalidArchive(_NO_TAR) from None
        raise
    if not header and first:
        raise InvalidArchive("the archive is empty")
    if not header or not header.strip(b"\0"):
        _read_trailing(source)
        return None
    unsigned = sum(header[:148]) + 8 * 0x20 + sum(header[156:])
    if _checksum(header) != unsigned:
        raise InvalidArchive(_NO_TAR if first else "a tar header is damaged")
    return header


def _read_trailing(source: BinaryIO) -> None:
    """Read what a writer's blocking factor put after the end, so that the pipe is empty."""
    left = _MAX_TRAILING
    while block := source.read(READ_SIZE):
        left -= len(block)
        if left < 0:
            raise InvalidArchive("this is no image archive: it goes on after its end")


def _checksum(header: bytes) -> int:
    """What the header says is its sum; -1 when that is no number."""
    try:
        return _number(header[148:156])
    except InvalidArchive:
        return -1


def _pax_records(body: bytes) -> Iterator[tuple[str, bytes]]:
    """``<length> <key>=<value>\\n``, the length counting itself (pax(1) § extended header).

    Only records that matter here: the others could fill the memory.
    """
    body = body.rstrip(b"\0")
    start = 0
    while start < len(body):
        length_text, space, _ = body[start : start + 20].partition(b" ")
        if not space or not _DECIMAL.fullmatch(length_text):
            raise InvalidArchive("a pax header is damaged")
        end = start + int(length_text)
        key, equals, value = body[start + len(length_text) + 1 : end].partition(b"=")
        if not equals or end > len(body) or not value.endswith(b"\n"):
            raise InvalidArchive("a pax header is damaged")
        name = key.decode("utf-8", "replace")
        if name in _PAX_KEYS or sparse.is_known_key(name):
            yield name, value[:-1]
        start = end


def _body(source: BinaryIO, size: int) -> bytes:
    if size > _MAX_EXTENDED:
        raise InvalidArchive("a member's name or attributes are larger than 1 MiB")
    body = _exactly(source, size)
    _exactly(source, -size % _RECORD)
    return body


def _exactly(source: BinaryIO, size: int, *, allow_end: bool = False) -> bytes:
    parts: list[bytes] = []
    left = size
    while left:
        block = source.read(left)
        if not block:
            break
        parts.append(block)
        left -= len(block)
    if left and not (allow_end and left == size):
        raise InvalidArchive("the archive breaks off")
    return b"".join(parts)


def _number(field: bytes) -> int:
    """An octal number, or GNU's base-256."""
    if field[0] & 0x80:
        if field[0] & 0x40:
            raise InvalidArchive("a tar header has a negative size")
        return int.from_bytes(bytes([field[0] & 0x7F]) + field[1:], "big")
    text = field.partition(b"\0")[0].strip(b" ")
    # int() would take signs and underscores too
    if text.strip(b"01234567"):
        raise InvalidArchive("a tar header has a bad number")
    return int(text or b"0", 8)


def _text(field: bytes) -> str:
    return field.partition(b"\0")[0].decode("utf-8", "surrogateescape")
