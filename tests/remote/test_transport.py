"""Redirects, credentials, bounds and deadlines of what a client of a registry sends and reads."""

from __future__ import annotations

import resource
from collections.abc import Callable
from pathlib import Path

import pytest

from docket.errors import DigestMismatch, RegistryError, RegistryRefused, RegistryUnreachable
from docket.oci import manifest
from docket.oci.digest import Digest
from docket.oci.manifest import Descriptor
from docket.oci.reference import Reference
from docket.remote.client import Client
from docket.remote.transport import MAX_REDIRECTS
from tests.support.http_servers import Handler, Server, serving, tls_context

NAME = Reference.parse("app:1.0")
DIGEST = Digest.of(b"layer")
CONFIG = Descriptor(manifest.OCI_CONFIG, DIGEST, 5)
CONTENT = manifest.image_manifest(CONFIG, [])
TYPE = {"Content-Type": manifest.OCI_MANIFEST}
STATUSES = (301, 302, 303, 307, 308)
READ_SECONDS = 0.5

READS: dict[str, Callable[[Client], object]] = {
    "manifest": lambda client: client.manifest(NAME),
    "blob": lambda client: client.read_blob("app", CONFIG),
    "blob size": lambda client: client.blob_size("app", DIGEST),
    "torrent": lambda client: client.torrent(NAME),
    "pieces": lambda client: client.pieces(NAME, [DIGEST], length=20),
    "layers": lambda client: client.layers(NAME, count=1),
    "images": lambda client: client.images(),
}
WRITES: dict[str, Callable[[Client], object]] = {
    "rm": lambda client: client.delete(NAME),
    "push a manifest": lambda client: client.put_manifest(NAME, CONTENT, manifest.OCI_MANIFEST),
    "push a blob": lambda client: client.put_blob("app", [b"layer"]),
    "missing": lambda client: client.missing("app", [DIGEST]),
    "gc": lambda client: client.gc(dry_run=False),
    "fsck": lambda client: client.fsck(read_data=None, on_blob=lambda *_: None),
}


def manifests(handler: Handler) -> None:
    """A registry that has one manifest and one blob."""
    if "/manifests/" in handler.path:
        handler.respond(200, CONTENT, TYPE)
    elif "/blobs/" in handler.path:
        handler.respond(200, b"layer")
    else:
        handler.respond(404)


def to(url: str, status: int) -> Callable[[Handler], None]:
    """A front that redirects every request to the same path at *url*."""
    return lambda handler: handler.respond(
        status, b"<html>moved</html>", {"Location": url + handler.path}
    )


@pytest.mark.parametrize("status", STATUSES)
def test_a_front_that_redirects_what_is_read(status: int) -> None:
    """GET and HEAD follow, with their own headers."""
    with serving(manifests) as registry, serving(to(registry.url, status)) as front:
        with Client(front.url) as client:
            assert client.manifest(NAME).content == CONTENT
            assert client.blob_size("app", DIGEST) == 5
            assert client.read_blob("app", CONFIG) == b"layer"
        assert [sent.method for sent in registry.requests] == ["GET", "HEAD", "GET"]
        assert manifest.OCI_MANIFEST in registry.requests[0].headers["Accept"]
        assert registry.requests[2].headers["Range"] == "bytes=0-4"


@pytest.mark.parametrize("status", STATUSES)
@pytest.mark.parametrize("call", WRITES)
def test_a_front_that_redirects_what_changes_something(call: str, status: int) -> None:
    """Nothing was changed, so it is an error, and it names where the registry is."""
    with serving(manifests) as registry, serving(to(registry.url, status)) as front:
        with Client(front.url) as client, pytest.raises(RegistryRefused) as caught:
            WRITES[call](client)
        assert registry.url in str(caught.value)
        assert "give that address with -h" in str(caught.value)
        assert registry.requests == []


DOCUMENTED = {
    **{call: {200} for call in (*READS, "missing", "gc", "fsck")},
    "blob": {200, 206},
    "rm": {202},
    "push a manifest": {201},
    "push a blob": {202},
}


@pytest.mark.parametrize("status", [200, 201, 202, 203, 204, 206, 304])
@pytest.mark.parametrize("call", DOCUMENTED)
def test_a_success_that_the_call_does_not_have(call: str, status: int) -> None:
    """A page that says yes to everything, such as that of a hotel, is no registry."""

    def respond(handler: Handler) -> None:
        handler.respond(status, b"" if status in (204, 304) else b"<html>please log in</html>")

    if status in DOCUMENTED[call]:
        return
    with serving(respond) as server, Client(server.url) as client:
        with pytest.raises(RegistryRefused) as caught:
            (READS | WRITES)[call](client)
        assert caught.value.status == status


def test_redirects_without_an_end() -> None:
    """They are followed a few times."""
    with serving(lambda handler: handler.respond(302, b"", {"Location": "/v2/x"})) as server:
        with Client(server.url) as client, pytest.raises(RegistryRefused, match="redirects"):
            client.manifest(NAME)
        assert len(server.requests) == MAX_REDIRECTS + 1


