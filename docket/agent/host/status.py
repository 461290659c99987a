"""How an agent is: what it needs, what is wrong with it, and what to do about that."""

from __future__ import annotations

import os
import shutil
import time
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from typing import Any

from docket import __version__
from docket.agent.content.sharing import EngineContent
from docket.agent.control.commands import Arguments
from docket.agent.control.server import Caller
from docket.agent.held import held_images
from docket.agent.host.engine_query import engine_summary
from docket.agent.image_job import Tools
from docket.agent.orders import Orders
from docket.agent.pull_through import PullThrough
from docket.errors import DocketError, EngineError, RegistryError, summary
from docket.remote.client import Client

OK = "ok"
WARNING = "warning"
ERROR = "error"

_LITTLE_SPACE = 1 << 30


@dataclass(frozen=True, slots=True)
class Check:
    """One thing that an agent needs: *state* is `OK`, `WARNING` or `ERROR`."""

    name: str
    state: str
    text: str
    advice: str = ""


class AgentStatus:
    """Looks at an agent from within."""

    def __init__(
        self,
        tools: Tools,
        source: PullThrough,
        orders: Orders,
        resolver: Client,
        content: EngineContent,
    ) -> None:
        self._tools = tools
        self._content = content
        self._source = source
        self._orders = orders
        self._resolver = resolver
        self._began = time.monotonic()

    def report(self, _arguments: Arguments, _caller: Caller) -> dict[str, Any]:
        """``docket agent status --json``; sizes in bytes, rates in bytes a second."""
        traffic = self._tools.swarm.traffic()
        fetches = [
            {"name": str(job.image.reference), **asdict(job.progress())}
            for job in self._source.jobs()
        ]
        return {
            "version": __version__,
            "process": os.getpid(),
            "uptime": round(time.monotonic() - self._began, 1),
            "location": str(self._tools.store.location),
            "checks": [asdict(check) for check in self._checks()],
            "held": len(held_images(self._tools.store)),
            "stored": self._tools.store.blobs.total_size(),
            "fetches": fetches,
            "upload_rate": traffic.upload_rate,
            "download_rate": traffic.download_rate,
        }

    def _checks(self) -> Iterator[Check]:
        registry = self._registry()
        yield registry
        # a registry that is down has its tracker down too: one reason is enough
        if registry.state == OK:
            yield self._tracker()
            yield self._deploys()
        yield self._peers()
        yield self._engine()
        yield from self._engine_blobs()
        yield self._disk()

    def _registry(self) -> Check:
        url = self._resolver.url
        try:
            self._resolver.ping()
        except DocketError as error:
            advice = (
                f"start docket registry there, or give its address with -h; until {url} answers, "
                "images that are held are served"
            )
            return Check("registry", ERROR, summary(error), advice)
        return Check("registry", OK, url)

    def _tracker(self) -> Check:
        trackers = [job.tracker for job in self._source.jobs() if job.tracker]
        tracker = trackers[-1] if trackers else f"{self._resolver.url}/announce"
        if not tracker.startswith(("http://", "https://")):
            return Check("tracker", OK, f"{tracker} (not asked: it speaks UDP)")
        try:
            self._resolver.announce(tracker, "")
        except RegistryError as error:
            advice = "without it no other host is found: layers come from the registry over HTTP"
            return Check("tracker", ERROR, summary(error), advice)
        return Check("tracker", OK, tracker)

    def _deploys(self) -> Check:
        if self._orders.is_connected:
            return Check("deploys", OK, "connected: docket deploy reaches this host")
        advice = (
            "the agent tries again at least every 30 s; a proxy on the way has to pass on "
            "POST /v2/_docket/agents without buffering its response"
        )
        return Check("deploys", WARNING, "not connected: docket deploy waits for it", advice)

    def _peers(self) -> Check:
        traffic = self._tools.swarm.traffic()
        port = self._tools.swarm.port
        if traffic.has_incoming:
            return Check("peers", OK, f"{traffic.peers} connected; port {port} was reached")
        advice = (
            f"let other hosts reach TCP port {port} of this host (--peer-port fixes it); "
            "no host has come yet is normal while no other host fetches what this one holds"
        )
        return Check("peers", WARNING, f"{traffic.peers} connected; none came to {port}", advice)

    def _engine(self) -> Check:
        try:
            engine = engine_summary()
        except EngineError as error:
            advice = "needed for docket deploy --load, and to know what containers use; start it"
            return Check("engine", WARNING, summary(error), advice)
        kind = "containerd image store" if engine.is_containerd_store else "graph driver"
        return Check("engine", OK, f"{engine}, {kind}")

    def _engine_blobs(self) -> Iterator[Check]:
        """Whether blobs of the engine are on the disk once."""
        for warning in self._content.warnings:
            yield Check("blobs", WARNING, warning)
        for state in self._content.states():
            if not state.problem:
                yield Check("blobs", OK, f"shared with the engine: {state.folder}")
            elif state.folder.exists():
                advice = "put the agent's location (-l) on the engine's file system"
                yield Check("blobs", WARNING, f"{state.folder}: {state.problem}", advice)

    def _disk(self) -> Check:
        location = self._tools.store.location
        usage = shutil.disk_usage(location)
        text = f"{usage.free / 1e9:.1f} GB of {usage.total / 1e9:.1f} GB free at {location}"
        try:
            self._tools.store.probe()
        except DocketError as error:
            advice = "docket gc --local frees what no tag names; check the disk and its mount"
            return Check("store", ERROR, summary(error), advice)
        if usage.free < min(usage.total // 10, _LITTLE_SPACE):
            advice = "docket gc --local --keep 2, or --keep and --max-space for docket agent"
            return Check("store", WARNING, text, advice)
        return Check("store", OK, text)
