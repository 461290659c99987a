"""The torrent of an image, put together on the host that is about to fetch the image.

A torrent follows from the manifest, the sizes and the piece hashes of the blobs. A host has the
hashes of what it holds. The others it hears from the registry or, where a crowd asks at the same
moment, from a host that was told before; only the info-hash must come from the registry itself.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass

from docket.errors import InvalidMetainfo, NotFound, RegistryRefused
from docket.oci.digest import Digest
from docket.oci.manifest import Descriptor
from docket.oci.reference import Reference
from docket.pieces import PIECE_LENGTH, hashes_size
from docket.remote.client import Client
from docket.remote.values import RemotePieces
from docket.store import Store
from docket.store.blobs.ingest import Unpacked
from docket.torrent.hash_exchange import HashServer, fetch_hashes
from docket.torrent.metainfo import Metainfo, image_metainfo, parse_metainfo, split_hashes

WORTH_TELLING = 4096
"""Bytes of hashes from which on a host tells others, and hears from them."""


@dataclass(frozen=True, slots=True)
class FetchRequest:
    """An image manifest, the layers that are wanted of it, and what they unpack to if known.

    *blobs* are config and layers in the manifest's order; *held* is what the store has of them, and
    the manifest. *trip_seconds* is how long a message takes to the registry and back.
    """

    reference: Reference
    digest: Digest
    media_type: str
    size: int
    blobs: Sequence[Descriptor]
    held: Sequence[Digest]
    wanted: Sequence[Descriptor]
    unpacked: dict[Digest, Unpacked]
    trip_seconds: float = 0.0


class MetainfoSource:
    """The torrent of one image. Until it is closed, this host tells others what it is made of."""

    def __init__(
        self, client: Client, store: Store, image: FetchRequest, *, zone: str, joins: bool
    ) -> None:
        """A host that *joins* the swarm may be asked to be a gateway of its *zone*."""
        self._client = client
        self._store = store
        self._image = image
        self._zone = zone
        self._joins = joins
        self._at_digest = Reference(image.reference.repository, image.digest)
        self._teller: HashServer | None = None
        self._is_gateway: bool | None = None

    @property
    def is_gateway(self) -> bool:
        """Whether the registry wants this host to ask its seed; known with the torrent."""
        return bool(self._is_gateway)

    def close(self) -> None:
        """Tell nobody any more."""
        if self._teller:
            self._teller.close()

    def metainfo(self) -> Metainfo:
        """The torrent. Raises `NotFound`, `RegistryRefused` or `InvalidMetainfo`."""
        made = self._made()
        if made is None:
            # all of it from the registry, whose places for gateways have been asked for
            joins = self._joins and self._is_gateway is None
            content, is_gateway = self._client.torrent(
                self._at_digest, zone=self._zone, is_peer=joins
            )
            made = parse_metainfo(content)
            self._is_gateway = is_gateway if self._is_gateway is None else self._is_gateway
        if self._teller:
            hashes = {one.digest: made.hashes(one) for one in made.files if one.digest}
            self._teller.publish(made.info_hash, hashes)
        return made

    def _made(self) -> Metainfo | None:
        """The torrent, made here; None where that fails."""
        with suppress(NotFound, RegistryRefused, InvalidMetainfo):
            known = self._store.blobs.piece_hashes(self._image.held)
            asked = {one.digest: one.size for one in self._image.blobs if one.digest not in known}
            length = sum(hashes_size(size, PIECE_LENGTH) for size in asked.values())
            if self._joins and length >= WORTH_TELLING:
                with suppress(OSError):
                    self._teller = HashServer()
            told = self._client.pieces(
                self._at_digest,
                asked,
                length=length,
                zone=self._zone,
                is_peer=self._joins,
                port=self._teller.port if self._teller else 0,
            )
            self._is_gateway = told.is_gateway
            if told.piece_length == PIECE_LENGTH:
                for hashes in self._heard(told, asked, length):
                    with suppress(InvalidMetainfo):
                        made = self._put_together(told, known, asked, hashes)
                        if made.info_hash == told.info_hash:
                            return made
        return None

    def _heard(
        self, told: RemotePieces, asked: Mapping[Digest, int], length: int
    ) -> Iterator[bytes]:
        """Piece hashes: those of the host that the registry named, then the registry's own."""
        if told.hash_peer:
            hashes = fetch_hashes(told.hash_peer, told.info_hash, asked, length=length)
            if hashes is not None:
                yield hashes
            told = self._client.pieces(
                self._at_digest, asked, length=length, zone=self._zone, failed_peer=told.hash_peer
            )
        yield told.hashes

    def _put_together(
        self,
        told: RemotePieces,
        known: Mapping[Digest, bytes],
        asked: Mapping[Digest, int],
        hashes: bytes,
    ) -> Metainfo:
        image = self._image
        return image_metainfo(
            image.digest,
            media_type=image.media_type,
            size=image.size,
            blobs=[(one.digest, one.size) for one in image.blobs],
            pieces={**known, **split_hashes(hashes, asked, told.piece_length)},
            announce=told.announce,
            piece_length=told.piece_length,
        )
