"""Hosts that tell each other the piece hashes of an image, so that the registry needn't tell all.

HTTP of the smallest kind: ``GET /<info-hash>?digests=<digest>,…`` gives the hashes of these blobs,
one behind the other, as the registry's own call does. What is heard is worth nothing until it makes
the torrent with that info-hash, which the registry tells.
"""

from __future__ import annotations

import http.client
import socket
import threading
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager, suppress
from http.server import BaseHTTPRequestHandler
from typing import Any
from urllib.parse import parse_qs

from docket.oci.digest import READ_SIZE, Digest

CONNECT_SECONDS = 1.0
ANSWER_SECONDS = 2.0
"""How long a host that says nothing is waited for."""

ALL_SECONDS = 10.0
"""How long one is waited for in all, however slowly it says something."""

_AT_ONCE = 16


class HashServer:
    """Tells who asks, as soon as it is told itself, until it is closed."""

    def __init__(self) -> None:
        """It listens at all addresses, at a free port. Raises OSError when it can't."""
        self._known = threading.Event()
        self._path = ""
        self._hashes: Mapping[str, bytes] = {}
        self._room = threading.BoundedSemaphore(_AT_ONCE)
        both = socket.has_dualstack_ipv6()
        self._listener = socket.create_server(
            ("", 0), family=socket.AF_INET6 if both else socket.AF_INET, dualstack_ipv6=both
        )
        self.port: int = self._listener.getsockname()[1]
        self._thread = threading.Thread(target=self._listen, name="teller", daemon=True)
        self._thread.start()

    def know(self, info_hash: bytes, hashes: Mapping[Digest, bytes]) -> None:
        """From now on tell the piece *hashes* of the torrent's blobs."""
        self._path = f"/{info_hash.hex()}"
        self._hashes = {str(digest): value for digest, value in hashes.items()}
        self._known.set()

    def close(self) -> None:
        """Answer nobody any more, but those who have asked."""
        with suppress(OSError):
            self._listener.shutdown(socket.SHUT_RDWR)  # ends the accept
        self._thread.join()
        self._listener.close()

    def answer(self, target: str) -> bytes | None:
        """What is asked for by *target*; None when it isn't here, or isn't in time."""
        path, _, query = target.partition("?")
        if not self._known.wait(ANSWER_SECONDS) or path != self._path:
            return None
        asked = parse_qs(query).get("digests", [""])[0].split(",")
        with suppress(KeyError):
            return b"".join([self._hashes[one] for one in asked if one])
        return None

    def _listen(self) -> None:
        with suppress(OSError):
            while True:
                asking, address = self._listener.accept()
                if self._room.acquire(blocking=False):
                    tell = threading.Thread(target=self._tell, args=(asking, address), daemon=True)
                    tell.start()
                else:
                    asking.close()

    def _tell(self, asking: socket.socket, address: Any) -> None:
        try:
            with asking, suppress(OSError):
                _Handler(asking, address, self)  # type: ignore[arg-type]  # it only keeps it
        finally:
            self._room.release()


class _Handler(BaseHTTPRequestHandler):
    """One question; all of it happens when this is made."""

    timeout = ANSWER_SECONDS
    server: Any

    def do_GET(self) -> None:
        """Answer it."""
        content = self.server.answer(self.path)
        if content is None:
            self.send_error(404)
            return
        self.send_response(200)
        self.send_header("Content-Length", str(len(content)))
        self.end_headers()
        self.wfile.write(content)

    def log_message(self, *_words: object) -> None:
        """Nothing: the output is that of the pull."""


def fetch_hashes(
    teller: str, info_hash: bytes, digests: Iterable[Digest], *, length: int
) -> bytes | None:
    """The piece hashes of *digests* from the host at *teller*, *length* bytes in all.

    None when it doesn't tell as many in time. They may be wrong.
    """
    address, _, port = teller.rpartition(":")
    content = bytearray()
    try:
        asking = http.client.HTTPConnection(address.strip("[]"), int(port), CONNECT_SECONDS)
        try:
            asking.connect()
            asking.sock.settimeout(ANSWER_SECONDS)
            with _hung_up_after(ALL_SECONDS, asking.sock):
                asking.request("GET", f"/{info_hash.hex()}?digests={','.join(map(str, digests))}")
                answer = asking.getresponse()
                while answer.status == 200 and len(content) <= length:
                    block = answer.read1(READ_SIZE)
                    if not block:
                        break
                    content += block
        finally:
            asking.close()
    except (OSError, http.client.HTTPException, ValueError, OverflowError):
        return None
    return bytes(content) if len(content) == length else None


@contextmanager
def _hung_up_after(seconds: float, asking: socket.socket) -> Iterator[None]:
    """A timeout is one for each read: who sends a byte now and then would be waited for forever."""

    def hang_up() -> None:
        with suppress(OSError):
            asking.shutdown(socket.SHUT_RDWR)

    timer = threading.Timer(seconds, hang_up)
    timer.daemon = True
    timer.start()
    try:
        yield
    finally:
        timer.cancel()
