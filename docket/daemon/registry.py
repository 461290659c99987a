"""The registry's process: store, seeder, tracker and API around one event loop."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import signal
import socket
import threading
import time
from collections.abc import AsyncIterator, Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import uvicorn
from starlette.applications import Starlette

from docket.api import Registry, app
from docket.api.fast_announce import TrackerFirst
from docket.config import IDLE_SECONDS, PIN_SECONDS, SCRUB_RATE
from docket.errors import InvalidAddress
from docket.rate_limit import RateLimiter
from docket.seeder import Seeder
from docket.store import Store
from docket.torrent.peer.session_options import SessionOptions
from docket.torrent.peer.swarm import Swarm
from docket.torrent.tracker.peers import Tracker

_REST_SECONDS = 15.0
_SCRUB_PAUSE_SECONDS = 600.0
_ACCEPTED = 8
_RECEIVE_BUFFER = 256 * 1024  # bytes

log = logging.getLogger("docket")


@dataclass(frozen=True, slots=True)
class ServerOptions:
    """How to serve. *port* 0 takes a free one; *tracker* is an outside announce URL, or empty.

    Every blob is read again after *scrub_seconds*, at most at *scrub_rate* bytes a second; never
    when they are 0.
    Limits are in bytes a second, 0 is none; BitTorrent and HTTP keep to them each by itself.
    """

    location: Path
    bind: str = "0.0.0.0"
    port: int = 8000
    peer_port: int = 0
    tracker: str = ""
    advertise: str = ""
    zone: str = ""
    pin_seconds: float = PIN_SECONDS
    idle_seconds: float = IDLE_SECONDS
    scrub_seconds: float = 0.0
    scrub_rate: float = SCRUB_RATE
    max_upload: int = 0
    max_download: int = 0


def serve(options: ServerOptions, *, on_ready: Callable[[str], None]) -> None:
    """Serve until SIGINT or SIGTERM. *on_ready* gets the base URL once requests are answered.

    Raises `StoreLocked`, `StoreFormat`, or OSError when the port is taken.
    """
    # uvicorn hands a SIGTERM on when it has shut down; then the store is still to be closed
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    advertised = _resolved(options.advertise)
    listening = _listen(options.bind, options.port)
    if options.max_download:
        # what waits in the kernel has come in already: without this up to 6 MB a connection
        listening.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, _RECEIVE_BUFFER)
    with contextlib.closing(listening), open_store(options) as store:
        swarm = Swarm(
            SessionOptions(
                listen=f"{_bracketed(options.bind)}:{options.peer_port}",
                announce_ip=advertised,
                max_upload=options.max_upload,
                max_download=options.max_download,
                is_registry=True,
            )
        )
        seeder = Seeder(
            store, swarm, tracker=options.tracker or None, idle_seconds=options.idle_seconds
        )
        with contextlib.closing(seeder), _scrubbing(store, seeder, options):
            tracker = Tracker()
            swarm.on_peer(tracker.confirm_gateway)
            registry = Registry(
                store,
                seeder,
                tracker,
                advertise=advertised,
                zone=options.zone,
                sending=RateLimiter(options.max_upload),
                receiving=RateLimiter(options.max_download),
            )
            with contextlib.suppress(KeyboardInterrupt):
                _run(registry, listening, on_ready)


def open_store(options: ServerOptions) -> Store:
    """The registry's store at its location."""
    return Store(
        options.location,
        owner="docket registry",
        pin_seconds=options.pin_seconds,
    )


@contextlib.contextmanager
def _scrubbing(store: Store, seeder: Seeder, options: ServerOptions) -> Iterator[None]:
    """Meanwhile blobs are read again, on a thread of its own, off the path of requests."""
    stop = threading.Event()
    thread = threading.Thread(target=_scrub, args=(store, seeder, options, stop), name="scrub")
    if options.scrub_seconds:
        thread.start()
    try:
        yield
    finally:
        stop.set()
        if thread.ident:
            thread.join()


def _scrub(store: Store, seeder: Seeder, options: ServerOptions, stop: threading.Event) -> None:
    while not stop.is_set():
        try:
            report = store.maintenance.scrub(
                older_than=time.time() - options.scrub_seconds, rate=options.scrub_rate, stop=stop
            )
        except Exception:  # the outermost edge of a thread that must not end
            log.exception("scrubbing failed; trying again")
        else:
            seeder.stop_containing(report.quarantined)
            for digest in report.quarantined:
                log.error("blob %s has rotted: it is in quarantine; push its image again", digest)
        stop.wait(_SCRUB_PAUSE_SECONDS)


def _run(registry: Registry, listening: socket.socket, on_ready: Callable[[str], None]) -> None:
    @contextlib.asynccontextmanager
    async def lifespan(_application: Starlette) -> AsyncIterator[None]:
        upkeep = asyncio.create_task(_upkeep(registry))
        try:
            yield
        finally:
            upkeep.cancel()

    config = uvicorn.Config(
        app(registry, lifespan=lifespan),
        http=TrackerFirst,
        loop="uvloop",
        lifespan="on",
        log_level="error",
        access_log=False,
        server_header=False,
        timeout_graceful_shutdown=5,
    )
    server = _Server(config, lambda: on_ready(_url(listening)))
    # libuv accepts one connection a turn and socket, however many wait, and a turn may be long
    # while blobs are sent; uvicorn closes what it gets
    server.run(sockets=[listening.dup() for _ in range(_ACCEPTED)])


class _Server(uvicorn.Server):
    """uvicorn, with a word when it answers."""

    def __init__(self, config: uvicorn.Config, on_ready: Callable[[], None]) -> None:
        super().__init__(config)
        self._on_ready = on_ready

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        await super().startup(sockets=sockets)
        if self.started:
            self._on_ready()


async def _upkeep(registry: Registry) -> None:
    """Let idle torrents and old uploads go, again and again."""
    while True:
        await asyncio.sleep(_REST_SECONDS)
        try:
            await asyncio.to_thread(registry.seeder.release_idle)
            await asyncio.to_thread(registry.store.maintenance.expire)
        except Exception:  # the outermost edge of a task that must not end
            log.exception("upkeep failed; trying again")


def _listen(host: str, port: int) -> socket.socket:
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    both = host == "::"  # all addresses, so IPv4's too
    return socket.create_server((host, port), family=family, backlog=2048, dualstack_ipv6=both)


def _resolved(host: str) -> str:
    """The address of *host*: trackers hand out addresses, not names (BEP 23)."""
    if not host:
        return ""
    try:
        found = socket.getaddrinfo(host, None, type=socket.SOCK_STREAM)
    except OSError as error:
        raise InvalidAddress(
            host, "no such host; --advertise takes an address or a known host"
        ) from error
    # IPv4 where there is one: not every BitTorrent client knows BEP 7
    four = [row for row in found if row[0] == socket.AF_INET]
    return str((four or found)[0][4][0])


def _url(listening: socket.socket) -> str:
    host, port = listening.getsockname()[:2]
    shown = {"0.0.0.0": "127.0.0.1", "::": "::1"}.get(host, host)
    return f"http://{_bracketed(shown)}:{port}"


def _bracketed(host: str) -> str:
    return f"[{host}]" if ":" in host else host
