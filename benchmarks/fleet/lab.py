"""One run: a source, N hosts that pull at once over slow links, and what each did until the end."""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

from benchmarks import resources
from benchmarks.bound import t_star
from benchmarks.fleet import strategies
from benchmarks.fleet.agents import agent_fleet
from benchmarks.fleet.runner import Command, Pull, Race
from benchmarks.fleet.strategies import Loopback, StartStrategy, Strategy
from docket.pieces import piece_count
from tests.support.commands import environment
from tests.support.netns import Host, Network, Shape, network

STRATEGIES: dict[str, StartStrategy] = {
    "docket": strategies.docket(),
    "direct": strategies.same_layers,
    "original": strategies.baseline_2015,
}

AGENT = "agent"
WAYS = (*STRATEGIES, AGENT)

_NAME = "fleet:1"
_NAME_BEFORE = "fleet:0"
_CLOCK_TICKS = os.sysconf("SC_CLK_TCK")


@dataclass(frozen=True, slots=True)
class Image:
    """An *archive*, and a folder for the *stores* of the sources that have its image.

    *size* and *pieces* are those of the layers that move: where hosts hold the image of the archive
    *before*, the others.
    """

    archive: Path
    stores: Path
    size: int
    pieces: int
    before: Path | None = None


@dataclass(frozen=True, slots=True)
class Scenario:
    """What a run is made of: the number of *hosts*, links of one *shape*, a *limit* in seconds.

    *engine* is a DOCKER_HOST into which docket's first host loads the image; the others, and all
    without it, only bring it into their stores. With agents, the hosts hold the image of archive
    *before* when the run begins, and at most *at_once* of them fetch at the same time (0: all).
    """

    hosts: int
    shape: Shape
    limit: float = 3600.0
    engine: str = ""
    before: str = ""
    at_once: int = 0


@dataclass(frozen=True, slots=True)
class Run:
    """What one strategy did with an *image*, named as its archive; bytes and seconds.

    *elapsed* is the time until the last host was done, or the limit came; *egress* what left the
    source by its link; *busy* the share of the machine's processor time that was used. *curves* has
    the bytes received by each host, with all headers, at each second of *clock*.
    """

    strategy: str
    scenario: Scenario
    image: str
    payload: int
    pieces: int
    pulls: tuple[Pull, ...]
    elapsed: float
    egress: int
    source_cpu: float
    source_rss: int
    busy: float
    clock: tuple[float, ...]
    curves: tuple[tuple[int, ...], ...]

    @property
    def bound(self) -> float:
        """T*: seconds in which all hosts could have all, if every link were always full."""
        scenario = self.scenario
        return t_star(
            self.payload, pieces=self.pieces, hosts=scenario.hosts, mbit=scenario.shape.mbit
        )

    @property
    def seconds(self) -> list[float]:
        """The seconds of each host that was done, ascending."""
        return sorted(pull.seconds for pull in self.pulls if pull.seconds is not None)

    @property
    def finished(self) -> bool:
        """Whether all hosts were done within the limit."""
        return len(self.seconds) == self.scenario.hosts


def prepare(archive: Path, stores: Path, *, before: Path | None = None) -> Image:
    """Push the image of *archive* into docket's store in *stores*, and measure it."""
    with STRATEGIES["docket"](stores / "docket", Loopback()) as source:
        layers = source.push(_NAME, archive).layers
        if before:
            held = source.push(_NAME_BEFORE, before).layers
            layers = {diff_id: size for diff_id, size in layers.items() if diff_id not in held}
    pieces = sum(map(piece_count, layers.values()))
    return Image(archive, stores, sum(layers.values()), pieces, before)


