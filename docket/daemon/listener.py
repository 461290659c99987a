"""The registry's listening socket, its address, and how many connections the process can have."""

from __future__ import annotations

import resource
import socket

from docket.errors import InvalidAddress

_BACKLOG = 2048
_RECEIVE_BUFFER = 256 * 1024  # bytes
_UNSENT_BUFFER = 256 * 1024  # bytes of a response that wait in the kernel, beside those on the way
_KEEPALIVE = {
    # a peer that vanished without a word is noticed after a minute
    socket.TCP_KEEPIDLE: 30,  # seconds
    socket.TCP_KEEPINTVL: 10,  # seconds
    socket.TCP_KEEPCNT: 3,
    socket.TCP_USER_TIMEOUT: 60_000,  # milliseconds
}


def raise_descriptor_limit() -> int:
    """Let the process open as many files as the system allows it; how many that are."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if soft != hard:
        resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
    return hard if hard != resource.RLIM_INFINITY else 1 << 20


def listen(host: str, port: int, *, limits_receiving: bool = False) -> socket.socket:
    """A listening socket; connections inherit its options.

    With *limits_receiving* little waits in the kernel: without it up to 6 MB a connection have come
    in before a rate limit applies. Raises OSError when the port is taken.
    """
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    all_addresses = host == "::"  # IPv4's too
    listening = socket.create_server(
        (host, port), family=family, backlog=_BACKLOG, dualstack_ipv6=all_addresses
    )
    watch_peers(listening)
    if limits_receiving:
        listening.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, _RECEIVE_BUFFER)
    return listening


def watch_peers(listening: socket.socket) -> None:
    """Notice peers of *listening* that vanish, and keep what waits in the kernel small."""
    listening.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
    for option, value in _KEEPALIVE.items():
        listening.setsockopt(socket.IPPROTO_TCP, option, value)
    listening.setsockopt(socket.IPPROTO_TCP, socket.TCP_NOTSENT_LOWAT, _UNSENT_BUFFER)


def resolve(host: str, option: str) -> str:
    """The address of *host*: trackers hand out addresses, not names (BEP 23).

    *option* is named in the error. Raises `InvalidAddress`.
    """
    if not host:
        return ""
    try:
        addresses = socket.getaddrinfo(host, None, type=socket.SOCK_STREAM)
    except (OSError, UnicodeError) as error:
        raise InvalidAddress(host, f"{option} needs an address or a host that is known") from error
    # IPv4 where there is one: not every BitTorrent client knows BEP 7
    ipv4 = [address for address in addresses if address[0] == socket.AF_INET]
    return str((ipv4 or addresses)[0][4][0])


def url_of(listening: socket.socket) -> str:
    """The base URL at which this machine reaches *listening*."""
    host, port = listening.getsockname()[:2]
    shown = {"0.0.0.0": "127.0.0.1", "::": "::1"}.get(host, host)
    return f"http://{bracketed(shown)}:{port}"


def bracketed(host: str) -> str:
    """*host* as URLs spell it: IPv6 addresses in brackets."""
    return f"[{host}]" if ":" in host else host
