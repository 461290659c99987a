"""Slow readers: a GET that began before a blob went finishes or breaks off, and never lies."""

from __future__ import annotations

import http.client
import random
import socket
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from urllib.parse import urlsplit

from docket.oci import manifest
from docket.oci.digest import Digest
from docket.oci.manifest import Descriptor
from docket.oci.reference import Reference
from docket.remote.client import Client
from tests.torture.servers import server

REPOSITORY = "app"
LAYER = random.Random(7).randbytes(12_000_000)
CONFIG = b"{}"
CONTENT = manifest.image_manifest(
    Descriptor(manifest.OCI_CONFIG, Digest.of(CONFIG), len(CONFIG)),
    [Descriptor(manifest.OCI_LAYER, Digest.of(LAYER), len(LAYER))],
)
FEW = 1 << 16


class SlowReader:
    """A GET of the layer that has read few bytes of it, and lets the rest wait."""

    def __init__(self, url: str) -> None:
        where = urlsplit(url)
        assert where.hostname
        self._connection = http.client.HTTPConnection(where.hostname, where.port)
        connected = socket.socket()
        # before it connects: the server must not be able to send much ahead
        connected.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, FEW)
        connected.connect((where.hostname, where.port))
        self._connection.sock = connected
        self._connection.request("GET", f"/v2/{REPOSITORY}/blobs/{Digest.of(LAYER)}")
        self._answer = self._connection.getresponse()
        assert self._answer.status == 200
        self._got = self._answer.read(FEW)

    def read_rest(self) -> bytes | None:
        """All bytes of the answer; None when it broke off."""
        with suppress(http.client.IncompleteRead, ConnectionError):
            content = self._got + self._answer.read()
            if len(content) == int(self._answer.headers["Content-Length"]):
                return content
        return None

    def close(self) -> None:
        """Hang up."""
        self._connection.close()


@contextmanager
def reading(url: str) -> Iterator[SlowReader]:
    """A slow reader of the registry at *url*."""
    reader = SlowReader(url)
    try:
        yield reader
    finally:
        reader.close()


def push(client: Client) -> None:
    """The image comes, whole."""
    client.put_blob(REPOSITORY, [LAYER])
    client.put_blob(REPOSITORY, [CONFIG])
    client.put_manifest(Reference(REPOSITORY, "latest"), CONTENT, manifest.OCI_MANIFEST)


def delete(client: Client) -> None:
    """The image goes, with each of its bytes."""
    client.delete(Reference(REPOSITORY, Digest.of(CONTENT)))
    assert client.gc(dry_run=False, grace=0)["blobs"] == 3
    assert client.blob_size(REPOSITORY, Digest.of(LAYER)) is None


def test_the_blob_is_deleted_meanwhile(tmp_path: Path) -> None:
    """The file is open: its bytes are there until the last reader has them."""
    with server(tmp_path, pin_seconds=0) as running, Client(running.url) as client:
        push(client)
        with reading(running.url) as slow:
            delete(client)
            assert list((tmp_path / "trash").iterdir()) == []
            assert slow.read_rest() == LAYER


def test_the_blob_comes_back_meanwhile(tmp_path: Path) -> None:
    """A blob that is pushed again is a new file; who reads the old one is not disturbed."""
    with server(tmp_path, pin_seconds=0) as running, Client(running.url) as client:
        push(client)
        with reading(running.url) as slow:
            delete(client)
            push(client)
            with reading(running.url) as second_reader:
                assert slow.read_rest() == LAYER
                assert second_reader.read_rest() == LAYER


def test_the_file_is_cut_off_meanwhile(tmp_path: Path) -> None:
    """Bytes that are gone break the answer off: it doesn't end as if it were whole."""
    with server(tmp_path, pin_seconds=0) as running, Client(running.url) as client:
        push(client)
        with reading(running.url) as slow:
            (path,) = tmp_path.glob(f"blobs/*/*/{Digest.of(LAYER).hex}")
            path.chmod(0o644)
            with path.open("rb+") as file:
                file.truncate(len(LAYER) // 2)
            assert slow.read_rest() is None


def rot(location: Path) -> None:
    """The last byte of the layer is another."""
    (path,) = location.glob(f"blobs/*/*/{Digest.of(LAYER).hex}")
    path.chmod(0o644)
    with path.open("rb+") as file:
        file.seek(len(LAYER) - 1)
        file.write(bytes([LAYER[-1] ^ 1]))


def test_the_blob_is_found_to_be_wrong_meanwhile(tmp_path: Path) -> None:
    """Invariant 4: what is quarantined while it is read breaks off, also when it has healed."""
    with server(tmp_path, pin_seconds=0) as running, Client(running.url) as client:
        push(client)
        with reading(running.url) as slow, reading(running.url) as slower:
            rot(tmp_path)
            report = client.fsck(read_data="1/1", on_blob=lambda _done, _total: None)
            assert report["quarantined"] == [str(Digest.of(LAYER))]
            assert client.blob_size(REPOSITORY, Digest.of(LAYER)) is None
            assert slow.read_rest() is None
            push(client)
            assert slower.read_rest() is None
            with reading(running.url) as second_reader:
                assert second_reader.read_rest() == LAYER


def test_the_registry_is_killed_meanwhile(tmp_path: Path) -> None:
    """The answer breaks off; the next registry gives the blob from where the reader stands."""
    with server(tmp_path, pin_seconds=0) as running, Client(running.url) as client:
        push(client)
        with reading(running.url) as slow:
            running.kill()
            assert slow.read_rest() is None
    with server(tmp_path, pin_seconds=0) as running, Client(running.url) as client:
        half = len(LAYER) // 2
        second_half = client.blob_range(REPOSITORY, Digest.of(LAYER), half, len(LAYER))
        assert b"".join(second_half) == LAYER[half:]
        with reading(running.url) as slow:
            assert slow.read_rest() == LAYER