@pytest.mark.parametrize(
    "location", ["ftp://x/y", "file:///etc/passwd", "https:///x", "http://[::1", "//[x"]
)
def test_a_redirect_to_no_http(location: str) -> None:
    """It is refused in a line that quotes it."""
    with serving(lambda handler: handler.respond(301, b"", {"Location": location})) as server:
        with Client(server.url) as client, pytest.raises(RegistryRefused, match="no http URL"):
            client.manifest(NAME)
        assert len(server.requests) == 1


def authorizations(server: Server) -> list[str | None]:
    """The credentials that a server was sent, request by request."""
    return [sent.headers.get("Authorization") for sent in server.requests]


def test_credentials_stay_with_their_origin() -> None:
    """The registry gets them, also behind a redirect to itself; another host or port doesn't."""
    with serving(manifests) as second_server:

        def respond(handler: Handler) -> None:
            if handler.path.startswith("/v2/app/manifests/1.0"):
                handler.respond(302, b"", {"Location": "/moved"})
            else:
                handler.respond(302, b"", {"Location": f"{second_server.url}/v2/app/manifests/x"})

        with serving(respond) as registry:
            address = registry.url.replace("://", "://me:secret@")
            with Client(address) as client:
                assert client.manifest(NAME).content == CONTENT
            assert authorizations(registry) == ["Basic bWU6c2VjcmV0"] * 2
            assert authorizations(second_server) == [None]


def test_an_upload_that_goes_on_elsewhere() -> None:
    """A Location may be at another host; credentials aren't sent there."""
    bodies: list[bytes] = []

    def elsewhere(handler: Handler) -> None:
        bodies.append(handler.body)
        patched = handler.command == "PATCH"
        handler.respond(202 if patched else 201, b"", {"Location": "/up/2?state=x"})

    with serving(elsewhere) as store:
        location = {"Location": f"{store.url}/up/1"}
        with serving(lambda handler: handler.respond(202, b"", location)) as registry:
            address = registry.url.replace("://", "://me:secret@")
            with Client(address) as client:
                client.put_blob("app", [b"layer"])
            assert authorizations(registry) == ["Basic bWU6c2VjcmV0"]
        assert authorizations(store) == [None, None]
        assert store.requests[0].path == "/up/1"
        assert store.requests[1].path.startswith("/up/2?state=x&digest=sha256")


def test_a_registry_behind_a_prefix() -> None:
    """Each call goes to the prefix, uploads too."""

    def respond(handler: Handler) -> None:
        if handler.command == "POST":
            handler.respond(202, b"", {"Location": "/v2/app/blobs/uploads/1"})
        elif handler.command == "PATCH":
            handler.respond(202, b"", {"Location": "/images/v2/app/blobs/uploads/1"})
        else:
            handler.respond(201)

    with serving(respond) as server, Client(f"{server.url}/images/") as client:
        client.put_blob("app", [b"layer"])
        assert all(sent.path.startswith("/images/v2/app/") for sent in server.requests)


@pytest.mark.parametrize("call", READS)
def test_a_body_without_an_end(call: str) -> None:
    """Each body that is read into memory has a bound: no lie of a registry fills a host."""
    block = b"[" + b" " * 65535

    def respond(handler: Handler) -> None:
        handler.send_response(200)
        handler.end_headers()
        if handler.command != "HEAD":
            while not handler.server.closing.is_set():
                handler.wfile.write(block)

    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    with serving(respond) as server, Client(server.url) as client:
        if call == "blob size":
            assert READS[call](client) is None
        else:
            with pytest.raises((RegistryRefused, DigestMismatch)):
                READS[call](client)
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before < 200_000  # KiB


@pytest.mark.parametrize("status", [400, 404, 500])
def test_an_error_without_an_end(status: int) -> None:
    """The words of a refusal are bounded too."""

    def respond(handler: Handler) -> None:
        handler.send_response(status)
        handler.end_headers()
        while not handler.server.closing.is_set():
            handler.wfile.write(b'{"errors":[' + b" " * 65535)

    with serving(respond) as server, Client(server.url) as client:
        with pytest.raises(RegistryRefused):
            client.images()
        with pytest.raises(RegistryRefused):
            client.gc(dry_run=True)


@pytest.mark.parametrize("encoding", ["gzip", "deflate", "br", "zstd", "GZIP", "x", "gzip, gzip"])
@pytest.mark.parametrize("call", READS)
def test_a_body_that_is_encoded(call: str, encoding: str) -> None:
    """Plain bytes are asked for; a body that would grow while it is decoded is refused."""
    headers = {"Content-Encoding": encoding, **TYPE}
    with serving(lambda handler: handler.respond(200, b"x" * 26, headers)) as server:
        with Client(server.url) as client, pytest.raises(RegistryRefused, match="Encoding"):
            READS[call](client)
        assert server.requests[0].headers["Accept-Encoding"] == "identity"


