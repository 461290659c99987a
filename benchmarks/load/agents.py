"""Thousands of agents at one registry: memory, idle time, and how fast an order reaches all.

A real ``docket registry`` process; the agents are connections of this process, which say what real
agents say. They report a deploy as done as soon as they may. Run with
``python -m benchmarks.load.agents --agents 10000``.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import os
import random
import resource
import sys
import tempfile
import time
from dataclasses import asdict, dataclass, field
from pathlib import Path
from urllib.parse import urlsplit

from tests.support.commands import Commands, registry_process
from tests.support.images import tiny_image

_REPOSITORY, _TAG = "bench/ordered", "1.0"
_IMAGE = f"{_REPOSITORY}:{_TAG}"
_CONNECTING = 200
_WAIT_SECONDS = 120.0


@dataclass(frozen=True, slots=True)
class Figures:
    """What the registry took: memory in bytes, *idle_cpu* in per cent of one processor, seconds."""

    agents: int
    rss_before: int
    rss_connected: int
    rss_after: int
    connect_seconds: float
    idle_cpu: float
    order_p50: float
    order_p99: float
    order_max: float
    done_seconds: float
    deploy_cpu_seconds: float


@dataclass(slots=True)
class Agent:
    """One connected agent; *ordered* is when its order came, on the monotonic clock."""

    number: int
    reader: asyncio.StreamReader
    writer: asyncio.StreamWriter
    ordered: float = 0.0
    jitter: float = 0.0
    deploy: str = ""
    got: asyncio.Event = field(default_factory=asyncio.Event)

    @property
    def id(self) -> str:
        """Its id at the registry."""
        return f"{self.number:032x}"


@dataclass(frozen=True, slots=True)
class Process:
    """The registry's process."""

    pid: int

    def rss(self) -> int:
        """Resident memory in bytes."""
        for line in Path(f"/proc/{self.pid}/status").read_text().splitlines():
            if line.startswith("VmRSS:"):
                return int(line.split()[1]) * 1024
        raise ProcessLookupError(self.pid)

    def cpu_seconds(self) -> float:
        """Processor time so far."""
        fields = Path(f"/proc/{self.pid}/stat").read_text().rpartition(")")[2].split()
        return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


class Fleet:
    """All agents, at the registry on *port*."""

    def __init__(self, port: int, *, held: int) -> None:
        self._port = port
        self._held = [f"sha256:{number:064x}" for number in range(held)]
        self._gate = asyncio.Semaphore(_CONNECTING)
        self._readers: list[asyncio.Task[None]] = []
        self.agents: list[Agent] = []

    async def connect(self, count: int) -> None:
        """*count* agents, each with its stream open."""
        self.agents = list(await asyncio.gather(*map(self._connect, range(count))))
        self._readers = [asyncio.create_task(self._read(agent)) for agent in self.agents]

    async def report_all(self) -> None:
        """Each agent says that it is done, after the jitter that its order named."""
        await asyncio.gather(*map(self._report, self.agents))

    async def close(self) -> None:
        """Disconnect."""
        for task in self._readers:
            task.cancel()
        for agent in self.agents:
            agent.writer.close()

    async def _connect(self, number: int) -> Agent:
        info = {
            "id": f"{number:032x}",
            "name": f"host-{number:05}",
            "zone": f"zone-{number % 20}",
            "labels": {"role": "web"},
            "version": "0.1.0",
            "engine": "docker 28.5.2",
            "platform": "linux/amd64",
            "held": self._held,
        }
        async with self._gate:
            reader, writer = await asyncio.open_connection("127.0.0.1", self._port, limit=4096)
            _post(writer, "/v2/_docket/agents", json.dumps(info).encode())
            status = await asyncio.wait_for(reader.readuntil(b"\r\n\r\n"), _WAIT_SECONDS)
        assert b" 200 " in status.split(b"\r\n")[0], status
        return Agent(number, reader, writer)

    async def _read(self, agent: Agent) -> None:
        while line := await agent.reader.readline():
            if line.startswith(b'{"action":"fetch"'):
                order = json.loads(line)
                agent.ordered, agent.deploy = time.monotonic(), order["deploy"]
                agent.jitter = order.get("jitter", 0.0)
                agent.got.set()

    async def _report(self, agent: Agent) -> None:
        await asyncio.sleep(random.uniform(0, agent.jitter))  # noqa: S311
        body = {"reports": [{"deploy": agent.deploy, "state": "verified", "total": 1, "done": 1}]}
        async with self._gate:
            reader, writer = await asyncio.open_connection("127.0.0.1", self._port, limit=4096)
            path = f"/v2/_docket/agents/{agent.id}/reports"
            _post(writer, path, json.dumps(body).encode())
            status = await asyncio.wait_for(reader.readuntil(b"\r\n\r\n"), _WAIT_SECONDS)
            assert b" 204 " in status.split(b"\r\n")[0], status
            writer.close()


