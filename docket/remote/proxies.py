"""Which HTTP proxy leads to a host, by the variables that curl reads.

``http_proxy``, ``https_proxy`` and ``all_proxy``, small letters before capitals; ``no_proxy`` lists
exceptions: ``*``, names with all below them, addresses, CIDR blocks, each with a port if it is for
that port alone. Swarm traffic goes through no proxy.
"""

from __future__ import annotations

import ipaddress
import re
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass, field
from urllib.parse import unquote, urlsplit

from docket.errors import InvalidAddress
from docket.remote.address import basic_authorization

_DEFAULT_PORT = {"http": 1080, "https": 443}
"""As curl has it."""

_SCHEME = re.compile(r"[a-zA-Z][a-zA-Z0-9+.-]*://")
_PORT = re.compile(r"(.*):([0-9]{1,5})\Z")


@dataclass(frozen=True, slots=True)
class Proxy:
    """An HTTP proxy; *authorization* is the value of ``Proxy-Authorization``, or empty."""

    scheme: str
    host: str
    port: int
    authorization: str = field(default="", repr=False)

    @property
    def url(self) -> str:
        """Its URL, without credentials."""
        host = f"[{self.host}]" if ":" in self.host else self.host
        return f"{self.scheme}://{host}:{self.port}"

    @property
    def next_hop(self) -> tuple[str, int]:
        """Host and port to connect to."""
        return self.host, self.port


def proxy_for(scheme: str, host: str, port: int, variables: Mapping[str, str]) -> Proxy | None:
    """The proxy to *host*, or None for a direct connection.

    Raises `InvalidAddress` for a proxy that is no HTTP proxy, such as a SOCKS one.
    """
    text = _variable(f"{scheme}_proxy", variables) or _variable("all_proxy", variables)
    if not text or _is_exempt(host, port, _variable("no_proxy", variables)):
        return None
    return _parsed(text)


def _variable(name: str, variables: Mapping[str, str]) -> str:
    value = variables.get(name)
    # a CGI script gets the request header "Proxy:" as HTTP_PROXY (CVE-2016-5385)
    if value is None and not (name == "http_proxy" and "REQUEST_METHOD" in variables):
        value = variables.get(name.upper())
    return (value or "").strip()


def _parsed(text: str) -> Proxy:
    try:
        parts = urlsplit(text if _SCHEME.match(text) else f"http://{text}")
        scheme, host, port = parts.scheme, parts.hostname or "", parts.port
    except ValueError as error:
        raise InvalidAddress("the proxy variable's value", str(error)) from error
    if scheme not in _DEFAULT_PORT or not host:
        why = "docket uses http and https proxies alone; set no_proxy for the registry"
        raise InvalidAddress(f"{scheme}://{host}", why)
    authorization = ""
    if parts.username is not None:
        user, password = unquote(parts.username), unquote(parts.password or "")
        authorization = basic_authorization(user, password)
    return Proxy(scheme, host, port or _DEFAULT_PORT[scheme], authorization)


def _is_exempt(host: str, port: int, exceptions: str) -> bool:
    entries = [entry for entry in re.split(r"[\s,]+", exceptions) if entry]
    if entries == ["*"]:
        return True
    name = host.partition("%")[0].rstrip(".").lower()
    return any(_matches(name, port, entry.lower()) for entry in entries)


def _matches(name: str, port: int, entry: str) -> bool:
    """Whether an entry of ``no_proxy`` is about *name* at *port*."""
    with_port = _PORT.match(entry)
    if with_port and (entry.startswith("[") or ":" not in with_port[1]):
        if int(with_port[2]) != port:
            return False
        entry = with_port[1]
    entry = entry.strip("[]")
    with suppress(ValueError):
        address = ipaddress.ip_address(name)
        with suppress(ValueError):
            block = ipaddress.ip_network(entry, strict=False)
            return address.version == block.version and address in block
        return entry == "*"
    # a leading dot, or "*.", means the same as none: the name and all below it
    domain = entry.removeprefix("*").strip(".")
    return entry == "*" or (bool(domain) and (name == domain or name.endswith(f".{domain}")))
