"""The agent's process: a host's store, its swarm, a registry on loopback, and orders."""

from __future__ import annotations

import contextlib
import dataclasses
import logging
import os
import secrets
import shutil
import signal
import socket
import threading
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path

import uvicorn

from docket import __version__
from docket.agent.content.sharing import EngineContent
from docket.agent.content.stores import AUTO, content_stores
from docket.agent.control.channel import OWNER
from docket.agent.control.commands import HostCommands
from docket.agent.control.server import Control
from docket.agent.deploy_task import DeployTask
from docket.agent.held import held_images
from docket.agent.host.engine_query import engine_summary
from docket.agent.host.limits import LimitKeeper, RateSchedule
from docket.agent.host.retention import HostRetention, KeepPolicy
from docket.agent.host.status import AgentStatus
from docket.agent.image_job import ImageJob, Tools
from docket.agent.orders import Orders
from docket.agent.pull_through import PullThrough
from docket.api.agent_app import AgentServices, agent_app
from docket.config import IDLE_SECONDS
from docket.daemon import systemd
from docket.daemon.listener import listen, raise_descriptor_limit, url_of, watch_peers
from docket.daemon.process import IdleServer, ending, log_to_stderr, set_log_level
from docket.errors import EngineError, summary
from docket.oci.digest import Digest
from docket.oci.manifest import Platform
from docket.oci.reference import Reference
from docket.remote.address import RegistryAddress
from docket.remote.client import Client
from docket.store import Store
from docket.torrent.peer.session_options import SessionOptions
from docket.torrent.peer.swarm import Swarm
from docket.transfer.load import load_into_engine
from docket.transfer.options import TransferOptions
from docket.transfer.plan import connect_engine
from docket.wire import MAX_HELD, HostInfo, Order

RESOLVE_SECONDS = 9.0
"""How long the registry may take for a manifest: an engine gives up after 30 s."""

_GRACEFUL_SECONDS = 1
_STOP_SECONDS = 4.5

_ID_FILE = "agent-id"

log = logging.getLogger("docket.agent")


@dataclass(frozen=True, slots=True)
class AgentOptions:
    """How to run."""

    registry: RegistryAddress
    location: Path
    host: str = "127.0.0.1"
    port: int = 5000
    peer_port: int = 0
    name: str = field(default_factory=socket.gethostname)
    zone: str = ""
    labels: Mapping[str, str] = field(default_factory=dict)
    idle_seconds: float = IDLE_SECONDS
    max_upload: RateSchedule = field(default_factory=RateSchedule)
    max_download: RateSchedule = field(default_factory=RateSchedule)
    keep: KeepPolicy = field(default_factory=KeepPolicy)
    log_level: str = "info"
    content_store: str = AUTO


def run_agent(
    options: AgentOptions,
    *,
    on_ready: Callable[[str], None],
    reread: Callable[[], AgentOptions] | None = None,
) -> None:
    """Serve this host's engines and obey the registry, until SIGINT or SIGTERM.

    *on_ready* gets the URL once requests are answered. On SIGHUP *reread* returns the options
    again: name, zone, labels, limits, what to keep and the log's level follow. systemd's socket is
    used instead of the address, if it passes one. Raises `StoreLocked`, `StoreFormat`, or
    OSError when the port is taken. A registry that can't be reached is no error.
    """
    # uvicorn raises a SIGTERM again when it has shut down; then the store is still to be closed
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    raise_descriptor_limit()
    stop = threading.Event()
    log_to_stderr(options.log_level)
    with contextlib.ExitStack() as stack:
        sockets = _sockets(options)
        for listening in sockets:
            stack.enter_context(contextlib.closing(listening))
        _run(options, sockets, stop, on_ready, reread)


def _sockets(options: AgentOptions) -> list[socket.socket]:
    """The sockets that engines connect to: systemd's, or one of the agent's own."""
    inherited = systemd.inherited_sockets()
    for listening in inherited:
        watch_peers(listening)
    return inherited or [listen(options.host, options.port)]


def _run(
    options: AgentOptions,
    sockets: list[socket.socket],
    stop: threading.Event,
    on_ready: Callable[[str], None],
    reread: Callable[[], AgentOptions] | None,
) -> None:
    url = url_of(sockets[0])
    with (
        ending(stop, service="agent", seconds=_STOP_SECONDS),
        Store(options.location, owner=f"{OWNER} at {url}") as store,
        Client(options.registry) as client,
        Client(options.registry, read_seconds=RESOLVE_SECONDS) as resolver,
        Swarm(_session(options)) as swarm,
    ):
        agent = _Agent(options, store, client, resolver, swarm)
        with contextlib.closing(agent), contextlib.suppress(KeyboardInterrupt):
            agent.begin()
            _reload_on_hangup(agent, reread or (lambda: options))
            _serve(agent, sockets, lambda: on_ready(url), stop.set)


def _session(options: AgentOptions) -> SessionOptions:
    # limits come with the first look at the clock
    return SessionOptions(listen=f"0.0.0.0:{options.peer_port}", watch_blocks=True)


def _reload_on_hangup(agent: _Agent, reread: Callable[[], AgentOptions]) -> None:
    """Apply what *reread* gives on each SIGHUP; a file that is wrong changes nothing."""
    asked = threading.Event()

    def run() -> None:
        while asked.wait():
            asked.clear()
            with systemd.reloading():
                try:
                    agent.apply(reread())
                except Exception as error:  # the outermost edge of a thread that must not end
                    log.error("the configuration stays as it was: %s", _message(error))
                else:
                    log.info("the configuration was read again")

    threading.Thread(target=run, name="reload", daemon=True).start()
    signal.signal(signal.SIGHUP, lambda _number, _frame: asked.set())


