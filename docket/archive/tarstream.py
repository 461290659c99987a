"""A strict, streaming reader of tar headers: every read is bounded by what the header promised.

Python's `tarfile` in stream mode hangs on a small file that declares 2^60 bytes, and skips what it
can't read; image archives come from outside, so here a broken one is an error at once. POSIX ustar
and pax, and GNU long names (tar(5)).
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import BinaryIO

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
_KINDS = {b"0": FILE, b"\0": FILE, b"7": FILE, b"1": HARDLINK, b"2": SYMLINK}
# POSIX: links, devices, folders and fifos have no bytes, whatever their header says
_WITHOUT_BYTES = frozenset({b"1", b"2", b"3", b"4", b"5", b"6"})
_SPARSE = b"S"
_PAX_SPARSE = "GNU.sparse."
_PAX_KEYS = frozenset({"path", "linkpath", "size"})
_NO_TAR = "this is no tar archive; docker save makes one"


@dataclass(slots=True)
class Member:
    """A member of an archive; `blocks` gives its *size* bytes, once."""

    name: str
    kind: str
    size: int
    target: str
    _source: BinaryIO
    _left: int

    def blocks(self, size: int = READ_SIZE) -> Iterator[bytes]:
        """The member's bytes. Raises `InvalidArchive` when the archive ends before they do."""
        while self._left:
            block = self._source.read(min(size, self._left))
            if not block:
                raise InvalidArchive(
                    f"the archive breaks off in {self.name[:160]!r}: {self._left} bytes are missing"
                )
            self._left -= len(block)
            yield block


def members(source: BinaryIO) -> Iterator[Member]:
    """The members of the tar in *source*, in order; what is not read of one is skipped.

    Raises `InvalidArchive`.
    """
    extended: dict[str, str] = {}
    extensions = 0
    first = True
    while (header := _header(source, first=first)) is not None:
        first = False
        kind, size = header[156:157], _number(header[124:136])
        if kind in (b"x", b"g", b"L", b"K"):
            extensions += 1
            if extensions > _MAX_EXTENDED_HEADERS:
                raise InvalidArchive(f"a member has more than {_MAX_EXTENDED_HEADERS} headers")
            body = _body(source, size)
            extended |= _extension(kind, body)
            continue
        member = _member(source, header, size, extended)
        extended, extensions = {}, 0
        yield member
        for _ in member.blocks():
            pass
        _skip_padding(source, member.size)


def _member(source: BinaryIO, header: bytes, size: int, extended: dict[str, str]) -> Member:
    name = _text(header[0:100])
    if header[257:262] == b"ustar" and header[263:265] == b"00" and (prefix := header[345:500]):
        name = "/".join(part for part in (_text(prefix), name) if part)
    name = extended.get("path", name)
    target = extended.get("linkpath", _text(header[157:257]))
    if max(len(name), len(target)) > _MAX_NAME:
        raise InvalidArchive(f"a member's name is longer than {_MAX_NAME} characters")
    flag = header[156:157]
    if flag == _SPARSE or _PAX_SPARSE in extended:
        raise InvalidArchive(f"{name[:160]!r} is sparse; write the archive without tar --sparse")
    kind = OTHER if name.endswith("/") else _KINDS.get(flag, OTHER)
    if "size" in extended:
        if not extended["size"].isdecimal() or len(extended["size"]) > 19:
            raise InvalidArchive("a pax header has a bad size")
        size = int(extended["size"])
    if flag in _WITHOUT_BYTES:
        size = 0
    if size > _MAX_SIZE:
        raise InvalidArchive(f"{name[:160]!r} declares an impossible size")
    return Member(name, kind, size, target, source, size)


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
    """Read what a writer's blocking factor put behind the end, for the pipe's sake."""
    left = _MAX_TRAILING
    while block := source.read(READ_SIZE):
        left -= len(block)
        if left < 0:
            raise InvalidArchive("this is no image archive: it goes on behind its end")


def _checksum(header: bytes) -> int:
    """What the header says is its sum; -1 when that is no number."""
    try:
        return _number(header[148:156])
    except InvalidArchive:
        return -1


def _extension(kind: bytes, body: bytes) -> dict[str, str]:
    if kind == b"L":
        return {"path": _text(body)}
    if kind == b"K":
        return {"linkpath": _text(body)}
    if kind == b"g":
        return {}  # comments such as git's; nothing in it changes what is read
    return dict(_pax_records(body))


def _pax_records(body: bytes) -> Iterator[tuple[str, str]]:
    """``<length> <key>=<value>\\n``, the length counting itself (pax(1) § extended header).

    Only records that matter here: the others could fill the memory.
    """
    body = body.rstrip(b"\0")
    start = 0
    while start < len(body):
        length_text, space, _ = body[start : start + 20].partition(b" ")
        if not space or not length_text.isdigit():
            raise InvalidArchive("a pax header is damaged")
        end = start + int(length_text)
        key, equals, value = body[start + len(length_text) + 1 : end].partition(b"=")
        if not equals or end > len(body) or not value.endswith(b"\n"):
            raise InvalidArchive("a pax header is damaged")
        name = key.decode("utf-8", "replace")
        if name in _PAX_KEYS:
            yield name, value[:-1].decode("utf-8", "surrogateescape")
        elif name.startswith(_PAX_SPARSE):
            yield _PAX_SPARSE, ""
        start = end


def _body(source: BinaryIO, size: int) -> bytes:
    if size > _MAX_EXTENDED:
        raise InvalidArchive("a member's name or attributes are larger than 1 MiB")
    body = _exactly(source, size)
    _skip_padding(source, size)
    return body


def _skip_padding(source: BinaryIO, size: int) -> None:
    _exactly(source, -size % _RECORD)


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