def run(
    strategy: str, image: Image, scenario: Scenario, folder: Path, *, on_made: Callable[[str], None]
) -> Run:
    """Bring *image* to all hosts by *strategy*; what they get lies below *folder*.

    *on_made* gets the name of the source's namespace; the hosts' have higher numbers. Raises
    `PullFailed`. The network is removed with all that runs on it, also after an error.
    """
    if strategy == AGENT:
        return _run_agents(image, scenario, folder, on_made)
    with network(scenario.hosts + 1, shape=scenario.shape) as made:
        on_made(made.hosts[0].name)
        with STRATEGIES[strategy](image.stores / strategy, made.hosts[0]) as source:
            payload = source.push(_NAME, image.archive).payload
            commands = _commands(source, made.hosts[1:], folder, scenario.engine)
            counters = _Counters(made, source.pid)
            samples = _Samples(made)
            with Race(commands, barrier=False) as race:
                elapsed = race.wait(scenario.limit, on_tick=samples.take)
                samples.take()
                egress, source_cpu, used, idle = counters.difference()
                return Run(
                    strategy=strategy,
                    scenario=scenario,
                    image=image.archive.name,
                    payload=payload,
                    pieces=image.pieces,
                    elapsed=elapsed,
                    egress=int(egress),
                    source_cpu=source_cpu,
                    source_rss=resources.peak_rss(source.pid),
                    busy=used / (used + idle),
                    clock=tuple(at - race.began for at in samples.clock),
                    curves=tuple(zip(*samples.received, strict=True)),
                    pulls=race.end(),
                )


def _run_agents(
    image: Image, scenario: Scenario, folder: Path, on_made: Callable[[str], None]
) -> Run:
    """The same with agents that run before, and one deploy."""
    with network(scenario.hosts + 1, shape=scenario.shape) as made:
        on_made(made.hosts[0].name)
        with strategies.docket_server(image.stores / "docket", made.hosts[0]) as (server, client):
            samples = _Samples(made)
            with agent_fleet(client, made.hosts[1:], folder) as fleet:
                if image.before:
                    fleet.hold(_NAME_BEFORE)
                resources.forget_peak(server.pid)
                counters = _Counters(made, server.pid)
                elapsed = fleet.run(
                    _NAME,
                    at_once=scenario.at_once,
                    limit=scenario.limit,
                    on_begin=counters.begin,
                    on_tick=samples.take,
                )
                samples.take()
                egress, source_cpu, used, idle = counters.difference()
                pulls = fleet.pulls()
                return Run(
                    strategy=AGENT,
                    scenario=scenario,
                    image=image.archive.name,
                    payload=image.size,
                    pieces=image.pieces,
                    elapsed=max((pull.seconds or elapsed for pull in pulls), default=elapsed),
                    egress=int(egress),
                    source_cpu=source_cpu,
                    source_rss=resources.peak_rss(server.pid),
                    busy=used / (used + idle),
                    clock=tuple(at - fleet.began for at in samples.clock),
                    curves=tuple(zip(*samples.received, strict=True)),
                    pulls=pulls,
                )


def _commands(source: Strategy, hosts: Sequence[Host], folder: Path, engine: str) -> list[Command]:
    commands = []
    for number, host in enumerate(hosts):
        loads = engine if not number else ""
        host_folder = folder / f"host-{number}"
        argv = source.command(_NAME, host, host_folder, load=bool(loads))
        commands.append(Command(host, argv, host_folder, environment(loads)))
    return commands


class _Samples:
    """What each host has received, time by time."""

    def __init__(self, made: Network) -> None:
        self._network = made
        self.clock: list[float] = []
        self.received: list[list[int]] = []

    def take(self) -> None:
        """Note it now."""
        self.clock.append(time.monotonic())
        self.received.append(self._network.rx_bytes()[1:])


class _Counters:
    """What left the source, its processor seconds, and those of the machine: used and idle."""

    def __init__(self, made: Network, pid: int) -> None:
        self._source = made.hosts[0]
        self._pid = pid
        self.begin()

    def begin(self) -> None:
        """Count from now on."""
        self._before = self._now()

    def difference(self) -> list[float]:
        """What they have grown by."""
        return [now - before for now, before in zip(self._now(), self._before, strict=True)]

    def _now(self) -> tuple[float, float, float, float]:
        # proc(5): user nice system idle iowait irq softirq steal …
        line = Path("/proc/stat").read_text().split("\n", 1)[0]
        times = [int(word) / _CLOCK_TICKS for word in line.split()[1:9]]
        idle = times[3] + times[4]
        egress = self._source.shaped_bytes()
        return egress, resources.cpu_seconds(self._pid), sum(times) - idle, idle