def dribble(handler: Handler, block: bytes) -> None:
    """*block*, again and again, each well within the time-out of a read."""
    while not handler.server.closing.wait(READ_SECONDS / 10):
        handler.wfile.write(block)
        handler.wfile.flush()


def slow_headers(handler: Handler) -> None:
    """A header a moment, without an end."""
    handler.wfile.write(b"HTTP/1.1 200 OK\r\n")
    dribble(handler, b"X: y\r\n")


def slow_status(handler: Handler) -> None:
    """One interim response after the other."""
    dribble(handler, b"HTTP/1.1 100 Continue\r\n\r\n")


def slow_body(handler: Handler) -> None:
    """A byte a moment."""
    handler.wfile.write(b"HTTP/1.1 200 OK\r\nContent-Length: 20\r\n\r\n" + b" " * 4)
    dribble(handler, b" ")


def slow_chunks(handler: Handler) -> None:
    """A chunk of one byte a moment."""
    handler.wfile.write(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n")
    dribble(handler, b"1\r\n \r\n")


def endless_chunk_size(handler: Handler) -> None:
    """A chunk whose size has no last digit."""
    handler.wfile.write(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n")
    while not handler.server.closing.is_set():
        handler.wfile.write(b"0" * 65536)


SLOW = (slow_headers, slow_status, slow_body, slow_chunks, endless_chunk_size)


@pytest.mark.parametrize("respond", SLOW)
@pytest.mark.parametrize("call", ["manifest", "blob", "gc"])
def test_a_response_that_never_gets_whole(call: str, respond: Callable[[Handler], None]) -> None:
    """A deadline counts all reads together: a byte now and then doesn't hold a command up."""
    with serving(respond) as server, Client(server.url, read_seconds=READ_SECONDS) as client:
        with pytest.raises(RegistryError):
            (READS | WRITES)[call](client)
        assert len(server.requests) <= 6


def test_a_connection_is_used_again() -> None:
    """Also after responses whose body says nothing."""
    addresses = set()

    def respond(handler: Handler) -> None:
        addresses.add(handler.client_address)
        if handler.command == "DELETE":
            handler.respond(202, b"ok")
        else:
            manifests(handler)

    with serving(respond) as server, Client(server.url) as client:
        for _ in range(3):
            client.manifest(NAME)
            client.blob_size("app", DIGEST)
            client.read_blob("app", CONFIG)
            client.delete(NAME)
    assert len(addresses) <= 2


def test_a_proxy_leads_to_the_registry(monkeypatch: pytest.MonkeyPatch) -> None:
    """The request has the whole URL; the proxy's credentials go to the proxy."""
    with serving(manifests) as proxy:
        monkeypatch.setenv("http_proxy", proxy.url.replace("://", "://me:secret@"))
        monkeypatch.setenv("no_proxy", "direct.example")
        with Client("http://registry.invalid:5000") as client:
            assert client.manifest(NAME).content == CONTENT
            assert 0 < client.trip_seconds() < 1.0
        sent = proxy.requests[0]
        assert sent.path == "http://registry.invalid:5000/v2/app/manifests/1.0"
        assert sent.headers["Proxy-Authorization"] == "Basic bWU6c2VjcmV0"
        assert "Authorization" not in sent.headers
        monkeypatch.setenv("no_proxy", "registry.invalid")
        with Client("http://registry.invalid:5000") as client, pytest.raises(RegistryError):
            client.manifest(NAME)
        assert len(proxy.requests) == 1


def test_https_never_leads_to_http(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Neither a redirect nor an upload's Location leaves encryption; http leads to https."""
    context, certificate = tls_context(tmp_path)
    monkeypatch.setenv("SSL_CERT_FILE", str(certificate))
    with serving(manifests) as plain, serving(to(plain.url, 301), tls=context) as front:
        with Client(front.url) as client, pytest.raises(RegistryRefused, match="not encrypted"):
            client.manifest(NAME)
        assert plain.requests == []
    with serving(manifests) as plain:
        location = {"Location": f"{plain.url}/v2/app/blobs/uploads/1"}
        with (
            serving(lambda handler: handler.respond(202, b"", location), tls=context) as front,
            Client(front.url) as client,
            pytest.raises(RegistryRefused, match="not encrypted"),
        ):
            client.put_blob("app", [b"layer"])
        assert plain.requests == []
    with serving(manifests, tls=context) as registry, serving(to(registry.url, 308)) as front:
        with Client(front.url.replace("://", "://me:secret@")) as client:
            assert client.manifest(NAME).content == CONTENT
        assert authorizations(registry) == [None]


def test_a_certificate_that_nobody_vouches_for(tmp_path: Path) -> None:
    """The line says so; docket doesn't go on."""
    context, _ = tls_context(tmp_path)
    with (
        serving(manifests, tls=context) as registry,
        Client(registry.url) as client,
        pytest.raises(RegistryUnreachable, match="certificate"),
    ):
        client.manifest(NAME)
