"""Peers that do harm, as a program that tests run on a host: ``KIND TORRENT ADDRESS COUNT``.

``silent`` accepts connections and never sends a byte; ``stalling`` says that it has all, takes
requests and never gives a block; ``dead`` announces *count* addresses from ADDRESS on and goes;
``corrupt`` serves other bytes than the torrent's. Each kind announces itself as docket's hosts do.
It says ``ready`` when it has, and ``corrupt`` says how many bytes it gave when its input ends.
"""

from __future__ import annotations

import http.client
import ipaddress
import os
import socket
import sys
import tempfile
import threading
from pathlib import Path
from urllib.parse import quote, urlencode, urlsplit

from docket.torrent.metainfo import Metainfo, parse_metainfo
from docket.torrent.peer.session_options import SessionOptions
from docket.torrent.peer.swarm import Swarm

_PROTOCOL = b"\x13BitTorrent protocol"
_HANDSHAKE = 68
_BITFIELD, _UNCHOKE = 5, 1


def main(kind: str, torrent: str, address: str, count: str) -> None:
    """Be *count* peers of *kind* until standard input ends."""
    metainfo = parse_metainfo(Path(torrent).read_bytes())
    if kind == "corrupt":
        _be_corrupt(metainfo, address, int(count))
    elif kind == "dead":
        for number in range(int(count)):
            _announce(metainfo, str(ipaddress.ip_address(address) + number), 6881)
        _say("ready")
    else:
        for _ in range(int(count)):
            _listen(metainfo, address, stalling=kind == "stalling")
        _wait()


def _wait() -> None:
    _say("ready")
    sys.stdin.read()


def _say(text: str) -> None:
    sys.stdout.write(f"{text}\n")
    sys.stdout.flush()


def _announce(metainfo: Metainfo, address: str, port: int) -> None:
    """Tell the torrent's tracker that a seed is at *address*."""
    url = urlsplit(metainfo.announce)
    query = {"info_hash": metainfo.info_hash, "peer_id": _peer_id(), "port": port, "left": 0}
    connection = http.client.HTTPConnection(url.netloc, source_address=(address, 0))
    connection.request("GET", f"{url.path}?{urlencode(query, quote_via=quote)}")
    answer = connection.getresponse().read()
    assert b"failure" not in answer, answer
    connection.close()


def _listen(metainfo: Metainfo, address: str, *, stalling: bool) -> None:
    listening = socket.create_server((address, 0), backlog=200)
    _announce(metainfo, address, listening.getsockname()[1])

    def accept() -> None:
        kept = []
        while True:
            connection, _ = listening.accept()
            kept.append(connection)
            if stalling:
                threading.Thread(target=_stall, args=(metainfo, connection), daemon=True).start()

    threading.Thread(target=accept, daemon=True).start()


def _stall(metainfo: Metainfo, connection: socket.socket) -> None:
    """BEP 3's handshake, "I have all", "ask me", and silence."""
    connection.recv(_HANDSHAKE, socket.MSG_WAITALL)
    count = metainfo.piece_count
    bits = (((1 << count) - 1) << (-count % 8)).to_bytes((count + 7) // 8, "big")
    connection.sendall(
        _PROTOCOL
        + bytes(8)
        + metainfo.info_hash
        + _peer_id()
        + _message(_BITFIELD, bits)
        + _message(_UNCHOKE)
    )
    while connection.recv(1 << 16):
        pass


def _message(kind: int, payload: bytes = b"") -> bytes:
    return (1 + len(payload)).to_bytes(4, "big") + bytes([kind]) + payload


def _peer_id() -> bytes:
    return b"-XX0001-" + os.urandom(12)


def _be_corrupt(metainfo: Metainfo, address: str, count: int) -> None:
    """Seeds that libtorrent trusts to have the torrent, over files of other bytes."""
    swarms = []
    for _ in range(count):
        folder = Path(tempfile.mkdtemp(prefix="dkbad")) / metainfo.name
        for file in metainfo.files:
            path = folder / file.path
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_bytes(os.urandom(file.size))
        swarms.append(Swarm(SessionOptions(listen=f"{address}:0")))
        swarms[-1].seed(metainfo, folder)
    _wait()
    _say(" ".join(str(swarm.uploaded(metainfo.info_hash)) for swarm in swarms))


if __name__ == "__main__":
    main(*sys.argv[1:])
