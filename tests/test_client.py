"""A registry that answers nonsense: the host says so in one line."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

import pytest

from docket.client import Client
from docket.digest import Digest
from docket.errors import InvalidInput, RegistryRefused
from docket.reference import Reference
from tests.fuzz.properties import assert_readable

_REFERENCE = Reference.parse("app:1.0")
_DIGEST = Digest.of(b"layer")


class _Nonsense(BaseHTTPRequestHandler):
    """Whatever is asked, the answer is the server's *body*."""

    def _answer(self) -> None:
        self.rfile.read(int(self.headers.get("Content-Length") or 0))
        body: bytes = self.server.body  # type: ignore[attr-defined]
        self.send_response(202)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    do_GET = do_POST = do_DELETE = _answer  # noqa: N815

    def log_message(self, format: str, *args: object) -> None:  # noqa: A002
        """Keep quiet."""


@pytest.fixture
def server() -> Iterator[Any]:
    """A server on a free port; tests set its *body*."""
    with ThreadingHTTPServer(("127.0.0.1", 0), _Nonsense) as running:
        thread = threading.Thread(target=running.serve_forever, args=(0.01,))
        thread.start()
        yield running
        running.shutdown()
        thread.join()


ASKED: dict[str, Callable[[Client], object]] = {
    "missing": lambda client: client.missing("app", [_DIGEST]),
    "layers": lambda client: client.layers(_REFERENCE),
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


@pytest.mark.parametrize("what", ASKED)
@pytest.mark.parametrize("body", BODIES, ids=range(len(BODIES)))
def test_an_answer_that_is_none_of_dockets(server: Any, what: str, body: bytes) -> None:
    """Hostile input: another program, or another's registry, is no traceback on a host."""
    server.body = body
    with Client(f"http://127.0.0.1:{server.server_port}") as client:
        with pytest.raises(RegistryRefused) as caught:
            ASKED[what](client)
        assert_readable(caught.value)


@pytest.mark.parametrize("layer", ["5", "{}", '{"size":-1}', '{"digest":"sha256:x"}', "[]"])
def test_layers_that_are_none(server: Any, layer: str) -> None:
    """What a registry tells of a layer has sizes and digests, or the answer is refused."""
    good = '"diff_id":"%s","digest":"%s","size":1,"plain_size":1,"media_type":"x"'
    told = layer.replace("{", "{" + good % (_DIGEST, _DIGEST) + ",") if ":" in layer else layer
    server.body = f'{{"held":[{told}],"layers":[{told}]}}'.encode()
    with Client(f"http://127.0.0.1:{server.server_port}") as client:
        for what in ("missing", "layers"):
            with pytest.raises((RegistryRefused, InvalidInput)):
                ASKED[what](client)


def test_an_upload_that_leads_nowhere(server: Any) -> None:
    """OCI distribution § POST then PUT: without a Location there is nothing to go on with."""
    server.body = b""
    client = Client(f"http://127.0.0.1:{server.server_port}")
    with client, pytest.raises(RegistryRefused, match="Location"):
        client.put_blob("app", [b"layer"])
