"""HTTP servers on loopback that answer as a test says, byte by byte if need be."""

from __future__ import annotations

import socket
import ssl
import subprocess
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

Respond = Callable[["Handler"], None]


class Handler(BaseHTTPRequestHandler):
    """One request; what is sent is the test's business."""

    server: Server
    protocol_version = "HTTP/1.1"
    body = b""

    def handle_one_request(self) -> None:
        """Read a request and respond; a client that leaves is no error."""
        with suppress(ConnectionError, TimeoutError):
            super().handle_one_request()

    def respond(
        self, status: int, body: bytes = b"", headers: dict[str, str] | None = None
    ) -> None:
        """A whole response."""
        self.send_response(status)
        for name, value in {"Content-Length": str(len(body)), **(headers or {})}.items():
            self.send_header(name, value)
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(body)

    def _serve(self) -> None:
        if self.command == "PATCH" and self.server.on_patch:
            self.server.on_patch(self)
            return
        if self.headers.get("Transfer-Encoding") == "chunked":
            while size := int(self.rfile.readline(), 16):
                self.rfile.read(size + 2)
            self.rfile.readline()
        self.body = self.rfile.read(int(self.headers.get("Content-Length") or 0))
        self.server.requests.append(Request(self.command, self.path, dict(self.headers.items())))
        self.server.respond(self)

    do_GET = do_HEAD = do_POST = do_PUT = do_PATCH = do_DELETE = do_CONNECT = _serve  # noqa: N815

    def log_message(self, format: str, *args: object) -> None:  # noqa: A002
        """Keep quiet."""


@dataclass(frozen=True, slots=True)
class Request:
    """What a server was sent."""

    method: str
    path: str
    headers: dict[str, str] = field(hash=False)


class Server(ThreadingHTTPServer):
    """A server; *requests* is what it was sent, *closing* is set when the test ends."""

    daemon_threads = True

    def __init__(self, respond: Respond, on_patch: Respond | None) -> None:
        super().__init__(("127.0.0.1", 0), Handler)
        self.respond = respond
        self.on_patch = on_patch
        self.requests: list[Request] = []
        self.closing = threading.Event()
        self.url = f"http://127.0.0.1:{self.server_port}"

    def handle_error(self, _request: object, _address: object) -> None:
        """A client that leaves in the middle is no error."""


@contextmanager
def serving(
    respond: Respond, *, on_patch: Respond | None = None, tls: ssl.SSLContext | None = None
) -> Iterator[Server]:
    """A server on a free port of 127.0.0.1; *on_patch* gets PATCH requests before their bodies."""
    with Server(respond, on_patch) as server:
        if tls:
            server.socket = tls.wrap_socket(server.socket, server_side=True)
            server.url = f"https://localhost:{server.server_port}"
        thread = threading.Thread(target=server.serve_forever, args=(0.01,))
        thread.start()
        try:
            yield server
        finally:
            server.closing.set()
            server.shutdown()
            thread.join()


@contextmanager
def deaf() -> Iterator[str]:
    """The URL of a host that takes no connection: one waits, the packets of others are lost."""
    with (
        socket.create_server(("127.0.0.1", 0), backlog=0) as full,
        socket.create_connection(full.getsockname()),
    ):
        yield f"http://127.0.0.1:{full.getsockname()[1]}"


def tls_context(folder: Path) -> tuple[ssl.SSLContext, Path]:
    """A context for a server called localhost, and the certificate that its clients trust."""
    certificate, key = folder / "certificate.pem", folder / "key.pem"
    names = "subjectAltName=DNS:localhost"
    argv = ["openssl", "req", "-x509", "-newkey", "rsa:2048", "-nodes", "-subj", "/CN=localhost"]
    argv += ["-days", "3650", "-addext", names, "-keyout", str(key), "-out", str(certificate)]
    subprocess.run(argv, check=True, capture_output=True)
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(certificate, key)
    return context, certificate
