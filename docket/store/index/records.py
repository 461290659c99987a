"""The rows of the index: the values of its tables, and how their keys are put together."""

from __future__ import annotations

import msgspec

from docket.errors import IndexDamaged, InvalidDigest
from docket.oci.digest import Digest


class BlobRecord(msgspec.Struct, frozen=True, array_like=True):
    """A stored blob: *size* and *plain_size* in bytes, times in seconds since 1970.

    What a layer unpacks to is a hint if a registry has said so, and nobody has unpacked it here.
    """

    size: int
    stored: float
    verified: float
    diff_id: str = ""
    plain_size: int = 0
    compression: str = ""
    is_hint: bool = False


class ManifestRecord(msgspec.Struct, frozen=True, array_like=True):
    """A manifest in a repository; *subject* is a digest or empty."""

    media_type: str
    artifact_type: str
    subject: str
    size: int
    pushed: float


class TagRecord(msgspec.Struct, frozen=True, array_like=True):
    """Where a tag points, and since when."""

    digest: str
    moved: float


class UploadRecord(msgspec.Struct, frozen=True, array_like=True):
    """An upload session: the repository that it is bound to, and when it began."""

    repository: str
    started: float


def scoped(repository: str, name: object = "") -> bytes:
    """The key of *name* in *repository*; without a name, what all keys there begin with."""
    return f"{repository}\0{name}".encode()


def unscoped(key: bytes) -> tuple[str, str]:
    """The repository and name that `scoped` put together. Raises `IndexDamaged`."""
    repository, _, name = key.partition(b"\0")
    try:
        return repository.decode(), name.decode()
    except UnicodeDecodeError as error:
        raise IndexDamaged("the key", key) from error


def edge(repository: str, why: str, name: object = "") -> bytes:
    """A value of ``parents``: what in *repository* keeps a blob or manifest alive.

    *why* is ``m`` (a manifest *name* lists it), ``t`` (the tag *name* points to it) or ``h`` (it is
    itself a manifest of the repository).
    """
    return scoped(repository, f"{why}{name}")


def digest_of(key: bytes) -> Digest:
    """The digest that `key_of` made *key* of. Raises `IndexDamaged`."""
    try:
        return Digest.parse(key.decode())
    except (InvalidDigest, UnicodeDecodeError) as error:
        raise IndexDamaged("the key", key) from error


def key_of(digest: Digest) -> bytes:
    """The key of *digest* in the tables that know no repositories."""
    return str(digest).encode()
