"""HTTP calls to one registry: how long they wait, which are made again, what refusals mean."""

from __future__ import annotations

import json
import socket
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from typing import Any
from urllib.parse import urljoin, urlsplit

import urllib3
from urllib3.exceptions import HTTPError, LocationParseError

from docket.errors import BlobUnknown, ManifestUnknown, RegistryRefused, RegistryUnreachable
from docket.oci.digest import READ_SIZE, Digest
from docket.oci.reference import Reference

Response = urllib3.BaseHTTPResponse
"""What came; its ``data`` is the whole body."""

READ_SECONDS = 60.0
"""How long a registry may take for its answer."""

_CONNECT_SECONDS = 5.0
_LONGEST_TRIP_SECONDS = 1.0
# Where a fleet fills the link, packets of a new or idle connection may get lost until TCP waits for
# a minute; another connection is through sooner. So what changes nothing is asked again, and all
# its tries together take no longer than one of another call. A refusal is an answer, whatever
# Retry-After says: 429 and 503 mean that there is a registry.
_REPEATABLE = frozenset({"GET", "HEAD"})
_CONNECTS, _READS = 2, 3
_AGAIN = urllib3.Retry(
    connect=_CONNECTS - 1,
    read=_READS - 1,
    redirect=False,
    status=False,
    other=False,
    respect_retry_after_header=False,
)


class Connection:
    """Where a registry answers; safe to use from many threads."""

    def __init__(self, url: str, *, connections: int, read_seconds: float) -> None:
        """At most *connections* are kept open while idle; see `READ_SECONDS`."""
        self.url = url
        self._pool = urllib3.PoolManager(maxsize=connections, block=False)
        self._asking = urllib3.Timeout(connect=_CONNECT_SECONDS, read=read_seconds)
        self._asking_again = urllib3.Timeout(
            connect=_CONNECT_SECONDS / _CONNECTS, read=read_seconds / _READS
        )
        # urllib3 sends under the connect timeout: a slow registry may take its time
        self._sending = urllib3.Timeout(connect=read_seconds, read=read_seconds)

    def close(self) -> None:
        """Close idle connections."""
        self._pool.clear()

    def trip_seconds(self) -> float:
        """How long a message takes to the registry and back, as long as connecting does.

        A second at most; 0 when nothing answers.
        """
        parts = urlsplit(self.url)
        port = parts.port or (443 if parts.scheme == "https" else 80)
        try:
            found = socket.getaddrinfo(parts.hostname, port, type=socket.SOCK_STREAM)
        except OSError:
            return 0.0
        for family, kind, _, _, address in found:
            with socket.socket(family, kind) as probe, suppress(OSError):
                probe.settimeout(_LONGEST_TRIP_SECONDS)
                began = time.monotonic()
                with suppress(TimeoutError):
                    probe.connect(address)
                return time.monotonic() - began
        return 0.0

    def call(
        self,
        method: str,
        path: str,
        *,
        body: Any = None,
        headers: dict[str, str] | None = None,
        unknown: Reference | Digest | None = None,
    ) -> Response:
        """One request with its whole answer; a 404 means that *unknown* isn't there.

        *path* may be the Location that the registry gave. Raises `RegistryUnreachable`,
        `RegistryRefused`, `BlobUnknown` and `ManifestUnknown`.
        """
        timeout = self._sending if body else self._timeout(method)
        response = self._request(method, path, body=body, headers=headers, timeout=timeout)
        _check(response, f"{method} {path}", unknown)
        return response

    @contextmanager
    def streamed(
        self,
        method: str,
        path: str,
        *,
        body: bytes | None = None,
        headers: dict[str, str] | None = None,
        unknown: Digest | None = None,
    ) -> Iterator[Response]:
        """The same, with an answer that `blocks` reads as it comes."""
        response = self._request(
            method,
            path,
            body=body,
            headers=headers,
            preload_content=False,
            timeout=self._timeout(method),
        )
        try:
            _check(response, f"{method} {path}", unknown)
            yield response
        finally:
            # what was not read to its end can't be used again
            response.close()
            response.release_conn()

    def blocks(self, response: Response) -> Iterator[bytes]:
        """The body, block by block. Raises `RegistryUnreachable` when the connection breaks."""
        try:
            yield from response.stream(READ_SIZE, decode_content=False)
        except HTTPError as error:
            raise RegistryUnreachable(self.url, _why(error)) from error

    def _timeout(self, method: str) -> urllib3.Timeout:
        return self._asking_again if method in _REPEATABLE else self._asking

    def _request(self, method: str, path: str, **options: Any) -> Response:
        retries = _AGAIN if method in _REPEATABLE else False
        try:
            return self._pool.request(
                method, urljoin(f"{self.url}/", path), redirect=False, retries=retries, **options
            )
        except (HTTPError, LocationParseError) as error:
            raise RegistryUnreachable(self.url, _why(error)) from error


def _check(response: Response, what: str, unknown: Reference | Digest | None) -> None:
    if response.status < 400:
        return
    if response.status == 404 and isinstance(unknown, Digest):
        raise BlobUnknown(unknown)
    if response.status == 404 and isinstance(unknown, Reference):
        raise ManifestUnknown(unknown)
    code, message = _oci_error(response)
    raise RegistryRefused(what, status=response.status, code=code, message=message)


def _oci_error(response: Response) -> tuple[str, str]:
    try:
        first = json.loads(response.data)["errors"][0]
        return str(first.get("code", "")), str(first.get("message", ""))
    except (ValueError, KeyError, IndexError, TypeError, AttributeError, HTTPError):
        return "", ""


def _why(error: Exception) -> str:
    """The innermost reason, such as "Connection refused"."""
    reason = getattr(error, "reason", None) or error
    cause = reason.__cause__ or reason
    return getattr(cause, "strerror", None) or str(cause) or type(cause).__name__
