"""Digests: the names of bytes (OCI image 1.1, descriptor § digests)."""

from __future__ import annotations

import hashlib
import re
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO, Protocol

from docket.errors import InvalidDigest

_HEX_LENGTHS = {"sha256": 64, "sha512": 128}
_HEX = re.compile(r"[0-9a-f]+\Z")

READ_SIZE = 1 << 20
"""Bytes per read: large enough that hashing releases the GIL most of the time."""


class Hash(Protocol):
    """What docket uses of a `hashlib` object."""

    def update(self, block: bytes | bytearray | memoryview, /) -> None: ...
    def digest(self) -> bytes: ...
    def hexdigest(self) -> str: ...


@dataclass(frozen=True, slots=True, order=True)
class Digest:
    """An algorithm and the hash of some bytes by it; `str()` gives ``sha256:<hex>``."""

    algorithm: str
    hex: str

    @classmethod
    def parse(cls, text: str) -> Digest:
        """The digest that *text* spells. Raises `InvalidDigest`."""
        algorithm, colon, hexdigits = text.partition(":")
        length = _HEX_LENGTHS.get(algorithm)
        if not colon or length != len(hexdigits) or not _HEX.match(hexdigits):
            raise InvalidDigest(text)
        return cls(algorithm, hexdigits)

    @classmethod
    def sha256(cls, hexdigits: str) -> Digest:
        """The SHA-256 digest with these 64 hex digits. Raises `InvalidDigest`."""
        return cls.parse(f"sha256:{hexdigits}")

    @classmethod
    def of(cls, content: bytes, *, algorithm: str = "sha256") -> Digest:
        """The digest of *content*."""
        return cls(algorithm, hashlib.new(algorithm, content).hexdigest())

    @classmethod
    def of_stream(cls, stream: BinaryIO, *, algorithm: str = "sha256") -> Digest:
        """The digest of all that *stream* still has."""
        running = new_hash(algorithm)
        while block := stream.read(READ_SIZE):
            running.update(block)
        return cls(algorithm, running.hexdigest())

    @classmethod
    def of_file(cls, path: Path, *, algorithm: str = "sha256") -> Digest:
        """The digest of the file at *path*."""
        with path.open("rb", buffering=0) as file:
            return cls.of_stream(file, algorithm=algorithm)

    @property
    def short(self) -> str:
        """The first twelve hex digits, as engines show them."""
        return self.hex[:12]

    @property
    def layout_path(self) -> str:
        """Where an OCI image layout keeps these bytes: ``blobs/<algorithm>/<hex>``."""
        return f"blobs/{self.algorithm}/{self.hex}"

    def __str__(self) -> str:
        return f"{self.algorithm}:{self.hex}"


def new_hash(algorithm: str = "sha256") -> Hash:
    """A running hash for *algorithm* (``sha256`` or ``sha512``). Raises `InvalidDigest`."""
    if algorithm not in _HEX_LENGTHS:
        raise InvalidDigest(f"{algorithm}:…")
    return hashlib.new(algorithm)
