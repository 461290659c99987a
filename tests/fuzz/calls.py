"""HTTP requests to a whole registry: its routes, queries, headers and bodies, through ASGI."""

from __future__ import annotations

import asyncio
import contextlib
import json
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any
from urllib.parse import unquote

from docket.api import Registry, app
from docket.daemon.registry import ServerOptions, open_store
from docket.oci import manifest
from docket.oci.digest import Digest
from docket.seeder import Seeder
from docket.torrent.peer.session_options import SessionOptions
from docket.torrent.peer.swarm import Swarm
from docket.torrent.tracker.peers import Tracker
from tests.fuzz.target import Check, Target
from tests.support.images import described, tiny_image

_NEXT = b"\n---\n"
_MOST_REQUESTS = 8
_METHODS = frozenset({"GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS"})
_CONFIG = tiny_image("app", 1).config
_LAYER = b"a layer of no meaning"
_CONTENT = manifest.image_manifest(
    described(manifest.OCI_CONFIG, _CONFIG), [described(manifest.OCI_LAYER, _LAYER)]
)


def seeds() -> list[bytes]:
    """Conversations: pushes, pulls, pages, questions, announces."""
    config, layer, content = map(Digest.of, (_CONFIG, _LAYER, _CONTENT))
    upload = b"POST /v2/a/b/blobs/uploads/?digest=%b\n\n%b"
    put = b"PUT /v2/a/b/manifests/v1\ncontent-type: %b\n\n%b" % (
        manifest.OCI_MANIFEST.encode(),
        _CONTENT,
    )
    push = [
        upload % (str(config).encode(), _CONFIG),
        upload % (str(layer).encode(), _LAYER),
        put,
    ]
    parts = [
        b"POST /v2/a/b/blobs/uploads/\n\n",
        b"PATCH {session}\ncontent-range: 0-4\ncontent-length: 5\n\nhello",
        b"GET {session}\n\n",
        b"PUT {session}?digest=%b\n\n world" % str(Digest.of(b"hello world")).encode(),
    ]
    gets = [
        f"GET /v2/a/b/blobs/{layer}\nrange: bytes=3-5\n\n",
        f"HEAD /v2/a/b/manifests/{content}\n\n",
        "GET /v2/a/b/tags/list?n=1&last=v0\n\n",
        "GET /v2/_catalog?n=2\n\n",
        f"GET /v2/a/b/referrers/{content}?artifactType=a%2Fb\n\n",
        "GET /v2/a/b/_docket/layers/v1?platform=linux/arm64\n\n",
        "GET /v2/a/b/_docket/torrent/v1\n\n",
        "GET /torrents/a/b:v1.torrent\n\n",
        "GET /v2/_docket/images?name=a/b\n\n",
        "GET /announce?info_hash=%12345678901234567890&peer_id=12345678901234567890&port=1\n\n",
        "GET /scrape?info_hash=12345678901234567890\n\n",
    ]
    question = json.dumps({"diff_ids": [str(layer)]}).encode()
    more = [
        b"POST /v2/a/b/_docket/missing\ncontent-type: application/json\n\n" + question,
        b'POST /v2/_docket/gc\ncontent-type: application/json\n\n{"dry_run":true,"grace":1e9}',
        b"POST /v2/c/blobs/uploads/?mount=%b&from=a/b\n\n" % str(layer).encode(),
        b"DELETE /v2/a/b/manifests/v1\n\n",
        f"DELETE /v2/a/b/blobs/{layer}\n\n".encode(),
    ]
    head = _NEXT.join(push)
    return [
        head,
        _NEXT.join(parts),
        *(_NEXT.join([head, *(line.encode() for line in gets[at : at + 4])]) for at in (0, 4, 8)),
        _NEXT.join([head, *more]),
        *more[:2],
        *(line.encode() for line in gets[2:6]),
    ]


@contextmanager
def opened(folder: Path) -> Iterator[Check]:
    """A registry with its store in *folder*; what one conversation leaves, the next one meets."""
    options = ServerOptions(location=folder / "store", bind="127.0.0.1", pin_seconds=0)
    with contextlib.ExitStack() as stack:
        store = stack.enter_context(open_store(options))
        swarm = Swarm(SessionOptions(listen="127.0.0.1:0", is_registry=True))
        seeder = stack.enter_context(contextlib.closing(Seeder(store, swarm)))
        application = app(Registry(store, seeder, Tracker()))
        runner = stack.enter_context(asyncio.Runner())
        uploads = folder / "store" / "uploads"

        def check(content: bytes) -> None:
            runner.run(_converse(application, content))
            assert not list(uploads.iterdir())

        yield check


async def _converse(application: Any, content: bytes) -> None:
    """Send all requests of *content*, one after the other; then cancel what they began."""
    sessions: list[bytes] = []
    for call in content.split(_NEXT)[:_MOST_REQUESTS]:
        text = call.replace(b"{session}", sessions[-1] if sessions else b"/v2/a/b/blobs/uploads/x")
        status, headers, _ = await ask(application, text)
        if status == 202 and b"/blobs/uploads/" in (location := headers.get(b"location", b"")):
            sessions.append(location)
        if status == 201 and b"/blobs/" in headers[b"location"]:
            await _check_blob(application, headers[b"location"])
    for location in set(sessions):
        await ask(application, b"DELETE %b\n\n" % location)


async def _check_blob(application: Any, location: bytes) -> None:
    """What was acknowledged can be read and is what it was called."""
    status, headers, body = await ask(application, b"GET %b\n\n" % location)
    assert status == 200, status
    digest = Digest.parse(location.rpartition(b"/")[2].decode())
    assert Digest.of(body, algorithm=digest.algorithm) == digest
    assert headers[b"content-length"] == b"%d" % len(body)


async def ask(application: Any, text: bytes) -> tuple[int, dict[bytes, bytes], bytes]:
    """The answer to a request, spelled as in HTTP but with bare line ends; never a failure."""
    head, _, body = text.partition(b"\n\n")
    first, *lines = head.split(b"\n")
    method, _, target = first.partition(b" ")
    path, _, query = target.partition(b"?")
    rows = [line.partition(b":") for line in lines if b":" in line]
    scope = {
        "type": "http",
        "asgi": {"version": "3.0"},
        "http_version": "1.1",
        "method": name if (name := method.decode("latin-1")) in _METHODS else "GET",
        "scheme": "http",
        "path": unquote(path.decode("ascii", "replace")),
        "raw_path": path,
        "query_string": query,
        "root_path": "",
        "headers": [(name.lower().strip(), value.strip()) for name, _, value in rows],
        "client": ("127.0.0.1", 40000),
        "server": ("127.0.0.1", 8000),
    }
    waiting = [{"type": "http.request", "body": body, "more_body": False}]
    sent: list[Any] = []

    async def receive() -> Any:
        return waiting.pop() if waiting else {"type": "http.disconnect"}

    async def send(message: Any) -> None:
        sent.append(message)

    await application(scope, receive, send)
    status = sent[0]["status"]
    answer = b"".join(message.get("body", b"") for message in sent[1:])
    assert status < 500, answer
    if status >= 400 and scope["method"] != "HEAD":
        (error,) = json.loads(answer)["errors"]
        assert error["message"].isprintable()
        assert len(answer) < 2000, len(answer)
    return status, dict(sent[0]["headers"]), answer


CALL = Target(
    opened,
    seeds,
    words=(_NEXT, b"{session}", b"%00", b"%2e%2e/", b"?n=", b"&last=", b"sha512:", b"POST ", b"\n"),
)
