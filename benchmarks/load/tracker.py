"""The registry's tracker under load: announces a second, how long they take, and memory.

A real ``docket registry`` is asked by a second process, as BitTorrent clients ask: a new connection
for each announce, or kept ones. Open loop: announces are due at a steady rate whatever the answers
do, and each one's time runs from when it was due, so that a registry that stalls can't hide it.
Closed loop: as many as it takes.
"""

from __future__ import annotations

import argparse
import json
import multiprocessing
import os
import re
import select
import socket
import subprocess
import tempfile
import threading
import time
from collections import deque
from collections.abc import Iterator
from contextlib import contextmanager, nullcontext
from dataclasses import asdict, dataclass
from io import BytesIO
from pathlib import Path
from typing import BinaryIO
from urllib.parse import quote_from_bytes
from urllib.request import urlopen

from docket.compression import ZSTD
from docket.oci.digest import Digest
from docket.oci.manifest import dump
from docket.oci.reference import Reference
from docket.progress import Silent
from docket.remote.client import Client
from docket.torrent.metainfo import parse_metainfo
from docket.transfer.push import Compression, push
from tests.support.commands import DOCKET

NEW, KEEP_ALIVE = "new connections", "kept-alive connections"

_IMAGE = Reference.parse("bench/announced:1.0")
_LAYER_SIZE = 50_000_000
_IN_FLIGHT = 64
_STALL_SECONDS = 5.0
_BLOCK = 1 << 20


@dataclass(frozen=True, slots=True)
class Row:
    """What the announces of one load took; times in ms from when each was due.

    *cpu* is the registry's CPU time for each of them in µs, with all else that it did meanwhile.
    """

    name: str
    rate: float
    p50: float
    p99: float
    p999: float
    worst: float
    cpu: float
    failed: int


@dataclass(frozen=True, slots=True)
class Load:
    """*rate* announces a second for *seconds*, from *peers* in turn; 0: as many as it takes."""

    name: str
    port: int
    info_hash: bytes
    peers: int
    seconds: float
    rate: float
    keep_alive: bool


@dataclass(frozen=True, slots=True)
class Target:
    """A registry on loopback, and the one image that it has."""

    port: int
    pid: int
    info_hash: bytes
    blob: str

    def resident(self) -> int:
        """Memory in bytes."""
        line = _status(self.pid, "VmRSS:")
        return int(line.split()[1]) * 1024

    def peers(self) -> int:
        """How many peers the tracker knows of."""
        url = f"http://127.0.0.1:{self.port}/scrape?info_hash={quote_from_bytes(self.info_hash)}"
        with urlopen(url, timeout=_STALL_SECONDS) as answer:
            counts = re.search(
                rb"8:completei(\d+)e.*10:incompletei(\d+)e", answer.read(), re.DOTALL
            )
        assert counts
        return int(counts[1]) + int(counts[2])

    def cpu_seconds(self) -> float:
        """CPU time so far, user's and system's."""
        fields = Path(f"/proc/{self.pid}/stat").read_text().rpartition(")")[2].split()
        return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


@dataclass(frozen=True, slots=True)
class _Layer:
    """A layer of noise."""

    content: bytes

    @property
    def diff_id(self) -> Digest:
        return Digest.of(self.content)

    @property
    def size(self) -> int:
        return len(self.content)

    def open_plain(self) -> BinaryIO:
        return BytesIO(self.content)


@contextmanager
def target(folder: Path, *, size: int = _LAYER_SIZE) -> Iterator[Target]:
    """A registry with its store in *folder*, and an image of *size* bytes in it."""
    argv = [*DOCKET, "registry", "--bind", "127.0.0.1", "-p", "0", "-l", str(folder), "--json"]
    with subprocess.Popen(argv, stdout=subprocess.PIPE, text=True) as running:
        try:
            assert running.stdout
            url = json.loads(running.stdout.readline())["url"]
            layer = _Layer(os.urandom(size))
            config = {"architecture": "amd64", "os": "linux", "rootfs": {"type": "layers"}}
            config["rootfs"]["diff_ids"] = [str(layer.diff_id)]  # type: ignore[index]
            with Client(url) as client:
                pushed = push(
                    client,
                    _IMAGE,
                    config=dump(config),
                    layers=[layer],
                    compression=Compression(ZSTD),
                    progress=Silent(),
                )
                torrent = parse_metainfo(client.torrent(_IMAGE)[0])
            port = int(url.rpartition(":")[2])
            blob = f"/v2/{_IMAGE.repository}/blobs/{pushed.layers[0].digest}"
            yield Target(port, running.pid, torrent.info_hash, blob)
        finally:
            running.terminate()


