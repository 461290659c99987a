"""HTTP calls to one registry: time limits, bounds on what comes, retries, redirects, refusals."""

from __future__ import annotations

import http.client
import json
import os
import socket
import time
from collections.abc import Collection, Iterator
from contextlib import contextmanager, suppress
from typing import Any
from urllib.parse import urljoin
from weakref import WeakSet

import urllib3
from urllib3.exceptions import HTTPError, LocationParseError

from docket.errors import BlobUnknown, ManifestUnknown, RegistryRefused, RegistryUnreachable
from docket.oci.digest import READ_SIZE, Digest
from docket.oci.reference import Reference
from docket.remote.address import Origin, RegistryAddress, origin_of
from docket.remote.proxies import Proxy, proxy_for
from docket.remote.steady import make_steady

Response = urllib3.BaseHTTPResponse
"""A response whose body hasn't been read."""

READ_SECONDS = 60.0
"""How long a registry may take for the headers of its response, and for a block of the body."""

MAX_REDIRECTS = 5

_MAX_SMALL = 64 * 1024
"""Bytes of an error, and of what comes with a response whose headers say all."""

_CONNECT_SECONDS = 5.0
_LONGEST_TRIP_SECONDS = 1.0
_REDIRECTS = frozenset({301, 302, 303, 307, 308})
# Where a fleet fills the link, packets of a new or idle connection may get lost until TCP waits for
# a minute; another connection is through sooner. So what changes nothing is sent again, and all
# its tries together take no longer than one of another call. A refusal is a response, whatever
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
    """The connections to one registry; safe to use from many threads."""

    def __init__(
        self,
        address: RegistryAddress,
        *,
        connections: int,
        read_seconds: float,
        is_steady: bool = True,
    ) -> None:
        """At most *connections* are kept open while idle; see `READ_SECONDS`.

        Responses must come at `steady.SLOWEST_RATE`, unless *is_steady* is False. Raises
        `InvalidAddress` when a proxy variable has no address of an HTTP proxy.
        """
        self.address = address
        self.url = str(address)
        self._connections = connections
        self._is_steady = is_steady
        self._pools: dict[Proxy | None, urllib3.PoolManager] = {}
        self._sockets: WeakSet[socket.socket] = WeakSet()
        self._is_aborted = False
        proxy = _proxy_to(address.origin)
        self.is_proxied = proxy is not None
        self._next_hop = proxy.next_hop if proxy else (address.host, address.port)
        self._once = urllib3.Timeout(connect=_CONNECT_SECONDS, read=read_seconds)
        self._repeated = urllib3.Timeout(
            connect=_CONNECT_SECONDS / _CONNECTS, read=read_seconds / _READS
        )
        # urllib3 sends under the connect timeout: a slow registry may take its time
        self._sending = urllib3.Timeout(connect=read_seconds, read=read_seconds)

    def close(self) -> None:
        """Close idle connections."""
        for pool in list(self._pools.values()):
            pool.clear()

    def abort(self) -> None:
        """End all calls that are running in other threads, and refuse those to come.

        They raise `RegistryUnreachable`. For a command that is stopped while a registry is silent.
        """
        self._is_aborted = True
        for connected in list(self._sockets):
            with suppress(OSError):
                connected.shutdown(socket.SHUT_RDWR)

    def trip_seconds(self) -> float:
        """How long a message takes to the registry (or its proxy) and back: a connect.

        A second at most; 0 when nothing answers.
        """
        try:
            infos = socket.getaddrinfo(*self._next_hop, type=socket.SOCK_STREAM)
        except OSError:
            return 0.0
        for family, socket_type, _, _, address in infos:
            with socket.socket(family, socket_type) as probe, suppress(OSError):
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
        success: Collection[int],
        limit: int = _MAX_SMALL,
        body: Any = None,
        headers: dict[str, str] | None = None,
        unknown: Reference | Digest | None = None,
        authorization: str = "",
    ) -> tuple[Response, bytes]:
        """One request; gives the response and its whole body of at most *limit* bytes.

        *success* are the statuses that the call is documented to have; a 404 means that *unknown*
        isn't there. *path* may be the Location that the registry gave. *authorization* is sent to
        the registry's own origin alone, in place of the address's. Raises
        `RegistryUnreachable`, `RegistryRefused`, `BlobUnknown` and `ManifestUnknown`.
        """
        options: dict[str, Any] = {"success": success, "body": body, "headers": headers}
        options |= {"unknown": unknown, "authorization": authorization}
        tries = _CONNECTS if method in _REPEATABLE else 1
        while True:
            try:
                with self.streamed(method, path, **options) as response:
                    return response, self._whole(response, f"{method} {path}", limit)
            except _BodyBroken:
                # the headers came, then the connection broke
                tries -= 1
                if not tries:
                    raise

    @contextmanager
    def streamed(
        self,
        method: str,
        path: str,
        *,
        success: Collection[int],
        body: Any = None,
        headers: dict[str, str] | None = None,
        unknown: Reference | Digest | None = None,
        authorization: str = "",
    ) -> Iterator[Response]:
        """The same, with a response that `blocks` reads as it comes."""
        url = self.address.url(path)
        authorization = authorization or self.address.authorization
        response = self._followed(method, url, body, headers, authorization)
        try:
            self._check(response, f"{method} {path}", success, unknown)
            yield response
        finally:
            # the connection is free already when all was read; else it can't be used again
            response.close()
            response.release_conn()

    def blocks(self, response: Response) -> Iterator[bytes]:
        """The body, block by block. Raises `RegistryUnreachable` when it breaks or is too slow."""
        try:
            yield from response.stream(READ_SIZE, decode_content=False)
        except HTTPError as error:
            raise _BodyBroken(self.url, _why(error)) from error

    def _whole(self, response: Response, what: str, limit: int) -> bytes:
        """The body of at most *limit* bytes: no more is ever in memory."""
        refused = RegistryRefused(
            what, status=response.status, message=f"the response is larger than {limit} bytes"
        )
        if (response.length_remaining or 0) > limit:
            raise refused
        content = bytearray()
        for block in self.blocks(response):
            content += block
            if len(content) > limit:
                raise refused
        return bytes(content)

    def _followed(
        self,
        method: str,
        url: str,
        body: Any,
        headers: dict[str, str] | None,
        authorization: str,
    ) -> Response:
        """The response to a request, behind all redirects of what changes nothing."""
        what = f"{method} {url}"
        for _ in range(MAX_REDIRECTS + 1):
            response = self._request(method, url, body, headers, authorization)
            location = response.headers.get("Location", "")
            if method not in _REPEATABLE or response.status not in _REDIRECTS or not location:
                return response
            response.close()
            following = _joined(url, location)
            target = origin_of(following)
            if not target:
                raise _redirected(what, response.status, location, "which is no http URL")
            if url.startswith("https:") and target[0] == "http":
                raise _redirected(what, response.status, location, "which is not encrypted")
            url = following
        raise _redirected(what, response.status, location, f"after {MAX_REDIRECTS} others")

    def _request(
        self,
        method: str,
        url: str,
        body: Any,
        headers: dict[str, str] | None,
        authorization: str,
    ) -> Response:
        sent = {"Accept-Encoding": "identity", **(headers or {})}
        origin = origin_of(url)
        if self._is_aborted:
            raise RegistryUnreachable(self.url, "the command is stopped")
        if origin is None:
            raise RegistryRefused(f"{method} {url}", status=0, message="no http URL")
        if origin == self.address.origin:
            sent |= self._own_headers(authorization)
        retries = _AGAIN if method in _REPEATABLE else False
        try:
            return self._pool_to(origin).request(
                method,
                url,
                body=body,
                headers=sent,
                redirect=False,
                retries=retries,
                preload_content=False,
                decode_content=False,
                timeout=self._timeout(method, has_body=bool(body)),
            )
        except (HTTPError, LocationParseError) as error:
            raise RegistryUnreachable(self.url, _why(error)) from error

    def _pool_to(self, origin: Origin) -> urllib3.PoolManager:
        proxy = _proxy_to(origin)
        if proxy not in self._pools:
            self._pools[proxy] = self._new_pool(proxy)
        return self._pools[proxy]

    def _new_pool(self, proxy: Proxy | None) -> urllib3.PoolManager:
        pool: urllib3.PoolManager
        if proxy:
            headers = {"Proxy-Authorization": proxy.authorization} if proxy.authorization else {}
            pool = urllib3.ProxyManager(
                proxy.url, maxsize=self._connections, block=False, proxy_headers=headers
            )
        else:
            pool = urllib3.PoolManager(maxsize=self._connections, block=False)
        if self._is_steady:
            make_steady(pool, self._sockets)
        return pool

    def _own_headers(self, authorization: str) -> dict[str, str]:
        address = self.address
        own = {"Authorization": authorization} if authorization else {}
        if "%" in address.host:
            # RFC 6874 § 4: the zone of a link-local address is for this host alone
            own["Host"] = f"[{address.host.partition('%')[0]}]:{address.port}"
        return own

    def _timeout(self, method: str, *, has_body: bool) -> urllib3.Timeout:
        if has_body:
            return self._sending
        return self._repeated if method in _REPEATABLE else self._once

    def _check(
        self,
        response: Response,
        what: str,
        success: Collection[int],
        unknown: Reference | Digest | None,
    ) -> None:
        status = response.status
        if status in success:
            encoding = response.headers.get("Content-Encoding", "identity").strip().lower()
            if encoding not in ("", "identity"):
                why = f"docket asked for plain bytes, not Content-Encoding {encoding[:40]}"
                raise RegistryRefused(what, status=status, message=why)
            return
        if status == 404 and isinstance(unknown, Digest):
            raise BlobUnknown(unknown)
        if status == 404 and isinstance(unknown, Reference):
            raise ManifestUnknown(unknown)
        if 300 <= status < 400:
            location = response.headers.get("Location", "")
            raise _redirected(what, status, location, "give that address with -h")
        if status < 400:
            expected = " or ".join(map(str, sorted(success)))
            why = f"{expected} was expected: is {self.url} a registry?"
            raise RegistryRefused(what, status=status, message=why)
        code, message = self._oci_error(response)
        if status == 401 and not self.address.authorization:
            message = message or "give user:password@ before the host in -h"
        raise RegistryRefused(what, status=status, code=code, message=message)

    def _oci_error(self, response: Response) -> tuple[str, str]:
        try:
            first = json.loads(self._whole(response, "", _MAX_SMALL))["errors"][0]
            return str(first.get("code", "")), str(first.get("message", ""))
        except (
            *(ValueError, KeyError, IndexError, TypeError, AttributeError, RecursionError),
            *(RegistryUnreachable, RegistryRefused),
        ):
            return "", ""


class _BodyBroken(RegistryUnreachable):
    """The connection broke in the middle of a body."""


def _proxy_to(origin: Origin) -> Proxy | None:
    return proxy_for(*origin, os.environ)


def _joined(url: str, location: str) -> str:
    """The URL that *location* is at *url*; as it came, if it is no URL."""
    try:
        return urljoin(url, location)
    except ValueError:
        return location


def _redirected(what: str, status: int, location: str, why: str) -> RegistryRefused:
    message = f"it redirects to {location[:300]!r}, {why}"
    return RegistryRefused(what, status=status, message=message)


def _why(error: Exception) -> str:
    """The innermost reason, such as "Connection refused"."""
    reason = getattr(error, "reason", None) or error
    cause = reason.__cause__ or reason
    if isinstance(cause, http.client.HTTPException) and not str(cause):
        return type(cause).__name__
    return getattr(cause, "strerror", None) or str(cause) or type(cause).__name__
