"""Docket's registry beside Debian's docker-registry: blobs a second in and out, and memory.

Both run on loopback with stores on the same disk and are asked in turn by the same clients:
processes of their own that drop what they get and send a file that is in memory. Both sync a blob
before they answer a PUT; docket syncs its name and its record too. The rows "then sync" count the
time until the whole disk is synced after the answer, so that both have done the same.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import multiprocessing
import os
import shutil
import socket
import tempfile
import time
from collections import defaultdict
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import asdict, dataclass
from multiprocessing.pool import Pool
from pathlib import Path
from threading import Barrier

from benchmarks import resources
from benchmarks.summary import Summary
from tests.support import servers
from tests.support.servers import Server, StartServer

MB = 1_000_000
STREAMS = (1, 8)
MANY_CLIENTS = 20
"""Clients at once where memory is measured."""

_REPOSITORY = "bench/blob"
_BLOCK = 1 << 20
_TAIL = 32

# when a request began and ended, on the clock that all processes share
_Span = tuple[float, float]

_barrier: Barrier


@dataclass(frozen=True, slots=True)
class Body:
    """A blob of *size* bytes: what is in the file *head*, then *tail*, which makes it unique."""

    head: Path
    tail: bytes
    size: int
    digest: str


@dataclass(frozen=True, slots=True)
class Row:
    """Bytes a second of one kind of request, by registry."""

    name: str
    docket: Summary
    registry: Summary

    @property
    def ratio(self) -> float:
        """Docket's median over the other's."""
        return self.docket.median / self.registry.median


class Bodies:
    """Blobs of one size, each another one, without a new file or a hash of all for each."""

    def __init__(self, head: Path, size: int) -> None:
        self._head = head
        self._size = size
        self._running = hashlib.sha256()
        with head.open("wb") as file:
            for start in range(0, size - _TAIL, _BLOCK):
                block = os.urandom(min(_BLOCK, size - _TAIL - start))
                self._running.update(block)
                file.write(block)

    def take(self, count: int) -> list[Body]:
        """*count* blobs that no registry has."""
        return [self._one(os.urandom(_TAIL)) for _ in range(count)]

    def _one(self, tail: bytes) -> Body:
        running = self._running.copy()
        running.update(tail)
        return Body(self._head, tail, self._size, f"sha256:{running.hexdigest()}")


class Clients:
    """Client processes that begin their requests at the same time."""

    def __init__(self, count: int) -> None:
        self.count = count
        context = multiprocessing.get_context("spawn")
        self._pool: Pool = context.Pool(count, _meet_at, (context.Barrier(count),))

    def __enter__(self) -> Clients:
        return self

    def __exit__(self, *_exc: object) -> None:
        self._pool.terminate()
        self._pool.join()

    def get(self, server: Server, body: Body) -> float:
        """Every client gets *body*; bytes a second of all together."""
        return self._rate(_get, [(server.port, body)] * self.count, body.size)

    def put(self, server: Server, bodies: list[Body]) -> float:
        """Every client puts one of *bodies*; bytes a second of all together."""
        return self._rate(_put, [(server.port, body) for body in bodies], bodies[0].size)

    def _rate(
        self, work: Callable[[int, Body], _Span], tasks: list[tuple[int, Body]], size: int
    ) -> float:
        spans: list[_Span] = self._pool.starmap(work, tasks, chunksize=1)
        return size * self.count / (max(end for _, end in spans) - min(start for start, _ in spans))


SERVERS: dict[str, StartServer] = {
    "docket": servers.docket,
    "registry": servers.docker_registry,
}


def measure(folder: Path, *, size: int, runs: int) -> list[Row]:
    """Every kind of request *runs* times at both, which take turns."""
    rates: dict[str, dict[str, list[float]]] = defaultdict(lambda: defaultdict(list))
    bodies = Bodies(folder / "head", size)
    with ExitStack() as stack:
        groups = [stack.enter_context(Clients(count)) for count in STREAMS]
        for _ in range(runs):
            # empty stores each time: what is on the disk doesn't grow with the runs
            with _both(folder) as servers:
                for clients in groups:
                    for server_name, server in servers.items():
                        for name, rate in _turn(clients, server, bodies):
                            rates[name][server_name].append(rate)
    return [
        Row(name, Summary.of(by_server["docket"]), Summary.of(by_server["registry"]))
        for name, by_server in sorted(rates.items())
    ]


def memory_of_many_clients(folder: Path, *, size: int) -> dict[str, dict[str, int]]:
    """Peak memory of both, in bytes, while `MANY_CLIENTS` clients stream blobs of *size* bytes."""
    bodies = Bodies(folder / "head", size)
    with Clients(MANY_CLIENTS) as clients, _both(folder) as servers:
        return {
            server_name: memory_at(server, clients, bodies)
            for server_name, server in servers.items()
        }


def memory_at(server: Server, clients: Clients, bodies: Bodies) -> dict[str, int]:
    """The same for one *server*: after all *clients* got a blob, and after each put one more."""
    first = bodies.take(1)
    _put_alone(server.port, first[0])
    clients.get(server, first[0])
    got = resources.peak_rss(server.pid)
    clients.put(server, bodies.take(clients.count))
    return {"GET": got, "PUT": resources.peak_rss(server.pid)}


def _turn(clients: Clients, server: Server, bodies: Bodies) -> Iterator[tuple[str, float]]:
    """What one server does; the disk is idle before each PUT."""
    streams = f"{clients.count} stream{'s' if clients.count > 1 else ''}"
    taken = bodies.take(clients.count)
    os.sync()
    rate = clients.put(server, taken)
    answered = time.monotonic()
    os.sync()
    seconds = time.monotonic() - answered
    yield f"PUT {streams}", rate
    total = taken[0].size * len(taken)
    yield f"PUT {streams}, then sync", total / (total / rate + seconds)
    yield f"GET {streams}", clients.get(server, taken[0])


@contextmanager
def _both(folder: Path) -> Iterator[dict[str, Server]]:
    stores = {server_name: folder / server_name for server_name in SERVERS}
    try:
        with ExitStack() as stack:
            yield {
                server_name: stack.enter_context(start(stores[server_name]))
                for server_name, start in SERVERS.items()
            }
    finally:
        for store in stores.values():
            shutil.rmtree(store, ignore_errors=True)


# -- in a client's process


def _meet_at(barrier: Barrier) -> None:
    global _barrier
    _barrier = barrier


def _get(port: int, body: Body) -> _Span:
    buffer = bytearray(_BLOCK)
    with socket.create_connection(("127.0.0.1", port)) as connection:
        _barrier.wait()
        start = time.monotonic()
        _ask(connection, f"GET /v2/{_REPOSITORY}/blobs/{body.digest}", 0)
        status, headers, received = _answer(connection)
        _expect(status == 200 and int(headers["content-length"]) == body.size, status)
        while received < body.size:
            count = connection.recv_into(buffer)
            _expect(count > 0, "the connection ended early")
            received += count
        return start, time.monotonic()


def _put(port: int, body: Body) -> _Span:
    _barrier.wait()
    start = time.monotonic()
    _put_alone(port, body)
    return start, time.monotonic()


def _put_alone(port: int, body: Body) -> None:
    with socket.create_connection(("127.0.0.1", port)) as connection:
        _ask(connection, f"POST /v2/{_REPOSITORY}/blobs/uploads/", 0)
        status, headers, _ = _answer(connection)
        _expect(status == 202, status)
        path = "/" + headers["location"].removeprefix("http://").partition("/")[2]
        joint = "&" if "?" in path else "?"
        _ask(connection, f"PUT {path}{joint}digest={body.digest}", body.size)
        with body.head.open("rb") as head:
            connection.sendfile(head)
        connection.sendall(body.tail)
        status, _, _ = _answer(connection)
        _expect(status == 201, status)


def _ask(connection: socket.socket, request: str, size: int) -> None:
    fields = f"Host: 127.0.0.1\r\nContent-Type: application/octet-stream\r\nContent-Length: {size}"
    connection.sendall(f"{request} HTTP/1.1\r\n{fields}\r\n\r\n".encode())


def _answer(connection: socket.socket) -> tuple[int, dict[str, str], int]:
    """Status, headers by lower-case name, and how many bytes of the body came along."""
    received = b""
    while b"\r\n\r\n" not in received:
        block = connection.recv(1 << 16)
        _expect(bool(block), "the connection ended early")
        received += block
    head, _, body_start = received.partition(b"\r\n\r\n")
    first, *lines = head.decode().split("\r\n")
    split = (line.partition(":") for line in lines)
    headers = {key.lower(): value.strip() for key, _, value in split}
    return int(first.split()[1]), headers, len(body_start)


def _expect(right: bool, request: object) -> None:
    if not right:
        raise RuntimeError(f"unexpected response: {request}")


# -- the command


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(prog="benchmarks.load.throughput", description=__doc__)
    parser.add_argument("--json", action="store_true", help="print JSON")
    parser.add_argument("--runs", type=int, default=5, help="how often each is measured (5)")
    parser.add_argument("--size", type=int, default=200, metavar="MB", help="of a blob (200)")
    parser.add_argument("--folder", type=Path, help="where the stores go (a temporary folder)")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="docket-throughput-", dir=options.folder) as folder:
        rows = measure(Path(folder), size=options.size * MB, runs=options.runs)
        memory = memory_of_many_clients(Path(folder), size=options.size * MB)
    if options.json:
        listed = [{**asdict(row), "ratio": row.ratio} for row in rows]
        print(json.dumps({"bytes_per_second": listed, "peak_rss": memory}))
    else:
        _print(rows, memory, options.size)


def _print(rows: list[Row], memory: dict[str, dict[str, int]], size: int) -> None:
    print(f"{f'MB/s of {size} MB blobs':28}{'docket':>22}{'docker-registry':>22}{'ratio':>8}")
    for row in rows:
        print(
            f"{row.name:28}{row.docket.shown(MB):>22}{row.registry.shown(MB):>22}{row.ratio:8.2f}"
        )
    print(f"RSS while {MANY_CLIENTS} clients stream {size} MB blobs")
    for verb in ("GET", "PUT"):
        docket_rss, registry_rss = (
            f"{memory[server_name][verb] / MB:.0f} MB" for server_name in SERVERS
        )
        print(f"{verb:28}{docket_rss:>22}{registry_rss:>22}")


if __name__ == "__main__":
    main()
