"""Hosts that tell each other piece hashes: what is told, and what is not."""

from __future__ import annotations

import socket
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing, suppress
from threading import Event

import pytest

from docket.oci.digest import Digest
from docket.torrent import hash_exchange
from docket.torrent.hash_exchange import HashServer, fetch_hashes

_HASH = b"h" * 20
_ONE, _TWO = (Digest.of(text) for text in (b"one", b"two"))
_HASHES = {_ONE: b"1" * 40, _TWO: b"2" * 20}


@pytest.fixture
def teller() -> Iterator[HashServer]:
    """One that knows `_HASHES`."""
    with closing(HashServer()) as found:
        found.publish(_HASH, _HASHES)
        yield found


@pytest.mark.parametrize("address", ["127.0.0.1", "[::1]"])
def test_what_is_asked_for_is_told_in_its_order(teller: HashServer, address: str) -> None:
    """Over both families of addresses."""
    found = fetch_hashes(f"{address}:{teller.port}", _HASH, [_TWO, _ONE], length=60)
    assert found == b"2" * 20 + b"1" * 40


def test_who_asks_early_waits() -> None:
    """It hears as soon as the teller knows."""
    with closing(HashServer()) as teller, ThreadPoolExecutor(1) as pool:
        heard = pool.submit(fetch_hashes, f"127.0.0.1:{teller.port}", _HASH, [_ONE], length=40)
        teller.publish(_HASH, _HASHES)
        assert heard.result() == b"1" * 40


def test_nothing_else_is_told(teller: HashServer) -> None:
    """Another torrent, an unknown blob, or another number of hashes than was expected."""
    place = f"127.0.0.1:{teller.port}"
    assert fetch_hashes(place, b"x" * 20, [_ONE], length=40) is None
    assert fetch_hashes(place, _HASH, [Digest.of(b"three")], length=20) is None
    assert fetch_hashes(place, _HASH, [_ONE], length=20) is None
    assert fetch_hashes(place, _HASH, [_ONE], length=60) is None


@pytest.mark.parametrize("place", ["127.0.0.1", "127.0.0.1:0", "127.0.0.1:99999", "a b:1", ":"])
def test_addresses_that_are_none(place: str) -> None:
    """They are no error."""
    assert fetch_hashes(place, _HASH, [_ONE], length=40) is None


@pytest.mark.parametrize("said", [b"", b"SSH-2.0-x\r\n", b"HTTP/1.0 200 OK\r\n\r\n1"])
def test_who_says_other_things_or_goes_away(said: bytes) -> None:
    """Nothing is heard of a program that isn't docket, or that breaks off."""
    with socket.create_server(("127.0.0.1", 0)) as server, ThreadPoolExecutor(1) as pool:
        heard = pool.submit(
            fetch_hashes, f"127.0.0.1:{server.getsockname()[1]}", _HASH, [_ONE], length=40
        )
        asking, _ = server.accept()
        with asking:
            asking.recv(4096)
            asking.sendall(said)
        assert heard.result() is None


def test_who_says_nothing_is_not_waited_for(monkeypatch: pytest.MonkeyPatch) -> None:
    """One that takes the question and is silent, and one that is never told itself."""
    monkeypatch.setattr(hash_exchange, "PEER_SECONDS", 0.05)
    with socket.create_server(("127.0.0.1", 0)) as silent, closing(HashServer()) as untold:
        for port in (silent.getsockname()[1], untold.port):
            assert fetch_hashes(f"127.0.0.1:{port}", _HASH, [_ONE], length=40) is None


def test_who_says_a_little_now_and_then_is_hung_up_on(monkeypatch: pytest.MonkeyPatch) -> None:
    """In the headers already, where each byte would be waited for anew."""
    monkeypatch.setattr(hash_exchange, "PEER_SECONDS", 0.2)
    with socket.create_server(("127.0.0.1", 0)) as server, ThreadPoolExecutor(1) as pool:
        place = f"127.0.0.1:{server.getsockname()[1]}"
        heard = pool.submit(fetch_hashes, place, _HASH, [_ONE], length=40)
        asking, _ = server.accept()
        with asking, suppress(OSError):
            asking.sendall(b"HTTP/1.0 200 OK\r\nX: ")
            while not heard.done():
                asking.sendall(b"x")
                Event().wait(0.01)
        assert heard.result() is None


def test_who_is_closed_tells_nothing(teller: HashServer) -> None:
    """Its port is free again."""
    teller.close()
    assert fetch_hashes(f"127.0.0.1:{teller.port}", _HASH, [_ONE], length=40) is None
    with socket.create_server(("127.0.0.1", teller.port)):
        pass
