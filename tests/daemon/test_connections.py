"""How many connections there may be, and how long each may wait for its client."""

from __future__ import annotations

import asyncio
import socket
from collections.abc import AsyncIterator, Callable, Coroutine
from contextlib import asynccontextmanager
from typing import Any

import pytest
import uvicorn
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import Response, StreamingResponse
from starlette.routing import Route
from uvicorn.server import ServerState

from docket.api import Registry
from docket.api.fast_announce import FastAnnounce
from docket.daemon.connection_table import ConnectionTable
from docket.daemon.http_protocol import MAX_PIPELINED, BoundedHttp

HEAD = b"HTTP/1.1\r\nHost: x\r\n"


class Fake:
    """A connection of the table; *idle* says what the table asks."""

    def __init__(self, *, idle: bool = False) -> None:
        self.idle = idle
        self.aborted = False

    def is_idle(self) -> bool:
        return self.idle

    def is_overdue(self, now: float) -> bool:
        return now > 1

    def abort(self) -> None:
        self.aborted = True


def test_one_address_takes_no_more_than_its_share() -> None:
    """Three quarters of all connections; other addresses have the rest."""
    table = ConnectionTable(256 + 3 * 400)
    assert (table.limit, table.limit_by_address) == (400, 300)
    taken = [table.admit(Fake(), "192.0.2.1") for _ in range(301)]
    assert taken == [True] * 300 + [False]
    assert [table.admit(Fake(), "192.0.2.2") for _ in range(101)] == [True] * 100 + [False]


def test_all_addresses_of_a_64_are_one() -> None:
    """One host may have every address of an IPv6 /64; IPv4 may come over IPv6 sockets."""
    table = ConnectionTable(256 + 3 * 400)
    taken = [table.admit(Fake(), f"2001:db8::{number:x}") for number in range(301)]
    assert taken == [True] * 300 + [False]
    assert table.admit(Fake(), "2001:db8:0:1::1")
    for number in range(99):
        assert table.admit(Fake(), "::ffff:192.0.2.1" if number % 2 else "192.0.2.1")


def test_an_idle_connection_makes_room() -> None:
    """Hoarding connections keeps nobody out: the oldest that does nothing is closed."""
    table = ConnectionTable(256 + 3 * 64)
    old, busy, young = Fake(idle=True), Fake(), Fake(idle=True)
    connections = [busy, old, young, *(Fake() for _ in range(45))]
    assert all(table.admit(connection, "192.0.2.1") for connection in connections)
    assert table.admit(Fake(), "192.0.2.1")
    assert [old.aborted, busy.aborted, young.aborted] == [True, False, False]


def test_a_trusted_proxy_speaks_for_many() -> None:
    """Its address may have all connections, and no more."""
    table = ConnectionTable(256 + 3 * 64, unlimited={"192.0.2.1"})
    assert [table.admit(Fake(), "192.0.2.1") for _ in range(65)] == [True] * 64 + [False]


def test_closed_connections_give_their_places_back() -> None:
    """However often, and whichever protocol had the connection last."""
    table = ConnectionTable(256 + 3 * 64)
    for _ in range(200):
        first, second = Fake(), Fake()
        assert table.admit(first, "192.0.2.1")
        table.replace(first, second)
        table.remove(first)
        table.remove(second)
        table.remove(second)
    assert len(table) == 0


# -- real connections


class Server:
    """A small application behind the real protocols; what its requests wait for is `release`."""

    def __init__(self) -> None:
        self.table = ConnectionTable(4096)
        self.release = asyncio.Event()
        self.calls = 0

    @asynccontextmanager
    async def client(self) -> AsyncIterator[tuple[asyncio.StreamReader, asyncio.StreamWriter]]:
        """A connection to it."""
        app = Starlette(
            routes=[
                Route("/wait", self._wait),
                Route("/body", self._body, methods=["POST"]),
                Route("/refuse", self._refuse, methods=["POST"]),
                Route("/large", self._large),
            ]
        )
        app.state.registry = Registry(None, None, None)  # type: ignore[arg-type]
        app.state.connections = self.table
        app.state.http_protocol = BoundedHttp
        config = uvicorn.Config(app, http=FastAnnounce, log_level="critical", lifespan="off")
        config.load()
        state = ServerState()
        loop = asyncio.get_running_loop()
        server = await loop.create_server(
            lambda: FastAnnounce(config, state, {}, loop), "127.0.0.1", 0
        )
        host, port = server.sockets[0].getsockname()
        reader, writer = await asyncio.open_connection(host, port, limit=1 << 12)
        try:
            yield reader, writer
        finally:
            writer.transport.abort()
            server.close()
            self.release.set()

    def later(self, seconds: float) -> None:
        """As if so many seconds had gone by."""
        self.table.end_overdue(asyncio.get_running_loop().time() + seconds)

    async def _wait(self, _request: Request) -> Response:
        self.calls += 1
        await self.release.wait()
        return Response("done")

    async def _body(self, request: Request) -> Response:
        self.calls += 1
        return Response(str(len(await request.body())))

    async def _refuse(self, _request: Request) -> Response:
        self.calls += 1
        return Response("no", status_code=400)

    async def _large(self, _request: Request) -> Response:
        self.calls += 1

        async def blocks() -> AsyncIterator[bytes]:
            for _ in range(1000):
                yield bytes(1 << 16)

        return StreamingResponse(blocks())


async def settle(server: Server, calls: int = 0) -> None:
    """Wait until the server has its connection, and was called so often."""
    await until(lambda: len(server.table) > 0 and server.calls >= calls)


