"""The client's address and the registry's own URL, when requests come through reverse proxies.

X-Forwarded-For, -Proto, -Host, -Port and -Prefix (or Forwarded, RFC 7239) are believed from trusted
proxies alone; from everybody else they are ignored.
"""

from __future__ import annotations

import re
from dataclasses import dataclass, replace
from typing import Any
from urllib.parse import urlsplit

from starlette.types import ASGIApp, Message, Receive, Scope, Send

from docket.api.middleware.networks import Networks, parse_address
from docket.errors import InvalidOption

_STATE = "docket.public_url"
_HOST = re.compile(r"(\[[0-9A-Fa-f:.]+\]|[A-Za-z0-9_.-]+)(?::[0-9]{1,5})?")
_PREFIX = re.compile(r"(?:/[A-Za-z0-9._~-]+)*")
_DEFAULT_PORTS = {"http": "80", "https": "443"}
_PAIR = re.compile(r"\s*([A-Za-z]+)\s*=\s*(\"[^\"]*\"|[^;,\"\s]*)\s*")


@dataclass(frozen=True, slots=True)
class PublicUrl:
    """The registry's URL as its clients spell it; *prefix* is empty or begins with a slash.

    *is_configured*: it is the operator's, not a client's.
    """

    scheme: str
    host: str
    prefix: str = ""
    is_configured: bool = False

    @classmethod
    def parse(cls, text: str) -> PublicUrl:
        """An ``http://`` or ``https://`` URL, perhaps with a path. Raises `InvalidOption`."""
        try:
            parts = urlsplit(text)
            port_is_right = parts.port is None or parts.port > 0
        except ValueError:
            port_is_right = False
        if (
            not port_is_right
            or parts.scheme not in _DEFAULT_PORTS
            or not _HOST.fullmatch(parts.netloc)
            or not _PREFIX.fullmatch(parts.path.rstrip("/"))
            or parts.query
            or parts.fragment
        ):
            raise InvalidOption(text, "an external URL is like https://registry.example/prefix")
        return cls(parts.scheme, parts.netloc, parts.path.rstrip("/"), is_configured=True)

    @property
    def origin(self) -> str:
        """Scheme, host and port, as browsers send it (RFC 6454 § 6.2)."""
        default = f":{_DEFAULT_PORTS[self.scheme]}"
        return f"{self.scheme}://{self.host.removesuffix(default)}".lower()

    @property
    def host_name(self) -> str:
        """The host without a port or brackets."""
        return str(urlsplit(f"//{self.host}").hostname or "")

    def __str__(self) -> str:
        return f"{self.scheme}://{self.host}{self.prefix}"


def public_url(scope: Scope) -> PublicUrl:
    """The registry's URL for the client of this request."""
    url: PublicUrl = scope[_STATE]
    return url


class ProxyHeaders:
    """Middleware that gives each request its real client, and cuts off a path prefix.

    Responses get the prefix in their Location and Link headers.
    """

    def __init__(
        self,
        app: ASGIApp,
        *,
        trusted: Networks,
        external_url: PublicUrl | None = None,
        external_address: str = "",
    ) -> None:
        """*external_address* is the IP address of *external_url*'s host, where that is known."""
        self._app = app
        self._trusted = trusted
        self._external_url = external_url
        self._external_address = external_address

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        headers = _texts(scope)
        client = (scope.get("client") or ("", 0))[0]
        hop = _Hop(client, scope["scheme"], headers.get("host", ""))
        if self._trusted and hop.client in self._trusted:
            hop = _forwarded(hop, headers, self._trusted)
            scope["client"] = (hop.client, 0)
        url = self._external_url or hop.url(scope)
        scope[_STATE] = url
        scope["server"] = self._seed_address(scope, url, hop)
        _cut_prefix(scope, url.prefix)
        await self._app(scope, receive, _with_prefix(send, url.prefix) if url.prefix else send)

    def _seed_address(self, scope: Scope, url: PublicUrl, hop: _Hop) -> tuple[str, int | None]:
        """Where the client reaches this machine: not at the loopback address of a proxy's."""
        host, port = scope["server"]
        own, client = parse_address(host), parse_address(hop.client)
        if not (own and own.is_loopback) or (client and client.is_loopback):
            return host, port
        literal = parse_address(url.host)
        return self._external_address or (str(literal) if literal else host), port


