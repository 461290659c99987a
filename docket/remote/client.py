"""The HTTP client of a registry: OCI distribution 1.1, and docket's own calls."""

from __future__ import annotations

import re
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import closing, suppress
from secrets import token_hex
from typing import Any
from urllib.parse import quote, urlencode, urljoin

import msgspec

from docket.errors import (
    BlobUnknown,
    DigestMismatch,
    InvalidManifest,
    InvalidMetainfo,
    RegistryError,
    RegistryRefused,
    RegistryUnreachable,
    SizeMismatch,
)
from docket.oci import manifest
from docket.oci.digest import Digest, new_hash
from docket.oci.manifest import Descriptor, Index, Platform
from docket.oci.reference import Reference
from docket.oci.selection import choose_image
from docket.remote.address import RegistryAddress
from docket.remote.fleet import FleetClient
from docket.remote.messages import Message, decoded, lines, number
from docket.remote.transport import READ_SECONDS, Connection, Response
from docket.remote.values import RemoteLayer, RemoteManifest, RemotePieces, remote_layer
from docket.wire import (
    FETCHING,
    FsckLine,
    FsckRequest,
    GcReport,
    GcRequest,
    ImageLayers,
    ImageList,
    MissingLayers,
    MissingLayersRequest,
)

MAX_TORRENT = 10_000_000
"""Bytes of a torrent file; torf reads no more."""

MAX_LIST = 64 << 20
"""Bytes of JSON that is as long as what it lists: images, layers, findings."""

_LAYER_JSON = 2048
"""Bytes of JSON about one layer, and more: names of types and encoders may be long."""

_FETCHING_PAUSE_SECONDS = 0.2
_ANNOUNCE_LIMIT = 64 * 1024
_PLAIN_HOST = re.compile(r"[a-z0-9.:-]+")
"""Hosts that libtorrent takes in a URL: no underscores, no zones of link-local addresses."""

_ACCEPT = ", ".join(sorted(manifest.ALL_MANIFEST_TYPES))
_JSON = {"Content-Type": "application/json"}


