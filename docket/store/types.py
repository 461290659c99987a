"""Values that a store returns about what it holds."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property

from docket.errors import InvalidManifest
from docket.oci.digest import Digest
from docket.oci.manifest import Index, Manifest, parse


@dataclass(frozen=True, slots=True)
class Blob:
    """A stored blob; *size* in bytes."""

    digest: Digest
    size: int


@dataclass(frozen=True, slots=True)
class LayerBlob:
    """A stored layer: its blob, and what it unpacks to; sizes in bytes.

    *is_hint*: a registry has said so, and nobody has unpacked it here.
    """

    digest: Digest
    size: int
    diff_id: Digest
    plain_size: int
    compression: str
    is_hint: bool = False


@dataclass(frozen=True)
class StoredManifest:
    """A manifest's exact bytes, and the types that it was pushed with."""

    digest: Digest
    media_type: str
    artifact_type: str
    content: bytes

    @cached_property
    def parsed(self) -> Manifest | Index:
        """What *content* says. Raises `InvalidManifest`."""
        return parse(self.content, content_type=self.media_type)

    def manifest(self) -> Manifest:
        """The manifest of one image or artifact. Raises `InvalidManifest` for an index."""
        if not isinstance(self.parsed, Manifest):
            raise InvalidManifest(f"{self.digest} is an index, not one image")
        return self.parsed


@dataclass(frozen=True, slots=True)
class Tagged:
    """A tag of a repository, its manifest, and when it was last moved (seconds since 1970)."""

    repository: str
    tag: str
    digest: Digest
    moved: float