def measured(at: Target, load: Load) -> Row:
    """What *load* brings, from a process of its own."""
    before = at.cpu_seconds()
    with multiprocessing.get_context("spawn").Pool(1) as pool:
        times, failed, seconds = pool.apply(_send, (load,))
    took = sorted(times)
    if not took:
        raise RuntimeError(f"no announce of {load.name} was answered")

    def within(share: float) -> float:
        return 1000 * took[min(int(len(took) * share), len(took) - 1)]

    return Row(
        name=load.name,
        rate=len(took) / seconds,
        p50=within(0.5),
        p99=within(0.99),
        p999=within(0.999),
        worst=1000 * took[-1],
        cpu=1e6 * (at.cpu_seconds() - before) / len(took),
        failed=failed,
    )


@contextmanager
def downloads(at: Target, count: int) -> Iterator[None]:
    """*count* clients in one process that get the image's layer again and again."""
    context = multiprocessing.get_context("spawn")
    process = context.Process(target=_download, args=(at.port, at.blob, count), daemon=True)
    process.start()
    try:
        yield
    finally:
        process.terminate()
        process.join()


# -- in the process of the load


class _Sender:
    """Announces over sockets of its own, and how long each took."""

    def __init__(self, load: Load) -> None:
        self._load = load
        self._poll = select.epoll()
        self._busy: dict[int, tuple[socket.socket, float]] = {}
        self._received: dict[int, bytes] = {}
        self._idle: deque[socket.socket] = deque()
        self._sent = 0
        self.times: list[float] = []
        self.failed = 0

    def open_loop(self) -> float:
        """Send each announce when it is due; seconds that all took."""
        began = time.monotonic()
        due = began
        step = 1 / self._load.rate
        end = began + self._load.seconds
        waiting: deque[float] = deque()
        while due < end or waiting or self._busy:
            now = time.monotonic()
            while due <= now and due < end:
                waiting.append(due)
                due += step
            limit = _IN_FLIGHT if self._load.keep_alive else 1024
            while waiting and len(self._busy) < limit:
                self._announce(waiting.popleft())
            if now > end + _STALL_SECONDS:
                self.failed += len(waiting) + len(self._busy)
                break
            self._take(max(0.0, min(due - time.monotonic(), 0.001)))
        return max(time.monotonic() - began, self._load.seconds)

    def closed_loop(self) -> float:
        """Keep announces in flight; seconds that all took."""
        began = time.monotonic()
        while (now := time.monotonic()) < began + self._load.seconds:
            while len(self._busy) < _IN_FLIGHT:
                self._announce(now)
            self._take(1.0)
        return time.monotonic() - began

    def all_once(self) -> float:
        """Every peer announces once."""
        began = time.monotonic()
        while self._sent < self._load.peers or self._busy:
            while self._sent < self._load.peers and len(self._busy) < _IN_FLIGHT:
                self._announce(time.monotonic())
            self._take(1.0)
        return time.monotonic() - began

    def _announce(self, due: float) -> None:
        number = self._sent % self._load.peers
        self._sent += 1
        connection = self._idle.popleft() if self._idle else self._connected(number)
        try:
            connection.sendall(_request(self._load, number))
        except OSError:
            self._lose(connection)
            return
        self._busy[connection.fileno()] = (connection, due)

    def _connected(self, number: int) -> socket.socket:
        connection = socket.socket()
        # each peer has an address of its own, 250 of them in a /24
        source = f"127.1.{number // 250 % 250}.{number % 250 + 1}"
        connection.setsockopt(socket.IPPROTO_IP, socket.IP_BIND_ADDRESS_NO_PORT, 1)
        connection.bind((source, 0))
        connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        connection.connect(("127.0.0.1", self._load.port))
        connection.setblocking(False)
        self._poll.register(connection, select.EPOLLIN)
        return connection

    def _take(self, seconds: float) -> None:
        for descriptor, _ in self._poll.poll(seconds):
            if descriptor not in self._busy:
                # the registry ends a kept connection that was idle for long
                self._idle = deque(idle for idle in self._idle if idle.fileno() != descriptor)
                self._poll.unregister(descriptor)
                os.close(descriptor)
                continue
            connection, due = self._busy[descriptor]
            block = connection.recv(1 << 16)
            received = self._received.pop(descriptor, b"") + block
            if not block:
                del self._busy[descriptor]
                self._lose(connection)
            elif not _is_whole(received):
                self._received[descriptor] = received
            else:
                del self._busy[descriptor]
                self._note(received, time.monotonic() - due)
                if self._load.keep_alive:
                    self._idle.append(connection)
                else:
                    connection.close()

    def _note(self, received: bytes, seconds: float) -> None:
        if received.startswith(b"HTTP/1.1 200 ") and b"8:interval" in received:
            self.times.append(seconds)
        else:
            self.failed += 1

    def _lose(self, connection: socket.socket) -> None:
        self.failed += 1
        connection.close()


def _send(load: Load) -> tuple[list[float], int, float]:
    """Time of each answered announce, how many weren't, and the seconds that all took."""
    sender = _Sender(load)
    if not load.seconds:
        seconds = sender.all_once()
    else:
        seconds = sender.open_loop() if load.rate else sender.closed_loop()
    return sender.times, sender.failed, seconds