def _message(error: Exception) -> str:
    """click keeps what a person should read in an attribute."""
    return str(getattr(error, "message", "")) or summary(error)


class _Agent:
    """The parts of an agent, wired."""

    def __init__(
        self,
        options: AgentOptions,
        store: Store,
        client: Client,
        resolver: Client,
        swarm: Swarm,
    ) -> None:
        self._options = options
        self._store = store
        self._swarm = swarm
        transfer = TransferOptions(zone=options.zone, count_sources=True)
        self._host_id = _host_id(store.location)
        self.orders = Orders(client.fleet, self.describe, self._start)
        tools = Tools(client, store, swarm, transfer, options.idle_seconds, self._on_held)
        self.source = PullThrough(tools, resolver)
        self._clients = (client, resolver)
        self._commands = HostCommands(tools, self.source, on_swept=self._swept)
        self.content = EngineContent(
            store,
            content_stores(options.content_store),
            is_arriving=self.source.is_arriving,
            on_held=self.orders.host_changed,
        )
        status = AgentStatus(tools, self.source, self.orders, resolver, self.content)
        table = {**self._commands.table(), "status": status.report}
        self._limits = LimitKeeper(options.max_upload, options.max_download, self._limit)
        self._retention = HostRetention(store, options.keep, self._swept)
        self._control = Control(store.location, table)

    def apply(self, options: AgentOptions) -> None:
        """Follow *options* as far as they can change while the agent runs."""
        self._options = options
        set_log_level(options.log_level)
        self.source.options = dataclasses.replace(self.source.options, zone=options.zone)
        self._limits.set(options.max_upload, options.max_download)
        self._retention.policy = options.keep
        self._retention.look()
        self.orders.host_changed()

    def begin(self) -> None:
        """Connect to the registry, and follow the engines' blobs."""
        self.orders.begin()
        self.content.begin()

    @property
    def registry_names(self) -> frozenset[str]:
        """What the registry is called in front of an image's name, and so in ``?ns=``."""
        address = self._options.registry
        host = f"[{address.host}]" if ":" in address.host else address.host
        return frozenset({host, f"{host}:{address.port}"})

    def describe(self) -> HostInfo:
        """This host as the registry should know it."""
        usage = shutil.disk_usage(self._store.location)
        return HostInfo(
            id=self._host_id,
            name=self._options.name,
            zone=self._options.zone,
            labels=dict(self._options.labels),
            version=__version__,
            engine=_engine(),
            platform=str(Platform.of_host()),
            held=[str(digest) for digest in held_images(self._store)[:MAX_HELD]],
            disk_free=usage.free,
            disk_used=self._store.blobs.total_size(),
        )

    def close(self) -> None:
        """Stop what goes on: what came of a layer stays, and the next fetch continues there."""
        self._control.close()
        self._limits.close()
        self._retention.close()
        self.orders.close()
        self.content.close()
        self._commands.close()
        for client in self._clients:
            client.abort()
        self.source.close()

    def _limit(self, upload: int, download: int) -> None:
        self._swarm.set_limits(upload=upload, download=download)
        self.source.options = dataclasses.replace(self.source.options, max_download=download)

    def _on_held(self) -> None:
        self.orders.host_changed()
        self._retention.look()

    def _swept(self) -> None:
        """Images may have gone: they are no longer held, nor seeded from their hard links."""
        self.source.drop_removed()
        self.orders.host_changed()

    def _start(self, order: Order) -> DeployTask:
        return DeployTask(order, self._begin, self._load, self.orders.host_changed)

    def _begin(self, order: Order) -> ImageJob:
        digest = Digest.parse(order.digest)
        chosen = self.source.choose(order.repository, digest, tag=order.tag)
        return self.source.job(order.repository, chosen)

    def _load(self, order: Order, job: ImageJob) -> None:
        with contextlib.closing(connect_engine()) as engine:
            named = Reference(order.repository, order.tag) if order.tag else job.image.reference
            image = dataclasses.replace(job.image, reference=named)
            load_into_engine(image, self._store, engine)


def _engine() -> str:
    """The engine's name and version; nothing where there is none."""
    with contextlib.suppress(EngineError):
        return str(engine_summary())
    return ""


def _host_id(location: Path) -> str:
    """The agent's id: random, and kept with the store, whose owner this process is."""
    path = location / _ID_FILE
    with contextlib.suppress(FileNotFoundError):
        text = path.read_text().strip()
        if len(text) == 32 and set(text) <= set("0123456789abcdef"):
            return text
    text = secrets.token_hex(16)
    descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600)
    with os.fdopen(descriptor, "w") as file:
        file.write(text)
    return text


def _serve(
    agent: _Agent,
    sockets: list[socket.socket],
    on_ready: Callable[[], None],
    on_stop: Callable[[], None],
) -> None:
    config = uvicorn.Config(
        agent_app(AgentServices(agent.source, own_names=agent.registry_names)),
        loop="uvloop",
        lifespan="off",
        log_level="critical",
        access_log=False,
        server_header=False,
        date_header=False,
        proxy_headers=False,
        timeout_graceful_shutdown=_GRACEFUL_SECONDS,
    )

    def ready() -> None:
        systemd.notify("READY=1", "STATUS=serving")
        on_ready()

    def stopping() -> None:
        systemd.notify("STOPPING=1")
        on_stop()

    period = systemd.watchdog_seconds()
    server = IdleServer(
        config,
        ready,
        stopping,
        on_beat=lambda: systemd.notify("WATCHDOG=1"),
        beat_seconds=period and period / 2,
    )
    server.run(sockets=sockets)
