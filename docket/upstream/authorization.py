"""How an upstream is convinced: Basic, or the token flow that Docker Hub and most others have.

A request without credentials is answered with 401 and a challenge (RFC 9110 § 11.6.1). ``Basic``
means user and password with each request. ``Bearer realm=…,service=…,scope=…`` means a token for
one repository, which the realm gives to those with credentials, or to anybody.
"""

from __future__ import annotations

import re
import threading
import time
from collections import OrderedDict
from collections.abc import Callable
from urllib.parse import urlencode, urlsplit

import msgspec

from docket.errors import (
    InvalidAddress,
    InvalidOption,
    RegistryRefused,
    RegistryUnreachable,
    UpstreamDenied,
    UpstreamError,
    UpstreamLimited,
    UpstreamUnavailable,
    summary,
)
from docket.remote.address import PORTS, RegistryAddress
from docket.remote.transport import Connection
from docket.upstream.credentials import CredentialFile, Credentials
from docket.upstream.names import Upstream
from docket.upstream.retry_after import seconds_to_wait

_PARAMETER = re.compile(r'([a-zA-Z_]+)\s*=\s*(?:"([^"]*)"|([^\s,"]+))')
_TOKEN = re.compile(r"[\x21-\x7e]{1,65536}\Z")
_MAX_TOKENS = 1024
_MAX_RESPONSE = 256 * 1024
_DEFAULT_SECONDS = 60.0
"""How long a token is good if the realm doesn't say so (distribution, token specification)."""
_MARGIN_SECONDS = 10.0
_SECONDS = 10.0


class _Token(msgspec.Struct):
    token: str = ""
    access_token: str = ""
    expires_in: float | None = None


class Authorizer:
    """The Authorization headers for one upstream; safe to use from many threads."""

    def __init__(
        self,
        upstream: Upstream,
        file: CredentialFile,
        *,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._upstream = upstream
        self._file = file
        self._clock = clock
        self._lock = threading.Lock()
        self._headers: OrderedDict[str, tuple[str, float]] = OrderedDict()
        self._realms: dict[str, Connection] = {}
        self._is_aborted = False

    def abort(self) -> None:
        """End the requests for tokens, and refuse those to come."""
        with self._lock:
            self._is_aborted = True
            realms = list(self._realms.values())
        for realm in realms:
            realm.abort()
            realm.close()

    def header(self, repository: str) -> str:
        """What was good for *repository* before, if it still is; else empty."""
        with self._lock:
            header, expiry = self._headers.get(repository, ("", 0.0))
            return header if expiry > self._clock() else ""

    def respond(self, repository: str, challenge: str) -> str:
        """The header that meets *challenge*, the value of WWW-Authenticate.

        Raises `UpstreamDenied` when there are no credentials for it or they are refused, and other
        `UpstreamError` when the realm fails.
        """
        scheme = challenge.partition(" ")[0].lower()
        if "bearer " in challenge.lower():
            header, seconds = self._token(repository, challenge)
        elif scheme == "basic":
            header, seconds = self._credentials(repository).basic, float("inf")
        else:
            raise UpstreamError(self._upstream.name, f"its challenge {scheme[:40]!r} is unknown")
        if not header:
            raise UpstreamDenied(self._upstream.name, repository, "it wants a user and a password")
        with self._lock:
            self._headers[repository] = header, self._clock() + seconds
            self._headers.move_to_end(repository)
            while len(self._headers) > _MAX_TOKENS:
                self._headers.popitem(last=False)
        return header

    def forget(self, repository: str) -> None:
        """The header for *repository* was refused."""
        with self._lock:
            self._headers.pop(repository, None)

    def _credentials(self, repository: str) -> Credentials:
        try:
            credentials = self._file.get(self._upstream.name)
        except InvalidOption as error:
            raise UpstreamDenied(self._upstream.name, repository, str(error)) from error
        if credentials == Credentials():
            return Credentials(basic=self._upstream.address.authorization)
        return credentials

    def _token(self, repository: str, challenge: str) -> tuple[str, float]:
        """An Authorization header with a token, and for how many seconds it is good."""
        start = challenge.lower().index("bearer ")
        found = _PARAMETER.findall(challenge[start:])
        parameters = {name.lower(): quoted or plain for name, quoted, plain in found}
        scope = parameters.get("scope") or f"repository:{repository}:pull"
        query = {"service": parameters.get("service", ""), "scope": scope}
        query = {name: value for name, value in query.items() if value}
        status, headers, body = self._asked(repository, parameters.get("realm", ""), query)
        if status == 429:
            raise UpstreamLimited(self._upstream.name, seconds_to_wait(headers))
        if status in (400, 401, 403, 404):
            raise UpstreamDenied(self._upstream.name, repository, f"no token: {status}")
        try:
            token = msgspec.json.decode(body, type=_Token)
        except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
            token = _Token()
        text = token.token or token.access_token
        if not _TOKEN.match(text):
            raise UpstreamError(self._upstream.name, "its token server sends no token")
        seconds = _DEFAULT_SECONDS if token.expires_in is None else token.expires_in
        return f"Bearer {text}", seconds - min(_MARGIN_SECONDS, seconds / 4)

    def _asked(
        self, repository: str, realm: str, query: dict[str, str]
    ) -> tuple[int, dict[str, str], bytes]:
        """The realm's response. Credentials go only to a realm that is as well encrypted."""
        name, credentials = self._upstream.name, self._credentials(repository)
        connection = self._realm(realm)
        statuses = {200, 400, 401, 403, 404, 429}
        try:
            if credentials.identity_token:
                form = {"grant_type": "refresh_token", "client_id": "docket", **query}
                form["refresh_token"] = credentials.identity_token
                response, body = connection.call(
                    "POST",
                    realm,
                    success=statuses,
                    limit=_MAX_RESPONSE,
                    body=urlencode(form).encode(),
                    headers={"Content-Type": "application/x-www-form-urlencoded"},
                )
            else:
                url = f"{realm}{'&' if '?' in realm else '?'}{urlencode(query)}"
                response, body = connection.call(
                    "GET",
                    url,
                    success=statuses,
                    limit=_MAX_RESPONSE,
                    authorization=credentials.basic,
                )
        except RegistryUnreachable as error:
            why = f"its token server does not answer ({error.why})"
            raise UpstreamUnavailable(name, why) from error
        except RegistryRefused as error:
            why = f"its token server fails with {error.status}"
            raise UpstreamUnavailable(name, why) from error
        return response.status, dict(response.headers.items()), body

    def _realm(self, realm: str) -> Connection:
        parts = urlsplit(realm)
        origin = f"{parts.scheme}://{parts.netloc}"
        if self._upstream.address.scheme == "https" and parts.scheme != "https":
            raise UpstreamError(self._upstream.name, "its token server is not encrypted")
        with self._lock:
            if self._is_aborted:
                raise UpstreamUnavailable(self._upstream.name, "this registry is stopping")
            if origin not in self._realms:
                try:
                    address = RegistryAddress.parse(origin, PORTS.get(parts.scheme))
                    connection = Connection(address, connections=4, read_seconds=_SECONDS)
                except InvalidAddress as error:
                    why = f"its token server's address is wrong: {summary(error)}"
                    raise UpstreamError(self._upstream.name, why) from error
                for old in list(self._realms)[:-7]:
                    self._realms.pop(old).close()
                self._realms[origin] = connection
            return self._realms[origin]
