"""A read-only registry on loopback that stands in for a host's agent and records its requests."""

from __future__ import annotations

import socket
import ssl
import threading
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from urllib.parse import parse_qs, urlsplit

from docket.oci.digest import Digest
from docket.oci.manifest import OCI_MANIFEST
from tests.support.images import TinyImage


@dataclass(frozen=True, slots=True)
class Request:
    """A request: its method, the path, and the registry that ``?ns=`` names."""

    method: str
    path: str
    namespace: str
    user_agent: str


@dataclass(slots=True)
class StandIn:
    """What is served: manifests and blobs of each repository by tag and digest."""

    address: str
    manifests: dict[str, bytes] = field(default_factory=dict)
    blobs: dict[str, bytes] = field(default_factory=dict)
    requests: list[Request] = field(default_factory=list)
    dies_in: Digest | None = None  # after half of this blob, every connection is closed
    is_dead: bool = False

    def add(self, name: str, image: TinyImage) -> Digest:
        """Serve *image* as *name*, ``[registry/]repository:tag``; gives its manifest's digest.

        A name with a registry is served to ``?ns=registry`` and below ``/v2/registry/``.
        """
        repository, _, tag = name.rpartition(":")
        manifest, blobs = image.blobs("gzip")
        by_digest = {f"sha256:{path.rpartition('/')[2]}": blob for path, blob in blobs.items()}
        content = by_digest[str(manifest.digest)]
        self.manifests[f"{repository}/manifests/{tag}"] = content
        self.manifests[f"{repository}/manifests/{manifest.digest}"] = content
        self.blobs |= by_digest
        return manifest.digest

    def paths(self, namespace: str = "") -> list[str]:
        """The paths that were requested with ``?ns=`` *namespace*."""
        return [seen.path for seen in self.requests if seen.namespace == namespace]


@contextmanager
def stand_in(*, tls: ssl.SSLContext | None = None) -> Iterator[StandIn]:
    """A stand-in on a free port of loopback until the context ends; HTTPS with *tls*."""
    served = StandIn("")

    class Handler(_Handler):
        agent = served

    with _Server(("127.0.0.1", 0), Handler) as server:
        if tls:
            server.socket = tls.wrap_socket(server.socket, server_side=True)
        served.address = f"127.0.0.1:{server.server_address[1]}"
        thread = threading.Thread(target=server.serve_forever, daemon=True)
        thread.start()
        try:
            yield served
        finally:
            server.shutdown()
            thread.join()


class _Server(ThreadingHTTPServer):
    def handle_error(self, request: object, client_address: object) -> None:
        """Engines leave connections open, and reset them when they end."""


class _Handler(BaseHTTPRequestHandler):
    agent: StandIn
    protocol_version = "HTTP/1.1"

    def do_GET(self) -> None:
        """OCI distribution 1.1, pull alone."""
        if self.agent.is_dead:
            self._hang_up()
            return
        url = urlsplit(self.path)
        namespace = parse_qs(url.query).get("ns", [""])[0]
        agent = self.headers.get("User-Agent", "")
        self.agent.requests.append(Request(self.command, url.path, namespace, agent))
        if url.path in {"/v2", "/v2/"}:
            self._answer(200, b"{}", {"Content-Type": "application/json"})
            return
        name = url.path.removeprefix("/v2/")
        if namespace:
            name = f"{namespace}/{name}"
        digest = name.rpartition("/")[2]
        if name in self.agent.manifests:
            content = self.agent.manifests[name]
            headers = {"Docker-Content-Digest": str(Digest.of(content))}
            self._answer(200, content, {"Content-Type": OCI_MANIFEST, **headers})
        elif "/blobs/" in name and digest in self.agent.blobs:
            if digest == str(self.agent.dies_in):
                self.agent.is_dead = True
            blob = self.agent.blobs[digest]
            self._answer(200, blob, {"Content-Type": "application/octet-stream"})
        else:
            body = b'{"errors":[{"code":"NAME_UNKNOWN","message":"not here"}]}'
            self._answer(404, body, {"Content-Type": "application/json"})

    do_HEAD = do_GET  # noqa: N815

    def _answer(self, status: int, content: bytes, headers: Mapping[str, str]) -> None:
        self.send_response(status)
        for name, value in headers.items():
            self.send_header(name, value)
        self.send_header("Content-Length", str(len(content)))
        self.end_headers()
        if self.agent.is_dead:
            self.wfile.write(content[: len(content) // 2])
            self._hang_up()
        elif self.command != "HEAD":
            self.wfile.write(content)

    def _hang_up(self) -> None:
        self.close_connection = True
        self.connection.shutdown(socket.SHUT_RDWR)

    def log_message(self, format: str, *args: object) -> None:  # noqa: A002
        """Requests are recorded, not printed."""
