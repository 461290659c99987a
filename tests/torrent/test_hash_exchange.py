"""Hosts that send each other piece hashes: what is served, and what is not."""

from __future__ import annotations

import socket
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, closing, suppress
from threading import Event

import pytest

from docket.oci.digest import Digest
from docket.torrent import hash_exchange
from docket.torrent.hash_exchange import HashServer, fetch_hashes

_HASH = b"h" * 20
_ONE, _TWO = (Digest.of(text) for text in (b"one", b"two"))
_HASHES = {_ONE: b"1" * 40, _TWO: b"2" * 20}


@pytest.fixture
def server() -> Iterator[HashServer]:
    """One that knows `_HASHES`."""
    with closing(HashServer()) as running:
        running.publish(_HASH, _HASHES)
        yield running


@pytest.mark.parametrize("address", ["127.0.0.1", "[::1]"])
def test_hashes_are_served_in_the_order_of_the_request(server: HashServer, address: str) -> None:
    """Over both families of addresses."""
    hashes = fetch_hashes(f"{address}:{server.port}", _HASH, [_TWO, _ONE], length=60)
    assert hashes == b"2" * 20 + b"1" * 40


def test_an_early_request_waits() -> None:
    """It is served as soon as the server has the hashes."""
    with closing(HashServer()) as server, ThreadPoolExecutor(1) as pool:
        fetched = pool.submit(fetch_hashes, f"127.0.0.1:{server.port}", _HASH, [_ONE], length=40)
        server.publish(_HASH, _HASHES)
        assert fetched.result() == b"1" * 40


def test_nothing_else_is_served(server: HashServer) -> None:
    """Another torrent, an unknown blob, or another number of hashes than was expected."""
    address = f"127.0.0.1:{server.port}"
    assert fetch_hashes(address, b"x" * 20, [_ONE], length=40) is None
    assert fetch_hashes(address, _HASH, [Digest.of(b"three")], length=20) is None
    assert fetch_hashes(address, _HASH, [_ONE], length=20) is None
    assert fetch_hashes(address, _HASH, [_ONE], length=60) is None


@pytest.mark.parametrize("place", ["127.0.0.1", "127.0.0.1:0", "127.0.0.1:99999", "a b:1", ":"])
def test_addresses_that_are_none(place: str) -> None:
    """They are no error."""
    assert fetch_hashes(place, _HASH, [_ONE], length=40) is None


@pytest.mark.parametrize("said", [b"", b"SSH-2.0-x\r\n", b"HTTP/1.0 200 OK\r\n\r\n1"])
def test_a_peer_that_is_no_hash_server(said: bytes) -> None:
    """None for a program that isn't docket, or that breaks off."""
    with socket.create_server(("127.0.0.1", 0)) as server, ThreadPoolExecutor(1) as pool:
        fetched = pool.submit(
            fetch_hashes, f"127.0.0.1:{server.getsockname()[1]}", _HASH, [_ONE], length=40
        )
        asking, _ = server.accept()
        with asking:
            asking.recv(4096)
            asking.sendall(said)
        assert fetched.result() is None


def test_a_silent_peer_is_not_waited_for(monkeypatch: pytest.MonkeyPatch) -> None:
    """One that takes the question and is silent, and one that is never told itself."""
    monkeypatch.setattr(hash_exchange, "PEER_SECONDS", 0.05)
    with socket.create_server(("127.0.0.1", 0)) as silent, closing(HashServer()) as untold:
        for port in (silent.getsockname()[1], untold.port):
            assert fetch_hashes(f"127.0.0.1:{port}", _HASH, [_ONE], length=40) is None


def test_a_dripping_peer_is_disconnected(monkeypatch: pytest.MonkeyPatch) -> None:
    """In the headers already, where each byte restarts the timeout of a read."""
    monkeypatch.setattr(hash_exchange, "PEER_SECONDS", 0.2)
    with socket.create_server(("127.0.0.1", 0)) as server, ThreadPoolExecutor(1) as pool:
        address = f"127.0.0.1:{server.getsockname()[1]}"
        fetched = pool.submit(fetch_hashes, address, _HASH, [_ONE], length=40)
        asking, _ = server.accept()
        with asking, suppress(OSError):
            asking.sendall(b"HTTP/1.0 200 OK\r\nX: ")
            while not fetched.done():
                asking.sendall(b"x")
                Event().wait(0.01)
        assert fetched.result() is None


def test_a_closed_server_serves_nothing(server: HashServer) -> None:
    """Its port is free again."""
    server.close()
    assert fetch_hashes(f"127.0.0.1:{server.port}", _HASH, [_ONE], length=40) is None
    with socket.create_server(("127.0.0.1", server.port)):
        pass


@pytest.mark.parametrize(
    "request_line",
    [
        b"POST /%s?digests=%s HTTP/1.1",
        b"GET /%s?digests=%s",
        b"GET /%s?digests=%s,sha256:00 HTTP/1.1",
        b"GET /" + b"x" * 70_000 + b"%s?digests=%s HTTP/1.1",
    ],
)
def test_other_requests_get_no_hashes(server: HashServer, request_line: bytes) -> None:
    """Other methods, unknown digests and endless heads are answered in a line, or not at all."""
    head = request_line % (_HASH.hex().encode(), str(_ONE).encode())
    with socket.create_connection(("127.0.0.1", server.port), timeout=10) as client:
        with suppress(OSError):
            client.sendall(head + b"\r\n\r\n")
        content = b""
        with suppress(OSError):
            while block := client.recv(4096):
                content += block
    assert b"1111" not in content


def test_a_repeated_digest_is_served_once(server: HashServer) -> None:
    """A small request gives no response that is larger than the hashes of the image."""
    names = ",".join([str(_ONE)] * 800)
    hashes = server.find(f"/{_HASH.hex()}?digests={names}")
    assert hashes == [b"1" * 40]


def test_one_address_leaves_places_to_others(server: HashServer) -> None:
    """Connections that send nothing hold half of the places at most."""
    with ExitStack() as stack:
        for _ in range(20):
            stack.enter_context(socket.create_connection(("127.0.0.1", server.port)))
        fetched = fetch_hashes(f"[::1]:{server.port}", _HASH, [_ONE], length=40)
    assert fetched == b"1" * 40
