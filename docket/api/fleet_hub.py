"""The registry's side of its agents: streams of orders, hosts, deploys, and waiting for news.

All of it belongs to the event loop; files are written in threads.
"""

from __future__ import annotations

import asyncio
import logging
import random
import threading
from collections import deque
from collections.abc import Iterable
from pathlib import Path

import msgspec
from anyio.to_thread import run_sync
from starlette.responses import Response
from starlette.types import Receive, Scope, Send

from docket.errors import HostUnknown
from docket.fleet.deploy import Deploy
from docket.fleet.deploy_files import DeployFiles
from docket.fleet.deploy_log import Row
from docket.fleet.deploys import Deploys, Effects
from docket.fleet.hosts import Hosts
from docket.wire import AgentReport, DeployRequest, HostInfo, Order

PING_SECONDS = 60.0
"""An agent's stream is never silent for longer."""

TICK_SECONDS = 1.0
MIN_NEWS_SECONDS = 0.3
"""A client that follows a deploy gets changes at most this often."""

_MAX_WAITING = 64
"""Orders that wait for one agent; one that reads none of them is disconnected."""

log = logging.getLogger("docket.fleet")


def _line(order: Order) -> bytes:
    return msgspec.json.encode(order) + b"\n"


_PING = _line(Order(action="ping"))


class Inbox:
    """The orders that wait for one connected agent, as the lines that it reads."""

    __slots__ = ("_event", "_lines", "is_closed")

    def __init__(self) -> None:
        self._lines: deque[bytes] = deque()
        self._event = asyncio.Event()
        self.is_closed = False

    def put(self, line: bytes) -> None:
        """Send *line* with the next turn; an agent that reads nothing is disconnected."""
        if len(self._lines) >= _MAX_WAITING:
            self.close()
        self._lines.append(line)
        self._event.set()

    def close(self) -> None:
        """End the stream."""
        self.is_closed = True
        self._event.set()

    async def get(self, seconds: float) -> bytes:
        """What came within *seconds*; a ping when nothing did."""
        try:
            async with asyncio.timeout(seconds):
                await self._event.wait()
        except TimeoutError:
            return _PING
        self._event.clear()
        lines = b"".join(self._lines)
        self._lines.clear()
        return lines


