"""IP addresses as headers and sockets spell them, and sets of networks that they may be in."""

from __future__ import annotations

import re
from collections.abc import Iterable
from dataclasses import dataclass
from ipaddress import IPv4Address, IPv4Network, IPv6Address, IPv6Network, ip_address, ip_network

from docket.errors import InvalidOption

Address = IPv4Address | IPv6Address

# [2001:db8::1]:443, [2001:db8::1], 192.0.2.1:443
_WITH_PORT = re.compile(r"\[([^\]]*)\](?::[0-9]{1,5})?|([0-9.]+):[0-9]{1,5}")


@dataclass(frozen=True, slots=True)
class Networks:
    """A set of networks; the empty one contains no address."""

    networks: tuple[IPv4Network | IPv6Network, ...] = ()

    @classmethod
    def parse(cls, texts: Iterable[str]) -> Networks:
        """Networks in CIDR notation, or single addresses; commas may stand between them.

        Raises `InvalidOption`.
        """
        parts = [part.strip() for text in texts for part in text.split(",")]
        return cls(tuple(_network(part) for part in parts if part))

    def __contains__(self, address: object) -> bool:
        parsed = parse_address(str(address)) if self.networks else None
        return parsed is not None and any(parsed in network for network in self.networks)

    def __bool__(self) -> bool:
        return bool(self.networks)


def parse_address(text: str) -> Address | None:
    """The IP address in *text*, with or without a port or zone; None when there is none.

    An IPv4 address in IPv6 notation (``::ffff:192.0.2.1``) is the IPv4 address.
    """
    if match := _WITH_PORT.fullmatch(text.strip()):
        text = match[1] or match[2]
    try:
        parsed = ip_address(text.strip().partition("%")[0])
    except ValueError:
        return None
    return getattr(parsed, "ipv4_mapped", None) or parsed


def _network(text: str) -> IPv4Network | IPv6Network:
    try:
        network = ip_network(text, strict=False)
    except ValueError as error:
        raise InvalidOption(text, "a network is written like 10.0.0.0/8 or fd00::/8") from error
    mapped = network.network_address
    if isinstance(mapped, IPv6Address) and mapped.ipv4_mapped and network.prefixlen >= 96:
        return IPv4Network((mapped.ipv4_mapped, network.prefixlen - 96))
    return network
