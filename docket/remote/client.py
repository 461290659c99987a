"""The HTTP client of a registry: OCI distribution 1.1, and docket's own calls."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass
from secrets import token_hex
from typing import Any, TypeVar
from urllib.parse import quote, urlencode, urlsplit

import msgspec

from docket.errors import (
    BlobUnknown,
    DigestMismatch,
    InvalidAddress,
    InvalidManifest,
    InvalidMetainfo,
    RegistryError,
    RegistryRefused,
    RegistryUnreachable,
    SizeMismatch,
)
from docket.oci import manifest
from docket.oci.digest import Digest, new_hash
from docket.oci.manifest import Descriptor, Platform
from docket.oci.reference import Reference
from docket.oci.selection import choose_image
from docket.remote.transport import READ_SECONDS, Connection, Response
from docket.wire import (
    FsckLine,
    FsckRequest,
    GcReport,
    GcRequest,
    ImageLayers,
    ImageList,
    LayerInfo,
    MissingLayers,
    MissingLayersRequest,
)

DEFAULT_PORT = 8000

_ACCEPT = ", ".join(sorted(manifest.ALL_MANIFEST_TYPES))
_JSON = {"Content-Type": "application/json"}


@dataclass(frozen=True, slots=True)
class RemoteManifest:
    """A manifest as the registry has it; *content* hashes to *digest*."""

    digest: Digest
    media_type: str
    content: bytes


@dataclass(frozen=True, slots=True)
class RemoteLayer:
    """A layer that the registry has, and what it unpacks to; *plain_size* in bytes."""

    descriptor: Descriptor
    diff_id: Digest
    plain_size: int


@dataclass(frozen=True, slots=True)
class RemotePieces:
    """Piece hashes of some blobs of an image, one behind the other, and the torrent they are of.

    Instead of hashes there may be a *teller*, a host that has them (see `hash_exchange`).
    *piece_length* in bytes; *is_gateway* is as `Client.torrent` tells it.
    """

    hashes: bytes
    info_hash: bytes
    piece_length: int
    announce: str
    is_gateway: bool
    teller: str = ""


def registry_url(host: str, port: int | None = None) -> str:
    """The base URL for *host*: a bare host, ``http://host`` or a full URL.

    A port in *host* counts more than *port*; without either it is 8000, or what https uses. Raises
    `InvalidAddress`.
    """
    text = host if "://" in host else f"http://{host}"
    try:
        parts = urlsplit(text)
        own_port = parts.port
    except ValueError as error:
        raise InvalidAddress(host, f"{error}; a registry is a host, or http://host:port") from error
    if parts.scheme not in ("http", "https") or not parts.hostname:
        raise InvalidAddress(host, "a registry is a host, or http://host:port")
    chosen = own_port or port or (None if parts.scheme == "https" else DEFAULT_PORT)
    name = f"[{parts.hostname}]" if ":" in parts.hostname else parts.hostname
    return f"{parts.scheme}://{name}{f':{chosen}' if chosen else ''}"


_Answer = TypeVar("_Answer")


class Client:
    """One registry; safe to use from many threads."""

    def __init__(
        self, url: str, *, connections: int = 8, read_seconds: float = READ_SECONDS
    ) -> None:
        """At most *connections* are kept open while idle; an answer may take *read_seconds*."""
        self.url = url
        self._connection = Connection(url, connections=connections, read_seconds=read_seconds)

    def close(self) -> None:
        """Close idle connections."""
        self._connection.close()

    def __enter__(self) -> Client:
        return self

    def __exit__(self, *_exc: object) -> None:
        self.close()

    # -- manifests

    def manifest(self, reference: Reference) -> RemoteManifest:
        """The manifest or index of *reference*, checked. Raises `ManifestUnknown`."""
        response = self._connection.call(
            "GET", self._manifest_path(reference), headers={"Accept": _ACCEPT}, unknown=reference
        )
        digest = Digest.of(response.data)
        if isinstance(reference.target, Digest):
            digest = Digest.of(response.data, algorithm=reference.target.algorithm)
            if digest != reference.target:
                raise DigestMismatch(reference.target, digest)
        media_type = response.headers.get("Content-Type", "").partition(";")[0]
        return RemoteManifest(digest, media_type, response.data)

    def image_manifest(self, reference: Reference, platform: Platform) -> RemoteManifest:
        """The image manifest of *reference*; of an index, the one for *platform*.

        Raises `ManifestUnknown`, or `InvalidManifest` when there is none for *platform*.
        """
        found = self.manifest(reference)
        parsed = manifest.parse(found.content, content_type=found.media_type)
        if isinstance(parsed, manifest.Index):
            chosen = choose_image(
                parsed, platform, lambda listed: self._read_listed(reference.repository, listed)
            )
            found = self.manifest(Reference(reference.repository, chosen.digest))
        return found

    def _read_listed(self, repository: str, listed: Descriptor) -> bytes:
        """A manifest or a configuration that an index leads to."""
        if listed.media_type in manifest.ALL_MANIFEST_TYPES:
            return self.manifest(Reference(repository, listed.digest)).content
        return self.read_blob(repository, listed)

    def put_manifest(self, reference: Reference, content: bytes, media_type: str) -> Digest:
        """Push a manifest under *reference*; returning means that the image can be pulled."""
        headers = {"Content-Type": media_type}
        self._connection.call("PUT", self._manifest_path(reference), body=content, headers=headers)
        return Digest.of(content)

    def delete(self, reference: Reference) -> None:
        """Delete the tag, or the manifest with its tags. Raises `ManifestUnknown`."""
        self._connection.call("DELETE", self._manifest_path(reference), unknown=reference)

    # -- blobs

    def blob_size(self, repository: str, digest: Digest) -> int | None:
        """The blob's bytes, or None when the repository hasn't got it."""
        try:
            response = self._connection.call(
                "HEAD", f"/v2/{repository}/blobs/{digest}", unknown=digest
            )
        except BlobUnknown:
            return None
        return int(response.headers.get("Content-Length", 0))

    def read_blob(self, repository: str, descriptor: Descriptor) -> bytes:
        """All bytes of a small blob, such as a config, checked."""
        if descriptor.size > manifest.MAX_MANIFEST:
            raise InvalidManifest(f"blob {descriptor.digest} is too large for a configuration")
        content = b"".join(self.blob_range(repository, descriptor.digest, 0, descriptor.size))
        actual = Digest.of(content, algorithm=descriptor.digest.algorithm)
        if actual != descriptor.digest:
            raise DigestMismatch(descriptor.digest, actual)
        return content

    def blob_range(self, repository: str, digest: Digest, start: int, end: int) -> Iterator[bytes]:
        """The blob's bytes from *start* to before *end*, block by block.

        Raises `BlobUnknown`, `SizeMismatch` when fewer come, or `RegistryUnreachable` when the
        connection breaks; then the caller may go on where it stopped.
        """
        if start >= end:
            return
        headers = {"Range": f"bytes={start}-{end - 1}"}
        path = f"/v2/{repository}/blobs/{digest}"
        with self._connection.streamed("GET", path, headers=headers, unknown=digest) as response:
            skip = start if response.status == 200 else 0
            left = end - start
            for block in self._connection.blocks(response):
                cut = min(skip, len(block))
                skip -= cut
                wanted = block[cut : cut + left]
                left -= len(wanted)
                if wanted:
                    yield wanted
                if not left:
                    return
        raise SizeMismatch(digest, expected=end - start, actual=end - start - left)

    def put_blob(self, repository: str, blocks: Iterable[bytes]) -> tuple[Digest, int]:
        """Upload *blocks* as they come; their digest and size, once the registry has them safe.

        The digest is found on the way, so that compressing and sending are one pass.
        """
        location = self._location(self._connection.call("POST", f"/v2/{repository}/blobs/uploads/"))
        try:
            return self._send_blob(location, blocks)
        except BaseException:
            # half a layer would take the registry's space until the session expires
            with suppress(RegistryError):
                self._connection.call("DELETE", location)
            raise

    def _send_blob(self, location: str, blocks: Iterable[bytes]) -> tuple[Digest, int]:
        running = new_hash()
        size = 0

        def hashed() -> Iterator[bytes]:
            nonlocal size
            for block in blocks:
                running.update(block)
                size += len(block)
                if block:
                    yield block

        headers = {"Content-Type": "application/octet-stream"}
        sent = self._connection.call("PATCH", location, body=hashed(), headers=headers)
        digest = Digest("sha256", running.hexdigest())
        location = self._location(sent)
        joint = "&" if "?" in location else "?"
        self._connection.call("PUT", f"{location}{joint}{urlencode({'digest': str(digest)})}")
        return digest, size

    # -- docket's own calls

    def missing(self, repository: str, diff_ids: Sequence[Digest]) -> dict[Digest, RemoteLayer]:
        """Those of *diff_ids* that the registry holds; they are this repository's now."""
        body = MissingLayersRequest([str(diff_id) for diff_id in diff_ids])
        path = f"/v2/{repository}/_docket/missing"
        layers = [
            _remote_layer(layer)
            for layer in self._json(MissingLayers, "POST", path, body=body).held
        ]
        return {layer.diff_id: layer for layer in layers}

    def layers(self, reference: Reference) -> list[RemoteLayer | None]:
        """What each layer of an image manifest unpacks to, where the registry knows."""
        path = f"/v2/{reference.repository}/_docket/layers/{reference.target}"
        answer = self._json(ImageLayers, "GET", path, unknown=reference)
        return [_remote_layer(one) if one else None for one in answer.layers]

    def torrent(
        self, reference: Reference, *, zone: str = "", is_peer: bool = False
    ) -> tuple[bytes, bool]:
        """The torrent of an image manifest; the registry seeds it from now on.

        Whoever uses it tells the tracker to be in *zone*, if that isn't empty. With it comes
        whether this host, which joins the swarm if it *is_peer*, is to ask the registry's seed.
        """
        path = f"/v2/{reference.repository}/_docket/torrent/{reference.target}"
        query = _joining(zone, is_peer=is_peer)
        path += f"?{urlencode(query)}" if query else ""
        answer = self._connection.call("GET", path, unknown=reference)
        return answer.data, answer.headers.get("Docket-Gateway") != "no"

    def pieces(
        self,
        reference: Reference,
        digests: Iterable[Digest],
        *,
        zone: str = "",
        is_peer: bool = False,
        port: int = 0,
        failed_peer: str = "",
    ) -> RemotePieces:
        """What `torrent` tells, for a host that has the piece hashes of all but *digests*.

        A host that will tell them to others at *port* may be told of another host that does;
        *failed_peer* one that didn't, the registry itself tells them.
        Raises `NotFound` where the registry doesn't know this call, or `InvalidMetainfo`.
        """
        path = f"/v2/{reference.repository}/_docket/pieces/{reference.target}"
        query = {"digests": ",".join(map(str, digests))} | _joining(zone, is_peer=is_peer)
        query |= {"port": str(port)} if port else {}
        query |= {"failed_peer": failed_peer} if failed_peer else {}
        answer = self._connection.call("GET", f"{path}?{urlencode(query)}", unknown=reference)
        told = answer.headers
        try:
            return RemotePieces(
                hashes=answer.data,
                info_hash=bytes.fromhex(told["Docket-Info-Hash"]),
                piece_length=int(told["Docket-Piece-Length"]),
                announce=told["Docket-Announce"],
                is_gateway=told.get("Docket-Gateway") != "no",
                teller=told.get("Docket-Hash-Peer", ""),
            )
        except (KeyError, ValueError) as error:
            raise InvalidMetainfo(f"{self.url} tells no piece hashes at {path}") from error

    def trip_seconds(self) -> float:
        """How long a message takes to the registry and back; a second at most, 0 if none does."""
        return self._connection.trip_seconds()

    def images(self, name: str | None = None) -> list[dict[str, Any]]:
        """All tagged images (of one repository), with their sizes in bytes."""
        query = f"?{urlencode({'name': name})}" if name else ""
        images = self._json(ImageList, "GET", f"/v2/_docket/images{query}").images
        return [msgspec.to_builtins(image) for image in images]

    def gc(self, **how: Any) -> dict[str, Any]:
        """Collect garbage in the registry; the report of `docket.store.GcReport`.

        *how*: ``dry_run``, ``grace`` (seconds), ``keep``, ``protect`` and ``age`` (seconds).
        """
        report = self._json(GcReport, "POST", "/v2/_docket/gc", body=GcRequest(**how))
        plain: dict[str, Any] = msgspec.to_builtins(report)
        return plain

    def fsck(self, *, read_data: str | None, on_blob: Callable[[int, int], None]) -> dict[str, Any]:
        """Check the registry's store; the report of `docket.store.FsckReport`."""
        body = msgspec.json.encode(FsckRequest(read_data))
        with self._connection.streamed(
            "POST", "/v2/_docket/fsck", body=body, headers=_JSON
        ) as response:
            for line in _lines(self._connection.blocks(response)):
                told = _decoded(FsckLine, line, "/v2/_docket/fsck", response.status)
                if told.report is not None:
                    report: dict[str, Any] = msgspec.to_builtins(told.report)
                    return report
                if told.error:
                    raise RegistryError(f"the check at {self.url} failed: {told.error}")
                on_blob(told.done, told.total)
        raise RegistryUnreachable(self.url, "it ended in the middle of the check")

    # -- inside

    def _manifest_path(self, reference: Reference) -> str:
        return f"/v2/{reference.repository}/manifests/{quote(str(reference.target), safe=':')}"

    def _json(
        self,
        kind: type[_Answer],
        method: str,
        path: str,
        *,
        body: msgspec.Struct | None = None,
        **options: Any,
    ) -> _Answer:
        if body is not None:
            options |= {"body": msgspec.json.encode(body), "headers": _JSON}
        response = self._connection.call(method, path, **options)
        return _decoded(kind, response.data, path, response.status)

    def _location(self, response: Response) -> str:
        """Where an upload goes on. Raises `RegistryRefused`."""
        if location := response.headers.get("Location"):
            return location
        raise RegistryRefused("an upload", status=response.status, message="without a Location")


def _decoded(kind: type[_Answer], text: bytes, path: str, status: int) -> _Answer:
    """What a registry told, as a value of *kind*. Raises `RegistryRefused`."""
    try:
        return msgspec.json.decode(text, type=kind)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
        why = f"the answer is none of docket's: {error}"
        raise RegistryRefused(path, status=status, message=why) from error


def _lines(blocks: Iterator[bytes]) -> Iterator[bytes]:
    """Whole lines."""
    rest = b""
    for block in blocks:
        *whole, rest = (rest + block).split(b"\n")
        yield from whole


def _joining(zone: str, *, is_peer: bool) -> dict[str, str]:
    """What a host tells of itself when it asks for a torrent."""
    # when the question is sent again it has the same token
    return ({"zone": zone} if zone else {}) | ({"join_token": token_hex(8)} if is_peer else {})


def _remote_layer(told: LayerInfo) -> RemoteLayer:
    annotations = {manifest.ANNOTATION_ENCODER: told.encoder} if told.encoder else {}
    descriptor = Descriptor(told.media_type, Digest.parse(told.digest), told.size, annotations)
    return RemoteLayer(descriptor, Digest.parse(told.diff_id), told.plain_size)
