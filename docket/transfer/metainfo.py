"""The torrent of an image, built on the host that is about to fetch the image.

A torrent follows from the manifest, the sizes and the piece hashes of the blobs. A host has the
hashes of what it holds. It gets the others from the registry or, where many hosts request them at
the same moment, from a host that got them before; only the info-hash must come from the registry.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import suppress

from docket.errors import InvalidMetainfo, NotFound, RegistryRefused
from docket.oci.digest import Digest
from docket.pieces import PIECE_LENGTH, hashes_size
from docket.remote.client import Client
from docket.remote.values import RemotePieces
from docket.store import Store
from docket.torrent.hash_exchange import HashServer, fetch_hashes
from docket.torrent.metainfo import (
    Metainfo,
    image_blobs,
    metainfo_of,
    parse_metainfo,
    split_hashes,
)
from docket.transfer.options import TransferOptions
from docket.transfer.plan import FetchRequest

MIN_SHARED_HASHES = 4096
"""Bytes of hashes from which on hosts serve them to each other."""


class MetainfoSource:
    """The torrent of one image. Until it is closed, this host serves its piece hashes to others."""

    def __init__(
        self, client: Client, store: Store, request: FetchRequest, options: TransferOptions
    ) -> None:
        """A host that joins the swarm may be made a gateway of its zone."""
        self._client = client
        self._store = store
        self._image = request.image
        self._held = request.held
        self._options = options
        self._server: HashServer | None = None
        self._is_gateway: bool | None = None

    @property
    def is_gateway(self) -> bool:
        """Whether the registry wants this host to use its seed; known with the torrent."""
        return bool(self._is_gateway)

    def close(self) -> None:
        """Stop serving piece hashes."""
        if self._server:
            self._server.close()

    def metainfo(self) -> Metainfo:
        """The torrent. Raises `NotFound`, `RegistryRefused` or `InvalidMetainfo`."""
        torrent = self._built() or self._downloaded()
        if self._server:
            hashes = {file.digest: torrent.hashes(file) for file in torrent.files if file.digest}
            self._server.publish(torrent.info_hash, hashes)
        return torrent

    def _downloaded(self) -> Metainfo:
        """The torrent as the registry has it."""
        # a second request may not take a second place among the gateways
        joins = self._options.use_swarm and self._is_gateway is None
        content, is_gateway = self._client.torrent(
            self._image.at_digest, zone=self._options.zone, is_peer=joins
        )
        if self._is_gateway is None:
            self._is_gateway = is_gateway
        return parse_metainfo(content)

    def _built(self) -> Metainfo | None:
        """The torrent, built here; None where that fails."""
        with suppress(NotFound, RegistryRefused, InvalidMetainfo):
            stored_hashes = self._store.blobs.piece_hashes(self._held)
            blobs = image_blobs(self._image.manifest)
            missing = {blob.digest: blob.size for blob in blobs if blob.digest not in stored_hashes}
            length = sum(hashes_size(size, PIECE_LENGTH) for size in missing.values())
            pieces = self._requested_pieces(missing, length)
            if pieces.piece_length == PIECE_LENGTH:
                for hashes in self._candidates(pieces, missing, length):
                    with suppress(InvalidMetainfo):
                        split = split_hashes(hashes, missing, PIECE_LENGTH)
                        torrent = metainfo_of(
                            self._image.manifest,
                            pieces={**stored_hashes, **split},
                            announce=pieces.announce,
                        )
                        if torrent.info_hash == pieces.info_hash:
                            return torrent
        return None

    def _requested_pieces(self, missing: Mapping[Digest, int], length: int) -> RemotePieces:
        """What the registry sends of the *missing* blobs' hashes; others may get them here then."""
        if self._options.use_swarm and length >= MIN_SHARED_HASHES:
            with suppress(OSError):
                self._server = HashServer()
        pieces = self._client.pieces(
            self._image.at_digest,
            missing,
            length=length,
            zone=self._options.zone,
            is_peer=self._options.use_swarm,
            port=self._server.port if self._server else 0,
        )
        self._is_gateway = pieces.is_gateway
        return pieces

    def _candidates(
        self, pieces: RemotePieces, missing: Mapping[Digest, int], length: int
    ) -> Iterator[bytes]:
        """Piece hashes: those of the host that the registry named, then the registry's own."""
        if pieces.hash_peer:
            hashes = fetch_hashes(pieces.hash_peer, pieces.info_hash, missing, length=length)
            if hashes is not None:
                yield hashes
            pieces = self._client.pieces(
                self._image.at_digest,
                missing,
                length=length,
                zone=self._options.zone,
                failed_peer=pieces.hash_peer,
            )
        yield pieces.hashes
