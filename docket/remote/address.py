"""The address of a registry: what ``-h`` spells, as a URL with a path prefix and credentials."""

from __future__ import annotations

import ipaddress
import re
from base64 import b64encode
from contextlib import suppress
from dataclasses import dataclass, field
from typing import NoReturn
from urllib.parse import SplitResult, unquote, urljoin, urlsplit

from docket.errors import InvalidAddress

DEFAULT_PORT = 8000
"""The port of a registry that is named without one, over http."""

PORTS = {"http": 80, "https": 443}
"""The port that each scheme implies in a URL (RFC 9110 § 4.2)."""

Origin = tuple[str, str, int]
"""Scheme, host and port."""

_API = "/v2/"
_SCHEME = re.compile(r"[a-zA-Z][a-zA-Z0-9+.-]*://")
_HOST = re.compile(r"[a-z0-9_](?:[a-z0-9_.-]*[a-z0-9_.])?\Z")
_PREFIX = re.compile(r"[/A-Za-z0-9._~!$&'()*+,;=:@%-]*\Z")
_FORMS = "give a host, host:port or http(s)://[user:password@]host[:port][/prefix]"


@dataclass(frozen=True, slots=True)
class RegistryAddress:
    """Where a registry is.

    *host* is ASCII, an IPv6 address without brackets; *prefix* is empty or begins with a slash and
    ends without one. *authorization* is the value of the header, or empty; `str()` and `repr()`
    don't show it.
    """

    scheme: str
    host: str
    port: int
    prefix: str = ""
    authorization: str = field(default="", repr=False)

    @classmethod
    def parse(cls, text: str, port: int | None = None) -> RegistryAddress:
        """The address that *text* spells: a host, an IPv6 address with or without brackets, a URL.

        A port in *text* counts more than *port*; without either it is 8000 for http and 443 for
        https. Raises `InvalidAddress`.
        """
        parts = _split(text)
        if parts.scheme not in PORTS:
            _refuse(text, f"docket speaks http and https, not {parts.scheme}")
        if parts.query or parts.fragment or "?" in text or "#" in text:
            _refuse(text, "a registry's address has no ? or #")
        default = PORTS["https"] if parts.scheme == "https" else DEFAULT_PORT
        return cls(
            scheme=parts.scheme,
            host=_host(parts.hostname or "", text),
            port=_port(parts, text) or port or default,
            prefix=_prefix(parts.path, text),
            authorization=_authorization(parts, text),
        )

    @property
    def origin(self) -> Origin:
        """Credentials go to no other."""
        return self.scheme, self.host, self.port

    def url(self, target: str) -> str:
        """The URL of *target*: a path of the API, or a Location that the registry gave.

        A front that removes the prefix passes Locations on without it: it is added again.
        """
        parts = urlsplit(target)
        is_ours = not parts.netloc or origin_of(target) == self.origin
        if is_ours and parts.path.startswith(_API) and not self.prefix.startswith(_API[:-1]):
            query = f"?{parts.query}" if parts.query else ""
            return f"{self}{parts.path}{query}"
        return urljoin(f"{self}/", target)

    def __str__(self) -> str:
        """The base URL, without credentials; `parse` gives the same address for it."""
        host = f"[{self.host.replace('%', '%25')}]" if ":" in self.host else self.host
        port = "" if (self.scheme, self.port) == ("https", PORTS["https"]) else f":{self.port}"
        return f"{self.scheme}://{host}{port}{self.prefix}"


def origin_of(url: str) -> Origin | None:
    """Scheme, host and port of an absolute http or https URL; None for all others."""
    with suppress(ValueError):
        parts = urlsplit(url)
        if parts.scheme in PORTS and parts.hostname:
            host = unquote(parts.hostname)
            return parts.scheme, host, parts.port or PORTS[parts.scheme]
    return None


def basic_authorization(user: str, password: str) -> str:
    """The header's value for *user* and *password* (RFC 7617, UTF-8)."""
    return f"Basic {b64encode(f'{user}:{password}'.encode()).decode()}"


def _split(text: str) -> SplitResult:
    if not text.isprintable() or " " in text or "\\" in text:
        _refuse(text, "it has spaces, control characters or backslashes")
    url = text if _SCHEME.match(text) else f"http://{_bracketed(text)}"
    try:
        return urlsplit(url)
    except ValueError as error:
        _refuse(text, str(error))


def _bracketed(text: str) -> str:
    """*text* with brackets, where it is nothing but an IPv6 address."""
    with suppress(ValueError):
        ipaddress.IPv6Address(text)
        return f"[{text}]"
    return text


def _host(name: str, text: str) -> str:
    if ":" in name:
        with suppress(ValueError):
            address, percent, zone = unquote(name).partition("%")
            return f"{ipaddress.IPv6Address(address)}{percent}{zone}"
        _refuse(text, f"[{name}] is not an IPv6 address")
    try:
        ascii_name = name if name.isascii() else name.encode("idna").decode()
    except UnicodeError as error:
        _refuse(text, f"{name!r} can't be a host's name ({error})")
    if len(ascii_name) > 253 or not _HOST.match(ascii_name):
        _refuse(text, f"{name!r} is not a host's name")
    return ascii_name


def _port(parts: SplitResult, text: str) -> int | None:
    try:
        port = parts.port
    except ValueError:
        port = 0
    if port == 0 or parts.netloc.endswith(":"):
        _refuse(text, "a port is a number from 1 to 65535")
    return port


def _prefix(path: str, text: str) -> str:
    segments = [part for part in path.split("/") if part]
    if not all(map(_PREFIX.match, segments)) or {".", ".."} & {unquote(part) for part in segments}:
        _refuse(text, f"{path!r} can't be the path of a registry")
    return "".join(f"/{part}" for part in segments)


def _authorization(parts: SplitResult, text: str) -> str:
    if parts.username is None:
        return ""
    user, password = unquote(parts.username), unquote(parts.password or "")
    if ":" in user or not f"{user}{password}".isprintable():
        _refuse(text, "the user has a colon, or the password control characters")
    return basic_authorization(user, password)


def _refuse(text: str, why: str) -> NoReturn:
    """Raises `InvalidAddress`, which quotes *text* without its credentials."""
    before, at, behind = text.rpartition("@")
    scheme = before[: before.find("://") + 3] if "://" in before else ""
    raise InvalidAddress(f"{scheme}{behind}" if at else text, f"{why}; {_FORMS}")
