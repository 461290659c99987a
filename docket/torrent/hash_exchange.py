"""Hosts send each other the piece hashes of an image: the registry sends them to few hosts.

A subset of HTTP/1.0: ``GET /<info-hash>?digests=<digest>,…`` returns the hashes of these blobs, one
after the other, as the registry's own call does. The hashes are untrusted: the caller checks that
they give the registry's info-hash.
"""

from __future__ import annotations

import http.client
import socket
import threading
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager, suppress
from urllib.parse import parse_qs

from docket.oci.digest import READ_SIZE, Digest

PEER_SECONDS = 1.0
"""How long a host waits for another one to connect and begin: then it asks the registry."""

SERVE_SECONDS = 10.0
"""How long a host serves one request in all, however slowly its client sends or reads."""

MIN_RATE = 64 * 1024
"""Bytes a second that a host has to send at least, to be waited for longer."""

_MAX_CLIENTS = 16
_MAX_OF_ADDRESS = 8  # several hosts may share one
_MAX_HEAD = 64 * 1024
_NOT_FOUND = b"HTTP/1.0 404 Not Found\r\nContent-Length: 0\r\n\r\n"


class HashServer:
    """Serves an image's piece hashes until it is closed; early requests wait 1 s for them."""

    def __init__(self) -> None:
        """Listen at all addresses, at a free port. Raises OSError when that fails."""
        self._published = threading.Event()
        self._path = ""
        self._hashes: Mapping[str, bytes] = {}
        self._clients: Counter[str] = Counter()
        self._lock = threading.Lock()
        both = socket.has_dualstack_ipv6()
        self._listener = socket.create_server(
            ("", 0), family=socket.AF_INET6 if both else socket.AF_INET, dualstack_ipv6=both
        )
        self.port: int = self._listener.getsockname()[1]
        self._thread = threading.Thread(target=self._listen, name="hash-server", daemon=True)
        self._thread.start()

    def publish(self, info_hash: bytes, hashes: Mapping[Digest, bytes]) -> None:
        """From now on serve the piece *hashes* of the torrent's blobs."""
        self._path = f"/{info_hash.hex()}"
        self._hashes = {str(digest): value for digest, value in hashes.items()}
        self._published.set()

    def close(self) -> None:
        """Accept no more requests; those accepted are still served."""
        with suppress(OSError):
            self._listener.shutdown(socket.SHUT_RDWR)  # ends the accept
        self._thread.join()
        self._listener.close()

    def find(self, target: str) -> list[bytes] | None:
        """The hashes for the path and query of a request, each blob's once, in its order.

        None when one of them isn't here, or isn't in time.
        """
        path, _, query = target.partition("?")
        if not self._published.wait(PEER_SECONDS) or path != self._path:
            return None
        names = parse_qs(query).get("digests", [""])[0].split(",")
        with suppress(KeyError):
            return [self._hashes[name] for name in dict.fromkeys(names) if name]
        return None

    def _listen(self) -> None:
        with suppress(OSError):
            while True:
                client, address = self._listener.accept()
                if self._admits(address[0]):
                    arguments = (client, address[0])
                    threading.Thread(target=self._serve, args=arguments, daemon=True).start()
                else:
                    client.close()

    def _admits(self, address: str) -> bool:
        with self._lock:
            if self._clients.total() >= _MAX_CLIENTS or self._clients[address] >= _MAX_OF_ADDRESS:
                return False
            self._clients[address] += 1
        return True

    def _serve(self, client: socket.socket, address: str) -> None:
        try:
            with client, suppress(OSError), _disconnect_after(SERVE_SECONDS, client):
                self._answer(client)
        finally:
            with self._lock:
                self._clients[address] -= 1
                if not self._clients[address]:
                    del self._clients[address]

    def _answer(self, client: socket.socket) -> None:
        target = _target(client)
        hashes = self.find(target) if target else None
        if hashes is None:
            client.sendall(_NOT_FOUND)
            return
        length = sum(map(len, hashes))
        client.sendall(b"HTTP/1.0 200 OK\r\nContent-Length: %d\r\n\r\n" % length)
        for value in hashes:
            client.sendall(value)


def fetch_hashes(
    peer: str, info_hash: bytes, digests: Iterable[Digest], *, length: int
) -> bytes | None:
    """The piece hashes of *digests* from the host at *peer* (``address:port``), *length* bytes.

    None when it sends another number of bytes, or not all in time. They may be wrong.
    """
    address, _, port = peer.rpartition(":")
    if not (port.isascii() and port.isdigit()):
        return None
    content = bytearray()
    try:
        connection = http.client.HTTPConnection(address.strip("[]"), int(port), PEER_SECONDS)
        try:
            connection.connect()
            connection.sock.settimeout(PEER_SECONDS)
            with _disconnect_after(PEER_SECONDS + length / MIN_RATE, connection.sock):
                names = ",".join(map(str, digests))
                connection.request("GET", f"/{info_hash.hex()}?digests={names}")
                response = connection.getresponse()
                while response.status == 200 and len(content) <= length:
                    block = response.read1(READ_SIZE)
                    if not block:
                        break
                    content += block
        finally:
            connection.close()
    except (OSError, http.client.HTTPException, ValueError, OverflowError):
        return None
    return bytes(content) if len(content) == length else None


def _target(client: socket.socket) -> str:
    """Path and query of the GET that *client* sends; empty for everything else."""
    head = bytearray()
    while b"\r\n\r\n" not in head:
        block = client.recv(READ_SIZE)
        head += block
        if not block or len(head) > _MAX_HEAD:
            return ""
    words = head.partition(b"\r\n")[0].decode("latin-1").split(" ")
    return words[1] if len(words) == 3 and words[0] == "GET" else ""


@contextmanager
def _disconnect_after(seconds: float, connection: socket.socket) -> Iterator[None]:
    """Socket timeouts apply to each read or write; this enforces a total deadline."""

    def disconnect() -> None:
        with suppress(OSError):
            connection.shutdown(socket.SHUT_RDWR)

    timer = threading.Timer(seconds, disconnect)
    timer.daemon = True
    timer.start()
    try:
        yield
    finally:
        timer.cancel()
