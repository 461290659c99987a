"""What an archive holds, by name: small JSON in memory, all else hashed into spool files."""

from __future__ import annotations

import io
import os
import posixpath
import tempfile
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from itertools import chain
from pathlib import Path
from typing import BinaryIO, Protocol, cast

from docket.archive.sparse import ZEROS
from docket.archive.tarstream import FILE, HARDLINK, OTHER, Member, members
from docket.compression import NONE, SNIFF_SIZE, sniff
from docket.decompression import Decompressor, PlainReader, WorkBudget
from docket.errors import InvalidArchive, InvalidDigest, TooLarge
from docket.oci.digest import READ_SIZE, Digest, new_hash
from docket.oci.manifest import MAX_MANIFEST

MAX_PLAIN = 1 << 40
"""Bytes that an archive, and the layers in it together, may unpack to."""

MAX_RATIO = 200
"""How many times its size an archive may take on the disk, holes apart; for text it is ten."""

# little that unpacks to no more than this is fine
_FREE = 1 << 28

_MAX_SMALL_TOTAL = 32 << 20
_MAX_MEMBERS = 100_000
_MAX_NAMES_TOTAL = 16 << 20
_MAX_LINKS = 16


@dataclass(frozen=True, slots=True)
class Stored:
    """A file that may be a layer: its bytes as they came, and what they unpack to; sizes plain."""

    path: Path
    digest: Digest
    diff_id: Digest
    size: int
    compression: str


class Contents(Protocol):
    """An archive's files by their names in it."""

    def names(self) -> Iterable[str]:
        """The names of small files, as far as they are known."""

    def has(self, name: str) -> bool:
        """Whether there is such a file."""

    def text(self, name: str) -> bytes | None:
        """A small file's bytes, or None when there is none such."""

    def stored(self, name: str) -> Stored:
        """A file as a layer. Raises `InvalidArchive` when it isn't there."""


@dataclass(slots=True)
class Spool:
    """The contents of a tar stream, read in one pass; nothing in it names a path outside."""

    folder: Path
    limit: int
    budget: WorkBudget
    on_stored: Callable[[Stored], object] = lambda _stored: None
    _small: dict[str, bytes] = field(default_factory=dict)
    _large: dict[str, Stored] = field(default_factory=dict)
    _links: dict[str, str] = field(default_factory=dict)
    _by_digest: dict[Digest, Stored] = field(default_factory=dict)
    _files: list[Path] = field(default_factory=list)
    _small_total: int = 0
    _names_total: int = 0
    _plain_total: int = 0
    _written: int = 0
    _source: PlainReader | None = None

    def fill(self, source: PlainReader) -> None:
        """Read all of the tar in *source*. Raises `InvalidArchive`."""
        self._source = source
        stream = cast(BinaryIO, io.BufferedReader(source, READ_SIZE))
        for count, member in enumerate(members(stream)):
            if count >= _MAX_MEMBERS:
                raise InvalidArchive(f"the archive has more than {_MAX_MEMBERS} members")
            self._take(member)

    def names(self) -> Iterable[str]:
        return self._small

    def has(self, name: str) -> bool:
        return self._resolved(name) in self._small.keys() | self._large.keys()

    def text(self, name: str) -> bytes | None:
        return self._small.get(self._resolved(name))

    def stored(self, name: str) -> Stored:
        resolved = self._resolved(name)
        if resolved in self._small:
            # a layer that begins as JSON does
            self._large[resolved] = self._spooled(iter([self._small[resolved]]), "")
        if resolved not in self._large:
            raise InvalidArchive(f"the archive names {name[:160]!r} but doesn't hold it")
        return self._large[resolved]

    def keep_only(self, wanted: Iterable[Path]) -> None:
        """Remove the spool files that no layer needs."""
        kept = set(wanted)
        for path in self._files:
            if path not in kept:
                path.unlink(missing_ok=True)

    def _take(self, member: Member) -> None:
        name = _clean(member.name)
        self._names_total += len(os.fsencode(member.name)) + len(os.fsencode(member.target))
        if self._names_total > _MAX_NAMES_TOTAL:
            raise InvalidArchive("the names in the archive have more than 16 MiB")
        if member.type == OTHER:
            return
        if member.type != FILE:
            base = "" if member.type == HARDLINK else posixpath.dirname(name)
            target = _clean(posixpath.join(base, member.target))
            self._check_again(name, self._links.get(name, target) == target)
            self._check_again(name, name not in self._small and name not in self._large)
            self._links[name] = target
            return
        self._check_again(name, name not in self._links)
        blocks = member.blocks()
        first = next(blocks, b"")
        if member.size <= MAX_MANIFEST and first[:1] in (b"{", b"["):
            content = first + b"".join(blocks)
            _check_name(name, content)
            self._check_again(name, self._small.get(name, content) == content)
            self._check_again(name, name not in self._large)
            self._small[name] = content
            self._small_total += len(content)
            if self._small_total > _MAX_SMALL_TOTAL:
                raise InvalidArchive("the archive has more than 32 MiB of JSON")
            return
        stored = self._spooled(blocks, name, first)
        self._check_again(name, self._large.get(name, stored).digest == stored.digest)
        self._check_again(name, name not in self._small)
        self._large[name] = stored

    def _check_again(self, name: str, same: bool) -> None:
        if not same:
            raise InvalidArchive(f"the archive holds {name[:160]!r} twice, with other bytes")

    def _spooled(self, blocks: Iterable[bytes], name: str, first: bytes = b"") -> Stored:
        # no name from the archive, and none of an earlier archive in the same folder
        descriptor, text = tempfile.mkstemp(prefix="layer-", dir=self.folder)
        path = Path(text)
        self._files.append(path)
        with os.fdopen(descriptor, "wb") as file:
            hashing = _Hashing(first, self.limit - self._plain_total, self.budget)
            for block in chain((first,), blocks):
                self._write(file, block)
                hashing.feed(block)
            self._end(file)
        stored = hashing.stored(path)
        self._plain_total += stored.size
        _check_digest(name, stored.digest)
        if stored.digest in self._by_digest:
            path.unlink()
        else:
            self._by_digest[stored.digest] = stored
            self.on_stored(stored)
        return self._by_digest[stored.digest]

    def _write(self, file: BinaryIO, block: bytes) -> None:
        """Write *block*; zeros become a hole: layers may have gigabytes of them."""
        if block and not block[0] and block == ZEROS[: len(block)]:
            file.seek(len(block), os.SEEK_CUR)
            return
        self._written += len(block)
        most = max(_FREE, MAX_RATIO * self._source.packed_size if self._source else 0)
        if self._written > most:
            raise TooLarge("what the archive unpacks to, zeros apart,", limit=most)
        with self._in_folder():
            file.write(block)

    def _end(self, file: BinaryIO) -> None:
        with self._in_folder():
            file.truncate()
            file.flush()

    @contextmanager
    def _in_folder(self) -> Iterator[None]:
        """Names the temporary folder in errors, as that of a full disk."""
        try:
            yield
        except OSError as error:
            text = f"{error.strerror} (the temporary folder; TMPDIR chooses another)"
            raise OSError(error.errno, text, str(self.folder)) from error

    def _resolved(self, name: str) -> str:
        name = _clean(name)
        for _ in range(_MAX_LINKS):
            if name not in self._links:
                return name
            name = self._links[name]
        raise InvalidArchive(f"links in the archive go round in circles at {name[:160]!r}")


