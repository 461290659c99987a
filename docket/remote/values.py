"""What a registry has and says, as values."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property

from docket.errors import InvalidManifest
from docket.oci import manifest
from docket.oci.digest import Digest
from docket.oci.manifest import Descriptor, Index, Manifest
from docket.wire import LayerInfo


@dataclass(frozen=True)
class RemoteManifest:
    """A manifest as the registry has it; *content* hashes to *digest*."""

    digest: Digest
    media_type: str
    content: bytes

    @cached_property
    def parsed(self) -> Manifest | Index:
        """What *content* says. Raises `InvalidManifest`."""
        return manifest.parse(self.content, content_type=self.media_type)

    def image(self) -> Manifest:
        """The image manifest that this is. Raises `InvalidManifest` for all else."""
        if not isinstance(self.parsed, Manifest) or not self.parsed.is_image:
            raise InvalidManifest(f"{self.digest} is not a container image but {self._description}")
        return self.parsed

    @property
    def _description(self) -> str:
        if isinstance(self.parsed, Index):
            return "an index"
        return f"an artifact of type {self.parsed.artifact_type or 'unknown'}"


@dataclass(frozen=True, slots=True)
class RemoteLayer:
    """A layer that the registry has, and what it unpacks to; *plain_size* in bytes."""

    descriptor: Descriptor
    diff_id: Digest
    plain_size: int


@dataclass(frozen=True, slots=True)
class RemotePieces:
    """Piece hashes of some blobs of an image, one behind the other, and the torrent they are of.

    Instead of hashes there may be a *hash_peer*, a host that has them (see `hash_exchange`).
    *piece_length* in bytes; *is_gateway* is as in `Client.torrent`.
    """

    hashes: bytes
    info_hash: bytes
    piece_length: int
    announce: str
    is_gateway: bool
    hash_peer: str = ""


def remote_layer(layer: LayerInfo) -> RemoteLayer:
    """The layer that a message describes. Raises `InvalidDigest`."""
    annotations = {manifest.ANNOTATION_ENCODER: layer.encoder} if layer.encoder else {}
    descriptor = Descriptor(layer.media_type, Digest.parse(layer.digest), layer.size, annotations)
    return RemoteLayer(descriptor, Digest.parse(layer.diff_id), layer.plain_size)
