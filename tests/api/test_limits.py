"""No client can starve the others, and SIGTERM ends whatever runs: real processes, real sockets."""

from __future__ import annotations

import asyncio
import hashlib
import json
import os
import resource
import signal
import socket
import time
from pathlib import Path
from typing import Any
from urllib.parse import quote_from_bytes, urlsplit

import pytest

from docket.oci import manifest
from docket.oci.digest import Digest
from docket.torrent.metainfo import parse_metainfo
from tests.api.conftest import running
from tests.api.http import Registry, Repository
from tests.store.samples import image

ONE = image("layer")
HOSTS = 1000


def rss(pid: int) -> int:
    """Bytes of memory that the process has now."""
    return int(Path(f"/proc/{pid}/statm").read_text().split()[1]) * resource.getpagesize()


def connect(registry: Registry, *, receive_buffer: int = 0) -> socket.socket:
    """A connection to the registry."""
    host = urlsplit(registry.url)
    client = socket.socket()
    client.settimeout(60)
    if receive_buffer:
        client.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, receive_buffer)
    client.connect((host.hostname, host.port))
    return client


def test_a_thousand_hosts_at_once(sweeping: Registry) -> None:
    """An honest fleet behind one address meets no limit: all are connected at once, and served."""
    _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
    repo = sweeping.repository("app")
    repo.push(ONE, "v1")
    info_hash = parse_metainfo(repo.ask("GET", "_docket/torrent/v1").body).info_hash
    address = urlsplit(sweeping.url)

    async def host(number: int, connected: asyncio.Barrier) -> bool:
        reader, writer = await asyncio.open_connection(address.hostname, address.port)
        await connected.wait()
        query = f"info_hash={quote_from_bytes(info_hash)}&peer_id={number:020}&port=7000&left=1"
        paths = ["/v2/app/manifests/v1", f"/v2/app/blobs/{Digest.of(ONE.config)}"]
        answers = []
        for path in (*paths, f"/announce?{query}"):
            writer.write(f"GET {path} HTTP/1.1\r\nHost: x\r\n\r\n".encode())
            head = await reader.readuntil(b"\r\n\r\n")
            length = next(
                int(line.partition(b":")[2])
                for line in head.lower().split(b"\r\n")
                if line.startswith(b"content-length")
            )
            body = await reader.readexactly(length)
            answers.append(head.startswith(b"HTTP/1.1 200") and b"failure" not in body)
        await connected.wait()
        writer.close()
        return all(answers)

    async def fleet() -> list[bool]:
        connected = asyncio.Barrier(HOSTS)
        return await asyncio.gather(*(host(number, connected) for number in range(HOSTS)))

    assert asyncio.run(fleet()) == [True] * HOSTS


def test_readers_that_read_nothing(sweeping: Registry) -> None:
    """A large blob takes 256 KiB of memory for each reader, however slow it is."""
    digest = sweeping.repository("app").upload(os.urandom(64 << 20))
    request = f"GET /v2/app/blobs/{digest} HTTP/1.1\r\nHost: x\r\n\r\n".encode()
    sweeping.ask("GET", f"/v2/app/blobs/{digest}", headers={"Range": "bytes=0-9999999"})
    before = rss(sweeping.pid)
    readers = [connect(sweeping, receive_buffer=4096) for _ in range(40)]
    for reader in readers:
        reader.sendall(request)
    for reader in readers:
        assert reader.recv(12) == b"HTTP/1.1 200"
    assert sweeping.ask("GET", "/readyz").status == 200
    assert rss(sweeping.pid) - before < 40 * 512 * 1024
    for reader in readers:
        reader.close()


def send_often(client: socket.socket, request: bytes) -> None:
    """More requests than any buffer between here and there has room for."""
    for _ in range(200_000):
        client.sendall(request)


def test_an_announcer_that_reads_nothing(sweeping: Registry) -> None:
    """Responses that nobody reads stop the requests; others are answered."""
    repo = sweeping.repository("app")
    repo.push(ONE, "v1")
    info_hash = parse_metainfo(repo.ask("GET", "_docket/torrent/v1").body).info_hash
    query = f"info_hash={quote_from_bytes(info_hash)}&peer_id={1:020}&port=7000&left=1"
    request = f"GET /announce?{query} HTTP/1.1\r\nHost: x\r\n\r\n".encode()
    before = rss(sweeping.pid)
    with connect(sweeping, receive_buffer=4096) as client:
        client.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        client.settimeout(2)
        with pytest.raises((TimeoutError, ConnectionError)):
            send_often(client, request)
        assert sweeping.ask("GET", f"/announce?{query}").status == 200
        assert rss(sweeping.pid) - before < 20 << 20


