"""An upstream that serves one image as a test says: slowly, wrongly, or with a token."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field

from docket.oci import manifest
from docket.oci.digest import Digest
from tests.support.http_servers import Handler, Server, serving
from tests.support.images import TinyImage

Intercept = Callable[[Handler], bool]
"""Responds itself, and returns True; or leaves the request to the stand-in."""


@dataclass
class StandIn:
    """*requests* are those that were served; *intercept* sees each first."""

    server: Server
    digest: Digest
    layers: list[Digest]
    intercept: list[Intercept] = field(default_factory=list)

    @property
    def url(self) -> str:
        """Its base URL."""
        return self.server.url

    def count(self, part: str, method: str = "GET") -> int:
        """How many requests with *method* had *part* in their paths."""
        return sum(
            part in request.path and request.method == method for request in self.server.requests
        )


@contextmanager
def upstream_of(image: TinyImage, repository: str = "acme/app") -> Iterator[StandIn]:
    """A stand-in that has *image* as *repository*:1.0."""
    described, blobs = image.blobs("gzip")
    by_digest = {f"sha256:{path.rpartition('/')[2]}": blob for path, blob in blobs.items()}
    content = by_digest[str(described.digest)]
    intercepts: list[Intercept] = []

    def respond(handler: Handler) -> None:
        if any(intercept(handler) for intercept in intercepts):
            return
        path = handler.path.partition("?")[0]
        digest = path.rpartition("/")[2]
        names = {f"/v2/{repository}/manifests/{name}" for name in ("1.0", described.digest)}
        if path in names:
            headers = {
                "Content-Type": manifest.OCI_MANIFEST,
                "Docker-Content-Digest": str(described.digest),
                "Content-Length": str(len(content)),
            }
            handler.respond(200, content, headers)
        elif path.startswith(f"/v2/{repository}/blobs/") and digest in by_digest:
            blob = by_digest[digest]
            start = int(handler.headers.get("Range", "bytes=0-")[6:].partition("-")[0])
            handler.respond(206 if start else 200, blob[start:])
        else:
            handler.respond(404, b"{}")

    layers = [layer.digest for layer in manifest.parse(content).layers]  # type: ignore[union-attr]
    with serving(respond) as server:
        yield StandIn(server, described.digest, layers, intercepts)
