"""The registry's process: store, seeder, tracker and API around one event loop."""

from __future__ import annotations

import contextlib
import dataclasses
import logging
import signal
import socket
import threading
from collections.abc import AsyncIterator, Callable
from dataclasses import dataclass, field
from pathlib import Path
from types import FrameType

import uvicorn
from starlette.applications import Starlette

from docket.api import AccessPolicy, Networks, PublicUrl, Registry, app
from docket.api.fast_announce import FastAnnounce
from docket.config import IDLE_SECONDS, PIN_SECONDS, SCRUB_RATE
from docket.daemon import background
from docket.daemon.connection_table import ConnectionTable
from docket.daemon.http_protocol import BoundedHttp
from docket.daemon.listener import bracketed, listen, raise_descriptor_limit, resolve, url_of
from docket.daemon.process import ending
from docket.daemon.upstreams import running_upstreams
from docket.errors import InvalidAddress
from docket.rate_limit import RateLimiter
from docket.seeder import Seeder
from docket.store import Store
from docket.torrent.peer.session_options import SessionOptions
from docket.torrent.peer.swarm import Swarm
from docket.torrent.tracker.peers import Tracker
from docket.upstream.names import Upstream
from docket.upstream.upstreams import TTL_SECONDS

_ACCEPTED = 8
_GRACEFUL_SECONDS = 2
_STOP_SECONDS = 4.5

log = logging.getLogger("docket")


@dataclass(frozen=True, slots=True)
class ServerOptions:
    """How to serve. *port* 0 takes a free one; *tracker* is an outside announce URL, or empty.

    Every blob is read again after *scrub_seconds*, at most at *scrub_rate* bytes a second; never
    when they are 0.
    Limits are in bytes a second, 0 is none; BitTorrent and HTTP keep to them each by itself.
    *external_url* is the registry's URL for clients behind *trusted_proxies*, or for all.
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
    external_url: PublicUrl | None = None
    trusted_proxies: Networks = field(default_factory=Networks)
    access: AccessPolicy = field(default_factory=AccessPolicy)
    upstreams: tuple[Upstream, ...] = ()
    upstream_auth: Path | None = None
    upstream_ttl: float = TTL_SECONDS
    upstream_unused: float | None = None


def serve(options: ServerOptions, *, on_ready: Callable[[str], None]) -> None:
    """Serve until SIGINT or SIGTERM. *on_ready* gets the base URL once requests are answered.

    After the signal whatever takes long is stopped; the process ends within 5 s even if something
    doesn't stop. Raises `StoreLocked`, `StoreFormat`, or OSError when the port is taken.
    """
    # uvicorn raises a SIGTERM again when it has shut down; then the store is still to be closed
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    advertised = resolve(options.advertise, "--advertise")
    descriptors = raise_descriptor_limit()
    listening = listen(options.bind, options.port, limits_receiving=options.max_download > 0)
    stop = threading.Event()
    end = ending(stop, service="registry", seconds=_STOP_SECONDS)
    with contextlib.closing(listening), end, open_store(options) as store:
        swarm = Swarm(
            SessionOptions(
                listen=f"{bracketed(options.bind)}:{options.peer_port}",
                announce_ip=advertised,
                max_upload=options.max_upload,
                max_download=options.max_download,
                is_registry=True,
            )
        )
        seeder = Seeder(
            store, swarm, tracker=options.tracker or None, idle_seconds=options.idle_seconds
        )
        scrubbing = background.scrubbing(
            store, seeder, interval=options.scrub_seconds, rate=options.scrub_rate, stop=stop
        )
        receiving = RateLimiter(options.max_download)
        fetching = running_upstreams(
            store,
            options.upstreams,
            auth=options.upstream_auth,
            ttl=options.upstream_ttl,
            limiter=receiving,
            stop=stop,
        )
        with contextlib.closing(seeder), scrubbing, fetching as upstreams:
            tracker = Tracker()
            swarm.on_peer(tracker.confirm_gateway)
            registry = Registry(
                store,
                seeder,
                tracker,
                advertise=advertised,
                zone=options.zone,
                sending=RateLimiter(options.max_upload),
                receiving=receiving,
                stop=stop,
                upstreams=upstreams,
                upstream_unused=options.upstream_unused,
            )
            connections = ConnectionTable(descriptors, unlimited=options.trusted_proxies)
            with contextlib.suppress(KeyboardInterrupt):
                _run(registry, connections, options, listening, on_ready)


def open_store(options: ServerOptions) -> Store:
    """The registry's store at its location."""
    return Store(
        options.location,
        owner="docket registry",
        pin_seconds=options.pin_seconds,
    )


def _run(
    registry: Registry,
    connections: ConnectionTable,
    options: ServerOptions,
    listening: socket.socket,
    on_ready: Callable[[str], None],
) -> None:
    @contextlib.asynccontextmanager
    async def lifespan(_application: Starlette) -> AsyncIterator[None]:
        async with background.running(registry, connections):
            yield

    prefixes = tuple(upstream.prefix for upstream in options.upstreams)
    application = app(
        registry,
        access=dataclasses.replace(options.access, upstreams=prefixes),
        trusted_proxies=options.trusted_proxies,
        external_url=options.external_url,
        external_address=_external_address(options.external_url),
        lifespan=lifespan,
    )
    application.state.connections = connections
    application.state.http_protocol = BoundedHttp
    config = uvicorn.Config(
        application,
        http=FastAnnounce,
        loop="uvloop",
        lifespan="on",
        # what fails is logged by the application's own guard, in one line
        log_level="critical",
        access_log=False,
        server_header=False,
        proxy_headers=False,
        timeout_graceful_shutdown=_GRACEFUL_SECONDS,
    )
    server = _Server(config, lambda: on_ready(url_of(listening)), registry.stop)
    # libuv accepts one connection a turn and socket, however many wait, and a turn may be long
    # while blobs are sent; uvicorn closes what it gets
    server.run(sockets=[listening.dup() for _ in range(_ACCEPTED)])


class _Server(uvicorn.Server):
    """uvicorn that says when it serves, and sets *stop* when it is to end."""

    def __init__(
        self, config: uvicorn.Config, on_ready: Callable[[], None], stop: threading.Event
    ) -> None:
        super().__init__(config)
        self._on_ready = on_ready
        self._stop = stop

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        await super().startup(sockets=sockets)
        if self.started:
            self._on_ready()

    def handle_exit(self, sig: int, frame: FrameType | None) -> None:
        self._stop.set()
        super().handle_exit(sig, frame)


def _external_address(url: PublicUrl | None) -> str:
    """The address of the external URL's host; empty where this machine doesn't know it."""
    with contextlib.suppress(InvalidAddress):
        return resolve(url.host_name, "--external-url") if url else ""
    return ""