@dataclass(frozen=True, slots=True)
class _Hop:
    """What is known of a request: its *client*, and the URL's parts that the client used."""

    client: str
    scheme: str
    host: str
    prefix: str = ""

    def url(self, scope: Scope) -> PublicUrl:
        """The registry's URL, at the socket's own address if the Host header is none."""
        host = self.host
        if not _HOST.fullmatch(host):
            address, port = scope["server"]
            host = f"[{address}]:{port}" if ":" in address else f"{address}:{port}"
        return PublicUrl(self.scheme, host, self.prefix)


def _texts(scope: Scope) -> dict[str, str]:
    """All headers; the values of one that comes several times with commas between them."""
    texts: dict[str, str] = {}
    for name, value in scope["headers"]:
        key, text = name.decode("latin-1"), value.decode("latin-1")
        texts[key] = f"{texts[key]},{text}" if key in texts else text
    return texts


def _forwarded(hop: _Hop, headers: dict[str, str], trusted: Networks) -> _Hop:
    """The hop before the trusted proxies, as the last of them describes it."""
    if "x-forwarded-for" in headers or "forwarded" not in headers:
        clients = _listed(headers.get("x-forwarded-for", ""))
        index = _first_untrusted(clients, trusted)
        described = {
            "for": clients[index] if clients else "",
            **{
                key: _nth(_listed(headers.get(f"x-forwarded-{key}", "")), index, len(clients))
                for key in ("proto", "host", "port", "prefix")
            },
        }
    else:
        elements = [_pairs(element) for element in _listed(headers["forwarded"])]
        clients = [element.get("for", "") for element in elements]
        described = elements[_first_untrusted(clients, trusted)] if elements else {}
    return _described(hop, described)


def _described(hop: _Hop, described: dict[str, str]) -> _Hop:
    client = parse_address(described.get("for", ""))
    scheme = described.get("proto", "").lower()
    host = described.get("host", "")
    prefix = described.get("prefix", "").rstrip("/")
    better: dict[str, Any] = {}
    if client:
        better["client"] = str(client)
    if scheme in _DEFAULT_PORTS:
        better["scheme"] = scheme
    if _HOST.fullmatch(host):
        better["host"] = host
    if _PREFIX.fullmatch(prefix):
        better["prefix"] = prefix
    hop = replace(hop, **better)
    port = described.get("port", "")
    has_port = re.search(r":[0-9]+\Z", hop.host)
    if port.isascii() and port.isdigit() and port != _DEFAULT_PORTS[hop.scheme] and not has_port:
        hop = replace(hop, host=f"{hop.host}:{port}")
    return hop


def _first_untrusted(clients: list[str], trusted: Networks) -> int:
    """The index of the last client that is no trusted proxy; each proxy adds to the end."""
    for index in range(len(clients) - 1, 0, -1):
        if clients[index] not in trusted:
            return index
    return 0


def _listed(text: str) -> list[str]:
    return [part.strip() for part in text.split(",") if part.strip()]


def _nth(values: list[str], index: int, count: int) -> str:
    """The value that belongs to client *index* of *count*; proxies that replace it leave one."""
    if not values:
        return ""
    return values[index] if len(values) == count else values[-1]


def _pairs(element: str) -> dict[str, str]:
    """The parameters of one element of Forwarded (RFC 7239 § 4)."""
    pairs = (_PAIR.fullmatch(part) for part in element.split(";"))
    return {pair[1].lower(): pair[2].strip('"') for pair in pairs if pair}


def _cut_prefix(scope: Scope, prefix: str) -> None:
    """Proxies may pass the prefix on, or cut it off themselves."""
    if prefix and scope["path"].startswith(f"{prefix}/"):
        scope["path"] = scope["path"][len(prefix) :]
        scope["raw_path"] = scope["raw_path"][len(prefix) :]


def _with_prefix(send: Send, prefix: str) -> Send:
    start = prefix.encode()

    async def sending(message: Message) -> None:
        if message["type"] == "http.response.start":
            message["headers"] = [
                (name, _prefixed(name, value, start)) for name, value in message["headers"]
            ]
        await send(message)

    return sending


def _prefixed(name: bytes, value: bytes, prefix: bytes) -> bytes:
    if name == b"location" and value.startswith(b"/"):
        return prefix + value
    if name == b"link" and value.startswith(b"</"):
        return b"<" + prefix + value[1:]
    return value