class FleetHub:
    """Hosts, deploys, and the connections of agents."""

    def __init__(self) -> None:
        self.hosts = Hosts()
        self.deploys = Deploys(self.hosts)
        self._files: DeployFiles | None = None
        self._inboxes: dict[str, Inbox] = {}
        self._pending: list[Effects] = []
        self._news = asyncio.Condition()
        self._writing = asyncio.Lock()
        self._starting = asyncio.Lock()
        self._ticking: asyncio.Task[None] | None = None
        self.is_closed = False

    async def start(self, location: Path, stop: threading.Event) -> None:
        """Restore the deploys of the store at *location*, and watch them; again is a no-op.

        All streams end soon after *stop* is set.
        """
        async with self._starting:
            if self._ticking is None:
                self._files = files = DeployFiles(location)
                for deploy_id, rows in await run_sync(_read_logs, files):
                    self.deploys.restore(deploy_id, rows)
                self._ticking = asyncio.create_task(self._tick(stop))

    def close(self) -> None:
        """End all streams, for the registry is about to stop."""
        self.is_closed = True
        for inbox in self._inboxes.values():
            inbox.close()

    # -- agents

    async def connect(self, info: HostInfo, address: str) -> Inbox:
        """The agent of a host has connected; an earlier connection of it ends."""
        if before := self._inboxes.get(info.id):
            before.close()
        inbox = self._inboxes[info.id] = Inbox()
        self.hosts.connect(info, address)
        await self.apply(self.deploys.host_connected(info.id))
        return inbox

    async def disconnect(self, host_id: str, inbox: Inbox) -> None:
        """The agent's connection has ended, unless a newer one has taken its place."""
        if self._inboxes.get(host_id) is inbox:
            del self._inboxes[host_id]
            self.hosts.disconnect(host_id)
            await self.apply(self.deploys.host_left(host_id))

    async def report(self, host_id: str, body: AgentReport) -> None:
        """Take an agent's report. Raises `HostUnknown` when it should connect first."""
        host = self.hosts.see(host_id)
        if host is None or host_id not in self._inboxes:
            raise HostUnknown(host_id)
        if body.host and body.host.id == host_id:
            self.hosts.connect(body.host, host.address)
        for report in body.reports:
            await self.apply(self.deploys.report(host_id, report))

    def send(self, orders: Iterable[tuple[str, Order]]) -> None:
        """Send orders to those agents that are connected."""
        # a fleet gets the same order: it is encoded once
        latest, line = None, b""
        for host_id, order in orders:
            if order is not latest:
                latest, line = order, _line(order)
            if inbox := self._inboxes.get(host_id):
                inbox.put(line)

    # -- deploys

    async def create(self, request: DeployRequest, digest: str) -> Deploy:
        """Begin a deploy. Returning means that it survives a restart."""
        deploy, effects = self.deploys.create(request, digest)
        await self.apply(effects)
        return deploy

    async def news(self, deploy: Deploy, after: int, seconds: float) -> None:
        """Wait until *deploy* is at a later revision than *after*, or for *seconds*."""
        if deploy.revision > after or not deploy.is_running:
            return
        try:
            async with asyncio.timeout(seconds), self._news:
                await self._news.wait_for(
                    lambda: deploy.revision > after or not deploy.is_running or self.is_closed
                )
        except TimeoutError:
            return
        # what comes together is told together
        await asyncio.sleep(MIN_NEWS_SECONDS)

    async def apply(self, effects: Effects) -> None:
        """Make the rows durable, then send the orders."""
        if effects.rows or effects.forgotten:
            self._pending.append(effects)
            async with self._writing:
                await self._flush()
        self.send(effects.orders)
        async with self._news:
            self._news.notify_all()

    async def _flush(self) -> None:
        """Write what all callers have added meanwhile: one sync serves a thousand reports."""
        batch, self._pending = self._pending, []
        try:
            await run_sync(self._write, batch)
        except BaseException:
            # who waits for the lock finds its rows here again, and gets an error of its own
            self._pending = batch + self._pending
            raise

    def _write(self, batch: list[Effects]) -> None:
        assert self._files
        rows: dict[str, list[Row]] = {}
        for deploy_id, row in (pair for effects in batch for pair in effects.rows):
            rows.setdefault(deploy_id, []).append(row)
        for deploy_id, lines in rows.items():
            self._files.append(deploy_id, lines)
        for deploy_id in (gone for effects in batch for gone in effects.forgotten):
            self._files.remove(deploy_id)

    async def _tick(self, stop: threading.Event) -> None:
        while not stop.is_set():
            await asyncio.sleep(TICK_SECONDS)
            try:
                await self.apply(self.deploys.tick())
            except Exception:  # the outermost edge of a task that must not end
                log.exception("a deploy could not go on; trying again")
        self.close()


def _read_logs(files: DeployFiles) -> list[tuple[str, list[Row]]]:
    return [(deploy_id, list(rows)) for deploy_id, rows in files.read_all()]


class OrderStream(Response):
    """The answer to an agent that connects: a JSON line an order, for as long as it stays."""

    media_type = "application/x-ndjson"

    def __init__(self, hub: FleetHub, info: HostInfo, address: str) -> None:
        super().__init__(headers={"Cache-Control": "no-store"})
        del self.headers["Content-Length"]
        self._hub = hub
        self._info = info
        self._address = address

    async def __call__(self, _scope: Scope, receive: Receive, send: Send) -> None:
        start = {"type": "http.response.start", "status": 200, "headers": self.raw_headers}
        await send(start)
        inbox = await self._hub.connect(self._info, self._address)
        watching = asyncio.create_task(_until_gone(receive, inbox))
        try:
            while not inbox.is_closed and not self._hub.is_closed:
                # apart from each other, so that pings of a whole fleet don't come at once
                lines = await inbox.get(PING_SECONDS * random.uniform(0.5, 1.0))  # noqa: S311
                await send({"type": "http.response.body", "body": lines, "more_body": True})
            await send({"type": "http.response.body", "body": b"", "more_body": False})
        finally:
            watching.cancel()
            await self._hub.disconnect(self._info.id, inbox)


async def _until_gone(receive: Receive, inbox: Inbox) -> None:
    while (await receive())["type"] != "http.disconnect":
        pass
    inbox.close()