@dataclass(frozen=True, slots=True)
class Folder:
    """The contents of an OCI image layout folder; layers are read where they lie."""

    root: Path
    limit: int
    budget: WorkBudget

    def names(self) -> Iterable[str]:
        return ()

    def has(self, name: str) -> bool:
        return self._file(name) is not None

    def text(self, name: str) -> bytes | None:
        path = self._file(name)
        if path is None:
            return None
        with path.open("rb") as file:
            content = file.read(MAX_MANIFEST + 1)
        if len(content) > MAX_MANIFEST:
            return None
        _check_name(name, content)
        return content

    def stored(self, name: str) -> Stored:
        path = self._file(name)
        if path is None:
            raise InvalidArchive(f"{self.root} names {name[:160]!r} but doesn't hold it")
        with path.open("rb", buffering=0) as file:
            first = file.read(READ_SIZE)
            hashing = _Hashing(first, self.limit, self.budget)
            for block in chain((first,), iter(lambda: file.read(READ_SIZE), b"")):
                self.budget.allow(len(block))
                hashing.feed(block)
        stored = hashing.stored(path)
        _check_digest(name, stored.digest)
        return stored

    def _file(self, name: str) -> Path | None:
        path = self.root / _clean(name)
        try:
            return path if path.is_file() else None
        except OSError:  # a name that no filesystem takes
            return None


class _Hashing:
    """Digest and diff_id in one pass; a plain tar is hashed once."""

    def __init__(self, first: bytes, limit: int, budget: WorkBudget) -> None:
        self._raw = new_hash()
        self._size = 0
        self._plain = new_hash()
        self._unpacking: Decompressor | None = None
        self._limit = limit
        self._budget = budget
        if sniff(first[:SNIFF_SIZE]) != NONE:
            self._unpacking = Decompressor(limit=limit, budget=budget)

    def feed(self, block: bytes) -> None:
        self._raw.update(block)
        self._size += len(block)
        if self._unpacking:
            for plain in self._unpacking.feed(block):
                self._plain.update(plain)
        elif self._size > self._limit:
            raise TooLarge("the uncompressed layer", limit=self._limit)
        self._budget.check()

    def stored(self, path: Path) -> Stored:
        digest = Digest("sha256", self._raw.hexdigest())
        if self._unpacking is None:
            return Stored(path, digest, digest, self._size, NONE)
        self._unpacking.finish()
        diff_id = Digest("sha256", self._plain.hexdigest())
        return Stored(path, digest, diff_id, self._unpacking.size, self._unpacking.compression)


def _promised(name: str) -> Digest | None:
    """The digest that a member of an image layout is named by (OCI image 1.1 § image layout)."""
    blobs, _, hex_name = name.partition("/")
    with suppress(InvalidDigest):
        return Digest.parse(hex_name.replace("/", ":", 1)) if blobs == "blobs" else None
    return None


def _check_name(name: str, content: bytes) -> None:
    promised = _promised(name)
    if promised and Digest.of(content, algorithm=promised.algorithm) != promised:
        raise InvalidArchive(f"{name[:160]!r} has other bytes than its name says")


def _check_digest(name: str, digest: Digest) -> None:
    promised = _promised(name)
    if promised and promised.algorithm == digest.algorithm and promised != digest:
        raise InvalidArchive(f"{name[:160]!r} has other bytes than its name says")


def _clean(name: str) -> str:
    """A name within the archive. Raises `InvalidArchive` when it leads out of it."""
    clean = posixpath.normpath(name)
    if clean.startswith(("/", "../")) or clean == "..":
        raise InvalidArchive(f"{name[:160]!r} leads out of the archive")
    return clean
