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
from docket.agent.channel import OWNER
from docket.agent.content.sharing import EngineContent
from docket.agent.content.stores import AUTO, content_stores
from docket.agent.control import Control
from docket.agent.deploy_task import DeployTask
from docket.agent.engine_query import engine_summary
from docket.agent.held import held_images
from docket.agent.host_commands import HostCommands
from docket.agent.image_job import ImageJob, Tools
from docket.agent.orders import Orders
from docket.agent.pull_through import PullThrough
from docket.agent.status import AgentStatus
from docket.api.agent_app import AgentServices, agent_app
from docket.config import IDLE_SECONDS
from docket.daemon.listener import listen, raise_descriptor_limit, url_of
from docket.daemon.process import IdleServer, ending
from docket.errors import EngineError
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
    """How to run: limits in bytes a second, 0 is none."""

    registry: RegistryAddress
    location: Path
    host: str = "127.0.0.1"
    port: int = 5000
    peer_port: int = 0
    name: str = field(default_factory=socket.gethostname)
    zone: str = ""
    labels: Mapping[str, str] = field(default_factory=dict)
    idle_seconds: float = IDLE_SECONDS
    max_upload: int = 0
    max_download: int = 0
    content_store: str = AUTO


def run_agent(options: AgentOptions, *, on_ready: Callable[[str], None]) -> None:
    """Serve this host's engines and obey the registry, until SIGINT or SIGTERM.

    *on_ready* gets the URL once requests are answered. Raises `StoreLocked`, `StoreFormat`, or
    OSError when the port is taken. A registry that can't be reached is no error.
    """
    # uvicorn raises a SIGTERM again when it has shut down; then the store is still to be closed
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    raise_descriptor_limit()
    stop = threading.Event()
    listening = listen(options.host, options.port)
    url = url_of(listening)
    with (
        contextlib.closing(listening),
        ending(stop, service="agent", seconds=_STOP_SECONDS),
        Store(options.location, owner=f"{OWNER} at {url}") as store,
        Client(options.registry) as client,
        Client(options.registry, read_seconds=RESOLVE_SECONDS) as resolver,
        Swarm(_session(options)) as swarm,
    ):
        agent = _Agent(options, store, client, resolver, swarm)
        with contextlib.closing(agent), contextlib.suppress(KeyboardInterrupt):
            agent.begin()
            _serve(agent, listening, lambda: on_ready(url), stop.set)


def _session(options: AgentOptions) -> SessionOptions:
    return SessionOptions(
        listen=f"0.0.0.0:{options.peer_port}",
        max_upload=options.max_upload,
        max_download=options.max_download,
        watch_blocks=True,
    )


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
        transfer = TransferOptions(
            zone=options.zone, max_download=options.max_download, count_sources=True
        )
        self._host_id = _host_id(store.location)
        self.orders = Orders(client.fleet, self.describe, self._start, self._help)
        tools = Tools(
            client, store, swarm, transfer, options.idle_seconds, self.orders.host_changed
        )
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
        self._control = Control(store.location, table)

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
        self.orders.close()
        self.content.close()
        self._commands.close()
        for client in self._clients:
            client.abort()
        self.source.close()

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

    def _help(self, order: Order) -> None:
        log.info("not serving %s: it is not held", order.repository)


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
    listening: socket.socket,
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
    IdleServer(config, on_ready, on_stop).run(sockets=[listening])
