"""What a store tells about what it holds."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from docket.oci.digest import Digest
from docket.store.index.records import BlobRecord


@dataclass(frozen=True, slots=True)
class Blob:
    """A stored blob; *size* in bytes, *path* is immutable while the blob is held."""

    digest: Digest
    size: int
    path: Path


@dataclass(frozen=True, slots=True)
class LayerBlob:
    """A stored layer: its blob, and what it unpacks to; sizes in bytes.

    *encoder* says what compressed it, where its manifest told (see `ANNOTATION_ENCODER`).
    """

    digest: Digest
    size: int
    diff_id: Digest
    plain_size: int
    compression: str
    encoder: str


@dataclass(frozen=True, slots=True)
class StoredManifest:
    """A manifest's exact bytes, and what it was pushed as."""

    digest: Digest
    media_type: str
    artifact_type: str
    content: bytes


@dataclass(frozen=True, slots=True)
class Tagged:
    """A tag of a repository, the manifest it points to, and when it got there."""

    repository: str
    tag: str
    digest: Digest
    moved: float


def layer_blob(key: bytes, record: BlobRecord) -> LayerBlob:
    """The layer that the row *key* of ``blobs`` tells of."""
    return LayerBlob(
        digest=Digest.parse(key.decode()),
        size=record.size,
        diff_id=Digest.parse(record.diff_id),
        plain_size=record.plain_size,
        compression=record.compression,
        encoder=record.encoder,
    )