async def until(condition: Callable[[], bool]) -> None:
    """Let the server work until *condition* holds."""
    async with asyncio.timeout(30):
        for _ in iter(condition, True):
            await asyncio.sleep(0)


async def is_closed(reader: asyncio.StreamReader) -> bool:
    """Wait for the end of the connection."""
    try:
        async with asyncio.timeout(30):
            while await reader.read(1 << 16):
                pass
    except ConnectionError:
        pass
    return True


Steps = Callable[[Server, asyncio.StreamReader, asyncio.StreamWriter], Coroutine[Any, Any, None]]


def talk(steps: Steps) -> None:
    """Run *steps* with a server and a connection to it."""

    async def run() -> None:
        server = Server()
        async with server.client() as (reader, writer):
            await steps(server, reader, writer)

    asyncio.run(run())


@pytest.mark.parametrize(
    ("sent", "calls", "seconds"),
    [
        (b"", 0, 31),
        (b"GET /wait HTTP/1.1\r\nHost:", 0, 31),
        (b"POST /body " + HEAD + b"Content-Length: 10\r\n\r\nhalf", 1, 61),
        (b"POST /body " + HEAD + b"Transfer-Encoding: chunked\r\n\r\n4\r\nha", 1, 61),
        (b"POST /refuse " + HEAD + b"Content-Length: 10\r\n\r\nhalf", 1, 11),
    ],
    ids=["nothing", "half a head", "half a body", "half a chunk", "refused, and not done"],
)
def test_a_client_that_stops(sent: bytes, calls: int, seconds: float) -> None:
    """Each wait for a client has an end, and none before its time."""

    async def steps(
        server: Server, reader: asyncio.StreamReader, writer: asyncio.StreamWriter
    ) -> None:
        writer.write(sent)
        await settle(server, calls)
        for _ in range(20):
            await asyncio.sleep(0)
        server.later(seconds / 2)
        assert len(server.table) == 1
        assert not reader.at_eof()
        server.later(seconds)
        assert await is_closed(reader)

    talk(steps)


def test_a_response_that_takes_long_has_no_end() -> None:
    """The client has done its part: fsck may take hours."""

    async def steps(
        server: Server, reader: asyncio.StreamReader, writer: asyncio.StreamWriter
    ) -> None:
        writer.write(b"GET /wait " + HEAD + b"\r\n")
        await settle(server, 1)
        server.later(100_000)
        server.release.set()
        assert (await reader.readline()).startswith(b"HTTP/1.1 200")

    talk(steps)


def test_a_reader_that_takes_nothing() -> None:
    """Little of a response is held, and not for ever."""

    async def steps(
        server: Server, reader: asyncio.StreamReader, writer: asyncio.StreamWriter
    ) -> None:
        writer.get_extra_info("socket").setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
        transport: Any = writer.transport
        transport.pause_reading()
        writer.write(b"GET /large " + HEAD + b"\r\n")
        await settle(server, 1)
        connection: Any = next(iter(server.table._addresses))
        await until(lambda: bool(connection.flow.write_paused))
        assert connection.transport.get_write_buffer_size() < 256 * 1024
        server.later(30)
        assert len(server.table) == 1
        server.later(100)
        await until(lambda: len(server.table) == 0)

    talk(steps)


@pytest.mark.parametrize(
    ("sent", "status"),
    [
        (b"GET /" + b"a" * 70_000 + b" " + HEAD + b"\r\n", b"414"),
        (b"GET / " + HEAD + b"a:b\r\n" * 200 + b"\r\n", b"431"),
    ],
    ids=["a long line", "many fields"],
)
def test_a_head_that_is_too_large(sent: bytes, status: bytes) -> None:
    """The response is JSON, and the connection closed."""

    async def steps(
        server: Server, reader: asyncio.StreamReader, writer: asyncio.StreamWriter
    ) -> None:
        writer.write(sent)
        answer = await reader.read(1 << 12)
        assert answer.startswith(b"HTTP/1.1 " + status)
        assert b'{"errors":[{"code":' in answer
        assert await is_closed(reader)

    talk(steps)


@pytest.mark.parametrize(
    "begin",
    [
        b"GET /body " + HEAD + b"x: ",
        b"POST /body " + HEAD + b"Transfer-Encoding: chunked\r\n\r\n0\r\nx: ",
        b"POST /body " + HEAD + b"Transfer-Encoding: chunked\r\n\r\n4;x=",
    ],
    ids=["a field", "a field after a body", "a chunk's extension"],
)
def test_a_part_that_never_ends(begin: bytes) -> None:
    """Nothing that the parser keeps, or skips, may go on for ever."""

    async def steps(
        server: Server, reader: asyncio.StreamReader, writer: asyncio.StreamWriter
    ) -> None:
        writer.write(begin)
        try:
            for _ in range(100):
                writer.write(b"a" * 65_536)
                await writer.drain()
        except ConnectionError:
            return
        assert await is_closed(reader)

    talk(steps)


def test_requests_ahead_of_their_responses() -> None:
    """A few wait; a thousand end the connection, before they are all kept."""

    async def steps(
        server: Server, reader: asyncio.StreamReader, writer: asyncio.StreamWriter
    ) -> None:
        request = b"GET /wait " + HEAD + b"\r\n"
        writer.write(request * (MAX_PIPELINED // 2))
        await settle(server, 1)
        server.release.set()
        for _ in range(MAX_PIPELINED // 2):
            answer = await reader.readuntil(b"done")
            assert answer.startswith(b"HTTP/1.1 200")
        server.release.clear()
        writer.write(request * 1000)
        assert await is_closed(reader)
        assert server.calls <= MAX_PIPELINED // 2 + 1

    talk(steps)
