"""One upstream registry over HTTP: its manifests and blobs, checked, without hammering it."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass

from docket.errors import (
    BlobUnknown,
    InvalidDigest,
    ManifestUnknown,
    RegistryRefused,
    RegistryUnreachable,
    TooLarge,
    UpstreamDenied,
    UpstreamError,
    UpstreamLimited,
    UpstreamUnavailable,
)
from docket.oci import manifest
from docket.oci.digest import Digest
from docket.oci.reference import Reference
from docket.remote.messages import number
from docket.remote.transport import Connection, Response
from docket.upstream.authorization import Authorizer
from docket.upstream.credentials import CredentialFile
from docket.upstream.names import Upstream
from docket.upstream.retry_after import seconds_to_wait

_ACCEPT = {"Accept": ", ".join(sorted(manifest.ALL_MANIFEST_TYPES))}
_MANIFEST_SECONDS = 15.0
_BLOB_SECONDS = 60.0
_CONNECTIONS = 8
_ANSWERS = frozenset({200, 206, 401, 403, 404, 416, 429, 500, 502, 503, 504})
_ASK_LATER = frozenset({429, 503})
MANIFESTS, BLOBS = "manifests", "blobs"


@dataclass(frozen=True, slots=True)
class UpstreamManifest:
    """A manifest as the upstream has it; *content* hashes to *digest*."""

    digest: Digest
    media_type: str
    content: bytes


class Source:
    """One upstream; safe to use from many threads.

    Errors are `ManifestUnknown` and `BlobUnknown` for what it doesn't have, else `UpstreamError`.
    After a response that says when to ask again, nothing is asked before that.
    """

    def __init__(
        self,
        upstream: Upstream,
        file: CredentialFile,
        *,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self.upstream = upstream
        self._name = upstream.name
        self._authorizer = Authorizer(upstream, file, clock=clock)
        self._clock = clock
        self._lock = threading.Lock()
        self._limited_until: dict[str, float] = {}
        address = upstream.address
        self._manifests = Connection(
            address, connections=_CONNECTIONS, read_seconds=_MANIFEST_SECONDS
        )
        self._blobs = Connection(address, connections=_CONNECTIONS, read_seconds=_BLOB_SECONDS)

    def abort(self) -> None:
        """End all calls that are running in other threads, and refuse those to come."""
        for connection in (self._manifests, self._blobs):
            connection.abort()
            connection.close()
        self._authorizer.abort()

    def digest_of(self, repository: str, tag: str) -> Digest | None:
        """What *tag* points to now; None where the upstream sends no digest with HEAD."""
        with self._asked("HEAD", MANIFESTS, Reference(repository, tag)) as response:
            text = response.headers.get("Docker-Content-Digest", "")
        with suppress(InvalidDigest):
            return Digest.parse(text)
        return None

    def manifest(self, repository: str, target: str | Digest) -> UpstreamManifest:
        """The manifest of a tag or digest, of at most 4 MiB, checked against its digest."""
        with self._asked("GET", MANIFESTS, Reference(repository, target)) as response:
            media_type = response.headers.get("Content-Type", "").partition(";")[0].strip()
            content = bytearray()
            for block in self._read(self._manifests, response):
                content += block
                if len(content) > manifest.MAX_MANIFEST:
                    raise UpstreamError(
                        self._name, str(TooLarge("the manifest", limit=manifest.MAX_MANIFEST))
                    )
            expected: Digest | None = target if isinstance(target, Digest) else None
            if expected is None:
                with suppress(InvalidDigest):
                    expected = Digest.parse(response.headers.get("Docker-Content-Digest", ""))
        algorithm = expected.algorithm if isinstance(target, Digest) and expected else "sha256"
        digest = Digest.of(bytes(content), algorithm=algorithm)
        if expected and expected != Digest.of(bytes(content), algorithm=expected.algorithm):
            raise UpstreamError(self._name, f"it sent a wrong manifest for {expected}")
        return UpstreamManifest(digest, media_type, bytes(content))

    @contextmanager
    def blob(
        self, repository: str, digest: Digest, *, start: int = 0
    ) -> Iterator[tuple[int | None, Iterator[bytes]]]:
        """A blob from byte *start* on: the size of all of it, if that is known, and its blocks."""
        headers = {"Range": f"bytes={start}-"} if start else {}
        asked = self._asked("GET", BLOBS, Reference(repository, digest), headers=headers)
        with asked as response:
            length = _length(response)
            blocks = self._read(self._blobs, response)
            if response.status == 206:
                yield (None if length is None else start + length), blocks
            else:
                yield length, _skipped(blocks, start)

    @contextmanager
    def _asked(
        self,
        method: str,
        kind: str,
        reference: Reference,
        *,
        headers: dict[str, str] | None = None,
    ) -> Iterator[Response]:
        """The successful response to a request, with what authorization it takes."""
        repository = reference.repository
        path = f"/v2/{repository}/{kind}/{reference.target}"
        is_manifest = kind == MANIFESTS
        connection = self._manifests if is_manifest else self._blobs
        sent = {**(_ACCEPT if is_manifest else {}), **(headers or {})}
        with self._translated():
            self._check_limit(kind)
            for attempt in range(2):
                authorization = self._authorizer.header(repository)
                with connection.streamed(
                    method, path, success=_ANSWERS, headers=sent, authorization=authorization
                ) as response:
                    if response.status != 401 or attempt:
                        self._check(response, kind, reference)
                        yield response
                        return
                    challenge = response.headers.get("WWW-Authenticate", "")
                self._authorizer.forget(repository)
                self._note_limit(kind, lambda: self._authorizer.respond(repository, challenge))  # noqa: B023

    @contextmanager
    def _translated(self) -> Iterator[None]:
        try:
            yield
        except RegistryUnreachable as error:
            raise UpstreamUnavailable(self._name, f"no answer ({error.why})") from error
        except RegistryRefused as error:
            raise UpstreamUnavailable(self._name, str(error)) from error

    def _read(self, connection: Connection, response: Response) -> Iterator[bytes]:
        with self._translated():
            yield from connection.blocks(response)

    def _check(self, response: Response, kind: str, reference: Reference) -> None:
        """Raises unless the response is what was requested."""
        status = response.status
        if status in (200, 206):
            return
        if status == 404:
            raise (
                BlobUnknown(reference.target)
                if kind == BLOBS
                else ManifestUnknown(self._spelled(reference))
            )
        if status in (401, 403):
            self._authorizer.forget(reference.repository)
            raise UpstreamDenied(self._name, reference.repository, f"status {status}")
        if status in _ASK_LATER:
            self._limit(kind, seconds_to_wait(response.headers))
        if status == 429:
            raise UpstreamLimited(self._name, seconds_to_wait(response.headers))
        raise UpstreamUnavailable(self._name, f"it answers with status {status}")

    def _spelled(self, reference: Reference) -> str:
        return f"{self._name}/{reference}"

    def _note_limit(self, kind: str, call: Callable[[], str]) -> None:
        try:
            call()
        except UpstreamLimited as error:
            self._limit(kind, error.retry_after)
            raise

    def _limit(self, kind: str, seconds: float) -> None:
        with self._lock:
            self._limited_until[kind] = self._clock() + seconds

    def _check_limit(self, kind: str) -> None:
        with self._lock:
            left = self._limited_until.get(kind, 0.0) - self._clock()
        if left > 0:
            raise UpstreamLimited(self._name, left)


def _length(response: Response) -> int | None:
    with suppress(ValueError):
        return number(response.headers.get("Content-Length", ""))
    return None


def _skipped(blocks: Iterator[bytes], count: int) -> Iterator[bytes]:
    """*blocks* without the first *count* bytes: a server that takes no Range sends all."""
    for block in blocks:
        yield block[count:]
        count = max(count - len(block), 0)
