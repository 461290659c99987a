"""A registry that sends nonsense, nothing or a refusal: one line, or another try."""

from __future__ import annotations

import logging
import socket
import threading
from collections.abc import Callable, Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import pytest

from docket.errors import InvalidInput, RegistryRefused, RegistryUnreachable
from docket.oci.digest import Digest
from docket.oci.reference import Reference
from docket.remote.client import Client
from tests.fuzz.properties import assert_readable
from tests.support.http_servers import deaf

_REFERENCE = Reference.parse("app:1.0")
_DIGEST = Digest.of(b"layer")


class _Server(ThreadingHTTPServer):
    """Answers every request with *body* and *status*, but the first it *ignores*."""

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), _Answers)
        self.url = f"http://127.0.0.1:{self.server_port}"
        self.body = b""
        self.status = 200
        self.headers: dict[str, str] = {}
        self.ignores = 0
        self.methods: list[str] = []
        self.over = threading.Event()


class _Answers(BaseHTTPRequestHandler):
    server: _Server

    def _answer(self) -> None:
        self.rfile.read(int(self.headers.get("Content-Length") or 0))
        self.server.methods.append(self.command)
        if len(self.server.methods) <= self.server.ignores:
            self.server.over.wait()
            return
        body = self.server.body
        self.send_response(self.server.status)
        for name, value in self.server.headers.items():
            self.send_header(name, value)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    do_GET = do_POST = do_DELETE = _answer  # noqa: N815

    def log_message(self, format: str, *args: object) -> None:  # noqa: A002
        """Keep quiet."""


@pytest.fixture
def server() -> Iterator[_Server]:
    """A server on a free port; tests say what it does."""
    with _Server() as running:
        thread = threading.Thread(target=running.serve_forever, args=(0.01,))
        thread.start()
        yield running
        running.over.set()
        running.shutdown()
        thread.join()


CALLS: dict[str, Callable[[Client], object]] = {
    "missing": lambda client: client.missing("app", [_DIGEST]),
    "layers": lambda client: client.layers(_REFERENCE, count=1),
    "images": lambda client: client.images(),
    "gc": lambda client: client.gc(dry_run=True, grace=None),
}

BODIES = [
    b"",
    b"<html>",
    b"[]",
    b"5",
    b'[{"held":5,"layers":5,"images":5}]',
    b'{"held":[{}],"layers":[{}],"images":[5]}x',
    b"[" * 100_000,
    b'{"held":["\xff"],"layers":["\xff"],"images":["\xff"],"x":',
    b'"\x1b[2J' + b"x" * 100_000 + b'"',
]


@pytest.mark.parametrize("what", CALLS)
@pytest.mark.parametrize("body", BODIES, ids=range(len(BODIES)))
def test_a_response_that_is_none_of_dockets(server: _Server, what: str, body: bytes) -> None:
    """Hostile input: another program, or another's registry, is no traceback on a host."""
    server.body = body
    with Client(server.url) as client:
        with pytest.raises(RegistryRefused) as caught:
            CALLS[what](client)
        assert_readable(caught.value)


@pytest.mark.parametrize("layer", ["5", "{}", '{"size":-1}', '{"digest":"sha256:x"}', "[]"])
def test_layers_that_are_none(server: _Server, layer: str) -> None:
    """A layer has sizes and digests, or the response is refused."""
    good = '"diff_id":"%s","digest":"%s","size":1,"plain_size":1,"media_type":"x"'
    row = layer.replace("{", "{" + good % (_DIGEST, _DIGEST) + ",") if ":" in layer else layer
    server.body = f'{{"held":[{row}],"layers":[{row}]}}'.encode()
    with Client(server.url) as client:
        for what in ("missing", "layers"):
            with pytest.raises((RegistryRefused, InvalidInput)):
                CALLS[what](client)


def test_an_upload_that_leads_nowhere(server: _Server) -> None:
    """OCI distribution § POST then PUT: without a Location there is nothing to go on with."""
    server.status = 202
    client = Client(server.url)
    with client, pytest.raises(RegistryRefused, match="Location"):
        client.put_blob("app", [b"layer"])


@pytest.mark.parametrize("status", [413, 429, 503])
@pytest.mark.parametrize("what", CALLS)
def test_a_refusal_is_not_requested_again(server: _Server, status: int, what: str) -> None:
    """OCI distribution § error codes: with Retry-After too, and it is said once."""
    server.status = status
    server.headers = {"Retry-After": "1"}
    server.body = b'{"errors":[{"code":"TOOMANYREQUESTS","message":"not now"}]}'
    with Client(server.url) as client, pytest.raises(RegistryRefused, match="not now") as caught:
        CALLS[what](client)
    assert caught.value.status == status
    assert len(server.methods) == 1


def test_a_read_without_a_response_is_sent_again(server: _Server) -> None:
    """What changes nothing, on another connection: a full link may have lost the answer."""
    server.ignores = 1
    server.body = b'{"images":[]}'
    with Client(server.url, read_seconds=1.5) as client:
        assert client.images() == []
    assert server.methods == ["GET", "GET"]


def test_a_change_without_a_response_is_not_sent_again(server: _Server) -> None:
    """It may have been made."""
    server.ignores = 1
    server.body = b'{"held":[]}'
    with Client(server.url, read_seconds=0.2) as client, pytest.raises(RegistryUnreachable):
        client.missing("app", [_DIGEST])
    assert server.methods == ["POST"]


def test_a_push_to_a_host_that_takes_no_connection_is_tried_once(
    caplog: pytest.LogCaptureFixture,
) -> None:
    """It may take its time for a connection, but not several times that."""
    caplog.set_level(logging.DEBUG, "urllib3")
    with (
        deaf() as url,
        Client(url, read_seconds=0.3) as client,
        pytest.raises(RegistryUnreachable, match="timed out"),
    ):
        client.put_manifest(_REFERENCE, b"{}", "application/json")
    assert caplog.text.count("Starting new HTTP connection") == 1


def test_how_far_a_registry_is() -> None:
    """As long as connecting takes; a second where packets get lost, 0 where there is none."""
    with socket.create_server(("127.0.0.1", 0)) as near:
        url = f"http://127.0.0.1:{near.getsockname()[1]}"
        with Client(url) as client:
            assert 0.0 < client.trip_seconds() < 1.0
    with Client(url) as client:
        assert client.trip_seconds() == 0.0
    with deaf() as url, Client(url) as client:
        assert client.trip_seconds() >= 1.0