class Client:
    """One registry; safe to use from many threads."""

    def __init__(
        self,
        address: RegistryAddress | str,
        *,
        connections: int = 8,
        read_seconds: float = READ_SECONDS,
    ) -> None:
        """At most *connections* are kept open while idle; a response may take *read_seconds*.

        Raises `InvalidAddress`.
        """
        self.address = (
            address if isinstance(address, RegistryAddress) else RegistryAddress.parse(address)
        )
        self.url = str(self.address)
        self._read_seconds = read_seconds
        self._connection = Connection(
            self.address, connections=connections, read_seconds=read_seconds
        )

    def close(self) -> None:
        """Close idle connections."""
        self._connection.close()

    def abort(self) -> None:
        """End calls that are running in other threads, and refuse those to come."""
        self._connection.abort()

    @property
    def fleet(self) -> FleetClient:
        """The calls about hosts and deploys."""
        return FleetClient(self._connection)

    def __enter__(self) -> Client:
        return self

    def __exit__(self, *_exc: object) -> None:
        self.close()

    # -- manifests

    def manifest(self, reference: Reference) -> RemoteManifest:
        """The manifest or index of *reference*, checked. Raises `ManifestUnknown`."""
        response, content = self._connection.call(
            "GET",
            self._manifest_path(reference),
            success={200},
            limit=manifest.MAX_MANIFEST,
            headers={"Accept": _ACCEPT},
            unknown=reference,
        )
        digest = Digest.of(content)
        if isinstance(reference.target, Digest):
            digest = Digest.of(content, algorithm=reference.target.algorithm)
            if digest != reference.target:
                raise DigestMismatch(reference.target, digest)
        media_type = response.headers.get("Content-Type", "").partition(";")[0].strip()
        return RemoteManifest(digest, media_type, content)

    def image_manifest(self, reference: Reference, platform: Platform) -> RemoteManifest:
        """The image manifest of *reference*; of an index, the one for *platform*.

        Raises `ManifestUnknown`, or `InvalidManifest` when there is none for *platform*.
        """
        named = self.manifest(reference)
        if not isinstance(named.parsed, Index):
            return named
        repository = reference.repository
        chosen = choose_image(
            named.parsed, platform, lambda listed: self._read_listed(repository, listed)
        )
        return self.manifest(Reference(repository, chosen.digest))

    def _read_listed(self, repository: str, listed: Descriptor) -> bytes:
        """A manifest or a configuration that an index leads to."""
        if listed.media_type in manifest.ALL_MANIFEST_TYPES:
            return self.manifest(Reference(repository, listed.digest)).content
        return self.read_blob(repository, listed)

    def put_manifest(self, reference: Reference, content: bytes, media_type: str) -> Digest:
        """Push a manifest under *reference*; returning means that the image can be pulled."""
        headers = {"Content-Type": media_type}
        path = self._manifest_path(reference)
        self._connection.call("PUT", path, success={201}, body=content, headers=headers)
        return Digest.of(content)

    def delete(self, reference: Reference) -> None:
        """Delete the tag, or the manifest with its tags. Raises `ManifestUnknown`."""
        path = self._manifest_path(reference)
        self._connection.call("DELETE", path, success={202}, unknown=reference)

    # -- blobs

    def blob_size(self, repository: str, digest: Digest) -> int | None:
        """The blob's bytes, or None when the repository hasn't got it."""
        try:
            response, _ = self._connection.call(
                "HEAD", f"/v2/{repository}/blobs/{digest}", success={200}, unknown=digest
            )
        except BlobUnknown:
            return None
        with suppress(ValueError):
            return number(response.headers.get("Content-Length", ""))
        return None

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
        with self._connection.streamed(
            "GET", path, success={200, 206}, headers=headers, unknown=digest
        ) as response:
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
        path = f"/v2/{repository}/blobs/uploads/"
        response, _ = self._connection.call("POST", path, success={202})
        location = self._location(response, self.address.url(path))
        try:
            return self._send_blob(location, blocks)
        except BaseException:
            # half a layer would take the registry's space until the session expires
            with suppress(RegistryError):
                self._connection.call("DELETE", location, success={204})
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
        response, _ = self._connection.call(
            "PATCH", location, success={202}, body=hashed(), headers=headers
        )
        digest = Digest("sha256", running.hexdigest())
        location = self._location(response, location)
        joint = "&" if "?" in location else "?"
        url = f"{location}{joint}{urlencode({'digest': str(digest)})}"
        self._connection.call("PUT", url, success={201})
        return digest, size

    # -- docket's own calls

    def missing(self, repository: str, diff_ids: Sequence[Digest]) -> dict[Digest, RemoteLayer]:
        """Those of *diff_ids* that the registry holds; they are this repository's now."""
        body = MissingLayersRequest([str(diff_id) for diff_id in diff_ids])
        path = f"/v2/{repository}/_docket/missing"
        limit = _LAYER_JSON * (len(diff_ids) + 1)
        answer = self._json(MissingLayers, "POST", path, limit=limit, body=body)
        layers = [remote_layer(layer) for layer in answer.held]
        return {layer.diff_id: layer for layer in layers}

    def layers(self, reference: Reference, *, count: int) -> list[RemoteLayer | None]:
        """What each of *count* layers of an image manifest unpacks to, where the registry knows."""
        path = f"/v2/{reference.repository}/_docket/layers/{reference.target}"
        limit = _LAYER_JSON * (count + 1)
        rows = self._json(ImageLayers, "GET", path, limit=limit, unknown=reference).layers
        return [remote_layer(row) if row else None for row in rows]

    def torrent(
        self, reference: Reference, *, zone: str = "", is_peer: bool = False
    ) -> tuple[bytes, bool]:
        """The torrent of an image manifest; the registry seeds it from now on.

        Its announce URL puts the host into *zone*, if that isn't empty. With it comes whether this
        host, which joins the swarm if it *is_peer*, may connect to the registry's seed.
        """
        path = f"/v2/{reference.repository}/_docket/torrent/{reference.target}"
        query = _joining(zone, is_peer=is_peer)
        path += f"?{urlencode(query)}" if query else ""
        response, content = self._fetched(path, limit=MAX_TORRENT, unknown=reference)
        return content, response.headers.get("Docket-Gateway") != "no"

    def _fetched(self, path: str, *, limit: int, unknown: Reference) -> tuple[Response, bytes]:
        """GET *path*; asked again while the registry fetches the image from another one."""
        while True:
            try:
                return self._connection.call(
                    "GET", path, success={200}, limit=limit, unknown=unknown
                )
            except RegistryRefused as error:
                if error.code != FETCHING:
                    raise
            time.sleep(_FETCHING_PAUSE_SECONDS)  # such a response comes after seconds

    def needs_relay(self, tracker: str) -> bool:
        """Whether libtorrent can't reach *tracker* as this client does, so that it needs a relay.

        It can where that is the registry's own, over plain HTTP, at a name that it takes.
        """
        if not tracker.startswith(f"{self.url}/"):
            return False  # another tracker, of which nothing is known
        return bool(
            self.address.scheme != "http"
            or self.address.authorization
            or self._connection.is_proxied
            or not _PLAIN_HOST.fullmatch(self.address.host)
        )

    def ping(self) -> None:
        """Returning means that the registry answers. Raises `RegistryError`."""
        self._connection.call("GET", "/v2/", success={200})

    def announce(self, tracker: str, query: str) -> bytes:
        """The registry's response to an announce with a raw *query*; *tracker* is its URL."""
        url = f"{tracker}{'&' if '?' in tracker else '?'}{query}"
        return self._connection.call("GET", url, success={200}, limit=_ANNOUNCE_LIMIT)[1]

    def _tracker_url(self, announce: str) -> str:
        """The URL of the tracker that a registry names: its own one is where this client is."""
        return f"{self.url}{announce}" if announce.startswith("/") else announce

    def pieces(
        self,
        reference: Reference,
        digests: Iterable[Digest],
        *,
        length: int,
        zone: str = "",
        is_peer: bool = False,
        port: int = 0,
        failed_peer: str = "",
    ) -> RemotePieces:
        """What makes the torrent, for a host that has the piece hashes of all but *digests*.

        Their hashes have at most *length* bytes. A host that serves them to others at *port* may
        get another host's address instead; *failed_peer* is one that didn't send them. Raises
        `NotFound` where the registry doesn't know this call, or `InvalidMetainfo`.
        """
        path = f"/v2/{reference.repository}/_docket/pieces/{reference.target}"
        query = {"digests": ",".join(map(str, digests))} | _joining(zone, is_peer=is_peer)
        query |= {"port": str(port)} if port else {}
        query |= {"failed_peer": failed_peer} if failed_peer else {}
        response, hashes = self._fetched(
            f"{path}?{urlencode(query)}", limit=max(length, 1), unknown=reference
        )
        headers = response.headers
        try:
            return RemotePieces(
                hashes=hashes,
                info_hash=bytes.fromhex(headers["Docket-Info-Hash"]),
                piece_length=number(headers["Docket-Piece-Length"]),
                announce=self._tracker_url(headers["Docket-Announce"]),
                is_gateway=headers.get("Docket-Gateway") != "no",
                hash_peer=headers.get("Docket-Hash-Peer", ""),
            )
        except (KeyError, ValueError) as error:
            raise InvalidMetainfo(f"{self.url} sends no piece hashes at {path}") from error

    def trip_seconds(self) -> float:
        """How long a message takes to the registry and back; a second at most, 0 if none does."""
        return self._connection.trip_seconds()

    def images(self, name: str | None = None) -> list[dict[str, Any]]:
        """All tagged images (of one repository), with their sizes in bytes."""
        query = f"?{urlencode({'name': name})}" if name else ""
        path = f"/v2/_docket/images{query}"
        images = self._json(ImageList, "GET", path, limit=MAX_LIST).images
        return [msgspec.to_builtins(image) for image in images]

    def gc(self, **policy: Any) -> dict[str, Any]:
        """Collect garbage in the registry; the report of `docket.store.GcReport`.

        *policy*: ``dry_run``, ``grace`` (seconds), ``keep``, ``protect`` and ``age`` (seconds).
        """
        path = "/v2/_docket/gc"
        report = self._json(GcReport, "POST", path, limit=MAX_LIST, body=GcRequest(**policy))
        plain: dict[str, Any] = msgspec.to_builtins(report)
        return plain

    def fsck(self, *, read_data: str | None, on_blob: Callable[[int, int], None]) -> dict[str, Any]:
        """FsckRequest the registry's store; the report of `docket.store.FsckReport`."""
        body = msgspec.json.encode(FsckRequest(read_data))
        path = "/v2/_docket/fsck"
        # a check of large blobs reports seldom, and may take hours
        connection = Connection(
            self.address, connections=1, read_seconds=self._read_seconds, is_steady=False
        )
        with (
            closing(connection),
            connection.streamed("POST", path, success={200}, body=body, headers=_JSON) as response,
        ):
            for line in lines(connection.blocks(response), path, limit=MAX_LIST):
                progress = decoded(FsckLine, line, path, response.status)
                if progress.report is not None:
                    report: dict[str, Any] = msgspec.to_builtins(progress.report)
                    return report
                if progress.error:
                    raise RegistryError(f"the check at {self.url} failed: {progress.error}")
                on_blob(progress.done, progress.total)
        raise RegistryUnreachable(self.url, "it ended in the middle of the check")

    # -- inside

    def _manifest_path(self, reference: Reference) -> str:
        return f"/v2/{reference.repository}/manifests/{quote(str(reference.target), safe=':')}"

    def _json(
        self,
        message: type[Message],
        method: str,
        path: str,
        *,
        limit: int,
        body: msgspec.Struct | None = None,
        **options: Any,
    ) -> Message:
        if body is not None:
            options |= {"body": msgspec.json.encode(body), "headers": _JSON}
        response, content = self._connection.call(
            method, path, success={200}, limit=limit, **options
        )
        return decoded(message, content, path, response.status)

    def _location(self, response: Response, requested: str) -> str:
        """The URL where an upload goes on, after a request to the URL *requested*.

        Raises `RegistryRefused` when there is none, or when it would leave encryption.
        """
        location = response.headers.get("Location", "")
        url = self.address.url(urljoin(requested, location))
        if not location:
            why = "without a Location"
        elif requested.startswith("https:") and not url.startswith("https:"):
            why = f"it goes on at {location[:300]!r}, which is not encrypted"
        else:
            return url
        raise RegistryRefused("an upload", status=response.status, message=why)


def _joining(zone: str, *, is_peer: bool) -> dict[str, str]:
    """The parameters by which a host joins a swarm."""
    # a request that is sent again has the same token
    return ({"zone": zone} if zone else {}) | ({"join_token": token_hex(8)} if is_peer else {})