async def measure(url: str, process: Process, count: int, *, held: int, idle: float) -> Figures:
    """Connect *count* agents, let them idle for *idle* seconds, deploy to all, and count."""
    fleet = Fleet(urlsplit(url).port or 0, held=held)
    before = process.rss()
    began = time.monotonic()
    await fleet.connect(count)
    connected = time.monotonic() - began
    cpu = process.cpu_seconds()
    await asyncio.sleep(idle)
    idle_cpu = (process.cpu_seconds() - cpu) / idle * 100
    rss = process.rss()
    cpu, began = process.cpu_seconds(), time.monotonic()
    deploy = await _deploy(url)
    await asyncio.wait_for(asyncio.gather(*(a.got.wait() for a in fleet.agents)), _WAIT_SECONDS)
    await fleet.report_all()
    await _until_done(url, deploy)
    done = time.monotonic() - began
    delays = sorted(agent.ordered - began for agent in fleet.agents)
    figures = Figures(
        agents=count,
        rss_before=before,
        rss_connected=rss,
        rss_after=process.rss(),
        connect_seconds=connected,
        idle_cpu=idle_cpu,
        order_p50=delays[len(delays) // 2],
        order_p99=delays[int(len(delays) * 0.99)],
        order_max=delays[-1],
        done_seconds=done,
        deploy_cpu_seconds=process.cpu_seconds() - cpu,
    )
    await fleet.close()
    return figures


async def _deploy(url: str) -> str:
    body = {"repository": _REPOSITORY, "tag": _TAG}
    answer = await _call(url, "POST", "/v2/_docket/deploys", json.dumps(body).encode())
    return str(answer["id"])


async def _until_done(url: str, deploy: str) -> None:
    status = await _call(url, "GET", f"/v2/_docket/deploys/{deploy}")
    while status["state"] == "running":
        path = f"/v2/_docket/deploys/{deploy}?after={status['revision']}"
        status = await _call(url, "GET", path)


async def _call(url: str, method: str, path: str, body: bytes = b"") -> dict[str, object]:
    reader, writer = await asyncio.open_connection("127.0.0.1", urlsplit(url).port or 0)
    _request(writer, method, path, body, close=True)
    content = await asyncio.wait_for(reader.read(), _WAIT_SECONDS)
    writer.close()
    answer = json.loads(content.partition(b"\r\n\r\n")[2])
    assert isinstance(answer, dict)
    return answer


def _post(writer: asyncio.StreamWriter, path: str, body: bytes) -> None:
    _request(writer, "POST", path, body, close=False)


def _request(
    writer: asyncio.StreamWriter, method: str, path: str, body: bytes, *, close: bool
) -> None:
    head = (
        f"{method} {path} HTTP/1.1\r\nHost: registry\r\nContent-Type: application/json\r\n"
        f"Content-Length: {len(body)}\r\n{'Connection: close' if close else 'Accept: */*'}\r\n\r\n"
    )
    writer.write(head.encode() + body)


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser("benchmarks.load.agents", description=__doc__)
    parser.add_argument("--agents", type=int, default=10_000, help="how many (10000)")
    parser.add_argument("--held", type=int, default=20, help="images that each holds (20)")
    parser.add_argument("--idle", type=float, default=30.0, help="seconds to count idle time (30)")
    parser.add_argument("--json", action="store_true", help="one line of JSON")
    wanted = parser.parse_args()
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
    if hard < wanted.agents + 100:
        parser.error(f"this machine allows {hard} open files a process, {soft} at first")
    with (
        tempfile.TemporaryDirectory() as folder,
        registry_process(Path(folder) / "store") as (url, pid),
    ):
        archive = Path(folder) / "image.tar"
        archive.write_bytes(tiny_image("ordered").docker_save())
        Commands(url, Path(folder) / "host")("push", _IMAGE, "--archive", archive)
        running = measure(url, Process(pid), wanted.agents, held=wanted.held, idle=wanted.idle)
        figures = asyncio.run(running)
    if wanted.json:
        sys.stdout.write(json.dumps(asdict(figures)) + "\n")
        return
    for name, value in asdict(figures).items():
        shown = f"{value / 1e6:.1f} MB" if name.startswith("rss") else f"{value:.3g}"
        sys.stdout.write(f"{name:20} {shown}\n")


if __name__ == "__main__":
    main()
