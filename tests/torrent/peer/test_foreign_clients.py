"""Clients that ask for more blocks ahead than docket's hosts do get all of them."""

from __future__ import annotations

import socket
import struct
import time
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

import pytest

from docket.torrent.peer.session_options import SessionOptions
from docket.torrent.peer.session_tuning import REQUEST_DEPTH
from docket.torrent.peer.swarm import Swarm
from tests.torrent.samples import decoded, sample, until

_IMAGE = sample([6_000_000])
_METAINFO = _IMAGE.metainfo()
_BLOCK = 16 * 1024
_BURST = 4 * REQUEST_DEPTH
_PATIENT = 30.0

_INTERESTED, _REQUEST, _PIECE, _EXTENDED = 2, 6, 7, 20
_SPEAKS_EXTENSIONS = b"\0\0\0\0\0\x10\0\0"  # BEP 10


class Peer:
    """A connection to a seed, by BEP 3 and no more than a test needs of it."""

    def __init__(self, port: int, *, name: bytes, reserved: bytes = bytes(8)) -> None:
        hello = b"\x13BitTorrent protocol" + reserved + _METAINFO.info_hash + name + bytes(12)
        self._socket = socket.create_connection(("127.0.0.1", port), timeout=_PATIENT)
        try:
            self._socket.sendall(hello)
            self._read(len(hello))
        except OSError:
            self.close()
            raise

    def close(self) -> None:
        """Leave."""
        self._socket.close()

    def messages(self, *, within: float = _PATIENT) -> Iterator[tuple[int, bytes]]:
        """What the seed sends, until it is silent for so many seconds."""
        self._socket.settimeout(within)
        while True:
            try:
                (size,) = struct.unpack(">I", self._read(4))
            except TimeoutError:
                return
            if size:
                message = self._read(size)
                yield message[0], message[1:]

    def ask(self, blocks: int) -> None:
        """Ask for so many blocks of the large layer at once."""
        (file,) = (file for file in _METAINFO.files if file.size > _BURST * _BLOCK // 10)
        wanted = [divmod(number * _BLOCK, _METAINFO.piece_length) for number in range(blocks)]
        for piece, begin in wanted:
            request = struct.pack(">III", file.first_piece + piece, begin, _BLOCK)
            self._send(_REQUEST, request)

    def be_interested(self) -> None:
        """Say so: the seed unchokes."""
        self._send(_INTERESTED)

    def _send(self, kind: int, payload: bytes = b"") -> None:
        self._socket.sendall(struct.pack(">IB", 1 + len(payload), kind) + payload)

    def _read(self, count: int) -> bytes:
        content = bytearray()
        while len(content) < count:
            block = self._socket.recv(count - len(content))
            if not block:
                raise ConnectionError("the seed has left")
            content += block
        return bytes(content)


@pytest.fixture
def seed(tmp_path: Path) -> Iterator[Swarm]:
    """A seed of the image on loopback, so slow that requests pile up."""
    with Swarm(SessionOptions(listen="127.0.0.1:0", max_upload=4_000_000)) as swarm:
        swarm.seed(_METAINFO, _IMAGE.lay_out(tmp_path / "seed"))
        yield swarm


def test_a_guest_gets_all_that_it_asks_for(seed: Swarm) -> None:
    """A client without the fast extension (BEP 6) gets many blocks that it asks for at once."""
    with closing(_met(seed, name=b"-lt0D80-")) as peer:
        peer.be_interested()
        deadline = time.monotonic() + _PATIENT
        # who it is isn't known at once: what is dropped until then, a client asks for again
        while _blocks_of_a_burst(peer) < _BURST:
            assert time.monotonic() < deadline


def test_hosts_are_told_the_short_depth_again(seed: Swarm) -> None:
    """Once the last guest has left, docket's own hosts are told to ask for few blocks ahead."""
    assert _told_depth(seed) == REQUEST_DEPTH
    with closing(_met(seed, name=b"-lt0D80-")):
        until(lambda: _told_depth(seed) > REQUEST_DEPTH)
    until(lambda: _told_depth(seed) == REQUEST_DEPTH)


def _met(seed: Swarm, *, name: bytes, reserved: bytes = bytes(8)) -> Peer:
    """A peer that the seed has greeted: one that has just begun turns some away."""
    deadline = time.monotonic() + _PATIENT
    while True:
        try:
            return Peer(seed.port, name=name, reserved=reserved)
        except ConnectionError:
            assert time.monotonic() < deadline


def _blocks_of_a_burst(peer: Peer) -> int:
    """How many blocks come for one burst of requests."""
    peer.ask(_BURST)
    count = 0
    for kind, _ in peer.messages(within=1.0):
        count += kind == _PIECE
        if count == _BURST:
            break
    return count


def _told_depth(seed: Swarm) -> int:
    """What the seed tells a new host of docket's to ask for ahead (BEP 10, reqq)."""
    with closing(_met(seed, name=b"-DK0100-", reserved=_SPEAKS_EXTENSIONS)) as peer:
        told = next(payload for kind, payload in peer.messages() if kind == _EXTENDED)
    depth: int = decoded(told[1:])[b"reqq"]
    return depth