def _request(load: Load, number: int) -> bytes:
    """As libtorrent asks."""
    peer_id = f"-DK0100-{number:012}"
    connections = "keep-alive" if load.keep_alive else "close"
    return (
        f"GET /announce?info_hash={quote_from_bytes(load.info_hash)}&peer_id={peer_id}"
        f"&port={20_000 + number % 40_000}&uploaded=0&downloaded=0&left={number % 4 * 1_000_000}"
        f"&corrupt=0&key={number:08X}&numwant=200&compact=1&no_peer_id=1&supportcrypto=1"
        f"&redundant=0 HTTP/1.1\r\nHost: 127.0.0.1:{load.port}\r\nUser-Agent: docket\r\n"
        f"Accept-Encoding: gzip\r\nConnection: {connections}\r\n\r\n"
    ).encode()


def _is_whole(received: bytes) -> bool:
    head, gap, body = received.partition(b"\r\n\r\n")
    if not gap:
        return False
    length = head.lower().partition(b"content-length: ")[2].partition(b"\r\n")[0]
    return len(body) >= int(length)


# -- in the process of the downloads


def _download(port: int, path: str, count: int) -> None:
    threads = [threading.Thread(target=_get_for_ever, args=(port, path)) for _ in range(count)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()


def _get_for_ever(port: int, path: str) -> None:
    buffer = bytearray(_BLOCK)
    while True:
        with socket.create_connection(("127.0.0.1", port)) as connection:
            connection.sendall(
                f"GET {path} HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n".encode()
            )
            while connection.recv_into(buffer):
                pass


# -- the command


def run(
    folder: Path, *, peers: int, seconds: float, rates: list[float], streams: int
) -> dict[str, object]:
    """All loads, one after the other, at one registry; memory in bytes."""
    rows = []
    with target(folder) as at:
        empty = at.resident()

        def load(name: str, *, rate: float, keep_alive: bool, seconds: float = seconds) -> Load:
            return Load(name, at.port, at.info_hash, peers, seconds, rate, keep_alive)

        measured(at, load("all once", rate=0, keep_alive=True, seconds=0))
        filled = at.resident()
        for beside in (0, streams):
            with downloads(at, beside) if beside else nullcontext():
                behind = f", {beside} downloads" if beside else ""
                for connections, keep_alive in ((NEW, False), (KEEP_ALIVE, True)):
                    for rate in rates:
                        name = f"{rate:.0f}/s, {connections}{behind}"
                        rows.append(measured(at, load(name, rate=rate, keep_alive=keep_alive)))
                    rows.append(
                        measured(
                            at, load(f"most, {connections}{behind}", rate=0, keep_alive=keep_alive)
                        )
                    )
        memory = {"empty": empty, "with_peers": filled, "at_the_end": at.resident()}
    return {"peers": peers, "rows": [asdict(row) for row in rows], "rss": memory}


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(prog="benchmarks.load.tracker", description=__doc__)
    parser.add_argument("--json", action="store_true", help="print JSON")
    parser.add_argument("--peers", type=int, default=15_000, help="in one swarm (15000)")
    parser.add_argument("--seconds", type=float, default=20, help="of each load (20)")
    parser.add_argument(
        "--rate",
        type=float,
        nargs="+",
        default=[1000, 5000],
        help="announces a second of the open loops (1000 and 5000)",
    )
    parser.add_argument("--downloads", type=int, default=8, help="streams beside (8); 0: none")
    parser.add_argument("--folder", type=Path, help="where the store goes (a temporary folder)")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="docket-tracker-", dir=options.folder) as folder:
        measured_loads = run(
            Path(folder),
            peers=options.peers,
            seconds=options.seconds,
            rates=options.rate,
            streams=options.downloads,
        )
    if options.json:
        print(json.dumps(measured_loads))
    else:
        _print(measured_loads)


def _print(measured_loads: dict[str, object]) -> None:
    print(f"{'announces':42}{'/s':>8}{'p50':>9}{'p99':>9}{'p99.9':>9}{'max ms':>9}{'CPU µs':>8}")
    for row in measured_loads["rows"]:  # type: ignore[attr-defined]
        times = "".join(f"{row[key]:9.2f}" for key in ("p50", "p99", "p999", "worst"))
        failed = f"  {row['failed']} failed" if row["failed"] else ""
        print(f"{row['name']:42}{row['rate']:8.0f}{times}{row['cpu']:8.0f}{failed}")
    rss = measured_loads["rss"]
    shown = ", ".join(f"{name} {size / 1e6:.1f} MB" for name, size in rss.items())  # type: ignore[attr-defined]
    print(f"RSS with {measured_loads['peers']} peers: {shown}")


def _status(pid: int, key: str) -> str:
    lines = Path(f"/proc/{pid}/status").read_text().splitlines()
    return next(line for line in lines if line.startswith(key))


if __name__ == "__main__":
    main()
