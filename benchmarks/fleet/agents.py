"""Agents on hosts, and a deploy to them: the service's way of bringing an image to a fleet."""

from __future__ import annotations

import json
import subprocess
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from benchmarks import resources
from benchmarks.fleet.runner import Pull, PullFailed
from tests.support.commands import DOCKET, Commands, environment
from tests.support.netns import Host

_READY_SECONDS = 120.0
_POLL_SECONDS = 0.2
_TICK_SECONDS = 0.5


@dataclass(frozen=True, slots=True)
class _Agent:
    process: subprocess.Popen[bytes]
    log: Path


class AgentFleet:
    """Agents on all hosts, connected to a registry; `begin` deploys to them, at most once."""

    def __init__(self, agents: Sequence[_Agent], client: Commands) -> None:
        self._agents = agents
        self._client = client
        self._cpu: list[float] = []
        self._status: dict[str, Any] = {}
        self.began = time.monotonic()

    def hold(self, image: str) -> None:
        """Bring *image* to all hosts before anything is measured."""
        self._deploy(image, limit=_READY_SECONDS)

    def run(
        self,
        image: str,
        *,
        at_once: int,
        limit: float,
        on_begin: Callable[[], None],
        on_tick: Callable[[], None],
    ) -> float:
        """Deploy *image*; the seconds from the start of the command to its end, or *limit*."""
        for agent in self._agents:
            resources.forget_peak(agent.process.pid)
        self._cpu = [resources.cpu_seconds(agent.process.pid) for agent in self._agents]
        on_begin()
        self.began = time.monotonic()
        self._status = self._deploy(image, at_once=at_once, limit=limit, on_tick=on_tick)
        return time.monotonic() - self.began

    def pulls(self) -> tuple[Pull, ...]:
        """What the deploy was for each host: seconds from its creation until the host was done."""
        rows = sorted(self._status.get("hosts", []), key=lambda row: int(row["name"][5:]))
        pulls = []
        for agent, cpu, row in zip(self._agents, self._cpu, rows, strict=True):
            pid = agent.process.pid
            pull = Pull(self.began, report=row)
            pull.seconds = row["seconds"] if row["state"] == "done" else None
            pull.cpu = resources.cpu_seconds(pid) - cpu
            pull.rss = resources.peak_rss(pid)
            pulls.append(pull)
        return tuple(pulls)

    def _deploy(
        self,
        image: str,
        *,
        limit: float,
        at_once: int = 0,
        on_tick: Callable[[], None] = lambda: None,
    ) -> dict[str, Any]:
        client = self._client
        words = ("deploy", image, "--all", "--at-once", str(at_once), "--deadline", f"{limit}s")
        argv = [*client.wrapper, *DOCKET, *client.options, "--json", *words]
        with (
            tempfile.TemporaryFile() as output,
            subprocess.Popen(argv, stdout=output, env=client.environment) as running,
        ):
            tick = time.monotonic()
            while running.poll() is None:
                on_tick()
                tick += _TICK_SECONDS
                with suppress(subprocess.TimeoutExpired):
                    running.wait(max(tick - time.monotonic(), 0.01))
            output.seek(0)
            lines = output.read().splitlines()
        status: dict[str, Any] = json.loads(lines[-1]) if lines else {}
        if status.get("state") not in {"done", "expired"}:
            logs = "".join(agent.log.read_text()[-500:] for agent in self._agents)
            raise PullFailed(f"the deploy ended as {status}: {logs}")
        return status


@contextmanager
def agent_fleet(client: Commands, hosts: Sequence[Host], folder: Path) -> Iterator[AgentFleet]:
    """An agent on each of *hosts*, for the registry of *client*, once all are connected.

    They are ended on leaving. Raises `PullFailed` when one doesn't get ready.
    """
    with ExitStack() as stack:
        agents = []
        for number, host in enumerate(hosts):
            agent = _start(client.url, f"host-{number}", host, folder / f"host-{number}")
            stack.callback(_end, agent.process)
            agents.append(agent)
        _wait_until_connected(client, agents)
        yield AgentFleet(agents, client)


def _start(url: str, name: str, host: Host, folder: Path) -> _Agent:
    folder.mkdir(parents=True, exist_ok=True)
    options = ("-h", url, "-l", str(folder / "store"), "--json")
    argv = [*DOCKET, *options, "agent", "--listen", "127.0.0.1:0", "--name", name]
    log = folder / "errors"
    with log.open("wb") as errors:
        process = host.popen(argv, stdout=subprocess.DEVNULL, stderr=errors, env=environment())
    return _Agent(process, log)


def _end(process: subprocess.Popen[bytes]) -> None:
    process.kill()
    process.wait()


def _wait_until_connected(client: Commands, agents: Sequence[_Agent]) -> None:
    deadline = time.monotonic() + _READY_SECONDS
    connected = 0
    while connected < len(agents):
        for agent in agents:
            if agent.process.poll() is not None or time.monotonic() > deadline:
                raise PullFailed(f"an agent isn't connected: {agent.log.read_text()}")
        connected = sum(row["connected"] for row in client("hosts")["hosts"])
        time.sleep(_POLL_SECONDS)