def test_piece_hashes_of_one_digest_many_times(repo: Repository) -> None:
    """A request of 63 KB gets each blob's hashes once."""
    repo.push(ONE, "v1")
    layer = Digest.of(ONE.layers[0])
    once = repo.ask("GET", "_docket/pieces/v1", digests=str(layer)).body
    assert once
    assert repo.ask("GET", "_docket/pieces/v1", digests=",".join([str(layer)] * 800)).body == once


def put_referrer(repo: Repository, size: int, number: int, subject: Digest) -> Digest:
    """Push a manifest of *size* bytes whose subject is *subject*."""
    content = manifest.dump(
        {
            "schemaVersion": 2,
            "mediaType": manifest.OCI_MANIFEST,
            "config": {
                "mediaType": "application/vnd.oci.empty.v1+json",
                "digest": str(repo.upload(b"{}")),
                "size": 2,
            },
            "layers": [],
            "subject": {"mediaType": manifest.OCI_MANIFEST, "digest": str(subject), "size": 1},
            "annotations": {"n": str(number), "x": "y" * size},
        }
    )
    digest = Digest.of(content)
    assert repo.put(digest, content).status == 201
    return digest


def test_many_large_referrers(repo: Repository) -> None:
    """Pages of at most 4 MiB of manifests, each referrer on one of them, with its annotations."""
    subject = repo.push(ONE, "v1")
    pushed = {put_referrer(repo, 1 << 20, number, subject) for number in range(9)}
    path, rows = f"/v2/{repo.name}/referrers/{subject}", []
    pages = 0
    while path:
        answer = repo.registry.ask("GET", path)
        assert answer.status == 200
        assert len(answer.body) < 5 << 20
        rows += answer.json["manifests"]
        link = answer.headers.get("Link", "")
        path = link.partition("<")[2].partition(">")[0]
        pages += 1
    assert pages == 3
    assert [row["digest"] for row in rows] == sorted(map(str, pushed))
    assert {row["annotations"]["n"] for row in rows} == set(map(str, range(9)))


def test_a_post_that_breaks_off_leaves_nothing(sweeping: Registry) -> None:
    """The client knows no session to go on with, so nothing may wait for it for a day."""
    host = urlsplit(sweeping.url)
    with socket.create_connection((host.hostname or "", host.port or 0)) as client:
        digest = hashlib.sha256(b"x").hexdigest()
        head = f"POST /v2/app/blobs/uploads/?digest=sha256:{digest} HTTP/1.1\r\nHost: x\r\n"
        client.sendall(f"{head}Content-Length: 9000000\r\n\r\n".encode() + bytes(2 << 20))
        uploads = sweeping.location / "uploads"
        while not any(path.stat().st_size for path in uploads.iterdir()):
            time.sleep(0.01)
    while any(uploads.iterdir()):
        time.sleep(0.01)


def checking(registry: Registry, read_data: str = "1/1") -> Any:
    """A streamed response of fsck."""
    return registry.pool.request(
        "POST",
        f"{registry.url}/v2/_docket/fsck",
        body=json.dumps({"read_data": read_data}),
        headers={"Content-Type": "application/json"},
        preload_content=False,
    )


def test_two_who_check_at_once(sweeping: Registry) -> None:
    """One check serves both; a check of another part comes after it."""
    sweeping.repository("app").push(ONE, "v1")
    responses = [checking(sweeping, part) for part in ("1/1", "1/1", "1/2")]
    for response in responses:
        *progress, last = [json.loads(line) for line in response.data.splitlines()]
        assert last["report"]["findings"] == []
        assert not any("error" in line for line in (*progress, last))


def test_sigterm_whatever_runs(tmp_path: Path) -> None:
    """A read that stands still, an upload that stands still, a check: the end comes within 5 s."""
    with running(tmp_path / "store") as registry:
        repo = registry.repository("app")
        digest = repo.upload(os.urandom(32 << 20))
        location = repo.begin()
        reader, writer = (connect(registry, receive_buffer=4096) for _ in range(2))
        reader.sendall(f"GET /v2/app/blobs/{digest} HTTP/1.1\r\nHost: x\r\n\r\n".encode())
        head = f"PATCH {location} HTTP/1.1\r\nHost: x\r\nContent-Length: 99999999\r\n\r\n"
        writer.sendall(head.encode() + bytes(2 << 20))
        assert reader.recv(12) == b"HTTP/1.1 200"
        check = checking(registry)
        began = time.monotonic()
        os.kill(registry.pid, signal.SIGTERM)
        while Path(f"/proc/{registry.pid}/stat").read_text().split()[2] != "Z":
            assert time.monotonic() - began < 10
            time.sleep(0.02)
        assert time.monotonic() - began < 6
        for connection in (reader, writer, check):
            connection.close()
